"""Deciding where every map lies: its tiles, its ring, and its place in the workspace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from zeroskip.run.convolution.tiles.layout import Layout, Map, fresh, same_places, with_ring
from zeroskip.run.convolution.tiles.operations import Operation, Window

WASTE = 1.3  # a map keeps the tiles of the one it is made from, unless new ones need so much fewer vectors

HEADER = 4096  # bytes at the start of a workspace, for the addresses of tensors


@dataclass(frozen=True)
class Reading:
    """How an operation reads its first input.

    layout  of the input as it is read
    stride  places of it from one place of the output to the next
    phases  of its rows and columns lie one after the other among its channels; 1: it is read as it is
    copied  it has to be brought into this layout first
    fill    what it finds beyond the border
    """

    layout: Layout
    stride: int
    phases: int
    copied: bool
    fill: float = 0.0


@dataclass(frozen=True)
class Arrangement:
    """Where things are: maps by value, and by operation how and where it reads its first input.

    copies are maps by operation and position among its inputs, where an input does not lie as it needs it
    """

    maps: dict[str, Map]
    readings: dict[str, Reading]
    copies: dict[tuple[str, int], Map]
    bytes: int


def arrange(
    chain: Sequence[Operation], outside: Mapping[str, tuple[int, int, int]], leaving: Sequence[str], *,
    images: int, lanes: int, lane_bytes: int = 4,
) -> Arrangement:  # fmt: skip
    """Places for everything that `chain` reads and makes, in numbers of `lane_bytes`.

    `outside` are the shapes of the tensors it is given, `leaving` the values that are still needed at its end.

    >>> arrange(operations(graph), {"x": (3, 224, 224)}, ["mean"], images=1, lanes=16).bytes
    3211264
    """
    new = partial(fresh, images=images, lanes=lanes, lane_bytes=lane_bytes)
    tiles, readings = _tiles(chain, outside, new)
    roots = _roots(chain, tiles, leaving)
    layouts = _ringed(chain, tiles, readings, roots)
    readings = {name: _reread(reading, name, chain, layouts) for name, reading in readings.items()}
    return _placed(chain, layouts, readings, roots, leaving)


def reach(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row, and column, that a window reads, counted from the output's own times the stride.

    >>> reach(Window((3, 3), 1, (1, 1)))
    ((-1, 1), (-1, 1))
    """
    ends = zip(window.size, window.padding, window.dilation, strict=True)
    rows, columns = ((-pad, (size - 1) * step - pad) for size, pad, step in ends)
    return rows, columns


def _tiles(
    chain: Sequence[Operation], outside: Mapping[str, tuple[int, int, int]], new: Callable[..., Layout]
) -> tuple[dict[str, Layout], dict[str, Reading]]:
    """Layouts without rings of all values made, and how the operations read; `new` lays out a shape."""
    tiles: dict[str, Layout] = {}
    readings: dict[str, Reading] = {}
    positive = _positive(chain)
    for one in chain:
        source = one.inputs[0]
        ideal = new(*one.shape)
        if one.window is None:
            known = next((tiles[name] for name in one.inputs if name in tiles), None)
            shape = outside[source] if known is None else (known.channels, known.height, known.width)
            known = known or new(*shape)
            if one.kind != "mean":
                tiles[one.name] = replace(known, channels=one.shape[0])
            readings[one.name] = Reading(
                known, 1, 1, source not in tiles or not same_places(tiles[source], known)
            )
            continue
        known = tiles.get(source) or new(*outside[source])
        inherited = _inherited(known, one)
        # Maps have zeros around them, and a maximum must not see those where all else is below 0. A dilated window
        # may even see nothing else; its maximum is -inf.
        harmless = one.kind != "max" or (source in positive and one.window.dilation == (1, 1))
        fill = 0.0 if harmless or not _reads_beyond(one, known) else -math.inf
        if inherited is not None and inherited.vectors <= WASTE * ideal.vectors:
            tiles[one.name] = inherited
            readings[one.name] = Reading(known, one.window.stride, 1, source not in tiles or fill != 0, fill)
        else:
            tiles[one.name] = ideal
            phases = replace(ideal, channels=known.channels * one.window.stride**2)
            readings[one.name] = Reading(phases, 1, one.window.stride, True, fill)
    return tiles, readings


