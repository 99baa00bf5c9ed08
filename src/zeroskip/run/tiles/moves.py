"""Pixels on the move: rings filled from neighbours, maps from one layout into another, tensors in and out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, vector
from zeroskip.run.tiles.layout import Layout
from zeroskip.run.tiles.steps import Step, compiled, constant, function, kept, lanes_of, step

Phase = tuple[int, int, int]
"""(stride, row, column): of every `stride` rows and columns of a map, that one."""

WHOLE: Phase = (1, 0, 0)


def fill_ring(node: str, layout: Layout, base: int, channels: range, machine: Machine) -> Step | None:
    """The ring of a map repeats the pixels of neighbouring tiles, zeros where there are none.

    `base` is where the map lies in the workspace. None where the layout has no ring.

    >>> fill_ring("conv1", layout, 4096, range(64), detect()).name
    'ring'
    """
    places = layout.around()
    if not len(places):
        return None
    table = _table(layout, layout, places, WHOLE)
    first = base + channels.start * layout.vector_bytes
    return _move("ring", node, table, first, first, len(channels), machine, 0.0)


def relayout(
    node: str, source: Layout, target: Layout, bases: tuple[int, int], channels: range, phase: Phase,
    number: int, machine: Machine, *, fill: float = 0.0,
) -> Step:  # fmt: skip
    """Copy one phase of some channels into the target, ring included, behind `number` x channels others there.

    Where the target wants pixels that the source does not have, it gets `fill`.

    >>> relayout("conv2", a, b, (0, 65536), range(64), (2, 0, 1), 1, detect()).name
    'relayout'
    """
    places = np.concatenate([target.inside(), target.around()])
    table = _table(source, target, places, phase)
    first = bases[0] + channels.start * source.vector_bytes
    second = bases[1] + number * len(channels) * target.vector_bytes
    return _move("relayout", node, table, first, second, len(channels), machine, fill)


def enter(
    node: str, slot: int, shape: tuple[int, int, int], target: Layout, base: int, phase: Phase, number: int,
    machine: Machine, *, fill: float = 0.0,
) -> Step:  # fmt: skip
    """Read one phase of a tensor (images, *shape), whose address is in the workspace's word `slot`.

    >>> enter("x", 0, (3, 224, 224), layout, 4096, WHOLE, 0, detect()).name
    'enter'
    """
    channels, height, width = shape
    places = np.concatenate([target.inside(), target.around()])
    pixels = _source_pixels(target, places, phase)
    image, row, column = np.moveaxis(pixels, -1, 0)
    there = (pixels >= 0).all(-1) & (row < height) & (column < width)
    index = np.where(there, (image * channels * height + row) * width + column, 0).astype(np.int32)
    to = base + target.offset(*places.T) + number * channels * target.vector_bytes
    code = _enter_code(machine, target.lanes, fill)
    return step("enter", node, code, 8 * slot, len(places), channels, height * width, to, index, _bits(there))


_Table = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _source_pixels(target: Layout, places: np.ndarray, phase: Phase) -> np.ndarray:
    """(count, lanes, 3) the pixels that a phase brings to places; also those that the target has no room for.

    A target with several rows of phases may hold more rows than its own map: they are read by the taps at the
    border. Image -1 where lanes are not used.
    """
    slot, y, x = (places[:, [axis]] for axis in range(3))
    image, down, right = target._lane_places.T
    stride, first_row, first_column = phase
    rows = (down * target.tile[0] + y) * stride + first_row
    columns = (right * target.tile[1] + x) * stride + first_column
    images = image * target.slots + slot
    pixels = np.stack(np.broadcast_arrays(images, rows, columns), axis=2)
    known = (pixels >= 0).all(-1) & (pixels[..., 0] < target.images)
    return np.where(known[..., None], pixels, -1)


def _table(source: Layout, target: Layout, places: np.ndarray, phase: Phase) -> _Table:
    """From where to where: (moves,) target and source offsets, (moves, lanes) lanes to take, masks, and whether
    the move is the first into its place, so that nothing there has to be kept."""
    pixels = _source_pixels(target, places, phase)
    there = source.contains(pixels)
    at, lane = source.find(np.where(there[..., None], pixels, 0))
    entry, mine = np.nonzero(there)
    pairs, group = np.unique(np.stack([entry, at[there]]), axis=1, return_inverse=True)
    empty = np.setdiff1d(np.arange(len(places)), entry)
    entries = np.concatenate([pairs[0], empty])
    sources = np.concatenate([pairs[1], np.zeros(len(empty), np.int64)])
    lanes = np.zeros((len(entries), target.lanes), np.int32)
    masks = np.zeros(len(entries), np.int64)
    lanes[group.ravel(), mine] = lane[there]
    np.bitwise_or.at(masks, group.ravel(), np.int64(1) << mine)
    to = target.offset(*places.T)[entries]
    order = np.argsort(to, kind="stable")
    to = to[order]
    first = np.append(True, to[1:] != to[:-1]).astype(np.int64)
    return to, sources[order], lanes[order], masks[order], first


def _move(
    name: str,
    node: str,
    table: _Table,
    source: int,
    target: int,
    channels: int,
    machine: Machine,
    fill: float,
) -> Step:
    to, at, lanes, masks, first = table
    code = _move_code(machine, lanes.shape[1], fill)
    return step(name, node, code, len(to), channels, to + target, at + source, lanes, masks, first)


def _bits(flags: np.ndarray) -> np.ndarray:
    """(count, lanes) bool -> (count,) int64 with a bit for each lane."""
    return (flags.astype(np.int64) << np.arange(flags.shape[1])).sum(1)


@cache
def _move_code(machine: Machine, lanes: int, fill: float) -> Callable[..., None]:
    kind = vector(lanes)
    f = function("move")
    count, channels, to, at, order, masks, first = f.fields("%plan", [INTEGER] * 2 + [POINTER] * 5)
    with f.loop(0, count) as number:
        target = f.at("%base", f.load(INTEGER, f.at(to, number, INTEGER)), "i8")
        source = f.at("%base", f.load(INTEGER, f.at(at, number, INTEGER)), "i8")
        lane = f.at(order, f.multiply(number, lanes), "i32")
        mask = lanes_of(f, lanes, f.load(INTEGER, f.at(masks, number, INTEGER)))
        fresh = f.multiply(f.load(INTEGER, f.at(first, number, INTEGER)), channels)
        for start, stop in ((0, fresh), (fresh, channels)):  # one of the two loops has nothing to do
            with f.loop(start, stop) as channel:
                there = f.at(target, f.multiply(channel, lanes))
                value = permuted(f, machine, lanes, f.at(source, f.multiply(channel, lanes)), lane)
                other = constant(f, lanes, fill) if start == 0 else f.load(kind, there)
                f.store(kind, kept(f, lanes, mask, value, other), there)
    return compiled(f, machine)


@cache
def _enter_code(machine: Machine, lanes: int, fill: float) -> Callable[..., None]:
    kind = vector(lanes)
    f = function("enter")
    slot, count, channels, area, to, index, masks = f.fields("%plan", [INTEGER] * 4 + [POINTER] * 3)
    x = f.load(POINTER, f.at("%base", slot, "i8"))
    with f.loop(0, count) as number:
        target = f.at("%base", f.load(INTEGER, f.at(to, number, INTEGER)), "i8")
        where = f.load(vector(lanes, "i32"), f.at(index, f.multiply(number, lanes), "i32"))
        mask = lanes_of(f, lanes, f.load(INTEGER, f.at(masks, number, INTEGER)))
        with f.loop(0, channels) as channel:
            image = f.at(x, f.multiply(channel, area))
            value = f.gather(lanes, mask, image, where, constant(f, lanes, fill))
            f.store(kind, value, f.at(target, f.multiply(channel, lanes)))
    return compiled(f, machine)


def permuted(f: Function, machine: Machine, lanes: int, source: str, order: str) -> str:
    """The vector at `source` with its lanes in the order that the 32-bit numbers at `order` say.

    >>> permuted(f, detect(), 16, "%v1", "%v2")
    '%v5'
    """
    kind, numbers = vector(lanes), vector(lanes, "i32")
    name = {16: "llvm.x86.avx512.permvar.sf.512", 8: "llvm.x86.avx2.permps"}.get(lanes)
    needed = {16: "avx512f", 8: "avx2"}.get(lanes)
    if name is not None and needed in machine.features:
        return f.call(kind, name, f"{kind} {f.load(kind, source)}", f"{numbers} {f.load(numbers, order)}")
    value = "poison"
    for lane in range(lanes):
        number = f.value(f"sext i32 {f.load('i32', f.at(order, lane, 'i32'))} to i64")
        single = f.load("float", f.at(source, number))
        value = f.value(f"insertelement {kind} {value}, float {single}, i32 {lane}")
    return value
