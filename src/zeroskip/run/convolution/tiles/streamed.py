"""Convolutions that read their pattern as data: for every processor that LLVM knows, and for blocks of channels.

For a rectangle of places, the sums of one output channel (or of a block of them that have their zeros in common)
stay in registers while the list of the channel's non-zero weights goes by: where the row of inputs lies, and the
weight. The depthwise convolution is the same without a list, since it needs every weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, vector
from zeroskip.run.convolution.tiles.convolution_job import Job
from zeroskip.run.convolution.tiles.layout import Layout
from zeroskip.run.convolution.tiles.steps import Step, activated, compiled, function, kept, lanes_of, step
from zeroskip.run.machine_code import starts

REGISTERS = 14  # sums at a time; AVX-512 has 32 registers, NEON 32, AVX2 only 16
BLOCKS = (
    8,
    4,
)  # output channels that may have their zeros in common; 16 leave too few places for the registers
FULL = 0.75  # share of non-zeros in blocks from which on they are worth while


def streamed(job: Job, machine: Machine, *, block: int = 1) -> Step:
    """The job with its pattern as data, `block` neighbouring output channels at a time.

    `block` divides their number. Zeros of a block that is not all zero are computed like any weight.

    >>> streamed(job, detect()).name
    'streamed'
    """
    layout = job.y.layout
    tall, wide = _rectangle(layout, max(2, REGISTERS // block))
    begin, order, rows, values = _pattern(job, block)
    code = _streamed_code(
        machine,
        layout.lanes,
        layout.element,
        block,
        _steps(job, tall, wide),
        8 * rows.itemsize,
        job.relu,
        job.most,
        job.residual is not None,
    )
    corners = _corners(job, tall, wide, least=int(job.offsets.min(initial=0)))
    bias = job.bias.astype(layout.dtype)
    return step("streamed", job.node, code, *corners, len(order), begin, order, rows, values, bias)


def block_height(weight: np.ndarray) -> int:
    """How many neighbouring rows of weight (out, k) have their zeros in common; 1 where none do.

    >>> block_height(np.repeat(np.eye(4), 8, axis=0))
    8
    """
    for height in BLOCKS:
        if len(weight) % height:
            continue
        blocks = weight.reshape(-1, height, weight.shape[1]) != 0
        if blocks.sum() >= FULL * height * blocks.any(1).sum() > 0:
            return height
    return 1


def _pattern(job: Job, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where each block's list begins, which block it is, and in the lists: rows of x, counted in vectors from the
    least, and (block) weights.

    Blocks are sorted by the length of their lists: a processor foresees the end of a loop that is as long as the
    last. Numbers of rows take 16 bits where they can, since lists are often read from afar.
    """
    blocks = job.weight.reshape(-1, block, job.weight.shape[1])
    alive = (blocks != 0).any(1)  # (blocks, k)
    order = np.argsort(alive.sum(1), kind="stable")
    group, row = np.nonzero(alive[order])
    places = (job.offsets - job.offsets.min(initial=0)) // job.x.layout.vector_bytes
    narrow = np.uint16 if places.max(initial=0) < 1 << 16 else np.uint32
    values = np.ascontiguousarray(blocks[order][group, :, row], job.x.layout.dtype)
    return starts(alive[order].sum(1)), order.astype(np.int64), places[row].astype(narrow), values


def depthwise(job: Job, machine: Machine) -> Step:
    """A convolution that keeps channels apart: weight (channels, taps), `offsets` (taps,) those of channel 0.

    >>> depthwise(job, detect()).name
    'depthwise'
    """
    layout = job.y.layout
    tall, wide = _rectangle(layout, 7)
    taps = tuple(int(each) for each in job.offsets)
    places = _steps(job, tall, wide)
    code = _depthwise_code(machine, layout.lanes, layout.element, taps, places, job.relu, job.most)
    corners = _corners(job, tall, wide)
    weight, bias = (each.astype(layout.dtype) for each in (job.weight, job.bias))
    return step("depthwise", job.node, code, *corners, len(weight), weight, bias)


_Steps = tuple[tuple[int, int, int], ...]


