"""Convolutions that read their pattern as data: for every processor that LLVM knows, and for blocks of channels.

For a rectangle of places, the sums of one output channel (or of a block of them that have their zeros in common)
stay in registers while the list of the channel's non-zero weights goes by: where the row of inputs lies, and the
weight. The depthwise convolution is the same without a list, since it needs every weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import addresses, argument_block, offsets
from zeroskip.run.convolution.tiles.convolution_job import Job
from zeroskip.run.convolution.tiles.layout import Layout
from zeroskip.run.convolution.tiles.quad_job import QuadJob
from zeroskip.run.convolution.tiles.shared_weights import in_memory
from zeroskip.run.convolution.tiles.steps import (
    Epilogue,
    Step,
    at_offset,
    compiled,
    finished,
    function,
    lanes_of,
)

REGISTERS = 14  # sums at a time; AVX-512 has 32 registers, NEON 32, AVX2 only 16
BLOCKS = 8, 4  # output channels that may have their zeros in common; 16 leave too few registers for places
FULL = 0.75  # share of non-zeros in blocks from which on they are worth while


@dataclass(frozen=True)
class RectangleSums:
    """RectangleSums that are in registers together: of `block` channels at each place of a rectangle, as vectors `v`.

    size   (rows, columns) of the rectangle
    steps  bytes from its corner to each of its places: in x, in y, in the residual
    """

    v: Vector
    block: int
    size: tuple[int, int]
    steps: tuple[tuple[int, int, int], ...]

    @property
    def places(self) -> int:
        """Of the rectangle."""
        return len(self.steps)


def streamed(job: Job, machine: Machine, *, block: int = 1) -> Step:
    """The job with its pattern as data, `block` neighbouring output channels at a time.

    `block` divides their number. Zeros of a block that is not all zero are computed like any weight.
    """
    sums = sums_of(job, max(2, REGISTERS // block), block)
    how = "streamed", block, job.x.layout.element.name, job.y.layout.element.name
    held = in_memory(job.sharing, job.weights, how, lambda: _lists(job, block))
    bits, *lists = held.fields
    assert isinstance(bits, int)
    code = _streamed_code(machine, sums, bits, job.epilogue)
    places = corners(job, sums, least=int(job.weights.offsets.min(initial=0)))
    return Step("streamed", job.node, code, argument_block(*places, *lists, alive=held.alive), held)


def _lists(job: Job, block: int) -> tuple[tuple[int, ...], tuple[object, ...]]:
    """Bits of a row's number, and pattern and biases in memory: fields of argument blocks, and what lives for them."""
    begin, order, rows, values = _pattern(job, block)
    bias = job.weights.bias.astype(job.y.layout.element.dtype)
    held = argument_block(begin, order, rows, values, bias)
    return (8 * rows.itemsize, len(order), *addresses(held, 5)), held.alive


