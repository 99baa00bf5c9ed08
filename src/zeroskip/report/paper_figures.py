"""The figures of the two papers by Han et al., drawn from what a training found; no finding, no figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch

from zeroskip.concepts import Curve, PaperFigures, PrunedFrontier
from zeroskip.report.figures import ACCENT, GREY, HUES, SHARE, Plot, blank, error_format, label, pixels
from zeroskip.report.number_format import show_error

if TYPE_CHECKING:
    import plotly.graph_objects as go

KEPT = "weights kept (log, fewer to the right)"
_WIDE = 10  # errors that differ by more than this factor need a log axis
_NAMES = {"L1": "L1, not retrained", "L2": "L2, not retrained"}
_IMAGES = {
    "frontier_plain": ("", HUES[0]),
    "frontier": (", noise", HUES[1]),
    "frontier_shifts": (", noise and moved images", HUES[2]),
}
_CODERS = {"huffman": ("Huffman codes", "solid"), "arithmetic": ("arithmetic codes", "dash")}


@dataclass(frozen=True)
class PublishedErrors:
    """What a paper's table 1 says of a network, None where it says nothing: its dense error (0..1), and
    (times, error) with fewer weights (pruned) and with fewer bytes (stored)."""

    dense: float | None = None
    pruned: tuple[float, float] | None = None
    stored: tuple[float, float] | None = None


def trade_off(figures: PaperFigures) -> list[Plot]:
    """Han et al. 2015, figure 5: error against the share of weights kept, by penalty and retraining.

    >>> measured = PaperFigures(trade_off={"L1": ((0.5, 0.02), (0.1, 0.5))}, trade_off_dense={"L1": 0.0164})
    >>> [line.name for line in trade_off(measured)[0].figure.data]
    ['L1, not retrained', 'dense, L1 (1.64 %)']
    """
    curves = {_NAMES.get(name, name): points for name, points in figures.trade_off.items()}
    dense = {f"dense, {name}": error for name, error in figures.trade_off_dense.items()}
    return _shares(curves, KEPT, dense)


def sensitivity(figures: PaperFigures) -> list[Plot]:
    """Han et al. 2015, figure 6: error with one layer alone pruned, a line per layer.

    >>> sensitivity(PaperFigures(sensitivity={"fc1": {0.9: 0.06, 0.5: 0.02}}))[0].figure.data[0].x
    (0.5, 0.9)
    """
    curves = {name: _in_order(curve) for name, curve in figures.sensitivity.items()}
    figure = _lines(curves, blank("zeros in this layer alone", "validation error"), {})
    return [Plot("", figure.update_xaxes(**SHARE))] if curves else []


def histograms(figures: PaperFigures) -> list[Plot]:
    """Han et al. 2015, figure 7: a layer's weights that are not zero, before and after, equally wide."""
    both = figures.histograms
    reach = max((abs(edge) for histogram in both.values() for edge in histogram.edges), default=0)
    plots = []
    for (name, histogram), hue in zip(both.items(), (GREY, ACCENT), strict=False):
        edges, counts = np.asarray(histogram.edges, float), np.asarray(histogram.counts, float)
        figure = blank("weight", "weights", height=280).update_xaxes(range=[-reach, reach])
        figure.add_bar(x=(edges[1:] + edges[:-1]) / 2, y=counts, width=np.diff(edges), marker_color=hue)
        plots.append(Plot(name, figure.update_yaxes(tickformat="~s")))
    return plots


