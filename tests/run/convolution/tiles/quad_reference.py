"""Convolutions of 8-bit numbers by NumPy and PyTorch's float64, rounded where the engine has to round."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.quad_job import IntegerWeights
from zeroskip.run.element import Scaling


def fused(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """float32(a x b + c), rounded once: float64 rounds to odd, so that the second rounding does no harm."""
    exact = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    more = np.broadcast_to(np.asarray(c, np.float64), exact.shape)
    total = exact + more
    part = total - exact
    lost = (exact - (total - part)) + (more - part)
    bits = total.copy().view(np.int64)
    even = (lost != 0) & (bits & 1 == 0)
    bits[even] += np.where((lost > 0) == (total > 0), 1, -1)[even]
    return bits.view(np.float64).astype(np.float32)


def activated(y: np.ndarray, activation: Activation | None) -> np.ndarray:
    if activation is None:
        return y
    y = np.maximum(y, np.float32(0))
    return y if activation.bound is None else np.minimum(y, np.float32(activation.bound))


def rounded(y: np.ndarray, output: Scaling) -> np.ndarray:
    """(...) fp32 -> uint8."""
    least, most = np.float32(-output.zero_point), np.float32(output.most)
    scaled = np.minimum(np.maximum(y * output.inverse, least), most)
    return (np.rint(scaled) + output.zero_point).astype(np.uint8)


def convolved(
    q: np.ndarray, given: IntegerWeights, size: tuple[int, int], stride: int, padding: int, x: Scaling
) -> np.ndarray:
    """y before a residual: (images, out, height, width) fp32 of q (images, in, height, width) uint8."""
    weight = torch.from_numpy(given.weight.reshape(*given.weight.shape[:2], *size)).double()
    centred = torch.from_numpy(q.astype(np.float64) - x.zero_point)
    groups = q.shape[1] if weight.shape[1] == 1 else 1
    sums = (
        functional.conv2d(centred, weight, stride=stride, padding=padding, groups=groups)
        .numpy()
        .astype(np.int32)
    )
    factor = np.float32(x.scale) * given.scales
    bias = given.bias
    return fused(sums.astype(np.float32), factor[:, None, None], bias[:, None, None])


def woven(q: np.ndarray, scaling: Scaling) -> np.ndarray:
    """(images, channels, height, width) uint8 -> (images, quads, height, width) int32."""
    images, channels, height, width = q.shape
    whole = np.full((images, -(-channels // 4) * 4, height, width), scaling.zero_point, np.uint8)
    whole[:, :channels] = q
    lanes = whole.reshape(images, -1, 4, height, width).transpose(0, 1, 3, 4, 2)
    return (
        np.ascontiguousarray(np.ascontiguousarray(lanes).view("<i4")[..., 0])
        .reshape(images, -1, height, width)
        .copy()
    )
