"""Weights that are bytes times a float32 scale of their output, as a network in eight bits has them: found, made again.

A product is rounded once, as float32 products are, so the same weights come back bit for bit.
"""

from __future__ import annotations

import math

import numpy as np

from zeroskip.errors import PackError

LEAST, MOST = 2.0**-126, 2.0**120  # scales whose products with bytes are normal float32 numbers, or 0
_SAMPLE = 8  # outputs that are looked at first: most tensors are no such products


def find(weight: np.ndarray) -> np.ndarray | None:
    """The scales (out,) float32 of weight (out, ...) float32 where each output's largest byte is 127; None if none fit.

    Outputs of zeros have the scale 1. A largest weight / 127 is the scale, or next to it: both steps round.

    >>> find(np.float32([[0.5, -127.0], [0.0, 0.0]])) is None, find(np.float32([[2.0, -127.0], [0.0, 0.0]]))
    (True, array([1., 1.], dtype=float32))
    """
    rows = _rows(weight)
    scales = np.ones(len(rows), np.float32)
    for part in (rows[:_SAMPLE], rows):
        largest = np.abs(part).max(axis=1, initial=0)
        near = np.where(largest > 0, largest / np.float32(127), np.float32(1))
        if not _are_sound(near):
            return None
        scales, fits = near, _fitting(part, near)
        for towards in (np.float32(0), np.float32(np.inf)):
            other = np.nextafter(near, towards)
            scales = np.where(fits, scales, other)
            fits |= _fitting(part, other)
        if not fits.all():
            return None
    return scales if _are_sound(scales) else None


def bytes_of(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The bytes (size,) int8 of weight (out, ...) float32; PackError unless scale * byte is the weight, bit for bit.

    >>> bytes_of(np.float32([[2.0, -127.0]]), np.float32([1.0]))
    array([   2, -127], dtype=int8)
    """
    if not weight.ndim or scales.shape != weight.shape[:1]:
        raise PackError(f"scales of {scales.shape} are not one for each output of a tensor of {weight.shape}")
    if not _are_sound(scales):
        raise PackError(f"its scales should lie between {LEAST:.0e} and {MOST:.0e}")
    rows = _rows(weight)
    fits = _fitting(rows, scales)
    if not fits.all():
        raise PackError(
            f"output {int(np.argmin(fits))} is not its scale times whole numbers of -128 to 127, bit for bit; give the "
            "scales by which the weights were rounded, or none"
        )
    return _nearest(rows, scales).astype(np.int8).reshape(-1)


def weights_of(stored: np.ndarray, scales: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The weight (shape) float32 of bytes (size,) int8.

    >>> weights_of(np.int8([2, -127]), np.float32([0.5]).tobytes(), (1, 2))
    array([[  1. , -63.5]], dtype=float32)
    """
    by_output = read_scales(scales).reshape(-1, *[1] * (len(shape) - 1))
    return stored.reshape(shape).astype(np.float32) * by_output


def read_scales(scales: bytes) -> np.ndarray:
    """The scales (out,) float32 that a file holds; PackError for unsound ones.

    >>> read_scales(np.float32([0.5]).tobytes())
    array([0.5], dtype=float32)
    """
    read = np.frombuffer(scales, "<f4").astype(np.float32)
    if not _are_sound(read):
        raise PackError(f"a scale of its bytes does not lie between {LEAST:.0e} and {MOST:.0e}")
    return read


def _rows(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), math.prod(weight.shape[1:]))


def _are_sound(scales: np.ndarray) -> bool:
    return bool(((scales >= LEAST) & (scales <= MOST)).all())  # NaN is not


def _nearest(rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Whole numbers of -128 to 127 as float32, never -0.0."""
    return (rows / scales[:, None]).round().clip(-128, 127) + np.float32(0)


def _fitting(rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Which outputs (out,) are exactly products of their scale."""
    products = _nearest(rows, scales) * scales[:, None]
    return (products.view(np.uint32) == rows.view(np.uint32)).all(axis=1)
