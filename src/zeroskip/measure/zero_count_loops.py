"""The loops that count zeros, compiled by numba.

magnitude  the mask of all bits but the sign
infinity   the integer that has the bits of infinity: from there on, values are Inf or NaN
"""

from __future__ import annotations

import numpy as np

from zeroskip.emit.numba_loops import compiled


@compiled
def over_last(
    bits: np.ndarray,
    magnitude: np.unsignedinteger,
    infinity: np.unsignedinteger,
    zeros: np.ndarray,
    by_example: np.ndarray,
) -> int:
    """Add the zeros of bits (n, a, b) to zeros (a,) and by_example (n,); returns how many values are not finite.

    >>> bits, zeros, by_example = np.array([[[0, 1], [0, 0]]], np.uint32), np.zeros(2, np.int64), np.zeros(1, np.int64)
    >>> over_last(bits, np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), zeros, by_example), zeros, by_example
    (0, array([1, 2]), array([3]))
    """
    count, rows, columns = bits.shape
    nonfinite = 0
    for i in range(count):
        for j in range(rows):
            zero, odd = 0, 0
            for k in range(columns):
                value = bits[i, j, k] & magnitude
                zero += value == 0
                odd += value >= infinity
            zeros[j] += zero
            by_example[i] += zero
            nonfinite += odd
    return nonfinite


@compiled
def over_middle(
    bits: np.ndarray,
    magnitude: np.unsignedinteger,
    infinity: np.unsignedinteger,
    zeros: np.ndarray,
    by_example: np.ndarray,
) -> int:
    """Add the zeros of bits (n, a, b) to zeros (b,) and by_example (n,); returns how many values are not finite."""
    count, rows, columns = bits.shape
    nonfinite = 0
    for i in range(count):
        for j in range(rows):
            zero, odd = 0, 0
            for k in range(columns):
                value = bits[i, j, k] & magnitude
                zeros[k] += value == 0
                zero += value == 0
                odd += value >= infinity
            by_example[i] += zero
            nonfinite += odd
    return nonfinite
