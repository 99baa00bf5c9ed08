"""Pixels on the move: rings filled from neighbours, maps from one layout into another, phases of tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, vector
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.steps import Step, compiled, constant, function, kept, lanes_of, step

Phase = tuple[int, int, int]
"""(stride, row, column): of every `stride` rows and columns of a map, that one."""

WHOLE: Phase = (1, 0, 0)

INDEX = {"float": "i32", "half": "i16"}  # the numbers of lanes that a permutation reads

# (lanes, element) -> the instruction that permutes them, what the processor needs for it, the type it moves
PERMUTATIONS = {
    (16, "float"): ("llvm.x86.avx512.permvar.sf.512", "avx512f", "float"),
    (8, "float"): ("llvm.x86.avx2.permps", "avx2", "float"),
    (32, "half"): ("llvm.x86.avx512.permvar.hi.512", "avx512bw", "i16"),
}


def fill_ring(node: str, y: Map, machine: Machine) -> Step | None:
    """The ring of a map repeats the pixels of neighbouring tiles, zeros where there are none.

    None where the layout has no ring.

    >>> fill_ring("conv1", Map(layout, 4096, range(64)), detect()).name
    'ring'
    """
    layout, places = y.layout, y.layout.around()
    if not len(places):
        return None
    table = _table(layout, layout, places, WHOLE)
    return _move("ring", node, table, layout, (y.first, y.first), len(y.channels), machine)


def relayout(
    node: str, source: Map, target: Map, phase: Phase, number: int, machine: Machine, *, fill: float = 0.0
) -> Step:
    """Copy one phase of the source into the target, ring included, behind `number` x as many channels there.

    Where the target wants pixels that the source does not have, it gets `fill`.

    >>> relayout("conv2", Map(a, 4096, range(64)), Map(b, 65536, range(256)), (2, 0, 1), 1, detect()).name
    'relayout'
    """
    places = np.concatenate([target.layout.inside(), target.layout.around()])
    table, count = _table(source.layout, target.layout, places, phase), len(source.channels)
    bases = source.first, target.first + number * count * target.layout.vector_bytes
    return _move("relayout", node, table, target.layout, bases, count, machine, fill=fill)


def enter(
    node: str, slot: int, shape: tuple[int, int, int], y: Map, phase: Phase, number: int, machine: Machine, *,
    fill: float = 0.0,
) -> Step:  # fmt: skip
    """Read one phase of a tensor (images, *shape), whose address is in the workspace's word `slot`.

    >>> enter("x", 0, (3, 224, 224), Map(layout, 4096, range(3)), WHOLE, 0, detect()).name
    'enter'
    """
    target, (channels, height, width) = y.layout, shape
    places = np.concatenate([target.inside(), target.around()])
    pixels = _source_pixels(target, places, phase)
    image, row, column = np.moveaxis(pixels, -1, 0)
    there = (pixels >= 0).all(-1) & (row < height) & (column < width)
    index = np.where(there, (image * channels * height + row) * width + column, 0).astype(np.int32)
    to = y.first + target.offset(*places.T) + number * channels * target.vector_bytes
    code = _enter_code(machine, target.lanes, target.element, fill)
    return step("enter", node, code, 8 * slot, len(places), channels, height * width, to, index, _bits(there))


_Table = dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def _source_pixels(target: Layout, places: np.ndarray, phase: Phase) -> np.ndarray:
    """(count, lanes, 3) the pixels that a phase brings to places; also those that the target has no room for.

    A target with several rows of phases may hold more rows than its own map: they are read by the taps at the
    border. Image -1 where lanes are not used.
    """
    stride, row, column = phase
    pixels = target.coordinates(places) * (1, stride, stride) + (0, row, column)
    known = (pixels >= 0).all(-1) & (pixels[..., 0] < target.images)
    return np.where(known[..., None], pixels, -1)


def _table(source: Layout, target: Layout, places: np.ndarray, phase: Phase) -> _Table:
    """By the number of sources that a place gets its pixels from: offsets of the places (count,) and of their
    sources (count, number), the lanes to take (count, number, lanes), and which of them (count, number), as bits."""
    pixels = _source_pixels(target, places, phase)
    there = source.contains(pixels)
    at, lane = source.find(np.where(there[..., None], pixels, 0))
    entry, mine = np.nonzero(there)
    # Where nothing comes from, there is one source, of which no lane is taken.
    empty = np.setdiff1d(np.arange(len(places)), entry)
    keys = np.concatenate([np.stack([entry, at[there]]), np.stack([empty, 0 * empty])], axis=1)
    pairs, group = np.unique(keys, axis=1, return_inverse=True)
    group = group.ravel()[: len(entry)]
    lanes = np.zeros((pairs.shape[1], target.lanes), np.int32)
    masks = np.zeros(pairs.shape[1], np.int64)
    lanes[group, mine] = lane[there]
    np.bitwise_or.at(masks, group, np.int64(1) << mine)
    to, numbers = target.offset(*places.T), np.bincount(pairs[0], minlength=len(places))
    found = {}
    for number in np.unique(numbers):
        which = np.flatnonzero(numbers == number)
        which = which[np.argsort(to[which], kind="stable")]
        rows = np.searchsorted(pairs[0], which)[:, None] + np.arange(number)
        found[int(number)] = to[which], pairs[1][rows], lanes[rows], masks[rows]
    return found


def _move(
    name: str,
    node: str,
    table: _Table,
    target: Layout,
    bases: tuple[int, int],
    channels: int,
    machine: Machine,
    *,
    fill: float = 0.0,
) -> Step:
    base_x, base_y = bases
    parts: list[int | np.ndarray] = []
    for to, at, lanes, masks in table.values():
        # Numbers of lanes are as wide as what the processor permutes by them.
        parts += [len(to), to + base_y, at + base_x, lanes.astype(f"i{target.lane_bytes}"), masks]
    code = _move_code(machine, target.lanes, target.element, tuple(table), fill)
    return step(name, node, code, channels, *parts)


def _bits(flags: np.ndarray) -> np.ndarray:
    """(count, lanes) bool -> (count,) int64 with a bit for each lane."""
    return (flags.astype(np.int64) << np.arange(flags.shape[1])).sum(1)


@cache
def _move_code(
    machine: Machine, lanes: int, element: str, numbers: tuple[int, ...], fill: float
) -> Callable[..., None]:
    """Places by the number of their sources: each is written once, when all its pixels are together."""
    kind = vector(lanes, element)
    f = function("move")
    channels, *parts = f.fields("%plan", [INTEGER] + [INTEGER, *[POINTER] * 4] * len(numbers))
    for turn, number in enumerate(numbers):
        count, to, at, order, masks = parts[5 * turn : 5 * turn + 5]
        with f.loop(0, count) as place:
            target = f.at("%base", f.load(INTEGER, f.at(to, place, INTEGER)), "i8")
            first = f.multiply(place, number)
            each = [f.add(first, one) for one in range(number)]
            sources = [f.at("%base", f.load(INTEGER, f.at(at, one, INTEGER)), "i8") for one in each]
            flags = [lanes_of(f, lanes, f.load(INTEGER, f.at(masks, one, INTEGER))) for one in each]
            takes = [f.at(order, f.multiply(one, lanes), INDEX[element]) for one in each]
            with f.loop(0, channels) as channel:
                offset = f.multiply(channel, lanes)
                value = constant(f, lanes, fill, element=element)
                for source, take, flag in zip(sources, takes, flags, strict=True):
                    pixels = permuted(f, machine, lanes, f.at(source, offset, element), take, element=element)
                    value = kept(f, lanes, flag, pixels, value, element=element)
                f.store(kind, value, f.at(target, offset, element))
    return compiled(f, machine)


@cache
def _enter_code(machine: Machine, lanes: int, element: str, fill: float) -> Callable[..., None]:
    kind = vector(lanes, element)
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
            value = f.converted(lanes, value, "float", element)
            f.store(kind, value, f.at(target, f.multiply(channel, lanes), element))
    return compiled(f, machine)


def permuted(
    f: Function, machine: Machine, lanes: int, source: str, order: str, *, element: str = "float"
) -> str:
    """The vector at `source` with its lanes in the order that the numbers at `order` say, as wide as its own.

    >>> permuted(f, detect(), 16, "%v1", "%v2")
    '%v5'
    """
    index = INDEX[element]
    kind, numbers = vector(lanes, element), vector(lanes, index)
    name, feature, moved = PERMUTATIONS.get((lanes, element), ("", "", ""))
    if feature in machine.features:
        held = vector(lanes, moved)
        value = f.call(held, name, f"{held} {f.load(held, source)}", f"{numbers} {f.load(numbers, order)}")
        return value if moved == element else f.value(f"bitcast {held} {value} to {kind}")
    value = "poison"
    for lane in range(lanes):
        number = f.value(f"sext {index} {f.load(index, f.at(order, lane, index))} to i64")
        single = f.load(element, f.at(source, number, element))
        value = f.value(f"insertelement {kind} {value}, {element} {single}, i32 {lane}")
    return value
