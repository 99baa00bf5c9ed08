"""Convolutions whose zeros were never there: machine code written for one pattern of weights.

The code of a *group* of up to 28 output channels keeps their sums in zmm0 to zmm27, for the pixels of one vector.
Every row k (input channel and tap) that any of them needs is loaded once, and every non-zero weight is one
instruction: multiply the row by the weight, which stands next in a stream, and add. Zeros cost nothing at all.

Code has to stay in the first-level cache while it works, as data must: a *chunk* holds the groups' instructions
for a block of some 256 rows, runs over a band of vectors, and meanwhile fetches the chunk that follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.emit import x86
from zeroskip.emit.x86 import Code

SUMS = 28  # output channels of a group: zmm28 to zmm31 hold inputs
WINDOW = 256  # weights that an offset of 8 bits reaches; the pointer to them stands in the middle
HALF_WINDOW = WINDOW // 2

# Arguments of a chunk (x, weights, y, count, residual, table), in the registers where Linux passes them.
X, WEIGHTS, Y, COUNT, RESIDUAL, TABLE = x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9
X_AT, Y_AT, RESIDUAL_AT, WEIGHT_AT = x86.R10, x86.R11, x86.RAX, x86.RBX
NEXT_CODE, NEXT_WEIGHTS = x86.R14, x86.R15
SAVED = (WEIGHT_AT, NEXT_CODE, NEXT_WEIGHTS)
TABLE_ROW = 32  # bytes: offsets of x, y and residual, and the mask of lanes

# Parts of a chunk, in order; a key is (cell, part, place), so that one sort puts all instructions into order.
START, FIRST, ROWS, LAST, STORE, END = range(6)
PART_BITS, PLACE_BITS = 3, 32
OVER = 1 << 20  # the place in END where a turn of the loop is over


@dataclass(frozen=True)
class Baked:
    """A layer as code and weights.

    code, weights  bytes to be placed anywhere; float32 or float16
    chunks  (count, 4) int64 in running order: offset of the code, offset of the weights (where the pointer to
            them starts), and bytes to add to the addresses of x and of y
    """

    code: bytes
    weights: np.ndarray
    chunks: np.ndarray


@dataclass(frozen=True)
class _Shape:
    """How a layer is cut: `sums` channels a group, `groups` a chunk, `rows` a block."""

    sums: int
    groups: int
    rows: int
    blocks: int
    supers: int
    relu: bool
    most: float | None
    residual: bool
    half: bool

    @property
    def size(self) -> int:
        return 2 if self.half else 4


def bake(
    weight: np.ndarray, bias: np.ndarray, offsets: np.ndarray, *, band: int, taps: int = 1, relu: bool = False,
    most: float | None = None, residual: bool = False, half: bool = False, groups: int = 1, rows: int = 256,
) -> Baked:  # fmt: skip
    """Machine code for weight (out, k), bias (out,), where row k of the input is `offsets[k]` bytes away.

    `band` vectors are expected in a call (it spreads the fetching of what comes next), `taps` rows belong to
    one input channel and stay together, `most` cuts the output off above (ReLU6).

    >>> bake(weight, bias, np.arange(64) * 64, band=14).chunks.shape
    (3, 4)
    """
    out, inputs = weight.shape
    count = -(-out // SUMS)
    blocks = max(1, -(-inputs // rows))
    channels = max(1, inputs // taps)
    block = -(-channels // blocks) * taps  # whole channels, about equally many in each block
    blocks = max(1, -(-inputs // block))
    shape = _Shape(-(-out // count), groups, block, blocks, -(-count // groups), relu, most, residual, half)
    values, records, starts = _weighted(weight, bias, shape)
    middle = _middles(offsets, block, blocks)
    codes = [*records, *_rows(weight, offsets - np.repeat(middle, block)[:inputs], shape)]
    codes += [*_edges(out, shape), *_frame(len(starts), shape)]
    chunks = np.zeros((len(starts), 4), np.int64)
    chunks[:, 1] = (starts + HALF_WINDOW) * shape.size
    chunks[:, 2] = np.repeat(middle, shape.supers)
    chunks[:, 3] = np.tile(np.arange(shape.supers), blocks) * groups * shape.sums * 64
    lengths = np.diff(np.append(starts, len(values))) * shape.size
    code, chunks[:, 0] = _assembled(codes, lengths, shape, band)
    return Baked(code, values, chunks)


def _key(cell: np.ndarray | int, part: int, place: np.ndarray | int) -> np.ndarray:
    """Where an instruction belongs: places are even numbers, odd ones come just before the next."""
    return np.asarray((np.asarray(cell) << PART_BITS | part) << PLACE_BITS | np.asarray(place))


def _cells(outs: np.ndarray, blocks: np.ndarray, shape: _Shape) -> np.ndarray:
    """Number of the cell (chunk and group in it) of output channels in blocks of rows."""
    group = outs // shape.sums
    return (blocks * shape.supers + group // shape.groups) * shape.groups + group % shape.groups


_Keyed = tuple[np.ndarray, Code]


def _weighted(
    weight: np.ndarray, bias: np.ndarray, shape: _Shape
) -> tuple[np.ndarray, list[_Keyed], np.ndarray]:
    """The stream of weights, the instructions that read it, and where each chunk's part of it starts."""
    outs, ks = np.nonzero(weight)
    every = np.arange(len(weight))
    sums = shape.sums
    cells = [_cells(outs, ks // shape.rows, shape), _cells(every, np.zeros_like(every), shape)]
    row = np.concatenate([ks, 0 * every])
    total = np.concatenate([outs % sums, every % sums])
    is_bias = np.arange(len(row)) >= len(ks)
    cell = np.concatenate(cells)
    place = np.where(is_bias, 4 * total, (row % shape.rows * (SUMS + 2) + total + 1) * 2) + 1
    key = _key(cell, 0, place) | np.where(is_bias, FIRST, ROWS).astype(np.int64) << PLACE_BITS
    values = np.concatenate([weight[outs, ks], bias])
    if shape.most is not None:  # the upper bound stands among the weights of every group's last block
        groups = np.unique(every // sums)
        ends = _cells(groups * sums, np.full_like(groups, shape.blocks - 1), shape)
        key = np.concatenate([key, _key(ends, LAST, 5)])
        values = np.append(values, np.full(len(groups), shape.most))
        total, row = np.append(total, 0 * groups + SUMS + 1), np.append(row, 0 * groups)
        is_bias, cell = np.append(is_bias, groups >= 0), np.append(cell, ends)
    order = np.argsort(key, kind="stable")
    key, total, row, is_bias, cell = (each[order] for each in (key, total, row, is_bias, cell))
    chunk = cell // shape.groups
    starts = np.searchsorted(chunk, np.arange(shape.blocks * shape.supers))
    index = np.arange(len(chunk)) - starts[chunk]
    steps = (index % WINDOW - HALF_WINDOW) * shape.size
    moved = (index % WINDOW == 0) & (index > 0)
    records = [
        (key[is_bias], x86.broadcast(total[is_bias], WEIGHT_AT, steps[is_bias], half=shape.half)),
        (
            key[~is_bias],
            x86.multiply_add(
                total[~is_bias],
                _input_register(row[~is_bias]),
                WEIGHT_AT,
                steps[~is_bias],
                half=shape.half,
            ),
        ),
        (key[moved] - 1, x86.advance(WEIGHT_AT, np.full(int(moved.sum()), WINDOW * shape.size))),
    ]
    return values[order].astype(np.float16 if shape.half else np.float32), records, starts


def _input_register(row: np.ndarray) -> np.ndarray:
    """Consecutive rows take turns, so that loads run ahead of the sums."""
    return SUMS + row % 4


def _rows(weight: np.ndarray, offsets: np.ndarray, shape: _Shape) -> list[_Keyed]:
    """Loading each row that a group needs."""
    count = -(-len(weight) // shape.sums)
    padded = np.zeros((count * shape.sums, weight.shape[1]), bool)
    padded[: len(weight)] = weight != 0
    group, row = np.nonzero(padded.reshape(count, shape.sums, -1).any(1))
    cell = _cells(group * shape.sums, row // shape.rows, shape)
    key = _key(cell, ROWS, row % shape.rows * (SUMS + 2) * 2)
    return [(key, x86.load(_input_register(row), X_AT, offsets[row]))]


def _edges(out: int, shape: _Shape) -> list[_Keyed]:
    """Where sums come from and go to: bias, residual or the block before; activation; memory."""
    every = np.arange(out)
    total = every % shape.sums
    place = every // shape.sums % shape.groups * shape.sums * 64 + total * 64  # bytes from the chunk's first
    last = np.full_like(every, shape.blocks - 1)
    found: list[_Keyed] = []
    if shape.residual:
        cell = _cells(every, 0 * every, shape)
        found.append((_key(cell, FIRST, 4 * total + 2), x86.add(total, RESIDUAL_AT, place, half=shape.half)))
    for block in range(shape.blocks):
        cell = _cells(every, 0 * every + block, shape)
        if block:
            found.append((_key(cell, FIRST, 4 * total), x86.load(total, Y_AT, place)))
        found.append((_key(cell, STORE, 4 * total), x86.store(total, Y_AT, place)))
    cell, groups = _cells(every, last, shape), np.unique(_cells(every, last, shape))
    mask = x86.load_mask(TABLE, 24, half=shape.half)
    found.append((_key(groups, LAST, 0), mask[np.zeros(len(groups), int)]))
    if shape.relu:
        found.append((_key(groups, LAST, 2), x86.zero(0 * groups + SUMS)))
        found.append((_key(cell, LAST, 8 + 4 * total), x86.greater(total, SUMS, half=shape.half)))
    else:
        found.append((_key(cell, LAST, 8 + 4 * total), x86.masked(total, half=shape.half)))
    if shape.most is not None:
        found.append((_key(cell, LAST, 10 + 4 * total), x86.smaller(total, SUMS + 1, half=shape.half)))
    return found


def _frame(chunks: int, shape: _Shape) -> list[_Keyed]:
    """What surrounds a chunk: its loop over vectors, with distances still to be filled in."""
    first = np.arange(chunks) * shape.groups
    start = x86.join(*[x86.push(register) for register in SAVED], x86.address(NEXT_CODE, 0))
    start = x86.join(start, x86.move(NEXT_WEIGHTS, WEIGHTS), x86.advance(NEXT_WEIGHTS, 0))
    loop = x86.join(
        x86.read(X_AT, TABLE, 0),
        x86.add_register(X_AT, X),
        x86.read(Y_AT, TABLE, 8),
        x86.add_register(Y_AT, Y),
        x86.read(RESIDUAL_AT, TABLE, 16),
        x86.add_register(RESIDUAL_AT, RESIDUAL),
        x86.move(WEIGHT_AT, WEIGHTS),
    )
    end = x86.join(x86.advance(TABLE, TABLE_ROW), x86.count_down(COUNT, 0))
    end = x86.join(end, *[x86.pop(register) for register in reversed(SAVED)], x86.ret())
    head, last = x86.join(start, loop), np.arange(1, chunks + 1) * shape.groups - 1
    return [*_repeated(head, first, START, 0), *_repeated(end, last, END, OVER)]


def _repeated(code: Code, cells: np.ndarray, part: int, place: int) -> list[_Keyed]:
    """The same instructions in each of the cells."""
    which = np.tile(np.arange(len(code)), len(cells))
    return [(_key(np.repeat(cells, len(code)), part, place + 2 * which), code[which])]


def _assembled(
    codes: list[_Keyed], weights: np.ndarray, shape: _Shape, band: int
) -> tuple[bytes, np.ndarray]:
    """All instructions in order, with what has to be known of the whole: distances, and what to fetch.

    Also returns where each chunk starts. `weights` (chunks,) are the bytes of each chunk's weights.
    """
    lengths = np.concatenate([code.lengths for _, code in codes])
    keys = np.concatenate([key for key, _ in codes])
    sizes = np.bincount(_chunk(keys, shape), lengths, len(weights)).astype(np.int64)
    ordered = np.sort(keys)
    for register, behind in ((NEXT_CODE, sizes), (NEXT_WEIGHTS, weights)):
        codes = [*codes, *_fetching(register, behind, ordered, shape, band)]
    keys = np.concatenate([key for key, _ in codes])
    order = np.argsort(keys, kind="stable")
    code, keys = x86.join(*[code for _, code in codes])[order], keys[order]
    ends = np.cumsum(code.lengths)
    starts = np.append(0, ends)[np.searchsorted(_chunk(keys, shape), np.arange(len(weights) + 1))]
    part, place = _part(keys), keys & (1 << PLACE_BITS) - 1
    saved = len(SAVED)
    lea = np.flatnonzero((part == START) & (place == 2 * saved))
    _patch_(code, lea, starts[1:] - ends[lea], 3)
    skip = np.flatnonzero((part == START) & (place == 2 * saved + 4))
    _patch_(code, skip, weights - HALF_WINDOW * shape.size, 3)
    jump = np.flatnonzero((part == END) & (place == OVER + 2))
    _patch_(code, jump, ends[skip] - ends[jump], 5)
    return code.bytes(), starts[:-1]


def _chunk(keys: np.ndarray, shape: _Shape) -> np.ndarray:
    return (keys >> PART_BITS + PLACE_BITS) // shape.groups


def _part(keys: np.ndarray) -> np.ndarray:
    return keys >> PLACE_BITS & (1 << PART_BITS) - 1


def _fetching(
    register: int, sizes: np.ndarray, ordered: np.ndarray, shape: _Shape, band: int
) -> list[_Keyed]:
    """Fetching the lines behind `register`, as many each time round as bring `sizes` bytes in `band` times.

    They stand evenly between the chunk's other instructions (`ordered` keys), since memory answers slowly.
    """
    lines = -(-(sizes // 64 + 2) // band)
    chunk = np.repeat(np.arange(len(sizes)), lines)
    number = np.arange(len(chunk)) - np.repeat(np.cumsum(lines) - lines, lines)
    inner = ordered[(_part(ordered) != START) & (_part(ordered) != END)]
    bounds = np.searchsorted(_chunk(inner, shape), np.arange(len(sizes) + 1))
    first, count = bounds[:-1], np.diff(bounds)
    between = first[chunk] + number * count[chunk] // lines[chunk]
    last = (np.arange(len(sizes)) + 1) * shape.groups - 1
    return [
        (inner[between], x86.prefetch(register, number * 64)),
        (_key(last, END, register), x86.advance(register, lines * 64)),
    ]


def _patch_(code: Code, where: np.ndarray, distances: np.ndarray, position: int) -> None:
    """Write the four bytes of a distance into each of the instructions."""
    code.rows[where, position : position + 4] = (
        np.ascontiguousarray(distances.astype("<i4")).view(np.uint8).reshape(-1, 4)
    )


def _middles(offsets: np.ndarray, block: int, blocks: int) -> np.ndarray:
    """(blocks,) offsets to count from, so that as many rows as can be are within reach of 8 bits."""
    ends = [offsets[number * block : (number + 1) * block] for number in range(blocks)]
    return np.array([int(part.min() + part.max()) // 2 // 64 * 64 if len(part) else 0 for part in ends])
