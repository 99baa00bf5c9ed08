"""The loops of `zeros`, compiled by numba: they run at the speed of the memory.

magnitude  the mask of all bits but the sign
infinity   the integer that has the bits of infinity: from there on, values are Inf or NaN
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    """The function as machine code, which is kept for the next process where a folder can be written to."""
    try:
        return cast(_Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither beside this file nor in the user's cache
        return cast(_Function, njit(nogil=True)(function))


@_compiled
def over_last(
    bits: np.ndarray,
    magnitude: np.unsignedinteger,
    infinity: np.unsignedinteger,
    zeros: np.ndarray,
    each: np.ndarray,
) -> int:
    """Zeros of bits (n, a, b) are added to zeros (a,) and each (n,); how many values of all are not finite.

    >>> over_last(bits, np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), zeros, each)
    0
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
            each[i] += zero
            nonfinite += odd
    return nonfinite


@_compiled
def over_middle(
    bits: np.ndarray,
    magnitude: np.unsignedinteger,
    infinity: np.unsignedinteger,
    zeros: np.ndarray,
    each: np.ndarray,
) -> int:
    """Zeros of bits (n, a, b) are added to zeros (b,) and each (n,); how many values of all are not finite.

    >>> over_middle(bits, np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), zeros, each)
    0
    """
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
            each[i] += zero
            nonfinite += odd
    return nonfinite