def _positive(chain: Sequence[Operation]) -> frozenset[str]:
    """Values without anything below 0, around which zeros do no harm to a maximum."""
    found: set[str] = set()
    for one in chain:
        kept = one.kind in ("max", "average", "concat") and all(name in found for name in one.inputs)
        if one.relu or kept:
            found.add(one.name)
    return frozenset(found)


def _reads_beyond(one: Operation, source: Layout) -> bool:
    """Whether a window reaches over the border of the map."""
    assert one.window is not None
    ends = zip(reach(one.window), one.shape[1:], (source.height, source.width), strict=True)
    return any(
        first < 0 or (count - 1) * one.window.stride + last >= size for (first, last), count, size in ends
    )


def _inherited(known: Layout, one: Operation) -> Layout | None:
    """The tiles that an operation's value gets from those of its input, without moving a pixel between lanes."""
    assert one.window is not None
    stride = one.window.stride
    channels, height, width = one.shape
    tall, wide = known.tile[0] // stride, known.tile[1] // stride
    if known.tile[0] % stride or known.tile[1] % stride:
        return None
    if tall * known.grid[1] < height or wide * known.grid[2] < width:
        return None
    return replace(known, channels=channels, height=height, width=width, tile=(tall, wide))


def _roots(
    chain: Sequence[Operation], tiles: Mapping[str, Layout], leaving: Sequence[str]
) -> dict[str, tuple[str, int]]:
    """Value -> the value whose memory it shares, and its first channel there.

    Parts of a concatenation are made in their places; a sum overwrites what it adds to, where that was its last use.
    """
    roots = {name: (name, 0) for name in tiles}
    last = {name: number for number, one in enumerate(chain) for name in one.inputs}
    parts: set[str] = set()
    for one in chain:
        start = 0
        for name in one.inputs if one.kind == "concat" else ():
            if name in tiles and name not in parts and roots[name] == (name, 0) and _shares(name, one, tiles):
                roots[name] = (one.name, start)
                parts.add(name)
            start += tiles[name].channels if name in tiles else 0
    joined = {one.name for one in chain if one.kind == "concat"}  # whose parts may live longer
    for number, one in enumerate(chain):
        added = one.inputs[-1]
        kept = parts | joined | {*leaving, one.inputs[0]}
        free = added in tiles and last[added] == number and added not in kept and one.name not in parts
        if one.kind == "conv" and free and same_places(tiles[added], tiles[one.name]):
            roots[one.name] = (roots[added][0], 0)
    return roots


def _shares(name: str, one: Operation, tiles: Mapping[str, Layout]) -> bool:
    # All inputs must be maps of the chain, since a tensor from outside has no channels counted here.
    return all(each in tiles for each in one.inputs) and same_places(tiles[name], tiles[one.name])


def _ringed(
    chain: Sequence[Operation], tiles: Mapping[str, Layout], readings: Mapping[str, Reading],
    roots: Mapping[str, tuple[str, int]],
) -> dict[str, Layout]:  # fmt: skip
    """Root -> its layout, with the ring that its readers need."""
    layouts = {root: tiles[root] for root, _ in roots.values()}
    for one in chain:
        reading = readings[one.name]
        if reading.copied or one.window is None:
            continue
        root = roots[one.inputs[0]][0]
        layouts[root] = with_ring(layouts[root], _ring(one, reading, tiles[one.name]))
    return layouts


