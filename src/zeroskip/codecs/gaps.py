"""Relative index: for each non-zero, the number of zeros since the one before, in `width` bits.

Codes are 2 to 16 bits wide and follow each other without holes, highest bit first. With ESCAPE = 2^width - 1:

    0 ... ESCAPE - 1   skip that many positions; the next one is a non-zero
    ESCAPE             skip ESCAPE positions; no non-zero here, the gap goes on

Deep Compression (Han et al. 2015, section 3) bridges a long gap with a stored weight of value zero. Our
values are exact and up to 8 bytes each, so an escape without a value is smaller, and a weight that is kept
and exactly zero stays distinguishable from a bridge. Zeros after the last non-zero cost nothing.
"""

from __future__ import annotations

import math

import numpy as np

from zeroskip.errors import PackError, RecipeError


def encode(mask: np.ndarray, width: int) -> bytes:
    """The places of the True in mask (size,), `bits` of them filled up with zero bits to whole bytes.

    >>> encode(np.array([False, True, False, False, False, True]), 2).hex()  # 1, escape, 0
    '70'
    """
    escape = _escape(width)
    zeros = _zeros_before(mask)  # (nonzeros,)
    ends = np.cumsum(zeros // escape + 1)  # (nonzeros,) codes up to and including each non-zero
    codes = np.full(ends[-1] if len(ends) else 0, escape, np.uint16)
    codes[ends - 1] = zeros % escape
    return np.packbits(_to_bits(codes, width)).tobytes()


def decode(data: bytes, size: int, nonzeros: int, width: int) -> np.ndarray:
    """The mask (size,) that `encode` wrote; raises PackError as `positions` does.

    >>> decode(bytes.fromhex("70"), 6, 2, 2)
    array([False,  True, False, False, False,  True])
    """
    mask = np.zeros(size, bool)
    mask[positions(data, size, nonzeros, width)] = True
    return mask


def positions(data: bytes, size: int, nonzeros: int, width: int) -> np.ndarray:
    """The places of the non-zeros, increasing, (nonzeros,) int64.

    Memory grows with `data`, not with `size`. Raises PackError where there are fewer than `nonzeros`, where
    bytes or set bits follow the last, or where it lies beyond `size`.

    >>> positions(bytes.fromhex("70"), 6, 2, 2)
    array([1, 5])
    """
    escape = _escape(width)
    flags = np.unpackbits(np.frombuffer(data, np.uint8))  # (8 * bytes,)
    codes = _from_bits(flags, width).astype(np.int64)  # (codes,) the left-over bits may read as codes too
    found = np.flatnonzero(codes != escape)
    if len(found) < nonzeros:
        raise PackError(f"{len(data):,} bytes of gaps hold fewer than {nonzeros:,} positions")
    used = width * (int(found[nonzeros - 1]) + 1) if nonzeros else 0
    if len(data) != -(-used // 8) or flags[used:].any():
        raise PackError(f"there is more in {len(data):,} bytes of gaps than {nonzeros:,} positions")
    places = np.cumsum(codes + (codes != escape))[found[:nonzeros]] - 1  # an escape steps over no non-zero
    if nonzeros and places[-1] >= size:
        raise PackError(f"the gaps lead to position {places[-1]:,} of {size:,}")
    return places


def bits(mask: np.ndarray, width: int) -> int:
    """Bits that `encode` needs, before it fills up the last byte.

    >>> bits(np.array([False, True, False, False, False, True]), 2)
    6
    """
    return width * (int(np.count_nonzero(mask)) + fillers(mask, width))


def fillers(mask: np.ndarray, width: int) -> int:
    """Number of escapes that bridge gaps too long for `width` bits.

    >>> fillers(np.array([False, True, False, False, False, True]), 2)
    1
    """
    return int((_zeros_before(mask) // _escape(width)).sum())


def expected_bits(size: int, sparsity: float, width: int) -> float:
    """Mean of `bits` over random masks of `size` positions, each zero with probability `sparsity`.

    A non-zero at position i has a k-th escape before it if k * ESCAPE <= i and the k * ESCAPE positions
    before it are zero. With p = 1 - sparsity, r = sparsity^ESCAPE and K = (size - 1) // ESCAPE, the expected
    number of escapes is

        p * sum over k = 1..K of (size - k * ESCAPE) * r^k

    Raises RecipeError for a sparsity outside 0..1.

    >>> round(expected_bits(1000, 0.9, 4), 3)
    501.75
    """
    escape = _escape(width)
    if not 0 <= sparsity <= 1:
        raise RecipeError(f"a sparsity of {sparsity} is no share of zeros. Give a number from 0 to 1.")
    if size <= escape or sparsity in (0, 1):
        return width * size * (1 - sparsity)  # no escape is possible
    log_r = escape * math.log(sparsity)
    odds = math.exp(log_r) / -math.expm1(log_r)  # r / (1 - r)
    longest = (size - 1) // escape  # K

    def series(terms: int) -> float:  # r + r^2 + ... + r^terms, exact also where r is almost 1
        return -odds * math.expm1(terms * log_r)

    # The sum above is, with size - k * ESCAPE counted from its last term on, a sum of geometric series.
    last = (size - longest * escape) * series(longest)
    others = escape * odds * (longest - 1 - series(longest - 1))
    return width * (1 - sparsity) * (size + last + others)


def _escape(width: int) -> int:
    """The all-ones code."""
    if not 2 <= width <= 16:
        raise PackError(f"gaps are 2 to 16 bits wide, not {width}")
    return 2**width - 1


def _zeros_before(mask: np.ndarray) -> np.ndarray:
    """Zeros between each non-zero and the one before it: (size,) -> (nonzeros,)."""
    return np.diff(np.flatnonzero(mask), prepend=-1) - 1


def _to_bits(codes: np.ndarray, width: int) -> np.ndarray:
    """(codes,) -> (codes * width,) of 0 and 1, highest bit of each code first."""
    cell = 8 if width <= 8 else 16
    cells = codes.astype(f">u{cell // 8}").view(np.uint8)
    return np.unpackbits(cells).reshape(-1, cell)[:, cell - width :].reshape(-1)


def _from_bits(flags: np.ndarray, width: int) -> np.ndarray:
    """(bits,) of 0 and 1 -> (bits // width,) codes; bits left over at the end are not looked at."""
    cell = 8 if width <= 8 else 16
    rows = np.zeros((len(flags) // width, cell), np.uint8)
    rows[:, cell - width :] = flags[: len(rows) * width].reshape(-1, width)
    return np.packbits(rows).view(f">u{cell // 8}")
