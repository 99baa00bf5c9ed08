"""What surrounds the sums of baked code, whatever their numbers: chunks, their loops, the stream that they read.

Instructions are made in any order, each with a key; one sort puts them all into running order. Then distances and
the fetching of what comes next, which depend on the whole, are filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from zeroskip.emit import x86
from zeroskip.emit.x86 import Code

SUMS = 28  # output channels of a group: zmm28 to zmm31 hold inputs
WINDOW = 256  # weights that an offset of 8 bits reaches; the pointer to them stands in the middle
HALF_WINDOW = WINDOW // 2
VECTOR = 64  # bytes
LINE = 64  # bytes of a cache line
REACH = 256 * VECTOR  # bytes that offsets of 8 bits reach, from half of them below the pointer on

# Arguments of a chunk (x, weights, y, count, residual, table), in the registers where Linux passes them.
X, WEIGHTS, Y, COUNT, RESIDUAL, TABLE = x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9
X_AT, Y_AT, RESIDUAL_AT, WEIGHT_AT = x86.R10, x86.R11, x86.RAX, x86.RBX
NEXT_CODE, NEXT_WEIGHTS = x86.R14, x86.R15
SAVED = (WEIGHT_AT, NEXT_CODE, NEXT_WEIGHTS)

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

PER_ROW = 2 * (SUMS + 2)  # places of a row in ROWS: its load, then the products of sum 0, 1, ...
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
    over which the fetching of the next chunk is spread.

    anew  every chunk writes from the same address on (of quads only)
    """

    band: int
    groups: int = 1
    rows: int = 256
    anew: bool = False


@dataclass(frozen=True)
class Cut:
    """How a layer is cut: `sums` channels a group, `groups` a chunk, `chunks` for each of `blocks` of `rows`.

    size  bytes of a number in the stream
    """

    sums: int
    groups: int
    rows: int
    blocks: int
    chunks: int
    size: int

    @property
    def count(self) -> int:
        """Chunks of the layer."""
        return self.blocks * self.chunks


Keyed = tuple[np.ndarray, Code]


@dataclass(frozen=True)
class Reads:
    """Numbers of the stream, and the instructions that read them.

    keys    (count,) of the instructions, at odd places
    values  (count,)
    encode  (offsets from WEIGHT_AT, (count,)) -> the instructions; None: numbers that the one before reads, too
    """

    keys: np.ndarray
    values: np.ndarray
    encode: Callable[[np.ndarray], Code] | None


def key(cell: np.ndarray | int, part: int, place: np.ndarray | int) -> np.ndarray:
    """Of an instruction: where it comes in running order."""
    return np.asarray((np.asarray(cell) << PART_BITS | part) << PLACE_BITS | np.asarray(place))


