"""Sparse matrices in tiles: only tiles that hold a number are there, and only their rows that do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zeroskip.simulate.lane_counts import tiles


class TiledMatrix(NamedTuple):
    """A matrix in square tiles.

    tile      (tile rows, tile columns): number of the tile, -1 where there is none
    first     (tiles + 1,): where its rows begin in row (rows,), their numbers in the matrix, and bits (words, rows)
    nonzeros  (tiles,);  shape: rows and columns of the matrix;  side: of a tile
    """

    tile: np.ndarray
    first: np.ndarray
    row: np.ndarray
    bits: np.ndarray
    nonzeros: np.ndarray
    shape: tuple[int, int]
    side: int

    @property
    def there(self) -> np.ndarray:
        """Which tiles hold a number: bool (tile rows, tile columns)."""
        return self.tile >= 0


def of_places(places: np.ndarray, shape: tuple[int, int], side: int) -> TiledMatrix:
    """A matrix by the rows and columns (n, 2) of its numbers, in any order.

    >>> of_places(np.array([[0, 5], [2, 5]]), (3, 6), 2).tile
    array([[-1, -1,  0],
           [-1, -1,  1]])
    """
    row, column = np.unique(places.reshape(-1, 2), axis=0).T.astype(np.int64)
    strips = tiles(shape[1], side)
    ordered = (row // side * strips + column // side) * side + row % side
    keys, where = np.unique(ordered, return_inverse=True)
    bits, inside = np.zeros((len(keys), tiles(side, 64)), np.uint64), column % side
    np.bitwise_or.at(bits, (where, inside // 64), np.uint64(1) << (inside % 64).astype(np.uint64))
    tile = keys // side
    return _tiled(tile, tile // strips * side + keys % side, bits, shape, side)


def of_rows(bits: np.ndarray, columns: int, side: int) -> TiledMatrix:
    """A matrix by all its rows as `packed` has them: (rows, strips, words) uint64."""
    rows, strips, _ = bits.shape
    there = np.zeros((tiles(rows, side) * side, strips), bool)
    there[:rows] = bits.any(-1)
    up, strip, at = np.nonzero(there.reshape(-1, side, strips).transpose(0, 2, 1))  # in the order of tiles
    row = up * side + at
    return _tiled(up * strips + strip, row, bits[row, strip], (rows, columns), side)


def packed(mask: np.ndarray, side: int) -> np.ndarray:
    """Bits of each row in strips of `side` columns: bool (..., rows, k) -> (..., rows, strips, words) uint64.

    >>> packed(np.ones((1, 5), bool), 4).tolist()
    [[[15], [1]]]
    """
    *rows, columns = mask.shape
    strips, octets = tiles(columns, side), tiles(side, 8)
    whole = np.zeros((*rows, strips * side), bool)
    whole[..., :columns] = mask
    whole = whole.reshape(*rows, strips, side)
    if side % 8:
        whole = np.concatenate([whole, np.zeros((*rows, strips, -side % 8), bool)], axis=-1)
    bits = np.zeros((*rows, strips, 8 * tiles(side, 64)), np.uint8)
    bits[..., :octets] = np.packbits(whole.reshape(-1), bitorder="little").reshape(*rows, strips, octets)
    return bits.view("<u8")


def _tiled(
    tile: np.ndarray, row: np.ndarray, bits: np.ndarray, shape: tuple[int, int], side: int
) -> TiledMatrix:
    """From rows in the order of their tiles: where each one's tile is, its number, its bits (rows, words)."""
    from zeroskip.simulate.dataflows import intersection  # numba, see there

    high, wide = (tiles(length, side) for length in shape)
    table = np.full(high * wide, -1)
    there, begin = np.unique(tile, return_index=True)
    table[there] = np.arange(len(there))
    first, bits, nonzeros = np.append(begin, len(tile)), np.ascontiguousarray(bits.T), np.zeros_like(there)
    intersection.ones(bits, first, nonzeros)
    return TiledMatrix(table.reshape(high, wide), first, row, bits, nonzeros, shape, side)
