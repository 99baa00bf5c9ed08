"""The page of a simulation: where cycles and energy go, how formats compare, the roofs; and the page of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zeroskip import files
from zeroskip.report.figures import ACCENT, BROKEN, GOOD, GREY, HUES, PALE, Plot, bars, blank, label
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count, show_share, show_times
from zeroskip.report.page import Section, render
from zeroskip.report.simulation_tables import chip_table, layer_cost_table, left_out_table, sweep_table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from zeroskip.exploration import SweepRow
    from zeroskip.simulate import Estimate, FormatSizes, LayerEstimate

KINDS = {
    "done": GOOD, "gated": PALE, "useless": "#c04f9b", "fragmentation": "#e0862c", "imbalance": ACCENT,
    "ramp": "#8a6fd1", "bandwidth": BROKEN,
}  # fmt: skip
CAPTIONS = {
    "Machines": (
        "The same network and the same zeros on each machine. Speed-up is over the same multipliers, all at work on "
        "every MAC, zeros included. The last columns tell what would be left if no slot were idle: the limit that "
        "the zeros set."
    ),
    "machine": (
        "A slot is one multiplier in one cycle. Done: a MAC with a result; gated: a MAC whose zero saves energy, not "
        "its slot; useless: padding and products outside the output; fragmentation: multipliers of a busy lane "
        "without work; imbalance: lanes that wait for others; ramp: pipelines that fill; bandwidth: all wait for a "
        "memory. Roofline: each mark is a layer, limited by the multipliers (flat) or by the DRAM (slanted)."
    ),
    "Formats": (
        "Bits of 16-bit weights and inputs by each way to store them, as a share of storing all. Cross-over: with so "
        "many zeros at random places a format becomes smaller than storing all. Amber: no format pays."
    ),
    "Sweep": "One machine, one network, other numbers: each row is one machine, estimated exactly.",
}


def simulation_html(
    path: str | Path,
    estimates: Sequence[Estimate],
    *,
    formats: Sequence[FormatSizes] = (),
    cross_overs: Mapping[str, float] | None = None,
    bandwidths: Mapping[str, float] | None = None,
) -> Path:
    """Write one self-contained page on one network and several chips; FileError where it cannot be written.

    bandwidths  chip -> bytes from DRAM a cycle, inf for no limit
    formats     what `simulate.format_sizes` gives;  cross_overs: what `simulate.cross_overs` gives

    >>> from zeroskip.simulate import estimate_trace
    >>> simulation_html("eie.html", [estimate_trace(recorded, chips.EIE)]).name
    'eie.html'
    """
    named = f"{len(estimates)} machines" if len(estimates) > 1 else estimates[0].chip
    tables = [chip_table(estimates), ideal_table(estimates)]
    if any(estimate.left_out for estimate in estimates):
        tables.append(left_out_table(estimates))
    parts = [Section("Machines", CAPTIONS["Machines"], tables)]
    parts += [_chip(estimate, (bandwidths or {}).get(estimate.chip, np.inf)) for estimate in estimates]
    parts[1] = replace(parts[1], caption=CAPTIONS["machine"])  # said once, for all that follow
    if formats:
        grid = format_table(formats, cross_overs or {})
        parts.append(Section("Formats", CAPTIONS["Formats"], [grid]))
    return files.write(path, render(f"{named}: what are the zeros worth on silicon?", parts))


def sweep_html(path: str | Path, chip: str, rows: Sequence[SweepRow], notes: Sequence[str] = ()) -> Path:
    """Write the page of a sweep: its table, cycles over the first parameter, energy over cycles.

    notes  as for `sweep_table`

    >>> from zeroskip.exploration import SweepRow
    >>> sweep_html("sweep.html", "EIE", [SweepRow({"lanes": 32}, 1000, 1e-6, 2e-6, "compute", 0.5, 4096)]).name
    'sweep.html'
    """
    plots = [Plot("Cycles", _over_first(rows)), Plot("Energy against cycles", _trade_off(rows))]
    section = Section("Sweep", CAPTIONS["Sweep"], [sweep_table(chip, rows, notes)], plots)
    return files.write(path, render(f"{chip} with other numbers", [section]))


def ideal_table(estimates: Sequence[Estimate]) -> Grid:
    """What each chip makes of the zeros, and what it would if no slot were idle.

    >>> from zeroskip.simulate import estimate_trace
    >>> ideal_table([estimate_trace(recorded, chips.EIE)]).rows
    (('EIE', '4', '32', '0.117x', '1', '2.61x'),)
    """
    columns = ("machine", "dense cycles", "cycles", "speed-up", "with no slot idle", "speed-up then")
    cells = []
    for estimate in estimates:
        total = estimate.total
        multipliers = total.slots / total.cycles
        dense, ideal = total.macs / multipliers, (total.done + total.gated) / multipliers
        speed, limit = show_times(dense / total.cycles), show_times(dense / ideal) if ideal else "-"
        numbers = show_count(dense), show_count(total.cycles), speed, show_count(ideal), limit
        cells.append((estimate.chip, *numbers))
    return Grid("What if no slot were idle", columns, tuple(cells))


def format_table(sizes: Sequence[FormatSizes], cross_overs: Mapping[str, float]) -> Grid:
    """A row for the weights and for the inputs of each layer; in the last row the cross-overs.

    >>> from zeroskip.simulate import FormatSizes
    >>> format_table([FormatSizes("fc1", "weights", 0.5, {"dense": 1024, "bitmask": 576})], {}).rows
    (('fc1', 'weights', '50.0 %', '100.0 %', '56.2 %', 'bitmask'),)
    """
    names = list(sizes[0].bits)
    cells, marks = [], {}
    for number, row in enumerate(sizes):
        best = min(row.bits, key=row.bits.__getitem__)
        shares = (show_share(row.bits[name] / row.bits["dense"]) for name in names)
        cells.append((row.layer, row.operand, show_share(row.sparsity), *shares, best))
        marks[number] = "loss" if best == "dense" else "win"
    if cross_overs:
        known = (show_share(cross_overs[name]) if name in cross_overs else "-" for name in names)
        cells.append(("cross-over", "", "", *known, ""))
        marks[len(sizes)] = "total"
    columns = ("layer", "operand", "zeros", *names, "smallest")
    return Grid("Size by format", columns, tuple(cells), prose=("operand", "smallest"), marks=marks)


def _chip(estimate: Estimate, bandwidth: float) -> Section:
    layers, total = estimate.layers, estimate.total
    multipliers = total.slots / total.cycles
    # In cycles, so that the length of a bar is the layer's time and its parts are what became of it.
    slots = [{**layer.idle, "done": layer.done, "gated": layer.gated} for layer in layers]
    kinds = {kind: [counts.get(kind, 0) / multipliers for counts in slots] for kind in KINDS}
    spent = [event for event, picojoules in total.picojoules.items() if picojoules]
    events = {event: [layer.picojoules.get(event, 0) * 1e-6 for layer in layers] for event in spent}
    names = [layer.name for layer in layers]
    plots = [
        Plot("Where the cycles go", _stacked(names, kinds, KINDS, "cycles")),
        Plot("Where the energy goes", _stacked(names, events, dict(zip(events, cycle(HUES))), "µJ")),
        Plot("Roofline", _roofline(layers, multipliers, bandwidth)),
    ]
    return Section(estimate.chip, plots=plots, details=[layer_cost_table(estimate)])


def _stacked(
    names: Sequence[str], series: Mapping[str, Sequence[float]], hues: Mapping[str, str], unit: str
) -> go.Figure:
    """Horizontal bars, one row per layer from the top; what is zero everywhere is left out."""
    shown = [(title, list(values), hues[title]) for title, values in series.items() if any(values)]
    return bars(names, shown, unit, height=120 + 30 * len(names)).update_layout(barmode="stack")


def _roofline(layers: Sequence[LayerEstimate], multipliers: float, bandwidth: float) -> go.Figure:
    """MACs done a cycle over MACs done per byte of DRAM, both axes logarithmic."""
    marks = [layer for layer in layers if layer.done and layer.moved("DRAM")]
    x = [layer.done / layer.moved("DRAM") for layer in marks]
    y = [layer.done / layer.cycles for layer in marks]
    figure = blank("MACs done per byte of DRAM", "MACs done per cycle")
    figure.update_xaxes(type="log").update_yaxes(type="log")
    texts = [label(layer.name) for layer in marks]
    figure.add_scatter(x=x, y=y, text=texts, mode="markers+text", textposition="top center", name="layers")
    span = np.geomspace(min(x, default=1) / 3, 3 * max(x, default=1), 64)
    roof = np.minimum(multipliers, bandwidth * span)
    figure.add_scatter(x=span, y=roof, mode="lines", line_color=GREY, name="roof")
    return figure


def _over_first(rows: Sequence[SweepRow]) -> go.Figure:
    """A line for each choice of the other parameters."""
    first, *others = rows[0].numbers
    figure = blank(first, "cycles").update_yaxes(rangemode="tozero")
    lines: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        name = ", ".join(f"{other} {row.numbers[other]:g}" for other in others)
        lines.setdefault(name, []).append((row.numbers[first], row.cycles))
    for (name, points), hue in zip(lines.items(), cycle(HUES)):
        x, y = zip(*sorted(points), strict=True)
        look = {"mode": "lines+markers", "line_color": hue, "showlegend": bool(name)}
        figure.add_scatter(x=x, y=y, name=label(name), **look)
    return figure


def _trade_off(rows: Sequence[SweepRow]) -> go.Figure:
    figure = blank("cycles", "µJ")
    texts = [label(", ".join(f"{name} {number:g}" for name, number in row.numbers.items())) for row in rows]
    x, y = [row.cycles for row in rows], [row.joules * 1e6 for row in rows]
    return figure.add_scatter(x=x, y=y, text=texts, mode="markers", marker={"size": 10, "color": ACCENT})
