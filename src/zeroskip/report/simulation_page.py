"""The page of a simulation: where cycles and energy go, how formats compare, the roofs; and the page of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from zeroskip import files
from zeroskip.report.figures import ACCENT, BROKEN, GOOD, GREY, HUES, PALE, Plot, blank, label
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count, show_share, show_times
from zeroskip.report.page import Section, render
from zeroskip.report.simulation_tables import Told, layer_cost_table, machine_table, sweep_table

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
    estimates: Sequence[Told],
    *,
    formats: Sequence[Mapping[str, Any]] = (),
    cross_overs: Mapping[str, float] | None = None,
    bandwidths: Mapping[str, float] | None = None,
) -> Path:
    """Write one self-contained page on one network and several machines; FileError where it cannot be written.

    estimates    what `Estimate.to_json` gives;  bandwidths: machine -> bytes from DRAM a cycle, inf for no limit
    formats      what `simulate.format_sizes` gives;  cross_overs: what `simulate.cross_overs` gives

    >>> simulation_html("eie.html", [estimate.to_json()])
    PosixPath('eie.html')
    """
    named = f"{len(estimates)} machines" if len(estimates) > 1 else estimates[0]["machine"]
    parts = [Section("Machines", CAPTIONS["Machines"], [machine_table(estimates), ideal_table(estimates)])]
    parts += [_machine(one, (bandwidths or {}).get(one["machine"], np.inf)) for one in estimates]
    parts[1] = replace(parts[1], caption=CAPTIONS["machine"])  # said once, for all that follow
    if formats:
        grid = format_table(formats, cross_overs or {})
        parts.append(Section("Formats", CAPTIONS["Formats"], [grid]))
    return files.write(path, render(f"{named}: what are the zeros worth on silicon?", parts))


def sweep_html(path: str | Path, machine: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the page of a sweep: its table, cycles over the first parameter, energy over cycles.

    rows  {"numbers": {parameter: number}, "cycles", "joules", ...} of each machine, as for `sweep_table`

    >>> sweep_html("sweep.html", "EIE", rows)
    PosixPath('sweep.html')
    """
    plots = [Plot("Cycles", _over_first(rows)), Plot("Energy against cycles", _trade_off(rows))]
    section = Section("Sweep", CAPTIONS["Sweep"], [sweep_table(machine, rows)], plots)
    return files.write(path, render(f"{machine} with other numbers", [section]))


def ideal_table(estimates: Sequence[Told]) -> Grid:
    """What each machine makes of the zeros, and what it would if no slot were idle.

    >>> ideal_table([estimate.to_json()]).columns[-1]
    'speed-up then'
    """
    columns = ("machine", "dense cycles", "cycles", "speed-up", "with no slot idle", "speed-up then")
    cells = []
    for one in estimates:
        total = one["total"]
        each = total["slots"] / total["cycles"]
        dense, ideal = total["macs"] / each, (total["done"] + total["gated"]) / each
        speed = show_times(dense / total["cycles"])
        limit = show_times(dense / ideal) if ideal else "-"
        cells.append(
            (one["machine"], show_count(dense), show_count(total["cycles"]), speed, show_count(ideal), limit)
        )
    return Grid("What if no slot were idle", columns, tuple(cells))


def format_table(rows: Sequence[Mapping[str, Any]], cross_overs: Mapping[str, float]) -> Grid:
    """A row for the weights and for the inputs of each layer; in the last row the cross-overs.

    >>> format_table(format_sizes(works), cross_overs()).columns[:3]
    ('layer', 'operand', 'zeros')
    """
    names = list(rows[0]["bits"])
    cells, marks = [], {}
    for number, row in enumerate(rows):
        dense = row["bits"]["dense"]
        best = min(row["bits"], key=row["bits"].__getitem__)
        shares = (show_share(row["bits"][name] / dense) for name in names)
        cells.append((row["layer"], row["operand"], show_share(row["sparsity"]), *shares, best))
        marks[number] = "loss" if best == "dense" else "win"
    if cross_overs:
        known = (show_share(cross_overs[name]) if name in cross_overs else "-" for name in names)
        cells.append(("cross-over", "", "", *known, ""))
        marks[len(rows)] = "total"
    columns = ("layer", "operand", "zeros", *names, "smallest")
    return Grid("Size by format", columns, tuple(cells), prose=("operand", "smallest"), marks=marks)