def _rectangle(layout: Layout, most: int) -> tuple[int, int]:
    """The largest rectangle of at most `most` places with which a tile can be covered evenly, the wider the better."""
    tall, wide = layout.tile
    fits = [
        (rows * columns, columns, rows)
        for rows in range(1, most + 1)
        for columns in range(1, most // rows + 1)
        if not tall % rows and not wide % columns
    ]
    _, columns, rows = max(fits)
    return rows, columns


def _steps(job: Job, tall: int, wide: int) -> _Steps:
    """Bytes from the corner of a rectangle to each of its places: in x, in y, in the residual."""
    found = []
    for row, column in np.ndindex(tall, wide):
        x = (row * job.x.layout.pitch + column) * job.stride * job.x.layout.place_bytes
        y = (row * job.y.layout.pitch + column) * job.y.layout.place_bytes
        other = job.y.layout if job.residual is None else job.residual.layout
        found.append((int(x), int(y), int((row * other.pitch + column) * other.place_bytes)))
    return tuple(found)


def _corners(job: Job, tall: int, wide: int, *, least: int = 0) -> list[int | np.ndarray]:
    """How many rectangles there are, where in the workspace each begins, and the masks of all its places."""
    layout = job.y.layout
    grid = np.meshgrid(
        np.arange(layout.slots),
        np.arange(0, layout.tile[0], tall),
        np.arange(0, layout.tile[1], wide),
        indexing="ij",
    )
    slot, y, x = (axis.ravel() for axis in grid)
    inner = np.array(list(np.ndindex(tall, wide)))
    places = np.stack([slot, y, x], 1)[:, None] + np.concatenate([0 * inner[:, :1], inner], 1)
    masks = layout.masks(places.reshape(-1, 3))
    other = job.y if job.residual is None else job.residual
    return [
        len(slot),
        job.x.first + least + job.x.layout.offset(slot, y * job.stride, x * job.stride),
        job.y.first + layout.offset(slot, y, x),
        other.first + other.layout.offset(slot, y, x),
        masks,
    ]


@cache
def _streamed_code(
    machine: Machine, lanes: int, element: str, block: int, places: _Steps, bits: int, relu: bool,
    most: float | None, residual: bool,
) -> Callable[..., None]:  # fmt: skip
    f = function("streamed")
    kinds = [INTEGER, *[POINTER] * 4, INTEGER, *[POINTER] * 5]
    count, xs, ys, others, masks, groups, begin, order, rows, values, biases = f.fields("%plan", kinds)
    size = block * len(places)
    with f.loop(0, count) as number:
        x, y, other = (_corner(f, offsets, number) for offsets in (xs, ys, others))
        flags = _flags(f, lanes, masks, number, len(places))
        with f.loop(0, groups) as turn:
            first = f.multiply(f.load(INTEGER, f.at(order, turn, INTEGER)), block)
            sums = [
                _bias(f, lanes, element, biases, f.add(first, one)) for one in range(block) for _ in places
            ]
            # Few sums would wait for each other: several weights then have sums of their own.
            sets = [sums] + [_zeros(f, lanes, element, size) for _ in range(min(4, REGISTERS // size) - 1)]
            start, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (turn, f.add(turn, 1)))
            rest = f.value(f"urem i64 {f.value(f'sub i64 {stop}, {start}')}, {len(sets)}")
            middle = f.value(f"sub i64 {stop}, {rest}")
            for begins, ends, used in ((start, middle, sets), (middle, stop, sets[:1])):
                with f.loop(begins, ends, len(used)) as place:
                    for offset, part in enumerate(used):
                        at = f.add(place, offset)
                        row = f.value(f"zext i{bits} {f.load(f'i{bits}', f.at(rows, at, f'i{bits}'))} to i64")
                        source = f.at(x, row, vector(lanes, element))
                        weights = f.at(values, f.multiply(at, block), element)
                        _multiply_add(f, lanes, element, source, weights, block, places, part)
            _gather_(f, lanes, element, sets)
            channel = f.multiply(first, lanes)
            for one in range(block):
                part = sums[one * len(places) :][: len(places)]
                at, beside = (f.at(each, f.add(channel, one * lanes), element) for each in (y, other))
                more = beside if residual else None
                _finish(f, lanes, element, places, part, flags, at, more, relu=relu, most=most)
    return compiled(f, machine)


def _zeros(f: Function, lanes: int, element: str, count: int) -> list[str]:
    return [f.slot(vector(lanes, element), "zeroinitializer") for _ in range(count)]


def _gather_(f: Function, lanes: int, element: str, sets: Sequence[Sequence[str]]) -> None:
    """Add the sums of all sets to those of the first."""
    kind = vector(lanes, element)
    for other in sets[1:]:
        for total, more in zip(sets[0], other, strict=True):
            f.store(kind, f.value(f"fadd {kind} {f.load(kind, total)}, {f.load(kind, more)}"), total)


@cache
def _depthwise_code(
    machine: Machine, lanes: int, element: str, taps: tuple[int, ...], places: _Steps, relu: bool,
    most: float | None,
) -> Callable[..., None]:  # fmt: skip
    f = function("depthwise")
    kinds = [INTEGER, *[POINTER] * 4, INTEGER, *[POINTER] * 2]
    count, xs, ys, _, masks, channels, values, biases = f.fields("%plan", kinds)
    with f.loop(0, count) as number:
        x, y = (_corner(f, offsets, number) for offsets in (xs, ys))
        flags = _flags(f, lanes, masks, number, len(places))
        with f.loop(0, channels) as channel:
            sums = [_bias(f, lanes, element, biases, channel) for _ in places]
            at = f.multiply(channel, lanes)
            weights = f.at(values, f.multiply(channel, len(taps)), element)
            for number_, tap in enumerate(taps):
                source = f.at(f.at(x, at, element), tap, "i8")
                _multiply_add(f, lanes, element, source, f.at(weights, number_, element), 1, places, sums)
            _finish(f, lanes, element, places, sums, flags, f.at(y, at, element), None, relu=relu, most=most)
    return compiled(f, machine)


def _corner(f: Function, offsets: str, number: str) -> str:
    return f.at("%base", f.load(INTEGER, f.at(offsets, number, INTEGER)), "i8")


def _flags(f: Function, lanes: int, masks: str, number: str, count: int) -> list[str]:
    """The masks of all places of a rectangle."""
    first = f.multiply(number, count)
    bits = [f.load(INTEGER, f.at(masks, f.add(first, one), INTEGER)) for one in range(count)]
    return [lanes_of(f, lanes, each) for each in bits]


def _bias(f: Function, lanes: int, element: str, biases: str, channel: str) -> str:
    bias = f.load(element, f.at(biases, channel, element))
    return f.slot(vector(lanes, element), f.splat(lanes, bias, element))


def _multiply_add(
    f: Function, lanes: int, element: str, source: str, weights: str, block: int, places: _Steps,
    sums: Sequence[str],
) -> None:  # fmt: skip
    """Add `block` weights times the inputs at all places to the block's sums."""
    kind = vector(lanes, element)
    inputs = [f.load(kind, f.at(source, step_x, "i8")) for step_x, _, _ in places]
    for one in range(block):
        weight = f.splat(lanes, f.load(element, f.at(weights, one, element)), element)
        for x, total in zip(inputs, sums[one * len(places) :], strict=False):
            f.store(kind, f.multiply_add(lanes, weight, x, f.load(kind, total), element=element), total)


def _finish(
    f: Function, lanes: int, element: str, places: _Steps, sums: Sequence[str], flags: Sequence[str], y: str,
    residual: str | None, *, relu: bool, most: float | None,
) -> None:  # fmt: skip
    """What becomes of the sums: residual, activation, and into y."""
    kind = vector(lanes, element)
    for (_, step_y, step_other), total, mask in zip(places, sums, flags, strict=True):
        value = f.load(kind, total)
        if residual is not None:
            other = f.load(kind, f.at(residual, step_other, "i8"))
            value = f.value(f"fadd {kind} {value}, {other}")
        value = activated(f, lanes, value, relu, most, element=element)
        f.store(kind, kept(f, lanes, mask, value, element=element), f.at(y, step_y, "i8"))
