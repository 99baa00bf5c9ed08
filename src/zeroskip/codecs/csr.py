"""Compressed sparse rows: the column of each non-zero in 16 bits, and where each row begins in 32 bits.

Rows come one after the other. There is one pointer more than there are rows: the end of the last one.
"""

from __future__ import annotations

import numpy as np

from zeroskip.errors import PackError, RecipeError

COLUMN_BITS = 16
POINTER_BITS = 32


def encode(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where mask (rows, columns) is True: columns (nonzeros,) uint16, and pointers (rows + 1,) uint32.

    Raises PackError for more columns or non-zeros than these bits can count.

    >>> encode(np.array([[False, True], [False, False], [True, True]]))
    (array([1, 0, 1], dtype=uint16), array([0, 1, 1, 3], dtype=uint32))
    """
    _check_shape(mask.shape)
    rows, columns = np.nonzero(mask)
    if len(rows) >= 1 << POINTER_BITS:
        raise PackError(
            f"pointers of {POINTER_BITS} bits do not count {len(rows):,} non-zeros; split the rows"
        )
    pointers = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(mask)))])
    return columns.astype(np.uint16), pointers.astype(np.uint32)


def decode(columns: np.ndarray, pointers: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) that `encode` was given; raises PackError for what it would not return.

    >>> decode(np.array([1, 0, 1], np.uint16), np.array([0, 1, 1, 3], np.uint32), (3, 2)).sum(axis=1)
    array([1, 0, 2])
    """
    _check_shape(shape)
    if columns.ndim != 1 or columns.dtype.kind not in "iu" or pointers.dtype.kind not in "iu":
        raise PackError(
            f"columns {columns.shape} of {columns.dtype}, pointers of {pointers.dtype}: no integers"
        )
    ends = pointers.astype(np.int64)
    lengths: np.ndarray = np.diff(ends)
    if ends.shape != (shape[0] + 1,) or ends[0] != 0 or (lengths < 0).any() or ends[-1] != len(columns):
        raise PackError(f"the pointers do not divide {len(columns):,} columns into {shape[0]:,} rows")
    if len(columns) and not 0 <= columns.min() <= columns.max() < shape[1]:
        raise PackError(f"columns {columns.min():,} to {columns.max():,} are not all among {shape[1]:,}")
    places = np.repeat(np.arange(shape[0]), lengths) * shape[1] + columns  # (nonzeros,)
    if (np.diff(places) <= 0).any():
        raise PackError("the columns of a row do not increase")
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[places] = True
    return mask


def bits(mask: np.ndarray) -> int:
    """Bits of all columns and pointers.

    >>> bits(np.array([[False, True], [False, False], [True, True]]))
    176
    """
    _check_shape(mask.shape)
    return COLUMN_BITS * int(np.count_nonzero(mask)) + POINTER_BITS * (len(mask) + 1)


def expected_bits(rows: int, columns: int, sparsity: float) -> float:
    """Mean of `bits` over random masks, each position zero with probability `sparsity`.

    Raises RecipeError for a sparsity outside 0..1.

    >>> expected_bits(10, 100, 0.75)
    4352.0
    """
    if not 0 <= sparsity <= 1:
        raise RecipeError(f"a sparsity of {sparsity} is no share of zeros. Give a number from 0 to 1.")
    return COLUMN_BITS * rows * columns * (1 - sparsity) + POINTER_BITS * (rows + 1)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] > 1 << COLUMN_BITS:
        raise PackError(
            f"a mask {tuple(shape)} has no rows of at most {1 << COLUMN_BITS:,} columns; reshape it to such rows"
        )
