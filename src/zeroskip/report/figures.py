"""The figures of the HTML page, drawn from a record's own numbers; no data, no figure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import isqrt, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from zeroskip.concepts import Point, Record
from zeroskip.report.number_format import LEDGER_PARTS, show_error, show_share
from zeroskip.report.run_tables import chosen, run_names

if TYPE_CHECKING:
    import plotly.graph_objects as go

Pair = tuple[float, float]
Bars = tuple[str, Any, Any]
"""(title, values, colour or colours)."""

MOST_HISTOGRAMS = 12
MOST_TENSORS = 24

# Greys with alpha are readable on a light and on a dark page alike; the page sets the colour of the text.
PALE, _LINE = "rgba(128,128,128,0.38)", "rgba(128,128,128,0.22)"
GREY = "rgba(128,128,128,0.8)"
GOOD, BROKEN, ACCENT = "#2a9d62", "#d1495b", "#3b7dd8"
HUES = (ACCENT, "#e0862c", GOOD, "#c04f9b", "#8a6fd1", "#1aa3a3", "#b58900", BROKEN, "#7a8794")
_AXIS = {"gridcolor": _LINE, "linecolor": _LINE, "zeroline": False, "automargin": True, "title_font_size": 13}
SHARE = {"tickformat": ".3~%", "hoverformat": ".2%"}
SHADES = [[0, "rgba(128,128,128,0.08)"], [1, ACCENT]]
_STYLE = {
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
    "bargap": 0.3,
}


@dataclass(frozen=True)
class Plot:
    """One plotly figure with the heading that the page puts above it."""

    title: str
    figure: go.Figure


def layers(record: Record) -> list[Plot]:
    """Weights of every layer before and after, and the zeros in its input and output."""
    shown = [layer for layer in record.profile.layers if layer.name in record.sparse_weights]
    if not shown:
        return []
    names = [layer.name for layer in shown]
    before = np.array([layer.weights for layer in shown])
    kept = np.array([int(torch.count_nonzero(record.sparse_weights[name])) for name in names])
    hues = [_hues(record)[name] for name in names]
    weights = bars(names, [("before", before, PALE), ("kept", kept, hues)], "weights (log)")
    text = [f"{show_share(share)} kept" for share in kept / before]
    weights.update_traces(text=text, insidetextfont_color="white", selector={"name": "kept"})
    # On top of each other: the eye compares the two ends. From 1 on, where a log axis has its natural start.
    weights.update_layout(barmode="overlay")
    weights.update_xaxes(type="log", dtick=1, range=[0, 1.02 * np.log10(before.max())])
    inputs, outputs = [layer.input_sparsity for layer in shown], [layer.output_sparsity for layer in shown]
    shares = [("input", inputs, ACCENT), ("output", outputs, PALE)]
    zeros = bars(names, shares, "zeros, share of all values")
    zeros.update_xaxes(range=[0, 1.02], dtick=0.2, **SHARE)
    return [Plot("Weights", weights), Plot("Zeros in activations", zeros)]


def sensitivity(record: Record) -> list[Plot]:
    """Error of the network when one layer alone is pruned, one line per layer.

    >>> [line.name for line in sensitivity(record)[0].figure.data]
    ['fc1', 'fc2', 'nothing pruned (5.00 %)']
    """
    probed = [layer for layer in record.profile.layers if layer.sensitivity]
    figure = blank("zeros in this layer alone", "validation error", height=380 + 6 * len(probed))
    figure.update_xaxes(**SHARE)
    figure.update_yaxes(**error_format([error for layer in probed for error in layer.sensitivity.values()]))
    for layer in probed:
        sparsities = sorted(layer.sensitivity)
        errors = [layer.sensitivity[sparsity] for sparsity in sparsities]
        look = {"mode": "lines+markers", "line_color": _hues(record)[layer.name]}
        figure.add_scatter(x=sparsities, y=errors, name=label(layer.name), **look)
    level, title = record.profile.error, f"nothing pruned ({show_error(record.profile.error)})"
    line = {"dash": "dot", "color": GREY}
    figure.add_scatter(x=[0, 1], y=[level, level], mode="lines", line=line, name=title)
    return [Plot("", figure)] if probed else []


def trade_off(record: Record) -> list[Plot]:
    """Validation error against the share of weights kept, for every point the pruning went through."""
    history = record.history
    if not history:
        return []
    figure = blank("weights kept (log, fewer to the right)", "validation error")
    figure.update_xaxes(type="log", autorange="reversed", dtick="D2", **SHARE)
    figure.update_yaxes(**error_format([point.error for point in history]))
    path = [point for point in history if point.kind != "bisection"]
    figure.add_scatter(**_places(path), mode="lines", line_color=GREY, name="path", showlegend=False)
    symbols = {"dense": "square", "round": "circle", "bisection": "diamond", "centroids": "star"}
    for kind, symbol in symbols.items():
        name = "shared values" if kind == "centroids" else kind
        for good, colour, outcome in ((True, GOOD, ""), (False, BROKEN, ", over the budget")):
            points = [point for point in history if point.kind == kind and point.good is good]
            if points:
                marker = {"symbol": symbol, "color": colour, "size": 10}
                figure.add_scatter(**_places(points), mode="markers", marker=marker, name=name + outcome)
    best = chosen(history)
    if best is not None:
        ring = {"symbol": "circle-open", "size": 20, "color": ACCENT, "line_width": 3}
        figure.add_scatter(**_places([history[best]]), mode="markers", marker=ring, name="chosen")
    return [Plot("", figure)]


def histograms(record: Record) -> list[Plot]:
    """Distribution of every layer's weights before and after; the zeros are left out after.

    At most MOST_HISTOGRAMS layers, those with the most weights, in the order of the network.
    """
    both = [name for name in record.dense_weights if name in record.sparse_weights]
    largest = sorted(both, key=lambda name: -record.dense_weights[name].numel())[:MOST_HISTOGRAMS]
    return [Plot(name, _histogram(record, name)) for name in both if name in largest]


def _histogram(record: Record, name: str) -> go.Figure:
    dense, sparse = _flat(record.dense_weights[name]), _flat(record.sparse_weights[name])
    values = {"before": dense, "kept": sparse[sparse != 0]}
    hues = {"before": GREY, "kept": _hues(record)[name]}
    edges = np.histogram_bin_edges(np.concatenate([dense, sparse]), bins=61)
    figure = blank("weight", "share of the weights", height=280).update_yaxes(**SHARE)
    for title, weights in values.items():
        shares = np.histogram(weights, edges)[0] / max(1, weights.size)
        line = {"color": hues[title], "shape": "hvh", "width": 1.5}
        figure.add_scatter(x=(edges[1:] + edges[:-1]) / 2, y=shares, name=title, line=line, fill="tozeroy")
    return figure


def first_layer(record: Record) -> list[Plot]:
    """The first layer's mask as a picture, and for a square image the connections left per pixel.

    A convolution shows its kernels instead, one filter per row, removed weights left blank. What stays dense is
    passed over: there is nothing to see in a table of embeddings.
    """
    pruned = (layer for layer in record.profile.layers if not layer.kept_dense)
    first = next((layer for layer in pruned if layer.name in record.sparse_weights), None)
    if first is None or first.op == "bilinear":
        return []
    weight = record.sparse_weights[first.name].detach().float()
    if first.op.startswith("conv"):
        return [Plot(f"Kernels of {first.name}", _kernels(weight))]
    kept = (weight != 0).float()  # (out, in)
    mask = picture(kept, "input", "output neuron", SHADES)
    mask.update_traces(showscale=False)
    image = pixels(kept.sum(0)) if prod(first.input_shape) == kept.shape[1] else []
    return [Plot(f"Mask of {first.name}", mask), *image]


def _kernels(weight: Tensor) -> go.Figure:
    rows = weight.flatten(1)  # (out, in kh kw)
    largest = rows.abs().max().item()
    kept = torch.where(rows == 0, torch.nan, rows)
    columns = "weight of the filter: input channel, kernel row, kernel column"
    figure = picture(kept, columns, "filter", "RdBu_r", "weight")
    return figure.update_traces(zmin=-largest, zmax=largest)


def pixels(counts: Tensor) -> list[Plot]:
    """Connections left at each input (inputs,) as the square image they belong to; no square, no figure."""
    side = isqrt(counts.numel())
    if side * side != counts.numel() or side < 2:
        return []
    figure = picture(counts.reshape(side, side), "pixel column", "pixel row", SHADES, "kept")
    figure.update_traces(zmin=0)
    figure.update_yaxes(scaleanchor="x", constrain="domain").update_xaxes(constrain="domain")
    return [Plot("Connections per input pixel", figure)]


def ledger(record: Record) -> list[Plot]:
    """Bytes of every stored tensor: values, positions, codebook, scales, tables and header, stacked.

    Beyond MOST_TENSORS tensors the smallest are summed in one row.
    """
    sizes = {name: sum(parts.values()) for name, parts in record.ledger.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_TENSORS]
    rest = [name for name in sizes if name not in largest]
    groups = {name: [name] for name in sizes if name in largest}
    groups |= {f"{len(rest)} others": rest} if rest else {}
    series = []
    for kind, hue in zip(LEDGER_PARTS, (*HUES[:5], PALE), strict=True):
        counts = [sum(record.ledger[name].get(kind, 0) for name in names) for names in groups.values()]
        series.append((kind, np.array(counts), hue))
    figure = bars(list(groups), series, "bytes")
    return [Plot("", figure.update_layout(barmode="stack"))] if groups else []


def comparison(records: Sequence[Record]) -> list[Plot]:
    """Test error against weights and against stored bytes: an open mark is dense, a full one sparse."""
    runs = dict(zip(run_names(records), (record.summary for record in records), strict=True))
    weights = {name: (run.weights, run.weights_kept) for name, run in runs.items()}
    stored = {name: (run.stored_bytes_dense, run.stored_bytes) for name, run in runs.items()}
    errors = {name: (run.error_dense, run.error_sparse) for name, run in runs.items()}
    return [
        Plot("Error against weights", _sizes("weights", weights, errors)),
        Plot("Error against stored bytes", _sizes("stored bytes", stored, errors)),
    ]


def _sizes(title: str, sizes: Mapping[str, Pair], errors: Mapping[str, Pair]) -> go.Figure:
    figure = blank(f"{title} (log)", "test error").update_xaxes(type="log", dtick="D2", tickformat="~s")
    for (name, ends), hue in zip(sizes.items(), cycle(HUES)):
        line = {"width": 2, "color": hue}
        marker = {"symbol": ["circle-open", "circle"], "size": 12, "color": hue, "line": line}
        look = {"mode": "lines+markers", "line": {"color": hue, "dash": "dot"}, "marker": marker}
        figure.add_scatter(x=ends, y=errors[name], name=label(name), **look)
    return figure.update_yaxes(**error_format([error for pair in errors.values() for error in pair]))


def blank(x: str, y: str, *, height: int = 380) -> go.Figure:
    """A figure without data in the style of the page; x and y are the titles of its axes, height is in pixels."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": "none", **_STYLE, "height": height})
    return figure.update_xaxes(title_text=x, **_AXIS).update_yaxes(title_text=y, **_AXIS)


