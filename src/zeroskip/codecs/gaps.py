"""Relative index: for each non-zero, the number of zeros since the one before, in `width` bits.

Codes are 2 to 16 bits wide and follow each other without holes, highest bit first. With ESCAPE = 2^width - 1:

    0 ... ESCAPE - 1   skip that many positions; the next one is a non-zero
    ESCAPE             skip ESCAPE positions; no non-zero here, the gap continues in the next code

Deep Compression (Han, Mao and Dally 2016, section 2) bridges a long gap with a stored weight of value zero. Our
values are exact and up to 8 bytes each, so an escape without a value is smaller, and a kept weight that is
exactly zero differs from a bridge. Zeros after the last non-zero cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.codecs import bit_stream
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, detect
from zeroskip.errors import PackError, RecipeError


def encode(mask: np.ndarray, width: int) -> bytes:
    """The places of the True in mask (size,), `bits` of them filled up with zero bits to whole bytes.

    >>> encode(np.array([False, True, False, False, False, True]), 2).hex()  # 1, escape, 0
    '70'
    """
    codes = symbols(mask, width)
    return bit_stream.write(codes, np.broadcast_to(np.uint8(width), codes.shape))


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
    codes = bit_stream.read_fixed(data, 8 * len(data) // width, width)  # left-over bits may read as codes too
    landings = np.flatnonzero(codes != escape)
    if len(landings) < nonzeros:
        raise PackError(f"{len(data):,} bytes of gaps hold fewer than {nonzeros:,} positions")
    codes = codes[: landings[nonzeros - 1] + 1 if nonzeros else 0]
    bit_stream.check_end(data, width * len(codes), f"{nonzeros:,} gaps")
    return places(codes, size, nonzeros, width)


def symbols(mask: np.ndarray, width: int) -> np.ndarray:
    """The codes themselves, escapes included: (size,) bool -> (nonzeros + fillers,) uint16.

    >>> symbols(np.array([False, True, False, False, False, True]), 2)
    array([1, 3, 0], dtype=uint16)
    """
    return bridged(zeros_before(mask), _escape(width), _escape(width))[0]


def places(codes: np.ndarray, size: int, nonzeros: int, width: int) -> np.ndarray:
    """The positions of the non-zeros that the codes (nonzeros + fillers,) stand for, increasing, (nonzeros,) int64.

    Raises PackError for another number of non-zeros, an escape after the last, or a place beyond `size`.

    >>> places(np.array([1, 3, 0], np.uint16), 6, 2, 2)
    array([1, 5])
    """
    escape = _escape(width)
    if len(codes) and not 0 <= codes.min() <= codes.max() <= escape:
        raise PackError(f"gaps from {codes.min():,} to {codes.max():,} do not fit {width} bits")
    landings = int(np.count_nonzero(codes != escape))
    if landings != nonzeros or (len(codes) and codes[-1] == escape):
        raise PackError(f"the gaps lead to {landings:,} positions, not {nonzeros:,}, or on from the last")
    codes = np.ascontiguousarray(codes, np.uint16)
    # One more: a place that is no landing is written as well, and overwritten.
    positions = np.empty(nonzeros + 1, np.int64)
    _walker()(codes.ctypes.data, positions.ctypes.data, len(codes), escape)
    if nonzeros and positions[nonzeros - 1] >= size:
        raise PackError(f"the gaps lead to position {positions[nonzeros - 1]:,} of {size:,}")
    return positions[:nonzeros]


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
    return int((zeros_before(mask) // _escape(width)).sum())


def expected_bits(size: int, sparsity: float, width: int) -> float:
    """Mean of `bits` over random masks of `size` positions, each zero with probability `sparsity`.

    Raises RecipeError for a sparsity outside 0..1.

    >>> round(expected_bits(1000, 0.9, 4), 3)
    501.75
    """
    return width * expected_entries(size, sparsity, _escape(width))


def expected_entries(size: int, sparsity: float, step: int) -> float:
    """Mean number of non-zeros and of bridges over `step` zeros before them, over the same random masks.

    A non-zero at position i has a k-th bridge before it if k * step <= i and the k * step positions before it
    are zero. With p = 1 - sparsity, r = sparsity^step and K = (size - 1) // step, the expected number of
    bridges is

        p * sum over k = 1..K of (size - k * step) * r^k

    >>> round(expected_entries(1000, 0.9, 15), 3)
    125.438
    """
    if not 0 <= sparsity <= 1:
        raise RecipeError(f"a sparsity of {sparsity} is no share of zeros. Give a number from 0 to 1.")
    if size <= step or sparsity in (0, 1):
        return size * (1 - sparsity)  # no bridge is possible
    log_r = step * math.log(sparsity)
    odds = math.exp(log_r) / -math.expm1(log_r)  # r / (1 - r)
    longest = (size - 1) // step  # K

    def series(terms: int) -> float:  # r + r^2 + ... + r^terms, exact also where r is almost 1
        return -odds * math.expm1(terms * log_r)

    # The sum above is, with size - k * step counted from its last term on, a sum of geometric series.
    last = (size - longest * step) * series(longest)
    others = step * odds * (longest - 1 - series(longest - 1))
    return (1 - sparsity) * (size + last + others)


def zeros_before(mask: np.ndarray) -> np.ndarray:
    """Zeros between each non-zero and the one before it: (size,) -> (nonzeros,).

    >>> zeros_before(np.array([False, True, False, False, False, True]))
    array([1, 3])
    """
    return np.diff(np.flatnonzero(mask), prepend=-1) - 1


def bridged(zeros: np.ndarray, step: int, filler: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of zeros (nonzeros,) with every `step` of them replaced by an entry `filler`.

    Returns the entries, (nonzeros + fillers,) uint16, and which of them belong to the non-zeros, (nonzeros,).

    >>> bridged(np.array([1, 3]), 3, 3)
    (array([1, 3, 0], dtype=uint16), array([0, 2]))
    """
    own = np.cumsum(zeros // step + 1) - 1
    entries = np.full(own[-1] + 1 if len(own) else 0, filler, np.uint16)
    entries[own] = zeros % step
    return entries, own


def _escape(width: int) -> int:
    """The all-ones code."""
    if not 2 <= width <= 16:
        raise PackError(f"gaps are 2 to 16 bits wide, not {width}")
    return 2**width - 1


@cache
def _walker() -> Callable[..., None]:
    machine = detect()
    return compile_function(_walker_code().text(machine), "walk", machine, 4)


def _walker_code() -> Function:
    """walk(codes, places, count, escape): a running sum that keeps the places where it lands on a non-zero."""
    f = Function("walk", {"codes": POINTER, "places": POINTER, "count": INTEGER, "escape": INTEGER})
    reached, landings = f.slot(INTEGER, "-1"), f.slot(INTEGER, "0")
    with f.loop(0, "%count") as index:
        code = f.value(f"zext i16 {f.load('i16', f.at('%codes', index, 'i16'))} to i64")
        lands = f.value(f"zext i1 {f.value(f'icmp ne i64 {code}, %escape')} to i64")  # else over no non-zero
        place, number = f.add(f.load(INTEGER, reached), f.add(code, lands)), f.load(INTEGER, landings)
        f.store(INTEGER, place, f.at("%places", number, INTEGER))
        f.store(INTEGER, place, reached)
        f.store(INTEGER, f.add(number, lands), landings)
    return f
