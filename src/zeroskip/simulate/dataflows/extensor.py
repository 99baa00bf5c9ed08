"""ExTensor: a product of two sparse matrices in tiles of tiles, intersected level by level (Hegde et al. 2019).

The weights of a layer (outputs, places) meet the windows that its positions see (positions, places). Both are cut into
tiles for the buffer, and these into tiles for an element. Only tiles that hold a number are stored, and of these only
those are fetched that meet one of the other matrix at the same places.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from zeroskip.errors import AcceleratorError
from zeroskip.simulate.accelerator import Accelerator, Bytes, size
from zeroskip.simulate.dataflows.sparse_tiles import TiledMatrix, of_rows, packed
from zeroskip.simulate.formats import COORDINATE_BITS, ROW_BITS, TILE_BITS
from zeroskip.simulate.lane_counts import Schedule
from zeroskip.simulate.workload import Workload, windows


class Level(NamedTuple):
    """One intersection: pairs that it is asked for, pairs of which both hold a number, comparisons made."""

    pairs: int
    met: int
    steps: int


class SumCounts(NamedTuple):
    """Products; sums that an element returns of its pair of tiles; sums of all; those that are read again."""

    products: int
    sent: int
    new: int
    again: int


class Joins(NamedTuple):
    """What meets what: tiles of the buffer, tiles of an element, and numbers.

    sums   what becomes of the products;  loads: (lanes,) comparisons of each element
    moved  bytes by memory and operand
    """

    buffers: Level
    elements: Level
    scalars: Level
    sums: SumCounts
    loads: np.ndarray
    moved: Bytes

    @property
    def cycles(self) -> int:
        """Until the last element is done."""
        return int(self.loads.max())


def joined(work: Workload, chip: Accelerator) -> Schedule:
    """Tiles that meet go to the `lanes` elements in turn, which make one comparison of two coordinates a cycle.

    Where they are the same it is a MAC; else the one that is behind jumps to the other. Elements wait for each other
    at the end of the layer. The levels above run ahead and hold nobody up: in the authors' own time, p2p-Gnutella31
    hands out eight pairs of tiles a cycle. Bytes are those of tiles that meet another, and of sums; see `product`.

    >>> joined(of_masks("fc", torch.ones(1, 32) != 0, torch.eye(32)[:1] != 0), chips.EXTENSOR).cycles
    1
    """
    layer = joins(work, chip)
    return Schedule(layer.cycles, layer.scalars.steps, moved=layer.moved)


def joins(work: Workload, chip: Accelerator) -> Joins:
    """What meets what in a layer, at each level."""
    _sides(chip)  # refuses what does not divide
    most, side = max(work.weight.shape[1], work.positions, work.inputs), size(chip, "element")
    if side > most:  # a tile as large as the layer holds all of it, as a larger one would
        chip = replace(chip, tile={name: length // side * most for name, length in chip.tile.items()})
        side = most
    weight = work.weight.permute(0, 1, 3, 4, 2).flatten(2)  # (g, m, k), neighbouring channels together
    seen = [packed(block.flatten(2).transpose(0, 1).numpy(), side) for block in windows(work)]
    both = packed(weight.numpy(), side), np.concatenate(seen, axis=1)  # (g, rows, strips, words)
    groups: list[Joins] = []
    dealt = 0
    for pair in zip(*both, strict=True):
        weights, inputs = (of_rows(rows, work.inputs, side) for rows in pair)
        groups.append(product(weights, inputs, chip, dealt=dealt))
        dealt += groups[-1].elements.met
    buffers, elements, scalars = (
        Level(*map(sum, zip(*(getattr(group, level) for group in groups), strict=True)))
        for level in Joins._fields[:3]
    )
    sums = SumCounts(*map(sum, zip(*(group.sums for group in groups), strict=True)))
    moved = {key: sum(group.moved[key] for group in groups) for key in groups[0].moved}
    return Joins(buffers, elements, scalars, sums, np.sum([group.loads for group in groups], axis=0), moved)


def product(weights: TiledMatrix, inputs: TiledMatrix, chip: Accelerator, *, dealt: int = 0) -> Joins:
    """The same of two matrices in tiles of an element, the second one transposed.

    Tiles of the buffer go by positions, then places, then outputs: inputs stay while outputs go by, and weights come
    again for other positions; of both only tiles that meet one. Where tiles of further places meet for a tile of
    outputs, the sums that it has so far are read and written once more. An element is sent both its tiles and returns
    their sums; it reads two coordinates for a comparison, and both numbers where they are the same.
    dealt   pairs of tiles that have gone to the elements before

    >>> from zeroskip.simulate.dataflows.sparse_tiles import of_places
    >>> eye = of_places(np.repeat(np.arange(99)[:, None], 2, axis=1), (99, 99), 32)
    >>> product(eye, eye, chips.EXTENSOR).elements[:2]
    (64, 4)
    """
    (up, across, deep), side = _sides(chip), size(chip, "element")
    if not side == weights.side == inputs.side:
        raise AcceleratorError(
            f"{chip.name}: tile['element'] = {side} is not the side of the tiles that the matrices are cut into, "
            f"{weights.side} and {inputs.side}"
        )
    loads, sums = _elements(weights, inputs, chip, dealt)
    small = weights.there, inputs.there
    large = _any(weights.there, up, deep), _any(inputs.there, across, deep)
    high, wide, long = weights.tile.shape[0], *inputs.tile.shape
    together = _any(large[0], len(large[0]), 1)  # the places at which any output has weights
    steps = _compared(together, large[1], large[1].shape[1])
    buffers = Level(large[0].size * len(large[1]), _pairs(*large), steps)
    tiled = _parts(high, up), _parts(wide, across), _parts(long, deep)
    elements = Level(_pairs(*large, *tiled), _pairs(*small), _compared(*small, deep))
    rows, others = (_parts(matrix.shape[0], side) for matrix in (weights, inputs))
    asked = _pairs(*small, rows, others, _parts(weights.shape[1], side))
    scalars = Level(asked, sums.products, int(loads.sum()))
    return Joins(buffers, elements, scalars, sums, loads, _moved(weights, inputs, chip, scalars.steps, sums))


def _elements(
    weights: TiledMatrix, inputs: TiledMatrix, chip: Accelerator, dealt: int
) -> tuple[np.ndarray, SumCounts]:
    """Comparisons of each element (lanes,), and what becomes of the products."""
    from zeroskip.simulate.dataflows import intersection  # numba, see there

    lengths = *weights.tile.shape[:1], *inputs.tile.shape
    up, across, deep = sides = tuple(map(min, _sides(chip), lengths))
    outputs, positions = chip.tile["outputs"], chip.tile["positions"]
    counts = _counts(weights.there, inputs.there, sides)  # (large n, large k, large m)
    begin = dealt + np.cumsum(counts).reshape(counts.shape) - counts
    rows = intersection.TileRows(weights.first, weights.row % outputs, weights.bits)
    others = intersection.TileRows(inputs.first, inputs.row % positions, inputs.bits)
    loads, made, again = np.zeros(chip.lanes, np.int64), np.zeros(3, np.int64), 0
    for n, m in np.ndindex(counts.shape[0], counts.shape[2]):
        high = min(outputs, weights.shape[0] - m * outputs)
        there = np.zeros((high, min(positions, inputs.shape[0] - n * positions)), bool)
        sums = intersection.PartialSums(there, np.zeros((up, across), np.int64), weights.side, made)
        for k in np.flatnonzero(counts[n, :, m]):
            strip = slice(k * deep, (k + 1) * deep)
            ours = weights.tile[m * up : (m + 1) * up, strip]
            theirs = inputs.tile[n * across : (n + 1) * across, strip]
            i, j, place = np.nonzero((ours >= 0)[:, None] & (theirs >= 0))
            again += int(sums.filled.ravel()[np.unique(i * across + j)].sum())
            steps = np.zeros(len(place), np.int64)
            pairs = np.stack([ours[i, place], theirs[j, place]], axis=1)
            intersection.tiles(pairs, rows, others, sums, steps)
            lane = (begin[n, k, m] + np.arange(len(steps))) % chip.lanes
            loads += np.bincount(lane, steps, chip.lanes).astype(np.int64)
    products, sent, new = made.tolist()
    return loads, SumCounts(products, sent, new, again)


def _moved(
    weights: TiledMatrix, inputs: TiledMatrix, chip: Accelerator, steps: int, sums: SumCounts
) -> Bytes:
    """Bytes by memory and operand."""
    widths = chip.bits["W"], chip.bits["A"]
    # By places, in tiles.
    stored = [_bits(matrix, bits).sum(0) for matrix, bits in zip((weights, inputs), widths, strict=True)]
    # Weights once for each large tile of positions with a partner, inputs once.
    often = _any(inputs.there, _sides(chip)[1], 1).sum(0), weights.there.any(0)
    partners = inputs.there.sum(0), weights.there.sum(0)
    output = 2 * COORDINATE_BITS + chip.bits["O"]
    read = (steps * COORDINATE_BITS + sums.products * width for width in widths)
    bits = {
        "DRAM": (*(stored[i] @ often[i] for i in (0, 1)), output * (sums.new + 2 * sums.again)),
        "buffer": (*(stored[i] @ partners[i] for i in (0, 1)), 2 * output * sums.sent),
        "element buffers": (*read, output * sums.sent),
    }
    return {
        (memory, operand): int(count) // 8
        for memory, counts in bits.items()
        for operand, count in zip("WAO", counts, strict=True)
    }


def _bits(matrix: TiledMatrix, bits: int) -> np.ndarray:
    """Bits of each tile, 0 where there is none: (tile rows, tile columns)."""
    stored = matrix.nonzeros * (COORDINATE_BITS + bits) + np.diff(matrix.first) * ROW_BITS + TILE_BITS
    return np.append(stored, 0)[matrix.tile]


def _compared(one: np.ndarray, two: np.ndarray, side: int) -> int:
    """Comparisons of which tiles each row of one (m, k) has with those of two (n, k), in strips of `side`."""
    from zeroskip.simulate.dataflows import intersection  # numba, see there

    rows = (packed(there, side) for there in (one, two))  # (rows, strips, words)
    pairs = zip(*(np.ascontiguousarray(bits.transpose(1, 2, 0)) for bits in rows), strict=True)
    return sum(int(intersection.compare(*pair)) for pair in pairs)


def _counts(one: np.ndarray, two: np.ndarray, sides: tuple[int, int, int]) -> np.ndarray:
    """Pairs of tiles that meet in each pair of large tiles: (n, k), (m, k), bool -> (large n, large k, large m)."""
    up, across, deep = sides
    high, wide = (
        np.add.reduceat(there.astype(np.int64), np.arange(0, len(there), side))
        for there, side in ((one, up), (two, across))
    )
    return np.add.reduceat(wide[:, None] * high, np.arange(0, one.shape[1], deep), axis=2).transpose(0, 2, 1)


def _pairs(one: np.ndarray, two: np.ndarray, *sizes: np.ndarray) -> int:
    """Pairs of tiles of one (m, k) and of two (n, k) that meet, or all that is in them: sizes (m,), (n,), (k,)."""
    rows, others, places = sizes or [np.ones(length, np.int64) for length in (len(one), *two.shape)]
    return int(((rows @ one) * (others @ two) * places).sum())


def _any(there: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which larger tiles of so many rows and columns hold one."""
    high = np.logical_or.reduceat(there, np.arange(0, len(there), rows))
    return np.logical_or.reduceat(high, np.arange(0, there.shape[1], columns), axis=1)


def _parts(length: int, part: int) -> np.ndarray:
    """Lengths of the parts; the last may be smaller."""
    return np.minimum(part, length - np.arange(0, length, part))


def _sides(chip: Accelerator) -> tuple[int, int, int]:
    """Sides of the buffer's tiles, in tiles of an element: outputs, positions, places."""
    element = size(chip, "element")
    for name in ("outputs", "positions", "inputs"):
        if size(chip, name) % element:
            raise AcceleratorError(
                f"{chip.name}: tile[{name!r}] = {chip.tile[name]} does not divide by tile['element'] = {element}"
            )
    return chip.tile["outputs"] // element, chip.tile["positions"] // element, chip.tile["inputs"] // element