def mask(figures: PaperFigures) -> list[Plot]:
    """Han et al. 2015, figure 4: connections left per input, as the image and row after row as one line."""
    counts = torch.tensor(figures.kept_by_pixel, dtype=torch.float32)
    image = pixels(counts)
    if not image:
        return []
    side = round(len(counts) ** 0.5)
    strip = blank(f"input: {side} rows of {side} pixels", "connections left", height=420)
    strip.add_scatter(y=counts.numpy(), line={"color": ACCENT, "width": 1, "shape": "hvh"}, fill="tozeroy")
    # A line of the grid where a row of pixels begins: the bands lie between.
    strip.update_xaxes(tick0=0, dtick=side, range=[0, len(counts)], ticklabelstep=max(1, side // 7))
    return [*image, Plot("The same, row after row", strip)]


def sizes(figures: PaperFigures) -> list[Plot]:
    """Deep Compression, figure 6: error against the share of the dense size, pruned, shared, and both."""
    x = "size, share of the dense network's (log, smaller to the right)"
    return _shares(figures.sizes, x, _start(figures))


def bits(figures: PaperFigures) -> list[Plot]:
    """Deep Compression, figure 7: error by the width of the codes, with the other kind of layer as it was."""
    curves = {f"{kind} layers": curve for kind, curve in figures.widths.items()}
    return _widths(curves, _start(figures))


def starts(figures: PaperFigures) -> list[Plot]:
    """Deep Compression, figure 8: error by the width of the codes, for three starts of the centroids."""
    return _widths(figures.starts, _start(figures))


def _start(figures: PaperFigures) -> dict[str, float]:
    """The error of the dense network that the curves start from: theirs is one seed, tables are means."""
    return {} if figures.coded_dense is None else {"dense": figures.coded_dense}


def frontier_weights(figures: PaperFigures, published: PublishedErrors) -> list[Plot]:
    """Error against times fewer weights: a line through the means, a faint dot per seed, and the levels."""
    figure = blank("times fewer weights (log)", "test error", height=520)
    for frontier, images, hue in _frontiers(figures):
        points = sorted(frontier.points, key=lambda point: point.times_fewer)
        times = [point.times_fewer for point in points]
        errors = [point.error for point in points]
        _mean(figure, f"pruned while training{images}", times, errors, hue, "solid")
        _seeds(figure, times, [point.errors for point in points], hue)
    return _against_levels(figure, figures, published.dense, published.pruned)


def frontier_bytes(figures: PaperFigures, published: PublishedErrors) -> list[Plot]:
    """Error against times fewer bytes of the whole file, a line per coder; the rest as in frontier_weights."""
    figure = blank("times fewer bytes, everything in the file counted (log)", "test error", height=520)
    for frontier, images, hue in _frontiers(figures):
        points = sorted(frontier.points, key=lambda point: point.times_fewer)
        errors = [point.error_stored for point in points]
        for coder, (name, dash) in _CODERS.items():
            times = [frontier.stored_bytes_dense / point.stored_bytes[coder] for point in points]
            _mean(figure, f"{name}{images}", times, errors, hue, dash)
            _seeds(figure, times, [point.errors_stored for point in points], hue)
    return _against_levels(figure, figures, published.dense, published.stored)


def _frontiers(figures: PaperFigures) -> Iterator[tuple[PrunedFrontier, str, str]]:
    """(the frontier, words for its images, its colour), those that are there."""
    for name, (images, hue) in _IMAGES.items():
        if name in figures.frontiers:
            yield figures.frontiers[name], images, hue


def _mean(figure: go.Figure, name: str, x: list[float], y: list[float], hue: str, dash: str) -> None:
    marker = {"size": 9, "symbol": "circle" if dash == "solid" else "diamond"}
    line = {"color": hue, "dash": dash}
    figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line=line, marker=marker)


def _seeds(figure: go.Figure, x: Sequence[float], errors: Sequence[Sequence[float]], hue: str) -> None:
    """A faint dot per seed: errors[i] are those at x[i]."""
    dots = [(place, error) for place, own in zip(x, errors, strict=True) for error in own]
    marker = {"color": hue, "size": 7, "opacity": 0.4}
    figure.add_scatter(**_xy(dots), mode="markers", marker=marker, showlegend=False, name="one seed")


def _against_levels(
    figure: go.Figure, figures: PaperFigures, dense: float | None, point: tuple[float, float] | None
) -> list[Plot]:
    """The figure with the dense errors as horizontal lines and the published network as a star."""
    places = [x for line in figure.data for x in line.x] + ([point[0]] if point else [])
    if not figure.data:
        return []
    ends = [0.8 * min(places), 1.25 * max(places)]  # wide enough for a tick beside a single point
    for frontier, images, hue in _frontiers(figures):
        _level(figure, ends, frontier.error_dense, f"dense{images}", hue, "dot")
        _level(figure, ends, frontier.error_continued, f"dense continued{images}", hue, "longdashdot")
    if dense is not None:
        _level(figure, ends, dense, "published dense", GREY, "dot")
    if point is not None:
        star = {"symbol": "star", "size": 13, "color": GREY}
        name = f"published ({point[0]:g}x, {show_error(point[1])})"
        figure.add_scatter(x=[point[0]], y=[point[1]], mode="markers", marker=star, name=name)
    ticks = [value * 10**power for power in range(5) for value in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    texts = [f"{tick:g}x" for tick in ticks]
    figure.update_xaxes(type="log", range=np.log10(ends), tickvals=ticks, ticktext=texts)
    return [Plot("", figure.update_yaxes(**error_format([y for line in figure.data for y in line.y])))]


def _level(figure: go.Figure, ends: list[float], error: float, name: str, hue: str, dash: str) -> None:
    line = {"color": hue, "dash": dash, "width": 1.5}
    name = f"{name} ({show_error(error)})"
    figure.add_scatter(x=ends, y=[error, error], mode="lines", line=line, name=name)


def _shares(curves: Mapping[str, Curve], x: str, dense: Mapping[str, float]) -> list[Plot]:
    """Error against shares on a log axis, the smallest to the right."""
    figure = _lines(curves, blank(x, "test error", height=440), dense)
    figure.update_xaxes(type="log", autorange="reversed", dtick="D2", **SHARE)
    return [Plot("", figure)] if curves else []


def _widths(curves: Mapping[str, Mapping[int, float]], dense: Mapping[str, float]) -> list[Plot]:
    """Error against bits."""
    by_bits = {name: _in_order(curve) for name, curve in curves.items()}
    figure = _lines(by_bits, blank("bits of a code", "test error"), dense)
    return [Plot("", figure.update_xaxes(dtick=1))] if curves else []


def _lines(curves: Mapping[str, Curve], figure: go.Figure, dense: Mapping[str, float]) -> go.Figure:
    """A line with marks per curve, each from its own colour; a dotted level per dense error."""
    for (name, points), hue in zip(curves.items(), cycle(HUES)):
        figure.add_scatter(**_xy(points), mode="lines+markers", line_color=hue, name=label(name))
    places = [x for line in figure.data for x in line.x]
    for (name, error), dash in zip(dense.items() if places else (), cycle(("dot", "dash"))):
        _level(figure, [min(places), max(places)], error, label(name), GREY, dash)
    errors = [y for line in figure.data for y in line.y]
    scale = {"type": "log", "dtick": "D2"} if errors and 0 < _WIDE * min(errors) < max(errors) else {}
    return figure.update_yaxes(**error_format(errors), **scale)


def _in_order(curve: Mapping[int, float] | Mapping[float, float]) -> Curve:
    """{10: a, 9: b} -> ((9, b), (10, a))."""
    return tuple(sorted(curve.items()))


def _xy(points: Iterable[Sequence[float]]) -> dict[str, list[float]]:
    pairs = list(points)
    return {"x": [x for x, _ in pairs], "y": [y for _, y in pairs]}
