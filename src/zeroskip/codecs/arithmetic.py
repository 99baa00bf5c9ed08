"""Where the non-zeros are *and* which code each has, predicted bit by bit and stored by arithmetic coding.

An arithmetic coder (Witten, Neal and Cleary 1987) turns predictions into bytes: a bit to which the model gave
probability p costs -log2(p) bits. The bytes name a number in 0..1. The interval that holds it is split at every bit
in proportion to the prediction, and the part that belongs to the bit is kept; whole bytes are written as soon as
both ends agree on them. Who reads makes the same predictions from the bits before, and so sees which part was kept.

The model sees a tensor as rows (outputs) of columns (inputs) and codes, in this order:

    side      2-D only, 8 bits: how wide the images are that the columns form, 0 if none; found by `_side`
    flags     one per column, then one per row: is there a non-zero at all?
    mask      row by row, the positions where both flags are set
    codes     of the non-zeros, row by row, each from its highest bit to its lowest

Columns next to each other in a tile (the image that a first layer sees, the kernel of a convolution) are
neighbours. Each bit of the mask is predicted from nine estimates. Four are computed, as the share of non-zeros

    above, in its column and the eight around        in this row so far, against what was expected of it
    close by in this row, against what was expected  at the same place in the kernels before, in this row

and five are counted: a slot remembers how often a 1 came when the context was the same as now,

    pattern of six neighbours, and column count      kernels before, and column count
    number of neighbours, and column count           share of expected in this row, and column count
    pattern of six neighbours

A code has nine counted contexts per node of its binary tree: the code left of it, above, above right, before it, and
last in its column; two summaries of its neighbours' signs; how crowded its place and how full its column is; how
full its row is. Codes sorted by value are shorter: then neighbours in a codebook are alike.

Where blocks stay or go together (blocks.py), flags and mask are of their grid, and every element of a block that stays
has a code.

Estimates are mixed as in Mahoney's paq: each becomes a logit ln(p / (1 - p)), the prediction has the weighted sum of
their differences from the prior (the share of ones so far; the frequency of the code so far), and after each bit the
weights move along the gradient of its cost: estimates that are often right gain weight, useless ones lose it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from zeroskip.codecs import blocks
from zeroskip.errors import PackError, RecipeError

if TYPE_CHECKING:
    from zeroskip.codecs.context_mixing import Coder, Neighbours

MAX_LEVELS = 65_536
MAX_COLUMNS = 1 << 20  # the model holds about 100 bytes for each, however few the data are
MAX_SIDE = 255
NEAR = ((-1, 0), (0, -1), (-1, -1), (1, -1), (-2, 0), (0, -2))  # x and y, all coded before (0, 0)
AROUND = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1))


def encode(mask: np.ndarray, codes: np.ndarray, levels: int, block: tuple[int, ...] = ()) -> bytes:
    """The mask, bool of any shape, and the code of each non-zero, (nonzeros,) integers below `levels`.

    Non-zeros count row-major. `block` has a side for each axis where the mask is of whole blocks. Raises PackError
    where codes and mask, block or levels do not fit, or where the rows are longer than MAX_COLUMNS.

    >>> len(encode(np.eye(100, dtype=bool), np.zeros(100, int), 16))
    63
    """
    target = _Target(mask.shape, block, levels)
    positions, nonzeros = blocks.gathered(mask, block), int(np.count_nonzero(mask))
    if codes.shape != (nonzeros,):
        raise PackError(
            f"{nonzeros:,} non-zeros cannot have codes of shape {codes.shape}; give one code each"
        )
    if block and not np.array_equal(blocks.spread(positions, mask.shape, block), mask):
        raise PackError(f"its {nonzeros:,} positions are not whole blocks of {block}")
    if not 1 <= levels <= MAX_LEVELS or (nonzeros and not 0 <= codes.min() <= codes.max() < levels):
        raise PackError(f"codes are 0 to levels - 1 with at most {MAX_LEVELS:,} levels, not {levels:,}")
    _check_columns(mask.shape)
    if not mask.size:
        return b""
    flat = _as_rows(positions, positions.shape)
    depth = (levels - 1).bit_length()
    most = 2 * (positions.size + sum(flat.shape) + depth * nonzeros) + 16  # no bit costs more than 16
    coder = _coder(np.empty(most, np.uint8), reading=False)
    _walk(coder, flat, target, np.array(codes, np.int64))
    return coder.data[: coder.state[2]].tobytes() + _last(coder)


def decode(
    data: bytes, shape: tuple[int, ...], levels: int, block: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """The mask (shape) bool and the codes (nonzeros,) int64 that `encode` wrote with this block.

    Memory grows with the shape, about 3 bytes an element and 100 a column, so check its size first. Time grows
    with the data: nothing is predicted after their end. Raises PackError for all bytes that `encode` would not
    write for this shape, block and number of levels.

    >>> mask, codes = decode(encode(np.eye(100, dtype=bool), np.zeros(100, int), 16), (100, 100), 16)
    >>> np.array_equal(mask, np.eye(100)), codes.shape
    (True, (100,))
    """
    if not 1 <= levels <= MAX_LEVELS:
        raise PackError(f"{levels:,} levels are not 1 to {MAX_LEVELS:,}")
    _check_columns(shape)
    mask = np.zeros(blocks.grid(shape, block) if block else shape, bool)
    if not mask.size:
        if data:
            raise PackError(f"{len(data):,} bytes of positions cannot belong to an empty tensor")
        return np.zeros(shape, bool), np.zeros(0, np.int64)
    coder = _coder(np.frombuffer(data, np.uint8).copy(), reading=True)
    flat, target = _as_rows(mask, mask.shape), _Target(shape, block, levels)
    codes = _walk(coder, flat, target, None)
    if data[int(coder.state[2]) :] != _last(coder) or coder.state[2] > len(data):
        raise PackError(f"{len(data):,} bytes of positions and codes are too few, too many or altered")
    return target.elements(flat), codes


def bits(mask: np.ndarray, codes: np.ndarray, levels: int) -> int:
    """Bits that `encode` needs, counted by encoding.

    >>> bits(np.eye(100, dtype=bool), np.zeros(100, int), 16)
    504
    """
    return 8 * len(encode(mask, codes, levels))


def fits(shape: tuple[int, ...]) -> bool:
    """Whether its rows are short enough for this codec: at most MAX_COLUMNS columns.

    >>> fits((300, 784)), fits((2**20 + 1,))
    (True, False)
    """
    return _columns(shape) <= MAX_COLUMNS


def expected_bits(size: int, sparsity: float) -> float:
    """The entropy of a random mask: no coder has a smaller mean, and this one comes close (codes not counted).

    Shannon 1948: size * (-s * log2(s) - (1 - s) * log2(1 - s)), s = sparsity. What the model has to learn, and
    one flag per row and column, come on top. Raises RecipeError for a sparsity outside 0..1.

    >>> round(expected_bits(1000, 0.9), 1)
    469.0
    """
    if not 0 <= sparsity <= 1:
        raise RecipeError(f"a sparsity of {sparsity} is no share of zeros. Give a number from 0 to 1.")
    return -size * sum(p * math.log2(p) for p in (sparsity, 1 - sparsity) if p > 0)


@dataclass(frozen=True)
class _Target:
    """What is coded: a tensor of this shape, its mask in blocks of these sides if there are any, and `levels` codes."""

    shape: tuple[int, ...]
    block: tuple[int, ...]
    levels: int

    @property
    def positions(self) -> tuple[int, ...]:
        """The shape of the mask that is coded."""
        return blocks.grid(self.shape, self.block) if self.block else self.shape

    def elements(self, flat: np.ndarray) -> np.ndarray:
        """The mask (shape) of the elements, from that of the positions, (rows, columns + 1)."""
        mask = flat[:, :-1].reshape(self.positions)
        return blocks.spread(mask, self.shape, self.block) if self.block else mask


def _walk(coder: Coder, mask: np.ndarray, target: _Target, codes: np.ndarray | None) -> np.ndarray:
    """Write the mask (rows, columns + 1) and its codes; or, without codes, fill in the mask and return them."""
    from zeroskip.codecs import context_mixing

    neighbours = _walk_mask(coder, mask, target.positions)
    if target.block:
        mask = _as_rows(target.elements(mask), target.shape)
        neighbours = _neighbours(target.shape, 0)
    if codes is None:
        codes = np.zeros(np.count_nonzero(mask), np.int64)
    mixer = context_mixing.new_mixer(0, context_mixing.CODE_CONTEXTS, *_tables())
    context_mixing.code_codes(coder, mixer, mask, codes, target.levels, neighbours)
    return codes


def _walk_mask(coder: Coder, mask: np.ndarray, shape: tuple[int, ...]) -> Neighbours:
    """Write the mask (rows, columns + 1) of positions (shape), or fill it in; which columns are neighbours."""
    from zeroskip.codecs import context_mixing

    side = context_mixing.code_number(coder, _side(mask, shape), 8) if len(shape) == 2 else 0
    if side and (side < 2 or _columns(shape) % side**2):
        raise PackError(f"{_columns(shape):,} columns are no images of {side} x {side}")
    neighbours = _neighbours(shape, side)
    columns, rows = np.append(mask[:, :-1].any(0), False), np.append(mask.any(1), False)
    before = np.arange(-1, len(mask) - 1, dtype=np.int32)[None]  # (1, rows) the row before each
    before[0, 0] = len(mask)
    context_mixing.code_flags(coder, context_mixing.new_mixer(0, 1, *_tables()), columns, neighbours.near)
    context_mixing.code_flags(coder, context_mixing.new_mixer(0, 1, *_tables()), rows, before)
    mixer = context_mixing.new_mixer(
        context_mixing.POSITION_ESTIMATES, context_mixing.POSITION_CONTEXTS, *_tables()
    )
    context_mixing.code_mask(coder, mixer, mask, rows, columns, neighbours)
    same_flags = np.array_equal(columns, mask.any(0)) and np.array_equal(rows[:-1], mask.any(1))
    if not same_flags or (len(shape) == 2 and side != _side(mask, shape)):
        raise PackError("its positions contradict what is said about them before")
    return neighbours


def _coder(data: np.ndarray, *, reading: bool) -> Coder:
    """At its start: the whole interval, and, when reading, the first five bytes."""
    from zeroskip.codecs import context_mixing

    value = int.from_bytes(data[:5].tobytes().ljust(5, b"\0"), "big") if reading else 0
    state = np.array([0, (1 << context_mixing.WINDOW) - 1, 0, value, reading], np.int64)
    return context_mixing.Coder(state, data)


def _last(coder: Coder) -> bytes:
    """The shortest end that leads into the interval that is left, if zeros are read after it."""
    first = int(coder.state[0]) >> 32
    return bytes([first + 1]) if coder.state[0] else b""


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    from zeroskip.codecs import context_mixing

    return context_mixing.tables()


def _as_rows(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A copy as (rows, columns + 1): the last column is False, and stands for neighbours that do not exist."""
    # numba compiles anew for another memory order, which pad takes from its input
    return np.ascontiguousarray(np.pad(mask.reshape(-1, _columns(shape)), ((0, 0), (0, 1))))


