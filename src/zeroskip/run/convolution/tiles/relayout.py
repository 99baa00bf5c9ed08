"""Copies between maps: rings filled from neighbouring tiles, and phases of a map in another layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at

INDEX = {"float": "i32", "half": "i16", "i32": "i32"}  # the numbers of lanes that a permutation reads

# The instruction that permutes a vector, the feature it needs, and the type of elements that LLVM gives it.
PERMUTATIONS = {
    Vector(16, "float"): ("llvm.x86.avx512.permvar.sf.512", "avx512f", "float"),
    Vector(8, "float"): ("llvm.x86.avx2.permps", "avx2", "float"),
    Vector(16, "i32"): ("llvm.x86.avx512.permvar.si.512", "avx512f", "i32"),
    Vector(8, "i32"): ("llvm.x86.avx2.permd", "avx2", "i32"),
    Vector(32, "half"): ("llvm.x86.avx512.permvar.hi.512", "avx512bw", "i16"),
}


@dataclass(frozen=True)
class Phase:
    """Of every `stride` (rows, columns) of a map, the row numbered `row` and the column numbered `column`."""

    stride: tuple[int, int]
    row: int
    column: int

    @property
    def number(self) -> int:
        """Among all phases of that stride, row by row."""
        return self.row * self.stride[1] + self.column


WHOLE = Phase((1, 1), 0, 0)


@dataclass(frozen=True)
class Transfer:
    """One phase of a value into a map, behind the channels of the phases before it.

    node  the operation that it is done for
    fill  what the map gets where it wants pixels that the value does not have: a number, or the word of a quad
    """

    node: str
    target: Map
    phase: Phase = WHOLE
    fill: float = 0.0

    def first(self, channels: int) -> int:
        """Byte of the workspace from which offsets count, if the value has so many channels."""
        return self.target.first + self.phase.number * channels * self.target.layout.vector_bytes


def fill_ring(node: str, y: Map, machine: Machine, *, fill: float = 0.0) -> Step | None:
    """The ring of a map, where it is read, repeats the pixels of neighbouring tiles, with `fill` where there are none.

    None where no ring is read.
    """
    places = y.around()
    return _copy("ring", y, Transfer(node, y, fill=fill), places, machine) if len(places) else None


def relayout(source: Map, transfer: Transfer, machine: Machine) -> Step:
    """Copy a phase of the source into the transfer's target, and into its ring where that is read."""
    return _copy("relayout", source, transfer, transfer.target.everywhere(), machine)


def source_pixels(target: Layout, places: np.ndarray, phase: Phase) -> np.ndarray:
    """(count, lanes, 3) the pixels that a phase brings to places; also those that the target has no room for.

    A target with several rows of phases may hold more rows than its own map: they are read by the taps at the
    border. Image -1 where lanes are not used.

    >>> layout = Layout(3, 4, 4, 1, grid=(1, 2, 2), tile=(2, 2))
    >>> source_pixels(layout, np.array([[0, 0, 1]]), Phase((2, 2), 1, 0))[0].tolist()
    [[0, 1, 2], [0, 1, 6], [0, 5, 2], [0, 5, 6]]
    """
    pixels = target.coordinates(places) * (1, *phase.stride) + (0, phase.row, phase.column)
    known = (pixels >= 0).all(-1) & (pixels[..., 0] < target.images)
    return np.where(known[..., None], pixels, -1)


def _copy(name: str, source: Map, transfer: Transfer, places: np.ndarray, machine: Machine) -> Step:
    target, channels = transfer.target.layout, len(source.channels)
    table = _table(source.layout, target, places, transfer.phase)
    parts: list[int | np.ndarray] = []
    for to, at, lanes, masks in table.values():
        # Numbers of lanes are as wide as what the processor permutes by them.
        order = lanes.astype(f"i{target.element.bytes}")
        parts += [len(to), to + transfer.first(channels), at + source.first, order, masks]
    code = _copy_code(machine, target.vector, tuple(table), transfer.fill)
    return Step(name, transfer.node, code, argument_block(channels, *parts))


_Table = dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def _table(source: Layout, target: Layout, places: np.ndarray, phase: Phase) -> _Table:
    """By the number of sources that a place gets its pixels from: offsets of the places (count,) and of their
    sources (count, number), the lanes to take (count, number, lanes), and which of them (count, number), as bits."""
    pixels = source_pixels(target, places, phase)
    there = source.contains(pixels)
    at, lane = source.find(np.where(there[..., None], pixels, 0))
    entry, mine = np.nonzero(there)
    pairs, group = np.unique(np.stack([entry, at[there]]), axis=1, return_inverse=True)
    group = group.ravel()
    lanes = np.zeros((pairs.shape[1], target.lanes), np.int32)
    masks = np.zeros(pairs.shape[1], np.int64)
    lanes[group, mine] = lane[there]
    np.bitwise_or.at(masks, group, np.int64(1) << mine)
    to, numbers = target.offset(*places.T), np.bincount(pairs[0], minlength=len(places))
    table = {}
    for number in np.unique(numbers):
        which = np.flatnonzero(numbers == number)
        which = which[np.argsort(to[which], kind="stable")]
        rows = np.searchsorted(pairs[0], which)[:, None] + np.arange(number)
        table[int(number)] = to[which], pairs[1][rows], lanes[rows], masks[rows]
    return table


@cache
def _copy_code(machine: Machine, v: Vector, numbers: tuple[int, ...], fill: float) -> Callable[..., None]:
    """Places by the number of their sources: each is written once, when all its pixels are together."""
    f, (channels, *parts) = function("move", [INTEGER] + [INTEGER, *[POINTER] * 4] * len(numbers))
    for turn, number in enumerate(numbers):
        count, to, at, order, masks = parts[5 * turn : 5 * turn + 5]
        with f.loop(0, count) as place:
            target = at_offset(f, to, place)
            first = f.multiply(place, number)
            indices = [f.add(first, index) for index in range(number)]
            sources = [at_offset(f, at, index) for index in indices]
            flags = [mask_at(f, v, masks, index) for index in indices]
            takes = [f.at(order, f.multiply(index, v.lanes), INDEX[v.element]) for index in indices]
            with f.loop(0, channels) as channel:
                offset = f.multiply(channel, v.lanes)
                value = f.splat(v, str(int(fill))) if v.element == "i32" else f.constant(v, fill)
                for source, take, flag in zip(sources, takes, flags, strict=True):
                    pixels = permuted(f, v, machine, f.at(source, offset, v.element), take)
                    value = kept(f, v, flag, pixels, value)
                f.store(v, value, f.at(target, offset, v.element))
    return compiled(f, machine)


def permuted(f: Function, v: Vector, machine: Machine, source: str, order: str) -> str:
    """The vector at `source` with its lanes in the order that the numbers at `order` say, as wide as its own."""
    numbers = v.of(INDEX[v.element])
    name, feature, moved = PERMUTATIONS.get(v, ("", "", ""))
    if feature in machine.features:
        held = v.of(moved)
        value = f.call(held, name, f"{held} {f.load(held, source)}", f"{numbers} {f.load(numbers, order)}")
        return value if held == v else f.value(f"bitcast {held} {value} to {v}")
    value = "poison"
    for lane in range(v.lanes):
        index = numbers.element
        number = f.value(f"sext {index} {f.load(index, f.at(order, lane, index))} to i64")
        single = f.load(v.element, f.at(source, number, v.element))
        value = f.value(f"insertelement {v} {value}, {v.element} {single}, i32 {lane}")
    return value
