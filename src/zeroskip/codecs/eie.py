"""EIE's interleaved compressed columns (Han et al., ISCA 2016, section III-B).

Row i of a matrix belongs to processing element i mod N, for which it is row i // N. Each element keeps its own
part of every column as entries of a code of 4 bits (1 to 15, 0 for padding) and the number of zeros before it
in 4 bits; before more than 15 zeros stands a padding entry, code 0 after 15 zeros, which is a zero itself. The
zeros after the last code of a part cost nothing, and the count begins anew with each column. A pointer for each
column tells where its entries begin, and one more where the last column ends. A pointer counts as 16 bits, as in the
paper, whose elements hold fewer than 65,536 entries each; here it may be larger than that.
"""

from __future__ import annotations

import numpy as np

from zeroskip.codecs import gaps, relative
from zeroskip.errors import PackError

ENTRY_BITS = 8
POINTER_BITS = 16
_LONGEST = 15  # zeros


def encode(codes: np.ndarray, elements: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (rows, columns) of 0 to 15, where 0 is a zero, divided among that many processing elements.

    Returns the entries' codes and zero runs, (entries,) uint8, all of element 0 first, and the pointers
    (elements, columns + 1) int64, counted from the element's first entry. PackError for other codes.

    >>> encode(np.array([0, 0, 1, 2, *[0] * 18, 3])[:, None], 1)  # the paper's example
    (array([1, 2, 0, 3], dtype=uint8), array([ 2,  0, 15,  2], dtype=uint8), array([[0, 4]]))
    """
    _check_codes(codes)
    part, local, values = _parts(codes, elements)
    runs, own = gaps.bridged(_runs(part, local), _LONGEST + 1, _LONGEST)
    entries = np.zeros(len(runs), np.uint8)
    entries[own] = values
    counts = np.bincount(part, np.diff(own, prepend=-1), elements * codes.shape[1]).astype(np.int64)
    pointers = np.zeros((elements, codes.shape[1] + 1), np.int64)
    np.cumsum(counts.reshape(elements, -1), axis=1, out=pointers[:, 1:])
    return entries, runs.astype(np.uint8), pointers


def decode(codes: np.ndarray, runs: np.ndarray, pointers: np.ndarray, rows: int) -> np.ndarray:
    """The codes (rows, columns) uint8 that `encode` was given; PackError for what it would not return.

    >>> decode(np.array([3]), np.array([1]), np.array([[0, 1]]), 2)
    array([[0],
           [3]], dtype=uint8)
    """
    relative.check_fillers(runs, codes, _LONGEST)
    _check_codes(codes)
    if pointers.ndim != 2 or not pointers.size or pointers.dtype.kind not in "iu":
        raise PackError(f"pointers {pointers.shape} of {pointers.dtype} are no table (elements, columns + 1)")
    counts: np.ndarray = np.diff(pointers.astype(np.int64), axis=1).reshape(-1)  # (elements * columns,)
    if pointers[:, 0].any() or (counts < 0).any() or counts.sum() != len(codes):
        raise PackError(f"the pointers do not divide {len(codes):,} entries into columns")
    elements, columns = len(pointers), pointers.shape[1] - 1
    ends = np.cumsum(counts)
    if (codes[ends[counts > 0] - 1] == 0).any():
        raise PackError("a column ends with padding, which leads nowhere")
    reached = np.concatenate([[0], np.cumsum(runs.astype(np.int64) + 1)])
    local = reached[1:] - 1 - np.repeat(reached[ends - counts], counts)  # (entries,) row of its element
    element, column = np.divmod(np.repeat(np.arange(len(counts)), counts), max(columns, 1))
    row = local * elements + element
    if row.max(initial=-1) >= rows:
        raise PackError(f"its entries lead to row {row.max():,} of {rows:,}")
    dense = np.zeros((rows, columns), np.uint8)
    dense[row, column] = codes
    return dense


def padding(mask: np.ndarray, elements: int) -> int:
    """Number of padding entries of a matrix whose mask is (rows, columns).

    >>> padding(np.arange(20)[:, None] == 16, 1)
    1
    """
    part, local, _ = _parts(mask, elements)
    return int((_runs(part, local) // (_LONGEST + 1)).sum())


def bits(mask: np.ndarray, elements: int) -> int:
    """Bits of all entries and pointers of a matrix whose mask is (rows, columns).

    >>> bits(np.arange(20)[:, None] == 16, 1)  # 2 entries and 2 pointers
    48
    """
    entries = int(np.count_nonzero(mask)) + padding(mask, elements)
    return ENTRY_BITS * entries + POINTER_BITS * elements * (mask.shape[1] + 1)


def expected_bits(rows: int, columns: int, sparsity: float, elements: int) -> float:
    """Mean of `bits` over random masks (rows, columns), each position zero with probability `sparsity`.

    >>> expected_bits(100, 10, 0.0, 4)
    8704.0
    """
    parts = [len(range(first, rows, elements)) for first in range(elements)]
    entries = {size: gaps.expected_entries(size, sparsity, _LONGEST + 1) for size in set(parts)}
    in_all = columns * sum(entries[size] for size in parts)
    return ENTRY_BITS * in_all + POINTER_BITS * elements * (columns + 1)


def _check_codes(codes: np.ndarray) -> None:
    if codes.dtype.kind not in "iu":
        raise PackError(f"codes of {codes.dtype} are not whole numbers")
    if codes.size and not 0 <= codes.min() <= codes.max() <= 15:
        raise PackError(f"codes from {codes.min()} to {codes.max()} do not fit 4 bits")


def _parts(codes: np.ndarray, elements: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each non-zero its part (element * columns + column), its row there and itself, in stored order."""
    if codes.ndim != 2 or elements < 1:
        raise PackError(
            f"codes {codes.shape} on {elements} processing elements: give a matrix and at least 1"
        )
    column, row = np.nonzero(codes.T)
    part = row % elements * codes.shape[1] + column
    order = np.argsort(part, kind="stable")  # the rows within a part stay in their order
    row, column = row[order], column[order]
    return part[order], row // elements, codes[row, column]


def _runs(part: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Zeros before each non-zero in its part: (nonzeros,)."""
    same = np.diff(part, prepend=-1) == 0
    before = np.where(same, np.concatenate([[0], local[:-1]])[: len(local)], -1)
    return local - before - 1
