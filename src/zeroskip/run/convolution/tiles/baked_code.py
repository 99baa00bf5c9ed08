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
from zeroskip.run.convolution.tiles.convolution_job import RowWeights
from zeroskip.run.convolution.tiles.steps import Epilogue
from zeroskip.run.element import Element

SUMS = 28  # output channels of a group: zmm28 to zmm31 hold inputs
WINDOW = 256  # weights that an offset of 8 bits reaches; the pointer to them stands in the middle
HALF_WINDOW = WINDOW // 2
VECTOR = 64  # bytes
LINE = 64  # bytes of a cache line

# Arguments of a chunk (x, weights, y, count, residual, table), in the registers where Linux passes them.
X, WEIGHTS, Y, COUNT, RESIDUAL, TABLE = x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9
X_AT, Y_AT, RESIDUAL_AT, WEIGHT_AT = x86.R10, x86.R11, x86.RAX, x86.RBX
NEXT_CODE, NEXT_WEIGHTS = x86.R14, x86.R15
SAVED = (WEIGHT_AT, NEXT_CODE, NEXT_WEIGHTS)
ZERO, BOUND = SUMS, SUMS + 1  # zmm registers of the epilogue, when inputs are no longer needed

# A row of the table: offsets of x, y and residual, and the mask of lanes; bytes.
TABLE_X, TABLE_Y, TABLE_RESIDUAL, TABLE_MASK, TABLE_ROW = 0, 8, 16, 24, 32

# Order of instructions: each has a key (cell, part, place), and one sort puts them all into order.
#   cell   a group in a chunk; cells are numbered in running order, so a chunk is a run of cells
#   START  of the chunk's first cell: save registers, find what comes next, and find the vector (the loop's head)
#   FIRST  sums begin: with the bias, or with what the block of rows before left in y; then the residual
#   ROWS   a row is loaded, and multiplied for each sum that needs it
#   LAST   of the last block of rows: the epilogue
#   STORE  sums go into y
#   END    of the chunk's last cell: pointers to what comes next advance, the loop turns, registers come back
# Places are even, but for instructions that read a weight: the place before an odd one is free, so that the pointer
# to weights can advance there.
START, FIRST, ROWS, LAST, STORE, END = range(6)
PART_BITS, PLACE_BITS = 3, 32

PER_SUM = 4  # places of a sum in FIRST, LAST and STORE
FROM_Y, BIAS, ADD_RESIDUAL = 0, 1, 2  # in FIRST, from PER_SUM * sum on
PER_ROW = 2 * (SUMS + 2)  # places of a row in ROWS: its load, then the products of sum 0, 1, ...
LOAD_MASK, MAKE_ZERO, LOAD_BOUND, EPILOGUE = 0, 2, 5, 8  # in LAST; sums begin at EPILOGUE
RELU_OR_MASK, CUT_OFF = 0, 2  # in LAST, from EPILOGUE + PER_SUM * sum on
FIND_CODE = 2 * len(SAVED)  # in START, behind saving registers
FIND_WEIGHTS = FIND_CODE + 4
LOOP = 1 << 20  # in END, behind all that advances: the loop's end
TURN = LOOP + 2


@dataclass(frozen=True)
class Baked:
    """A layer as code and weights.

    code, weights  bytes to be placed anywhere; weights are of the layer's element
    chunks  (count, 4) int64 in running order: offset of the code, offset of the weights (where the pointer to
            them starts), and bytes to add to the addresses of x and of y
    """

    code: bytes
    weights: np.ndarray
    chunks: np.ndarray


@dataclass(frozen=True)
class Blocking:
    """How code is cut: up to `groups` groups a chunk and about `rows` rows; `band` vectors are expected in a call,
    over which the fetching of the next chunk is spread."""

    band: int
    groups: int = 1
    rows: int = 256