def cells(outs: np.ndarray, blocks: np.ndarray, cut: Cut) -> np.ndarray:
    """Number of the cell (chunk and group in it) of output channels in blocks of rows."""
    group = outs // cut.sums
    return np.asarray((blocks * cut.chunks + group // cut.groups) * cut.groups + group % cut.groups)


def input_register(row: np.ndarray) -> np.ndarray:
    """zmm register of a row of inputs. Consecutive rows take turns, so that loads run ahead of the sums."""
    return SUMS + row % 4


def row_loads(needed: np.ndarray, offsets: np.ndarray, cut: Cut) -> Keyed:
    """Loading each row that a group needs; `needed` (out, k) says which outputs do."""
    count = -(-len(needed) // cut.sums)
    padded = np.zeros((count * cut.sums, needed.shape[1]), bool)
    padded[: len(needed)] = needed
    group, row = np.nonzero(padded.reshape(count, cut.sums, -1).any(1))
    cell = cells(group * cut.sums, row // cut.rows, cut)
    keys = key(cell, ROWS, row % cut.rows * PER_ROW)
    return keys, x86.load(input_register(row), X_AT, offsets[row])


def loads_in_order(needed: np.ndarray, offsets: np.ndarray, cut: Cut) -> list[Keyed]:
    """As `row_loads`, of rows whose offsets ascend from 0; the pointer goes along, so that 8 bits reach all rows.

    It starts at REACH / 2 bytes.
    """
    count = -(-len(needed) // cut.sums)
    padded = np.zeros((count * cut.sums, needed.shape[1]), bool)
    padded[: len(needed)] = needed
    group, row = np.nonzero(padded.reshape(count, cut.sums, -1).any(1))
    cell = cells(group * cut.sums, 0 * row, cut)
    place = offsets[row] // REACH
    before = np.where(np.diff(cell // cut.groups, prepend=-1) != 0, 0, np.roll(place, 1))
    moves = np.flatnonzero(place != before)
    keys = key(cell, ROWS, row * PER_ROW)
    return [
        (keys, x86.load(input_register(row), X_AT, offsets[row] - place * REACH - REACH // 2)),
        (keys[moves] - 1, x86.advance(X_AT, ((place - before) * REACH)[moves])),
    ]


def product_keys(outs: np.ndarray, ks: np.ndarray, cut: Cut) -> np.ndarray:
    """Of the instructions that multiply row ks by the weight of output channel outs."""
    place = ks % cut.rows * PER_ROW + 2 * (outs % cut.sums + 1) + 1
    return key(cells(outs, ks // cut.rows, cut), ROWS, place)


def streamed_reads(reads: Sequence[Reads], cut: Cut) -> tuple[np.ndarray, list[Keyed], np.ndarray]:
    """The stream of numbers, the instructions that read it, and where each chunk's part of it starts."""
    keys = np.concatenate([each.keys for each in reads])
    order = np.argsort(keys, kind="stable")
    chunk = _chunk(keys[order], cut)
    starts = np.searchsorted(chunk, np.arange(cut.count))
    index = np.arange(len(chunk)) - starts[chunk]
    steps = np.empty(len(order), np.int64)
    steps[order] = (index % WINDOW - HALF_WINDOW) * cut.size
    moved = np.flatnonzero((index % WINDOW == 0) & (index > 0))
    codes = [(keys[order][moved] - 1, x86.advance(WEIGHT_AT, np.full(len(moved), WINDOW * cut.size)))]
    at = 0
    for each in reads:
        if each.encode is not None:
            codes.append((each.keys, each.encode(steps[at : at + len(each.keys)])))
        at += len(each.keys)
    return np.concatenate([each.values for each in reads])[order], codes, starts


def repeated(code: Code, where: np.ndarray, part: int, place: int) -> list[Keyed]:
    """The same instructions in each of the cells."""
    which = np.tile(np.arange(len(code)), len(where))
    return [(key(np.repeat(where, len(code)), part, place + 2 * which), code[which])]


def frame(cut: Cut) -> list[Keyed]:
    """What surrounds a chunk: its loop over vectors, with distances still to be filled in."""
    first = np.arange(cut.count) * cut.groups
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
    head, last = x86.join(start, loop), np.arange(1, cut.count + 1) * cut.groups - 1
    return [*repeated(head, first, START, 0), *repeated(end, last, END, LOOP)]


def assembled(codes: list[Keyed], weights: np.ndarray, cut: Cut, band: int) -> tuple[bytes, np.ndarray]:
    """All instructions in order, with what has to be known of the whole: distances, and what to fetch.

    Also returns where each chunk starts. `weights` (chunks,) are the bytes of each chunk's weights.
    """
    lengths = np.concatenate([code.lengths for _, code in codes])
    keys = np.concatenate([key for key, _ in codes])
    sizes = np.bincount(_chunk(keys, cut), lengths, len(weights)).astype(np.int64)
    ordered = np.sort(keys)
    for register, behind in ((NEXT_CODE, sizes), (NEXT_WEIGHTS, weights)):
        codes = [*codes, *_fetching(register, behind, ordered, cut, band)]
    keys = np.concatenate([key for key, _ in codes])
    order = np.argsort(keys, kind="stable")
    code, keys = x86.join(*[code for _, code in codes])[order], keys[order]
    ends = np.cumsum(code.lengths)
    starts = np.append(0, ends)[np.searchsorted(_chunk(keys, cut), np.arange(len(weights) + 1))]
    part, place = _part(keys), keys & (1 << PLACE_BITS) - 1
    lea = np.flatnonzero((part == START) & (place == FIND_CODE))
    _patch_(code, lea, starts[1:] - ends[lea], 3)
    skip = np.flatnonzero((part == START) & (place == FIND_WEIGHTS))
    _patch_(code, skip, weights - HALF_WINDOW * cut.size, 3)
    jump = np.flatnonzero((part == END) & (place == TURN))
    _patch_(code, jump, ends[skip] - ends[jump], 5)
    return code.bytes(), starts[:-1]


def _chunk(keys: np.ndarray, cut: Cut) -> np.ndarray:
    return (keys >> PART_BITS + PLACE_BITS) // cut.groups


def _part(keys: np.ndarray) -> np.ndarray:
    return keys >> PLACE_BITS & (1 << PART_BITS) - 1


def _fetching(register: int, sizes: np.ndarray, ordered: np.ndarray, cut: Cut, band: int) -> list[Keyed]:
    """Fetching the lines behind `register`, as many each time round as bring `sizes` bytes in `band` times.

    They stand evenly between the chunk's other instructions (`ordered` keys), since memory answers slowly.
    """
    lines = -(-(sizes // LINE + 2) // band)
    chunk = np.repeat(np.arange(len(sizes)), lines)
    number = np.arange(len(chunk)) - np.repeat(np.cumsum(lines) - lines, lines)
    inner = ordered[(_part(ordered) != START) & (_part(ordered) != END)]
    bounds = np.searchsorted(_chunk(inner, cut), np.arange(len(sizes) + 1))
    first, count = bounds[:-1], np.diff(bounds)
    between = first[chunk] + number * count[chunk] // lines[chunk]
    last = (np.arange(len(sizes)) + 1) * cut.groups - 1
    return [
        (inner[between], x86.prefetch(register, number * LINE)),
        (key(last, END, register), x86.advance(register, lines * LINE)),
    ]


def _patch_(code: Code, where: np.ndarray, distances: np.ndarray, position: int) -> None:
    """Write the four bytes of a distance into each of the instructions."""
    code.rows[where, position : position + 4] = x86.little_endian(distances)


def middles(offsets: np.ndarray, block: int, blocks: int) -> np.ndarray:
    """(blocks,) offsets to count from, so that as many rows as can be are within reach of 8 bits."""
    ends = [offsets[number * block : (number + 1) * block] for number in range(blocks)]
    return np.array([int(part.min() + part.max()) // 2 // 64 * 64 if len(part) else 0 for part in ends])
