"""Where the zeros between the layers are: the table of Shi and Chu 2017, and maps by position, channel, class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from zeroskip import files
from zeroskip.concepts import ShapeRow
from zeroskip.report.figures import HUES, SHADES, SHARE, Plot, blank, label, picture
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count, show_error, show_known, show_share, show_sides
from zeroskip.report.page import Section, render

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from zeroskip.measure import Count, Zeros
    from zeroskip.prune import ActivationPruning

MOST_MAPS = 24
MOST_BARS = 256
LEAST_RANGE = 0.05  # of the colours of one picture, so that noise does not look like a pattern
FEW = 0.01  # share of zeros behind the first layer that no ReLU leaves

CAPTIONS = {
    "Layer by layer": (
        "What each layer reads (C channels of H x W) and applies to it (K filters of R x S), and how many of the "
        "values are exactly zero: in what it reads, and in what leaves it after its activation function and its "
        "pooling. In the form of Shi and Chu 2017."
    ),
    "By position": (
        "Share of zeros at each pixel of what a layer reads, over all examples and channels. Each picture has "
        "its own scale. At most {most} layers, evenly spaced."
    ),
    "By channel": (
        "Share of zeros in each channel (or feature) of what a layer reads, sorted. A channel at 100 % is dead: the "
        "layer can do without it. At most {most} layers, evenly spaced."
    ),
    "By class": (
        "By the class of the example: how far the share of zeros in what each layer reads lies above (red) or below "
        "(blue) the mean of the classes."
    ),
    "By example": (
        "Left, lowest, mean and highest share of zeros that one example has in what each layer reads. Right, how many "
        "of the examples have which share."
    ),
}


def activation_table(rows: Sequence[ShapeRow], *, title: str = "Zeros between the layers") -> Grid:
    """A row per layer: C, H x W, K, R x S, padding, stride, zeros in its input and in its output; then all inputs.

    >>> from zeroskip import measure
    >>> zeros = measure.activations(model, [x])
    >>> [(row[0], *row[-2:]) for row in activation_table(measure.table(model, x, zeros)).rows]
    [('fc1', '0.0 %', '41.7 %'), ('fc2', '41.7 %', '0.0 %'), ('all inputs', '23.8 %', '')]
    """
    shape = ("layer", "C", "HxW", "K", "RxS", "padding", "stride", "groups")
    cells = [_cells(row) for row in rows]
    sizes = [row.channels * row.depth * row.height * row.width for row in rows]
    total = _mean([row.before for row in rows], sizes)
    later = _mean([row.before for row in rows[1:]], sizes[1:])
    few = later < FEW and len(rows) > 1
    note = "Hardly a zero behind the first layer: there seems to be no ReLU." if few else ""
    cells.append(("all inputs", *[""] * 7, show_share(total), ""))
    columns = (*shape, "zeros in input", "zeros in output")
    return Grid(title, columns, tuple(cells), note, marks={len(rows): "total"})


def threshold_table(pruning: ActivationPruning) -> Grid:
    """One line for each layer, and all of them: what is multiplied for one example, zero weights not counted.

    >>> from zeroskip.prune import ActivationPruning, Judged, LayerMacs
    >>> before = Judged({}, 0.02, {"fc1": LayerMacs(1000.0, 400.0)})
    >>> after = Judged({"fc1": 0.5}, 0.025, {"fc1": LayerMacs(1000.0, 100.0)})
    >>> threshold_table(ActivationPruning(before, after, max_error=0.03, history=())).rows[0]
    ('fc1', '0.5', '1,000', '400', '100', '75.0 %')
    """
    before, after = pruning.before, pruning.after
    rows = [
        (
            name,
            f"{pruning.thresholds.get(name, 0.0):.3g}",
            work.macs,
            work.nonzero,
            after.layers[name].nonzero,
        )
        for name, work in before.layers.items()
    ]
    rows.append(("all", "", sum(work.macs for work in before.layers.values()), before.nonzero, after.nonzero))
    cells = []
    for name, theta, *macs in rows:
        removed = show_share(1 - macs[2] / macs[1] if macs[1] else 0.0)
        cells.append((name, theta, *(show_count(round(number)) for number in macs), removed))
    note = f"validation error {show_error(before.error)} -> {show_error(after.error)}"
    macs_columns = ("MACs", "of them with non-zero input", "after thresholds", "removed of these")
    columns = ("layer", "threshold", *macs_columns)
    return Grid("Small activations pruned", columns, tuple(cells), note, marks={len(cells) - 1: "total"})


def activations_html(
    path: str | Path, title: str, rows: Sequence[ShapeRow], zeros: Mapping[str, Zeros]
) -> Path:
    """Write one self-contained page: the table, and pictures of all that was counted.

    zeros  layer name -> its zeros; what was not counted (position, class, example) has no section
    Raises FileError where the file cannot be written.

    >>> from zeroskip import measure
    >>> zeros = measure.activations(model, [x], by=("position", "example"))
    >>> activations_html("zeros.html", "an MLP", measure.table(model, x, zeros), zeros).name
    'zeros.html'
    """
    return files.write(path, render(title, activation_sections(rows, zeros)))


def activation_sections(rows: Sequence[ShapeRow], zeros: Mapping[str, Zeros]) -> list[Section]:
    """The sections of that page, for a page that has others too; those without content are left out.

    >>> from zeroskip import measure
    >>> zeros = measure.activations(model, [x], by=("example",))
    >>> [section.title for section in activation_sections(measure.table(model, x, zeros), zeros)]
    ['Layer by layer', 'By channel', 'By example']
    """
    read = {name: layer.before for name, layer in zeros.items()}
    parts = {
        "By position": _positions(read),
        "By channel": _channels(read),
        "By class": _classes(read),
        "By example": _examples(read),
    }
    warning, title = _nonfinite(zeros), "Layer by layer"
    mood = "loss" if warning else ""
    sections = [Section(title, CAPTIONS[title], [activation_table(rows)], verdict=warning, mood=mood)]
    for title, plots in parts.items():
        sections.append(Section(title, CAPTIONS[title].format(most=MOST_MAPS), plots=plots))
    return [section for section in sections if not section.empty]


def _cells(row: ShapeRow) -> tuple[str, ...]:
    return (
        row.layer,
        show_count(row.channels),
        "x".join(map(str, (row.depth, row.height, row.width)[row.depth == 1 :])),
        show_count(row.filters),
        "x".join(map(str, row.kernel)),
        show_sides(row.padding),
        show_sides(row.stride),
        show_count(row.groups),
        show_share(row.before),
        show_known(show_share, row.after),
    )


def _mean(shares: Sequence[float], sizes: Sequence[int]) -> float:
    return float(np.average(shares, weights=sizes)) if sizes else 0.0


def _nonfinite(zeros: Mapping[str, Zeros]) -> str:
    """A sentence if there were NaN or Inf, which layers hand on to each other: so the first has it."""
    for name, layer in zeros.items():
        for side, verb in ((layer.before, "reads"), (layer.after, "hands on")):
            if side is not None and side.nonfinite:
                count = show_count(side.nonfinite)
                return f'"{name}" {verb} {count} values that are NaN or Inf. They count as non-zero.'
    return ""


def _spaced(read: Mapping[str, Count]) -> dict[str, Count]:
    """At most MOST_MAPS of the layers, evenly spaced."""
    step = -(-len(read) // MOST_MAPS) or 1
    return dict(list(read.items())[::step])


def _positions(read: Mapping[str, Count]) -> list[Plot]:
    maps = {name: count for name, count in read.items() if len(count.by_position) > 1}
    plots = []
    for name, count in _spaced(maps).items():
        shares = torch.tensor(count.by_position)
        low, high = shares.min().item(), shares.max().item()
        figure = picture(shares, "", "", SHADES).update_traces(colorbar_tickformat=".0%")
        figure.update_traces(zmin=low, zmax=max(high, low + LEAST_RANGE))
        figure.update_yaxes(scaleanchor="x", constrain="domain").update_xaxes(constrain="domain")
        plots.append(Plot(name, figure.update_layout(height=260)))
    return plots


def _channels(read: Mapping[str, Count]) -> list[Plot]:
    plots = []
    for (name, count), hue in zip(_spaced(read).items(), cycle(HUES)):
        ordered = np.sort(count.by_channel)[::-1]
        shown = np.linspace(0, len(ordered) - 1, min(len(ordered), MOST_BARS)).astype(int)
        figure = blank(f"{len(ordered)} channels, sorted", "zeros", height=220)
        figure.update_yaxes(range=[0, 1], **SHARE)
        figure.add_bar(x=shown, y=ordered[shown], marker_color=hue).update_layout(bargap=0)
        plots.append(Plot(name, figure))
    return plots


def _classes(read: Mapping[str, Count]) -> list[Plot]:
    classes = sorted({key for count in read.values() for key in count.by_class})
    if not classes:
        return []
    shares = [[count.by_class.get(key, torch.nan) for key in classes] for count in read.values()]
    table = torch.tensor(shares)
    table -= table.nanmean(1, keepdim=True)
    most = table.nan_to_num().abs().max().item()
    figure = _heat(table, list(read), list(map(str, classes)), "class", "points")
    figure.update_traces(colorscale="RdBu_r", zmin=-most, zmax=most, colorbar_tickformat="+.1%")
    return [Plot("", figure)]


def _examples(read: Mapping[str, Count]) -> list[Plot]:
    known = {name: count.by_example for name, count in read.items() if count.by_example}
    if not known:
        return []
    spreads = list(known.values())
    means = np.array([spread.mean for spread in spreads])
    below = np.abs(means - [spread.lowest for spread in spreads])
    above = np.abs(means - [spread.highest for spread in spreads])
    figure = blank("zeros in one example", "", height=110 + 22 * len(known))
    figure.update_xaxes(range=[0, 1.02], **SHARE)
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    names = [label(name) for name in known]
    figure.add_scatter(x=means, y=names, error_x=bars, mode="markers", marker_color=HUES[0])
    figure.update_yaxes(type="category", autorange="reversed")
    counts = torch.tensor([spread.histogram.counts for spread in spreads], dtype=torch.float32)
    middles = [f"{100 * (low + high) / 2:.1f} %" for low, high in pairwise(spreads[0].histogram.edges)]
    shares = counts / counts.sum(1, keepdim=True)
    distribution = _heat(shares, list(known), middles, "zeros in one example", "examples")
    return [Plot("Lowest, mean, highest", figure), Plot("Distribution", distribution)]


def _heat(values: torch.Tensor, rows: Sequence[str], columns: Sequence[str], x: str, unit: str) -> go.Figure:
    """One line of a heat map per layer."""
    figure = picture(values, x, "", SHADES, unit)
    figure.update_traces(x=list(columns), y=[label(name) for name in rows], colorbar_tickformat=".0%")
    figure.update_xaxes(type="category").update_yaxes(type="category")
    return figure.update_layout(height=110 + 22 * len(rows))