@dataclass(frozen=True)
class _Shape:
    """How a layer is cut: `sums` channels a group, `groups` a chunk, `chunks` for a block of `rows`."""

    sums: int
    groups: int
    rows: int
    blocks: int
    chunks: int
    epilogue: Epilogue
    element: Element

    @property
    def size(self) -> int:
        return self.element.bytes


def bake(weights: RowWeights, epilogue: Epilogue, blocking: Blocking, element: Element) -> Baked:
    """Machine code for a convolution.

    >>> from zeroskip.run.convolution.tiles.activation import RELU
    >>> from zeroskip.run.element import FP32
    >>> weights = RowWeights(np.eye(4, 64, dtype=np.float32), np.zeros(4, np.float32), np.arange(64) * 64)
    >>> baked = bake(weights, Epilogue(activation=RELU), Blocking(band=14), FP32)
    >>> len(baked.weights), baked.chunks.shape  # four biases and four weights
    (8, (1, 4))
    """
    (out, inputs), taps, groups = weights.weight.shape, weights.taps, blocking.groups
    count = -(-out // SUMS)
    blocks = max(1, -(-inputs // blocking.rows))
    channels = max(1, inputs // taps)
    block = -(-channels // blocks) * taps  # whole channels, about equally many in each block
    blocks = max(1, -(-inputs // block))
    shape = _Shape(
        sums=-(-out // count), groups=groups, rows=block, blocks=blocks, chunks=-(-count // groups),
        epilogue=epilogue, element=element,
    )  # fmt: skip
    values, reads, starts = _weighted(weights, shape)
    middle = _middles(weights.offsets, block, blocks)
    near = weights.offsets - np.repeat(middle, block)[:inputs]
    codes = [*reads, _rows(weights.weight, near, shape), *_edges(out, shape), *_epilogue(out, shape)]
    codes += _frame(len(starts), shape)
    chunks = np.zeros((len(starts), 4), np.int64)
    chunks[:, 1] = (starts + HALF_WINDOW) * shape.size
    chunks[:, 2] = np.repeat(middle, shape.chunks)
    chunks[:, 3] = np.tile(np.arange(shape.chunks), blocks) * groups * shape.sums * VECTOR
    lengths = np.diff(np.append(starts, len(values))) * shape.size
    code, chunks[:, 0] = _assembled(codes, lengths, shape, blocking.band)
    return Baked(code, values, chunks)


def _key(cell: np.ndarray | int, part: int, place: np.ndarray | int) -> np.ndarray:
    return np.asarray((np.asarray(cell) << PART_BITS | part) << PLACE_BITS | np.asarray(place))


def _cells(outs: np.ndarray, blocks: np.ndarray, shape: _Shape) -> np.ndarray:
    """Number of the cell (chunk and group in it) of output channels in blocks of rows."""
    group = outs // shape.sums
    return (blocks * shape.chunks + group // shape.groups) * shape.groups + group % shape.groups


_Keyed = tuple[np.ndarray, Code]


def _weighted(weights: RowWeights, shape: _Shape) -> tuple[np.ndarray, list[_Keyed], np.ndarray]:
    """The stream of weights, the instructions that read it, and where each chunk's part of it starts."""
    reads = [
        _products(weights.weight, shape),
        _biases(weights.bias, shape),
        _bounds(len(weights.bias), shape),
    ]
    key, total, row, values = (np.concatenate(arrays) for arrays in zip(*reads, strict=True))
    order = np.argsort(key, kind="stable")
    key, total, row = key[order], total[order], row[order]
    chunk = _chunk(key, shape)
    starts = np.searchsorted(chunk, np.arange(shape.blocks * shape.chunks))
    index = np.arange(len(chunk)) - starts[chunk]
    steps = (index % WINDOW - HALF_WINDOW) * shape.size
    single, product = np.flatnonzero(row < 0), np.flatnonzero(row >= 0)
    moved = np.flatnonzero((index % WINDOW == 0) & (index > 0))
    inputs = _input_register(row[product])
    codes = [
        (key[single], x86.broadcast(total[single], WEIGHT_AT, steps[single], size=shape.size)),
        (key[product], x86.multiply_add(total[product], inputs, WEIGHT_AT, steps[product], size=shape.size)),
        (key[moved] - 1, x86.advance(WEIGHT_AT, np.full(len(moved), WINDOW * shape.size))),
    ]
    return values[order].astype(shape.element.dtype), codes, starts


_Reads = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of instructions that read a weight: key, register, row of the input (-1: the weight goes into every lane), weight."""


def _products(weight: np.ndarray, shape: _Shape) -> _Reads:
    outs, ks = np.nonzero(weight)
    total = outs % shape.sums
    place = ks % shape.rows * PER_ROW + 2 * (total + 1) + 1
    return _key(_cells(outs, ks // shape.rows, shape), ROWS, place), total, ks, weight[outs, ks]


def _biases(bias: np.ndarray, shape: _Shape) -> _Reads:
    outs = np.arange(len(bias))
    total = outs % shape.sums
    key = _key(_cells(outs, 0 * outs, shape), FIRST, PER_SUM * total + BIAS)
    return key, total, np.full(len(bias), -1), bias


def _bounds(out: int, shape: _Shape) -> _Reads:
    """The upper bound stands among the weights of every group's last block."""
    bound = _bound(shape)
    firsts = np.arange(0, out if bound is not None else 0, shape.sums)
    key = _key(_cells(firsts, 0 * firsts + shape.blocks - 1, shape), LAST, LOAD_BOUND)
    return key, 0 * firsts + BOUND, 0 * firsts - 1, np.full(len(firsts), bound or 0.0)


def _bound(shape: _Shape) -> float | None:
    activation = shape.epilogue.activation
    return None if activation is None else activation.bound


def _input_register(row: np.ndarray) -> np.ndarray:
    """Consecutive rows take turns, so that loads run ahead of the sums."""
    return SUMS + row % 4


def _rows(weight: np.ndarray, offsets: np.ndarray, shape: _Shape) -> _Keyed:
    """Loading each row that a group needs."""
    count = -(-len(weight) // shape.sums)
    padded = np.zeros((count * shape.sums, weight.shape[1]), bool)
    padded[: len(weight)] = weight != 0
    group, row = np.nonzero(padded.reshape(count, shape.sums, -1).any(1))
    cell = _cells(group * shape.sums, row // shape.rows, shape)
    key = _key(cell, ROWS, row % shape.rows * PER_ROW)
    return key, x86.load(_input_register(row), X_AT, offsets[row])


def _edges(out: int, shape: _Shape) -> list[_Keyed]:
    """Where sums come from and go to: the residual, the block of rows before, and y."""
    outs = np.arange(out)
    total = outs % shape.sums
    group = outs // shape.sums % shape.groups
    offset = (group * shape.sums + total) * VECTOR  # from the chunk's first channel
    codes: list[_Keyed] = []
    if shape.epilogue.residual:
        key = _key(_cells(outs, 0 * outs, shape), FIRST, PER_SUM * total + ADD_RESIDUAL)
        codes.append((key, x86.add(total, RESIDUAL_AT, offset, size=shape.size)))
    for block in range(shape.blocks):
        cell = _cells(outs, 0 * outs + block, shape)
        if block:
            codes.append((_key(cell, FIRST, PER_SUM * total + FROM_Y), x86.load(total, Y_AT, offset)))
        codes.append((_key(cell, STORE, PER_SUM * total), x86.store(total, Y_AT, offset)))
    return codes


def _epilogue(out: int, shape: _Shape) -> list[_Keyed]:
    """ReLU and bound, with 0 in lanes without pixels."""
    outs = np.arange(out)
    total, cell = outs % shape.sums, _cells(outs, 0 * outs + shape.blocks - 1, shape)
    groups, place = np.unique(cell), EPILOGUE + PER_SUM * total
    mask = x86.load_mask(TABLE, TABLE_MASK, size=shape.size)
    codes: list[_Keyed] = [(_key(groups, LAST, LOAD_MASK), mask[np.zeros(len(groups), int)])]
    if shape.epilogue.activation is not None:
        codes.append((_key(groups, LAST, MAKE_ZERO), x86.zero(0 * groups + ZERO)))
        relu = x86.greater(total, ZERO, size=shape.size)
    else:
        relu = x86.masked(total, size=shape.size)
    codes.append((_key(cell, LAST, place + RELU_OR_MASK), relu))
    if _bound(shape) is not None:
        codes.append((_key(cell, LAST, place + CUT_OFF), x86.smaller(total, BOUND, size=shape.size)))
    return codes


def _frame(chunks: int, shape: _Shape) -> list[_Keyed]:
    """What surrounds a chunk: its loop over vectors, with distances still to be filled in."""
    first = np.arange(chunks) * shape.groups
    start = x86.join(*[x86.push(register) for register in SAVED], x86.address(NEXT_CODE, 0))
    start = x86.join(start, x86.move(NEXT_WEIGHTS, WEIGHTS), x86.advance(NEXT_WEIGHTS, 0))
    loop = x86.join(
        x86.read(X_AT, TABLE, TABLE_X),
        x86.add_register(X_AT, X),
        x86.read(Y_AT, TABLE, TABLE_Y),
        x86.add_register(Y_AT, Y),
        x86.read(RESIDUAL_AT, TABLE, TABLE_RESIDUAL),
        x86.add_register(RESIDUAL_AT, RESIDUAL),
        x86.move(WEIGHT_AT, WEIGHTS),
    )
    end = x86.join(x86.advance(TABLE, TABLE_ROW), x86.count_down(COUNT, 0))
    end = x86.join(end, *[x86.pop(register) for register in reversed(SAVED)], x86.ret())
    head, last = x86.join(start, loop), np.arange(1, chunks + 1) * shape.groups - 1
    return [*_repeated(head, first, START, 0), *_repeated(end, last, END, LOOP)]


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
    lea = np.flatnonzero((part == START) & (place == FIND_CODE))
    _patch_(code, lea, starts[1:] - ends[lea], 3)
    skip = np.flatnonzero((part == START) & (place == FIND_WEIGHTS))
    _patch_(code, skip, weights - HALF_WINDOW * shape.size, 3)
    jump = np.flatnonzero((part == END) & (place == TURN))
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
    lines = -(-(sizes // LINE + 2) // band)
    chunk = np.repeat(np.arange(len(sizes)), lines)
    number = np.arange(len(chunk)) - np.repeat(np.cumsum(lines) - lines, lines)
    inner = ordered[(_part(ordered) != START) & (_part(ordered) != END)]
    bounds = np.searchsorted(_chunk(inner, shape), np.arange(len(sizes) + 1))
    first, count = bounds[:-1], np.diff(bounds)
    between = first[chunk] + number * count[chunk] // lines[chunk]
    last = (np.arange(len(sizes)) + 1) * shape.groups - 1
    return [
        (inner[between], x86.prefetch(register, number * LINE)),
        (_key(last, END, register), x86.advance(register, lines * LINE)),
    ]


def _patch_(code: Code, where: np.ndarray, distances: np.ndarray, position: int) -> None:
    """Write the four bytes of a distance into each of the instructions."""
    code.rows[where, position : position + 4] = x86.little_endian(distances)


def _middles(offsets: np.ndarray, block: int, blocks: int) -> np.ndarray:
    """(blocks,) offsets to count from, so that as many rows as can be are within reach of 8 bits."""
    ends = [offsets[number * block : (number + 1) * block] for number in range(blocks)]
    return np.array([int(part.min() + part.max()) // 2 // 64 * 64 if len(part) else 0 for part in ends])