def _machine(one: Told, bandwidth: float) -> Section:
    layers = one["layers"]
    each = one["total"]["slots"] / one["total"]["cycles"]
    # In cycles, so that the length of a bar is the layer's time and its parts are what became of it.
    kinds = {kind: [(_slots(layer, kind)) / each for layer in layers] for kind in KINDS}
    events = {event: [layer["picojoules"].get(event, 0) * 1e-6 for layer in layers] for event in _events(one)}
    names = [layer["name"] for layer in layers]
    hues = dict(zip(events, cycle(HUES)))
    plots = [
        Plot("Where the cycles go", _stacked(names, kinds, KINDS, "cycles")),
        Plot("Where the energy goes", _stacked(names, events, hues, "µJ")),
        Plot("Roofline", _roofline(layers, each, bandwidth)),
    ]
    return Section(one["machine"], plots=plots, details=[layer_cost_table(one)])


def _slots(layer: Told, kind: str) -> int:
    return int(layer[kind] if kind in layer else layer["idle"].get(kind, 0))


def _events(one: Told) -> list[str]:
    return [event for event, picojoules in one["total"]["picojoules"].items() if picojoules]


def _stacked(
    names: Sequence[str], series: Mapping[str, Sequence[float]], hues: Mapping[str, str], unit: str
) -> go.Figure:
    """Horizontal bars, one row per layer from the top; what is zero everywhere is left out."""
    figure = blank(unit, "", height=120 + 30 * len(names)).update_layout(barmode="stack")
    for title, values in series.items():
        if any(values):
            rows = [label(name) for name in names]
            figure.add_bar(y=rows, x=list(values), name=title, orientation="h", marker_color=hues[title])
    return figure.update_yaxes(type="category", autorange="reversed")


def _roofline(layers: Sequence[Told], each: float, bandwidth: float) -> go.Figure:
    """MACs done a cycle over MACs done per byte of DRAM, both axes logarithmic."""
    marks = [(layer, _dram(layer)) for layer in layers if layer["done"] and _dram(layer)]
    x = [layer["done"] / moved for layer, moved in marks]
    y = [layer["done"] / layer["cycles"] for layer, _ in marks]
    figure = blank("MACs done per byte of DRAM", "MACs done per cycle")
    figure.update_xaxes(type="log").update_yaxes(type="log")
    texts = [label(layer["name"]) for layer, _ in marks]
    figure.add_scatter(x=x, y=y, text=texts, mode="markers+text", textposition="top center", name="layers")
    span = np.geomspace(min(x, default=1) / 3, 3 * max(x, default=1), 64)
    roof = np.minimum(each, bandwidth * span)
    figure.add_scatter(x=span, y=roof, mode="lines", line_color=GREY, name="roof")
    return figure


def _dram(layer: Told) -> int:
    return sum(count for name, count in layer["bytes"].items() if name.startswith("DRAM "))


def _over_first(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """A line for each choice of the other parameters."""
    first, *others = rows[0]["numbers"]
    figure = blank(first, "cycles").update_yaxes(rangemode="tozero")
    lines: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        name = ", ".join(f"{other} {row['numbers'][other]:g}" for other in others)
        lines.setdefault(name, []).append((row["numbers"][first], row["cycles"]))
    for (name, points), hue in zip(lines.items(), cycle(HUES)):
        x, y = zip(*sorted(points), strict=True)
        look = {"mode": "lines+markers", "line_color": hue, "showlegend": bool(name)}
        figure.add_scatter(x=x, y=y, name=label(name), **look)
    return figure


def _trade_off(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    figure = blank("cycles", "µJ")
    texts = [
        label(", ".join(f"{name} {number:g}" for name, number in row["numbers"].items())) for row in rows
    ]
    x, y = [row["cycles"] for row in rows], [row["joules"] * 1e6 for row in rows]
    return figure.add_scatter(x=x, y=y, text=texts, mode="markers", marker={"size": 10, "color": ACCENT})
