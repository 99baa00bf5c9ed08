"""Convolutions of 8-bit numbers by the integer reference, which tests/run/test_integer_reference.py compares with
fractions, as NumPy arrays and in the order in which quads hold them."""

from __future__ import annotations

import numpy as np
import torch

from zeroskip.run import integer_reference as reference
from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.operations import Window
from zeroskip.run.convolution.tiles.quad_job import IntegerWeights
from zeroskip.run.element import Scaling
from zeroskip.run.integer_reference import ByteEpilogue, ByteMap, ByteWeight


def fused(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """float32(a x b + c), rounded once."""
    return reference.fma(*(torch.tensor(np.asarray(each, np.float32)) for each in (a, b, c))).numpy()


def activated(y: np.ndarray, activation: Activation | None) -> np.ndarray:
    return reference.activated(torch.from_numpy(y), activation).numpy()


def rounded(y: np.ndarray, output: Scaling) -> np.ndarray:
    """(...) fp32 -> uint8."""
    return reference.next_map(torch.from_numpy(y), output).numbers.numpy()


def convolved(
    q: np.ndarray, given: IntegerWeights, window: Window, x: Scaling, groups: int = 1
) -> np.ndarray:
    """y before a residual: (images, out, height, width) fp32 of q (images, in, height, width) uint8."""
    weight = torch.from_numpy(given.weight.reshape(*given.weight.shape[:2], *window.size)).float()
    stored = ByteWeight(weight, torch.from_numpy(given.scales))
    sums = reference.sums_of_windows(ByteMap(torch.from_numpy(q), x), stored, window, groups)
    return reference.finished(sums, x, stored, ByteEpilogue(torch.from_numpy(given.bias))).numpy()


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