def _ring(one: Operation, reading: Reading, made: Layout) -> tuple[int, int, int, int]:
    """Vectors around the tiles of a map that an operation reads."""
    assert one.window is not None
    sides: list[int] = []
    for axis, (first, last) in enumerate(reach(one.window)):
        first, last = first // reading.phases, last // reading.phases
        end = (made.tile[axis] - 1) * reading.stride + last
        sides += [max(0, -first), max(0, end - (reading.layout.tile[axis] - 1))]
    return sides[0], sides[1], sides[2], sides[3]


def _reread(
    reading: Reading, name: str, chain: Sequence[Operation], layouts: Mapping[str, Layout]
) -> Reading:
    """The reading of a copy, with the ring it needs; others are read from the layout that their root has."""
    one = next(each for each in chain if each.name == name)
    if not reading.copied or one.window is None:
        return reading
    made = replace(reading.layout, tile=_made_tile(reading))
    return replace(reading, layout=with_ring(reading.layout, _ring(one, reading, made)))


def _made_tile(reading: Reading) -> tuple[int, int]:
    return reading.layout.tile[0] // reading.stride, reading.layout.tile[1] // reading.stride


def _placed(
    chain: Sequence[Operation], layouts: Mapping[str, Layout], readings: Mapping[str, Reading],
    roots: Mapping[str, tuple[str, int]], leaving: Sequence[str],
) -> Arrangement:  # fmt: skip
    """Byte addresses: whatever lives at the same time lies apart, as far in front as there is room."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, one in enumerate(chain):
        for name in [one.name, *one.inputs]:
            if name in roots:
                root = roots[name][0]
                first.setdefault(root, number)
                last[root] = len(chain) if name in leaving else max(last.get(root, 0), number)
    room = _Room()
    maps: dict[str, Map] = {}
    copies: dict[tuple[str, int], Map] = {}
    bases: dict[str, int] = {}
    for number, one in enumerate(chain):
        for root in [root for root, when in first.items() if when == number]:
            bases[root] = room.take_(layouts[root].bytes, number, last[root])
        for position, name in enumerate(one.inputs):
            layout = _copy_layout(one, position, name, layouts, roots, readings)
            if layout is not None:
                base = room.take_(layout.bytes, number, number)
                copies[one.name, position] = Map(layout, base, range(layout.channels))
    for name, (root, start) in roots.items():
        channels = next(one.shape[0] for one in chain if one.name == name)
        maps[name] = Map(layouts[root], bases[root], range(start, start + channels))
    return Arrangement(maps, dict(readings), copies, room.bytes)


def _copy_layout(
    one: Operation, position: int, name: str, layouts: Mapping[str, Layout],
    roots: Mapping[str, tuple[str, int]], readings: Mapping[str, Reading],
) -> Layout | None:  # fmt: skip
    """The layout in which an operation wants an input that does not lie as it needs it; None where it does."""
    reading = readings[one.name]
    if position == 0 and one.kind != "concat":
        return reading.layout if reading.copied else None
    if one.kind == "concat":
        return None  # what is not in its place is copied there
    made = layouts[roots[one.name][0]]
    if name in roots and same_places(layouts[roots[name][0]], made):
        return None
    return replace(made, channels=one.shape[0], ring=(0, 0, 0, 0))


class _Room:
    """First fit: pieces (start, end, first step, last step) that may overlap in memory or in time, not both."""

    def __init__(self) -> None:
        self.bytes = HEADER
        self._taken: list[tuple[int, int, int, int]] = []

    def take_(self, size: int, first: int, last: int) -> int:
        size = -(-size // 4096) * 4096 + 4096  # loads may run a little ahead
        busy = sorted((a, b) for a, b, start, end in self._taken if start <= last and first <= end)
        at = HEADER
        for begin, end in busy:
            if at + size <= begin:
                break
            at = max(at, end)
        self._taken.append((at, at + size, first, last))
        self.bytes = max(self.bytes, at + size)
        return at
