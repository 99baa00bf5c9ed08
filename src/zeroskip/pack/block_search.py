"""The block in which a tensor's zeros lie, found from its mask."""

from __future__ import annotations

import math

import numpy as np

from zeroskip.codecs import blocks

FACTORS = (2, 3, 5, 7)  # by which a side grows; a side may become the whole axis too


def find(mask: np.ndarray, coded: float, exact: int) -> tuple[int, ...]:
    """The sides of a block for which positions and values of mask (...) seem to take the fewest bits; () for none.

    Sides grow from 1, one at a time by a factor, as long as the estimate falls: a block of 1x4 is found as 1x2, then
    as twice that. A zero within a block is a value, so blocks need not be free of zeros.

    coded  bits of a value that is no zero, in the best code, its share of the codebook with it
    exact  bits of a value as it is, zero or not

    >>> find(np.repeat(np.eye(8, dtype=bool), 4, axis=1), 8.0, 8)
    (1, 4)
    """
    nonzeros = int(np.count_nonzero(mask))
    if mask.ndim < 2 or nonzeros in (0, mask.size):
        return ()

    def sizes(block: tuple[int, ...], flags: np.ndarray) -> tuple[int, float]:
        stored = _elements(flags, mask.shape, block)
        values = min(stored * exact, nonzeros * coded + _entropy(nonzeros, stored))
        return stored, _entropy(int(np.count_nonzero(flags)), flags.size) + values

    block, flags = (1,) * mask.ndim, mask
    _, least = sizes(block, flags)
    while True:
        better = []
        for step in _steps(flags.shape):
            found = blocks.gathered(flags, step)
            larger = tuple(min(one * by, size) for one, by, size in zip(block, step, mask.shape, strict=True))
            stored, bits = sizes(larger, found)
            if bits < least:
                better.append((stored, bits, larger, found))
        if not better:
            return block if max(block) > 1 else ()
        # Blocks of 16 are found by a factor that adds no zeros, 2, though 7 may save more at once.
        _, least, block, flags = min(better, key=lambda one: one[:2])


def _steps(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Blocks of blocks, larger along one axis."""
    return [
        (*[1] * axis, factor, *[1] * (len(shape) - axis - 1))
        for axis, size in enumerate(shape)
        for factor in sorted({*(factor for factor in FACTORS if factor < size), size} - {1})
    ]


def _elements(found: np.ndarray, shape: tuple[int, ...], block: tuple[int, ...]) -> int:
    if all(size % side == 0 for size, side in zip(shape, block, strict=True)):
        return int(np.count_nonzero(found)) * math.prod(block)
    return blocks.elements(np.flatnonzero(found), shape, block)


def _entropy(ones: int, count: int) -> float:
    """Bits that say which `ones` of `count` are meant, if all are equally likely."""
    share = ones / count
    return -count * sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)
