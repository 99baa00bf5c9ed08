"""Blocks of neighbouring elements that stay or go together: a grid that has one position for each block.

A block has a side along each axis. The first lies at element 0 of every axis, the others follow without holes, and
the last along an axis is shorter where the side does not divide it. Which blocks stay is a mask of the grid, and any
code of positions can store it.
"""

from __future__ import annotations

import numpy as np


def grid(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks along each axis.

    >>> grid((8, 6), (1, 4))
    (8, 2)
    """
    return tuple(-(-size // side) for size, side in zip(shape, block, strict=True))


def gathered(mask: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    """Which blocks hold a True of mask (...): bool, of the grid's shape.

    >>> gathered(np.array([[True, False, False, False, True, False]]), (1, 4))
    array([[ True,  True]])
    """
    for axis, side in enumerate(block):
        if side > 1:
            along = np.moveaxis(mask, axis, 0)
            whole = along[::side].copy()
            for first in range(1, min(side, len(along))):
                part = along[first::side]
                whole[: len(part)] |= part
            mask = np.moveaxis(whole, 0, axis)
    return mask


def spread(blocks: np.ndarray, shape: tuple[int, ...], block: tuple[int, ...]) -> np.ndarray:
    """The elements of a tensor of this shape that lie in the blocks, a mask of the grid: bool, (shape).

    >>> spread(np.array([[False, True]]), (1, 6), (1, 4))
    array([[False, False, False, False,  True,  True]])
    """
    for axis, (size, side) in enumerate(zip(shape, block, strict=True)):
        if side > 1:
            places = np.arange(size) // side
            blocks = blocks.take(places, axis)
    return blocks


def elements(places: np.ndarray, shape: tuple[int, ...], block: tuple[int, ...]) -> int:
    """How many elements lie in the blocks at these places of the grid, (blocks,), counted row by row.

    >>> elements(np.array([0, 1]), (1, 6), (1, 4))
    6
    """
    if not len(places):
        return 0
    sizes = np.ones(len(places), np.int64)
    at = np.unravel_index(places, grid(shape, block))
    for size, side, index in zip(shape, block, at, strict=True):
        if side > 1:
            sizes *= np.minimum(side, size - side * index)
    return int(sizes.sum())
