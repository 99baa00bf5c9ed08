"""The figures of the two papers, drawn from what a training found; no finding, no figure.

Findings are plain JSON objects; their keys stand at the top of reproduce/han2015.py, deep_compression.py and
frontier.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from zeroskip.report.figures import ACCENT, GREY, HUES, SHARE, Plot, blank, error_format, label, pixels
from zeroskip.report.number_format import show_error

Findings = Mapping[str, Any]
Curve = Sequence[tuple[float, float]]

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
class Published:
    """What a paper's table 1 says of a network, None where it says nothing: its dense error (0..1), and
    (times, error) with fewer weights (pruned) and with fewer bytes (stored)."""

    dense: float | None = None
    pruned: tuple[float, float] | None = None
    stored: tuple[float, float] | None = None


def trade_off(found: Findings) -> list[Plot]:
    """Han et al. 2015, figure 5: error against the share of weights kept, by penalty and retraining.

    >>> [line.name for line in trade_off(found)[0].figure.data][-1]
    'dense, L2 (1.64 %)'
    """
    curves = {_NAMES.get(name, name): points for name, points in found.get("figure5", {}).items()}
    dense = {f"dense, {name}": error for name, error in found.get("figure5_dense", {}).items()}
    return _shares(curves, KEPT, dense)


def sensitivity(found: Findings) -> list[Plot]:
    """Han et al. 2015, figure 6: error with one layer alone pruned, a line per layer.

    >>> len(sensitivity(found)[0].figure.data)
    3
    """
    curves = {name: _by_number(curve) for name, curve in found.get("figure6", {}).items()}
    figure = _lines(curves, blank("zeros in this layer alone", "validation error"))
    return [Plot("", figure.update_xaxes(**SHARE))] if curves else []


def histograms(found: Findings) -> list[Plot]:
    """Han et al. 2015, figure 7: a layer's weights that are not zero, before and after, equally wide.

    >>> [plot.title for plot in histograms(found)]
    ['before', 'after']
    """
    both = found.get("figure7", {})
    reach = max((abs(edge) for one in both.values() for edge in one["edges"]), default=0)
    plots = []
    for (name, one), hue in zip(both.items(), (GREY, ACCENT), strict=False):
        edges, counts = np.asarray(one["edges"], float), np.asarray(one["counts"], float)
        figure = blank("weight", "weights", height=280).update_xaxes(range=[-reach, reach])
        figure.add_bar(x=(edges[1:] + edges[:-1]) / 2, y=counts, width=np.diff(edges), marker_color=hue)
        plots.append(Plot(name, figure.update_yaxes(tickformat="~s")))
    return plots


def mask(found: Findings) -> list[Plot]:
    """Han et al. 2015, figure 4: connections left per input, as the image and row after row as one line.

    >>> [plot.title for plot in mask(found)]
    ['Connections per input pixel', 'The same, row after row']
    """
    counts = torch.tensor(found.get("figure4", {}).get("kept_by_pixel", []), dtype=torch.float32)
    image = pixels(counts)
    if not image:
        return []
    side = round(len(counts) ** 0.5)
    strip = blank(f"input: {side} rows of {side} pixels", "connections left", height=420)
    strip.add_scatter(y=counts.numpy(), line={"color": ACCENT, "width": 1, "shape": "hvh"}, fill="tozeroy")
    # A line of the grid where a row of pixels begins: the bands lie between.
    strip.update_xaxes(tick0=0, dtick=side, range=[0, len(counts)], ticklabelstep=max(1, side // 7))
    return [*image, Plot("The same, row after row", strip)]


def sizes(found: Findings) -> list[Plot]:
    """Deep Compression, figure 6: error against the share of the dense size, pruned, shared, and both.

    >>> [line.name for line in sizes(found)[0].figure.data][:3]
    ['pruned', 'shared', 'both']
    """
    x = "size, share of the dense network's (log, smaller to the right)"
    return _shares(found.get("figure6", {}), x, _start(found))


def bits(found: Findings) -> list[Plot]:
    """Deep Compression, figure 7: error by the width of the codes, with the other kind of layer as it was.

    >>> [line.name for line in bits(found)[0].figure.data][:2]
    ['conv layers', 'fc layers']
    """
    curves = {f"{kind} layers": curve for kind, curve in found.get("figure7", {}).items()}
    return _widths(curves, _start(found))


def starts(found: Findings) -> list[Plot]:
    """Deep Compression, figure 8: error by the width of the codes, for three starts of the centroids.

    >>> [line.name for line in starts(found)[0].figure.data][:3]
    ['linear', 'density', 'random']
    """
    return _widths(found.get("figure8", {}), _start(found))


def _start(found: Findings) -> dict[str, float]:
    """The error of the dense network that the curves start from: theirs is one seed, tables are means."""
    return {"dense": found["figures_dense"]} if "figures_dense" in found else {}


def frontier_weights(found: Findings, told: Published) -> list[Plot]:
    """Error against times fewer weights: a line through the means, a faint dot per seed, and the levels.

    >>> frontier_weights(found, Published(0.0164, (12, 0.0159)))[0].figure.data[0].name
    'pruned while training'
    """
    figure = blank("times fewer weights (log)", "test error", height=520)
    for one, images, hue in _frontiers(found):
        points = sorted(one["points"], key=lambda point: point["times_fewer"])
        times = [point["times_fewer"] for point in points]
        seeds = [point.get("errors", []) for point in points]
        _mean(figure, f"pruned while training{images}", times, [point["error"] for point in points], hue)
        _seeds(figure, times, seeds, hue)
    return _against_levels(figure, found, told.dense, told.pruned)


def frontier_bytes(found: Findings, told: Published) -> list[Plot]:
    """Error against times fewer bytes of the whole file, a line per coder; the rest as in frontier_weights.

    >>> frontier_bytes(found, Published(0.0164, stored=(40, 0.0158)))[0].figure.data[0].name
    'Huffman codes'
    """
    figure = blank("times fewer bytes, everything in the file counted (log)", "test error", height=520)
    for one, images, hue in _frontiers(found):
        points = sorted(one["points"], key=lambda point: point["times_fewer"])
        errors = [point["error_stored"] for point in points]
        for coder, (name, dash) in _CODERS.items():
            times = [one["stored_bytes_dense"] / point["stored_bytes"][coder] for point in points]
            _mean(figure, f"{name}{images}", times, errors, hue, dash)
            _seeds(figure, times, [point.get("errors_stored", []) for point in points], hue)
    return _against_levels(figure, found, told.dense, told.stored)


def _frontiers(found: Findings) -> list[tuple[Any, str, str]]:
    """(the frontier, words for its images, its colour), those that are there."""
    return [(found[key], images, hue) for key, (images, hue) in _IMAGES.items() if key in found]


def _mean(
    figure: go.Figure, name: str, x: Sequence[float], y: Sequence[float], hue: str, dash: str = "solid"
) -> None:
    marker = {"size": 9, "symbol": "circle" if dash == "solid" else "diamond"}
    line = {"color": hue, "dash": dash}
    figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line=line, marker=marker)


def _seeds(figure: go.Figure, x: Sequence[float], each: Sequence[Sequence[float]], hue: str) -> None:
    """A faint dot per seed: each[i] are the errors at x[i]."""
    dots = [(place, error) for place, errors in zip(x, each, strict=True) for error in errors]
    marker = {"color": hue, "size": 7, "opacity": 0.4}
    figure.add_scatter(**_xy(dots), mode="markers", marker=marker, showlegend=False, name="one seed")


def _against_levels(
    figure: go.Figure, found: Findings, dense: float | None, point: tuple[float, float] | None
) -> list[Plot]:
    """The figure with the dense errors as horizontal lines and the published network as a star."""
    places = [x for line in figure.data for x in line.x] + ([point[0]] if point else [])
    if not figure.data:
        return []
    ends = [0.8 * min(places), 1.25 * max(places)]  # wide enough for a tick beside a single point
    for one, images, hue in _frontiers(found):
        _level(figure, ends, one["error_dense"], f"dense{images}", hue, "dot")
        _level(figure, ends, one["error_continued"], f"dense continued{images}", hue, "longdashdot")
    if dense is not None:
        _level(figure, ends, dense, "published dense", GREY, "dot")
    if point is not None:
        star = {"symbol": "star", "size": 13, "color": GREY}
        name = f"published ({point[0]:g}x, {show_error(point[1])})"
        figure.add_scatter(x=[point[0]], y=[point[1]], mode="markers", marker=star, name=name)
    ticks = [value * 10**power for power in range(5) for value in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    figure.update_xaxes(
        type="log", range=np.log10(ends), tickvals=ticks, ticktext=[f"{one:g}x" for one in ticks]
    )
    return [Plot("", figure.update_yaxes(**error_format([y for line in figure.data for y in line.y])))]


def _level(
    figure: go.Figure, ends: Sequence[float], error: float, name: str, hue: str, dash: str = "dot"
) -> None:
    line = {"color": hue, "dash": dash, "width": 1.5}
    name = f"{name} ({show_error(error)})"
    figure.add_scatter(x=ends, y=[error, error], mode="lines", line=line, name=name)


def _shares(curves: Mapping[str, Curve], x: str, dense: Mapping[str, float]) -> list[Plot]:
    """Error against shares on a log axis, the smallest to the right."""
    figure = _lines(curves, blank(x, "test error", height=440), dense)
    figure.update_xaxes(type="log", autorange="reversed", dtick="D2", **SHARE)
    return [Plot("", figure)] if curves else []


def _widths(curves: Mapping[str, Mapping[str, float]], dense: Mapping[str, float]) -> list[Plot]:
    """Error against bits."""
    by_bits = {name: _by_number(curve) for name, curve in curves.items()}
    figure = _lines(by_bits, blank("bits of a code", "test error"), dense)
    return [Plot("", figure.update_xaxes(dtick=1))] if curves else []


def _lines(
    curves: Mapping[str, Curve], figure: go.Figure, dense: Mapping[str, float] | None = None
) -> go.Figure:
    """A line with marks per curve, each from its own colour; a dotted level per dense error."""
    for (name, points), hue in zip(curves.items(), cycle(HUES)):
        figure.add_scatter(**_xy(points), mode="lines+markers", line_color=hue, name=label(name))
    places = [x for line in figure.data for x in line.x]
    for (name, error), dash in zip((dense or {}).items() if places else (), cycle(("dot", "dash"))):
        _level(figure, [min(places), max(places)], error, label(name), GREY, dash)
    errors = [y for line in figure.data for y in line.y]
    scale = {"type": "log", "dtick": "D2"} if errors and 0 < _WIDE * min(errors) < max(errors) else {}
    return figure.update_yaxes(**error_format(errors), **scale)


def _by_number(curve: Mapping[str, float]) -> Curve:
    """JSON has only texts for keys: {"10": a, "9": b} -> [(9, b), (10, a)]."""
    return sorted((float(key), error) for key, error in curve.items())


def _xy(points: Iterable[Sequence[float]]) -> dict[str, list[float]]:
    some = list(points)
    return {"x": [x for x, _ in some], "y": [y for _, y in some]}
