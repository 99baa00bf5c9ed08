"""Operations of 8-bit numbers that need no kernel of their own: they are convolutions whose weights are 1.

Each output reads its own channel: a sum of two maps adds the second one as a residual, an average has a tap for each
pixel of its window, and a map gets another scale with a factor.
"""

from __future__ import annotations

import numpy as np

from zeroskip.run.convolution.tiles.quad_job import QUAD, QuadWeights, quads
from zeroskip.run.element import Scaling


def averaging(channels: int, offsets: np.ndarray, count: int, x: Scaling) -> QuadWeights:
    """The mean of a window: its sum times scale / count; `offsets` (quads, taps) are those of rows of the input.

    >>> averaging(5, np.zeros((2, 4), np.int64), 4, Scaling(0.5, 128)).factor[0]
    np.float32(0.125)
    """
    factor = np.float32(x.scale) / np.float32(count)
    return _own_channel(channels, offsets, -x.zero_point * offsets.shape[1], (factor, np.float32(0)))


def adding(channels: int, offsets: np.ndarray, x: Scaling, other: Scaling) -> QuadWeights:
    """The sum with another map, which is then added as a residual; `offsets` (quads, 1)."""
    zeros = (np.float32(each.zero_point) * np.float32(each.scale) for each in (x, other))
    return _own_channel(channels, offsets, 0, (np.float32(x.scale), -np.float32(sum(zeros))))


def rescaling(channels: int, offsets: np.ndarray, x: Scaling, y: Scaling) -> QuadWeights:
    """The numbers in steps of another scale, for an output whose own scale is 1; `offsets` (quads, 1)."""
    factor = np.float32(x.scale) / np.float32(y.scale)
    return _own_channel(channels, offsets, -x.zero_point, (factor, np.float32(0)))


def scaling(
    channels: int, offsets: np.ndarray, x: Scaling, factors: tuple[np.ndarray, np.ndarray]
) -> QuadWeights:
    """A factor of each channel times the map, plus a shift, as a batch norm does; both (channels,) float32."""
    scale, shift = factors
    return _own_channel(channels, offsets, -x.zero_point, (np.float32(x.scale) * scale, shift))


def _own_channel(
    channels: int,
    offsets: np.ndarray,
    start: int,
    numbers: tuple[np.floating | np.ndarray, np.floating | np.ndarray],
) -> QuadWeights:
    """Each output sums all taps of its channel; `numbers`: factor and bias, of all channels or of each."""
    taps = offsets.shape[1]
    words = np.zeros((channels, quads(channels), taps), np.int32)
    every = np.arange(channels)
    words[every, every // QUAD] = (1 << 8 * (every % QUAD))[:, None]
    factor, bias = (np.full(channels, number, np.float32) for number in numbers)
    return QuadWeights(
        words.reshape(channels, -1), np.full(channels, start, np.int32), factor, bias, offsets.ravel(), taps
    )