def _columns(shape: tuple[int, ...]) -> int:
    """Positions in a row. The first of two or more sides counts rows; a vector is one row."""
    return math.prod(shape[1:] or shape)


def _check_columns(shape: tuple[int, ...]) -> None:
    if not fits(shape):
        raise PackError(
            f"rows of {_columns(shape):,} elements are too long for arithmetic codes; split or reshape the tensor"
        )


def _neighbours(shape: tuple[int, ...], side: int) -> Neighbours:
    """Neighbours in the kernels of a convolution, or in images of side x side pixels; none if side is 0."""
    from zeroskip.codecs import context_mixing

    columns = _columns(shape)
    j = np.arange(columns, dtype=np.int32)
    width, height = (shape[-1], shape[-2] if len(shape) > 3 else 1) if len(shape) > 2 else (side, side)
    tile = width * height or columns
    place = j % tile
    x, y = (place % width, place // width) if width else (place, place)

    def at(step: tuple[int, int], otherwise: np.ndarray | np.int32) -> np.ndarray:
        there = (x + step[0] >= 0) & (x + step[0] < width) & (y + step[1] >= 0) & (y + step[1] < height)
        return np.where(there, j + step[0] + width * step[1], otherwise)

    near, around = np.empty((len(NEAR), columns), np.int32), np.empty((len(AROUND), columns), np.int32)
    for k, step in enumerate(NEAR):
        near[k] = at(step, np.int32(columns))
    for k, step in enumerate(AROUND):
        around[k] = at(step, j)
    return context_mixing.Neighbours(tile, near, around)


def _side(mask: np.ndarray, shape: tuple[int, ...]) -> int:
    """The side of the square images that the columns seem to form, 0 if they do not; mask (rows, columns + 1).

    In an image a pixel and the one below it are kept together more often than chance has it, given how many
    non-zeros each column and row has. The side with the largest excess wins; 4 standard deviations are asked for.
    """
    columns, nonzeros = shape[1], int(np.count_nonzero(mask))
    kept, counts = mask.sum(1, dtype=np.int64), mask[:, :-1].sum(0, dtype=np.int64)
    best, score = 0, 16.0
    for side in range(2, min(MAX_SIDE, math.isqrt(columns)) + 1):
        if columns % side**2 == 0 and nonzeros:
            upper = np.arange(columns) % side**2 < side * (side - 1)
            lower = np.roll(upper, side)
            together = np.count_nonzero(mask[:, :-1][:, upper] & mask[:, :-1][:, lower])
            chance = int(counts[upper] @ counts[lower]) * int(kept @ kept) / nonzeros**2
            if together > chance and (together - chance) ** 2 > score * chance:
                best, score = side, (together - chance) ** 2 / chance
    return best