def bars(names: Sequence[str], series: Sequence[Bars], unit: str, *, height: int = 0) -> go.Figure:
    """Horizontal bars, one row per name from the top.

    height  in pixels, by default 34 for each row
    """
    figure, rows = blank(unit, "", height=height or 110 + 34 * len(names)), [label(name) for name in names]
    for title, values, hue in series:
        figure.add_bar(y=rows, x=values, name=title, orientation="h", marker_color=hue)
    # "0" and "2" are the names of layers in an nn.Sequential, not numbers.
    return figure.update_yaxes(type="category", autorange="reversed")


def picture(values: Tensor, x: str, y: str, colours: Any, unit: str = "") -> go.Figure:
    """A matrix (rows, columns) as a heat map, row 0 on top; a large one is averaged down to what a screen shows."""
    rows, columns = min(values.shape[0], 600), min(values.shape[1], 1200)
    small = adaptive_avg_pool2d(values[None], (rows, columns))[0]
    figure = blank(x, y, height=420)
    bar = {"thickness": 14, "outlinewidth": 0, "title": {"text": unit, "font": {"size": 13}}}
    figure.add_heatmap(z=small.numpy(), colorscale=colours, colorbar=bar)
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(showgrid=False)


def _places(points: Sequence[Point]) -> dict[str, list[float]]:
    kept = [point.weights_kept / point.weights for point in points]
    return {"x": kept, "y": [point.error for point in points]}


def error_format(errors: Sequence[float]) -> dict[str, str]:
    """The format of an axis of errors: percent, unless one is above 1 and so no share (a perplexity)."""
    return SHARE if max(errors, default=0) <= 1 else {}


def _hues(record: Record) -> dict[str, str]:
    """Layer name -> colour, the same in every figure of the page."""
    names = dict.fromkeys([*(layer.name for layer in record.profile.layers), *record.dense_weights])
    return dict(zip(names, cycle(HUES)))


def _flat(weight: Tensor) -> np.ndarray:
    return weight.detach().float().flatten().numpy()


def label(name: str) -> str:
    """A name for plotly, which would read `<b>` as a tag.

    >>> label("a<b")
    'a&lt;b'
    """
    return html.escape(name, quote=False)