def block_height(weight: np.ndarray) -> int:
    """How many neighbouring rows of weight (out, k) have their zeros in common; 1 where none do.

    >>> block_height(np.repeat(np.eye(4), 8, axis=0))
    8
    """
    for height in BLOCKS:
        if len(weight) % height:
            continue
        blocks = weight.reshape(len(weight) // height, height, weight.shape[1]) != 0
        if blocks.sum() >= FULL * height * blocks.any(1).sum() > 0:
            return height
    return 1


def _pattern(job: Job, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where each block's list begins, which block it is, and in the lists: rows of x, counted in vectors from the
    least, and (block) weights.

    Blocks are sorted by the length of their lists: a processor foresees the end of a loop that is as long as the
    last. Numbers of rows take 16 bits where they can, since lists are often read from afar.
    """
    weights = job.weights
    out, inputs = weights.weight.shape
    blocks = weights.weight.reshape(out // block, block, inputs)
    alive = (blocks != 0).any(1)  # (blocks, k)
    order = np.argsort(alive.sum(1), kind="stable")
    group, row = np.nonzero(alive[order])
    places = (weights.offsets - weights.offsets.min(initial=0)) // job.x.layout.vector_bytes
    narrow = np.uint16 if places.max(initial=0) < 1 << 16 else np.uint32
    values = np.ascontiguousarray(blocks[order][group, :, row], job.x.layout.element.dtype)
    return offsets(alive[order].sum(1)), order.astype(np.int64), places[row].astype(narrow), values


def depthwise(job: Job, machine: Machine) -> Step:
    """A convolution that keeps channels apart; offsets (taps,) are those of channel 0."""
    dtype, sums = job.y.layout.element.dtype, sums_of(job, 7, 1)
    taps = tuple(int(offset) for offset in job.weights.offsets)
    code = _depthwise_code(machine, sums, taps, job.epilogue)
    places = corners(job, sums)
    weight, bias = (numbers.astype(dtype) for numbers in (job.weights.weight, job.weights.bias))
    return Step("depthwise", job.node, code, argument_block(*places, len(weight), weight, bias))


def sums_of(job: Job | QuadJob, most: int, block: int) -> RectangleSums:
    """The sums of the largest, then widest, rectangle of at most `most` places that covers a tile evenly."""
    tall, wide = job.y.layout.tile
    fits = [
        (rows * columns, columns, rows)
        for rows in range(1, most + 1)
        for columns in range(1, most // rows + 1)
        if not tall % rows and not wide % columns
    ]
    _, columns, rows = max(fits)
    x, y, other = job.x.layout, job.y.layout, job.added.layout
    steps = [
        (
            _step(x, row * job.stride[0], column * job.stride[1]),
            _step(y, row, column),
            _step(other, row, column),
        )
        for row, column in np.ndindex(rows, columns)
    ]
    return RectangleSums(job.y.layout.vector, block, (rows, columns), tuple(steps))


def _step(layout: Layout, row: int, column: int) -> int:
    return int((row * layout.pitch + column) * layout.place_bytes)


def corners(job: Job | QuadJob, sums: RectangleSums, *, least: int = 0) -> list[int | np.ndarray]:
    """How many rectangles there are, where in the workspace each begins, and the masks of all its places."""
    layout, (tall, wide) = job.y.layout, sums.size
    starts = np.arange(0, layout.tile[0], tall), np.arange(0, layout.tile[1], wide)
    slot, y, x = (axis.ravel() for axis in np.meshgrid(np.arange(layout.slots), *starts, indexing="ij"))
    inner = np.array(list(np.ndindex(tall, wide)))
    places = np.stack([slot, y, x], 1)[:, None] + np.concatenate([0 * inner[:, :1], inner], 1)
    source = job.x.layout.offset(slot, y * job.stride[0], x * job.stride[1])
    return [
        len(slot),
        job.x.first + least + source,
        job.y.first + layout.offset(slot, y, x),
        job.added.first + job.added.layout.offset(slot, y, x),
        layout.masks(places.reshape(-1, 3)),
    ]


@cache
def _streamed_code(
    machine: Machine, sums: RectangleSums, bits: int, epilogue: Epilogue
) -> Callable[..., None]:
    """Rows in the lists are numbers of so many bits."""
    f, fields = function("streamed", [INTEGER, *[POINTER] * 4, INTEGER, *[POINTER] * 5])
    count, xs, ys, others, masks, groups, begin, order, rows, values, biases = fields
    v, block = sums.v, sums.block
    size = block * sums.places
    with f.loop(0, count) as number:
        x, y, other = (at_offset(f, offsets, number) for offsets in (xs, ys, others))
        held = flags(f, sums, masks, number)
        with f.loop(0, groups) as turn:
            first = f.multiply(f.load(INTEGER, f.at(order, turn, INTEGER)), block)
            totals = [_bias(f, v, biases, f.add(first, row)) for row in range(block) for _ in sums.steps]
            # Few sums would wait for each other: several weights then have sums of their own.
            sets = [totals] + [_zeros(f, v, size) for _ in range(min(4, REGISTERS // size) - 1)]
            start, stop = (f.load(INTEGER, f.at(begin, end, INTEGER)) for end in (turn, f.add(turn, 1)))
            rest = f.value(f"urem i64 {f.value(f'sub i64 {stop}, {start}')}, {len(sets)}")
            middle = f.value(f"sub i64 {stop}, {rest}")
            for begins, ends, used in ((start, middle, sets), (middle, stop, sets[:1])):
                with f.loop(begins, ends, len(used)) as place:
                    for offset, part in enumerate(used):
                        at = f.add(place, offset)
                        narrow = f.load(f"i{bits}", f.at(rows, at, f"i{bits}"))
                        source = f.at(x, f.value(f"zext i{bits} {narrow} to i64"), v)
                        weights = f.at(values, f.multiply(at, block), v.element)
                        _multiply_add(f, sums, source, weights, part)
            _add_up_(f, v, sets)
            channel = f.multiply(first, v.lanes)
            for row in range(block):
                part = totals[row * sums.places :][: sums.places]
                to, added = (f.at(base, f.add(channel, row * v.lanes), v.element) for base in (y, other))
                for (_, step_y, step_other), total, mask in zip(sums.steps, part, held, strict=True):
                    value = f.load(v, total)
                    residual = f.at(added, step_other, "i8") if epilogue.residual else None
                    value = finished(f, v, epilogue, value, residual, mask)
                    f.store(v, value, f.at(to, step_y, "i8"))
    return compiled(f, machine)


@cache
def _depthwise_code(
    machine: Machine, sums: RectangleSums, taps: tuple[int, ...], epilogue: Epilogue
) -> Callable[..., None]:
    f, fields = function("depthwise", [INTEGER, *[POINTER] * 4, INTEGER, *[POINTER] * 2])
    (count, xs, ys, _, masks, channels, values, biases), v = fields, sums.v
    with f.loop(0, count) as number:
        x, y = (at_offset(f, offsets, number) for offsets in (xs, ys))
        held = flags(f, sums, masks, number)
        with f.loop(0, channels) as channel:
            totals = [_bias(f, v, biases, channel) for _ in sums.steps]
            at = f.multiply(channel, v.lanes)
            weights = f.at(values, f.multiply(channel, len(taps)), v.element)
            for number_, tap in enumerate(taps):
                source = f.at(f.at(x, at, v.element), tap, "i8")
                _multiply_add(f, sums, source, f.at(weights, number_, v.element), totals)
            to = f.at(y, at, v.element)
            for (_, step_y, _), total, mask in zip(sums.steps, totals, held, strict=True):
                value = finished(f, v, epilogue, f.load(v, total), None, mask)
                f.store(v, value, f.at(to, step_y, "i8"))
    return compiled(f, machine)


def flags(f: Function, sums: RectangleSums, masks: str, number: str) -> list[str]:
    """The masks of all places of a rectangle."""
    first = f.multiply(number, sums.places)
    bits = [f.load(INTEGER, f.at(masks, f.add(first, place), INTEGER)) for place in range(sums.places)]
    return [lanes_of(f, sums.v, flags) for flags in bits]


def _bias(f: Function, v: Vector, biases: str, channel: str) -> str:
    bias = f.load(v.element, f.at(biases, channel, v.element))
    return f.slot(v, f.splat(v, bias))


def _zeros(f: Function, v: Vector, count: int) -> list[str]:
    return [f.slot(v, "zeroinitializer") for _ in range(count)]


def _multiply_add(f: Function, sums: RectangleSums, source: str, weights: str, totals: Sequence[str]) -> None:
    """Add a block's weights times the inputs at all places to the block's sums."""
    v = sums.v
    inputs = [f.load(v, f.at(source, step_x, "i8")) for step_x, _, _ in sums.steps]
    for row in range(sums.block):
        weight = f.splat(v, f.load(v.element, f.at(weights, row, v.element)))
        for x, total in zip(inputs, totals[row * sums.places :], strict=False):
            f.store(v, f.multiply_add(v, weight, x, f.load(v, total)), total)


def _add_up_(f: Function, v: Vector, sets: Sequence[Sequence[str]]) -> None:
    """Add the sums of all sets to those of the first."""
    for other in sets[1:]:
        for total, more in zip(sets[0], other, strict=True):
            f.store(v, f.value(f"fadd {v} {f.load(v, total)}, {f.load(v, more)}"), total)
