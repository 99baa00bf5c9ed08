"""What a figure states, judged on numbers: each gives (what was found, whether it agrees), or None without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from zeroskip.concepts import Curve, Histogram

Verdict = tuple[str, bool] | None
"""What was found, in words, and whether it agrees."""
Width = TypeVar("Width")
Errors = Mapping[str, Mapping[Width, float]]
"""Curve -> what it is drawn over (a sparsity, bits) -> error."""
LOSS = 0.001  # of an error: what still counts as no loss, ten of ten thousand examples


def percent(share: float | None) -> float | None:
    """A share in percent.

    >>> percent(0.25)
    25.0
    """
    return None if share is None else round(100 * share, 9)  # 0.7, not 0.7000000000000001


def period(counts: Sequence[float]) -> int:
    """The distance at which counts (n,) repeat best: the highest autocorrelation from 14 to 42.

    >>> period([0, *[1] * 27] * 28)
    28
    """
    centred = np.asarray(counts, float) - np.mean(counts)
    lags = range(14, 43)
    return max(lags, key=lambda lag: float(np.mean(centred[lag:] * centred[:-lag])))


def border(counts: Sequence[float] | None, *, rings: int = 2) -> Verdict:
    """Connections left per pixel of the outer rings of a square image, against the others.

    >>> border([0] * 14 + [1, 1] + [0] * 20)
    ('0.00 % of an inner pixel', True)
    """
    if counts is None:
        return None
    side = round(len(counts) ** 0.5)
    image = np.asarray(counts, float).reshape(side, side)
    inner = image[rings:-rings, rings:-rings]
    outer = (image.sum() - inner.sum()) / (image.size - inner.size)
    share = float(outer / inner.mean())
    return f"{100 * share:.2f} % of an inner pixel", share < 0.1


def reach(curves: Mapping[str, Curve], order: Sequence[str], dense: float | None) -> Verdict:
    """How many times fewer weights each curve reaches without loss; agrees where each reaches further.

    order  curve names, the least far first

    >>> reach({"a": ((0.5, 0.1),), "b": ((0.2, 0.1),)}, ["a", "b"], 0.1)
    ('5x > 2x', True)
    """
    if dense is None or not all(name in curves for name in order):
        return None
    least = [
        min((kept for kept, error in curves[name] if error <= dense + LOSS), default=1.0) for name in order
    ]
    agrees = all(less > more for less, more in pairwise(least))
    return (" > " if agrees else " and ").join(f"{1 / kept:.3g}x" for kept in reversed(least)), agrees


def better(curves: Mapping[str, Curve], lower: str, higher: str) -> Verdict:
    """Mean errors of two curves over the shares kept that both have; agrees where that of `lower` is lower.

    >>> better({"L1": ((0.5, 0.02),), "L2": ((0.5, 0.03), (0.1, 0.9))}, "L1", "L2")
    ('L1 2.00 %, L2 3.00 %', True)
    """
    if lower not in curves or higher not in curves:
        return None
    pair = [{round(kept, 6): error for kept, error in curves[name]} for name in (lower, higher)]
    both = sorted(set(pair[0]) & set(pair[1]))
    if not both:
        return None
    means = [float(np.mean([curve[kept] for kept in both])) for curve in pair]
    return f"{lower} {100 * means[0]:.2f} %, {higher} {100 * means[1]:.2f} %", means[0] < means[1]


def most_sensitive(curves: Errors[Width] | None) -> Verdict:
    """The layer with the highest mean error when it alone is pruned; agrees where it is the first convolution.

    >>> most_sensitive({"conv1": {0.9: 0.5}, "fc1": {0.9: 0.1}})
    ('conv1', True)
    """
    means = _means(curves)
    layer = max(means, key=means.__getitem__, default=None)
    return None if layer is None else (layer, layer == "conv1")


def conv_against_fc(curves: Errors[Width] | None) -> Verdict:
    """Mean errors of the layers called conv... and of the others.

    >>> conv_against_fc({"conv1": {0.9: 0.5}, "fc1": {0.9: 0.1}})
    ('conv 50.00 %, fc 10.00 %', True)
    """
    means = _means(curves)
    conv = [error for name, error in means.items() if name.startswith("conv")]
    fc = [error for name, error in means.items() if not name.startswith("conv")]
    if not conv or not fc:
        return None
    ours, theirs = float(np.mean(conv)), float(np.mean(fc))
    return f"conv {100 * ours:.2f} %, fc {100 * theirs:.2f} %", ours > theirs


def one_peak(histogram: Histogram | None) -> Verdict:
    """Where the highest bin is; agrees where it holds zero or is next to the one that does.

    >>> one_peak(Histogram((-2, -1, 1, 2), (1, 9, 1)))
    ('highest at 0', True)
    """
    if histogram is None:
        return None
    counts, middles = _bins(histogram)
    highest = int(np.argmax(counts))
    return f"highest at {middles[highest]:.3g}", abs(highest - int(np.argmin(np.abs(middles)))) <= 1


def two_peaks(histogram: Histogram | None) -> Verdict:
    """Highest bins left and right of zero; agrees where both are at least twice as high as the bin at zero.

    A threshold removes what is around zero, so only a retraining that fills the gap again can disagree.

    >>> two_peaks(Histogram((-3, -1, 1, 3), (4, 1, 5)))
    ('peaks at -2 and 2', True)
    """
    if histogram is None:
        return None
    counts, middles = _bins(histogram)
    zero = int(np.argmin(np.abs(middles)))
    left, right = int(np.argmax(counts[:zero])), zero + 1 + int(np.argmax(counts[zero + 1 :]))
    agrees = min(counts[left], counts[right]) >= 2 * max(counts[zero], 0.5)
    return f"peaks at {middles[left]:.3g} and {middles[right]:.3g}", bool(agrees)


def wider(before: Histogram | None, after: Histogram | None) -> Verdict:
    """The distance from zero within which all but 1 % of the weights lie; agrees where it is larger after.

    Meant for the same weights: removing the small ones makes it larger without any retraining.

    >>> wider(Histogram((-1, 0, 1), (5, 5)), Histogram((-2, 0, 2), (5, 5)))
    ('2 from 1', True)
    """
    if before is None or after is None:
        return None
    ours, theirs = _extent(after), _extent(before)
    return f"{ours:.3g} from {theirs:.3g}", ours > theirs


def fewest_bits(curves: Errors[int] | None, dense: float | None) -> Verdict:
    """The narrowest codes without loss, conv layers against fc layers; agrees where conv needs more bits.

    >>> fewest_bits({"conv": {4: 0.01, 2: 0.5}, "fc": {4: 0.01, 2: 0.01}}, 0.01)
    ('conv 4, fc 2', True)
    """
    if not curves or dense is None:
        return None
    least = {
        kind: min((bits for bits, error in curves[kind].items() if error <= dense + LOSS), default=32)
        for kind in ("conv", "fc")
    }
    return f"conv {least['conv']}, fc {least['fc']}", least["conv"] > least["fc"]


def best_start(curves: Errors[int], bits: int, *, linear: bool = True) -> Verdict:
    """The starts of the centroids by their errors at this width; agrees where none is below that of "linear".

    linear  False: agrees where another start is

    >>> best_start({"linear": {5: 0.010}, "random": {5: 0.014}}, 5)
    ('linear 1.00 %, random 1.40 %', True)
    """
    errors = {name: curve[bits] for name, curve in curves.items() if bits in curve}
    if "linear" not in errors:
        return None
    listed = ", ".join(
        f"{name} {100 * errors[name]:.2f} %" for name in sorted(errors, key=errors.__getitem__)
    )
    return listed, (errors["linear"] <= min(errors.values())) is linear


def _means(curves: Errors[Width] | None) -> dict[str, float]:
    return {name: float(np.mean(list(curve.values()))) for name, curve in (curves or {}).items() if curve}


def _bins(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    edges = np.asarray(histogram.edges, float)
    return np.asarray(histogram.counts, float), (edges[1:] + edges[:-1]) / 2


def _extent(histogram: Histogram) -> float:
    counts, _ = _bins(histogram)
    edges = np.asarray(histogram.edges, float)
    outer = np.maximum(np.abs(edges[1:]), np.abs(edges[:-1]))  # farthest point of each bin from zero
    order = np.argsort(outer)
    within = np.cumsum(counts[order]) >= 0.99 * counts.sum()
    return float(outer[order][np.argmax(within)])
