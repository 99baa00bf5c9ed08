"""Where every map lies: its tiles, its ring, and its address in the workspace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from zeroskip.run.convolution.tiles.attention_quads import scratch_vectors
from zeroskip.run.convolution.tiles.layout import Layout, Map, ReadPlaces, fresh, same_places, with_ring
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.convolution.tiles.quad_job import quads
from zeroskip.run.convolution.tiles.taps import Taps, touching
from zeroskip.run.element import FP32, INT8, Element

WASTE = 1.3  # a map keeps the tiles of the one it is made from, unless new ones need so much fewer vectors

ONE = (1, 1)  # of rows and columns: each of them
SCORES = -1  # among the inputs of attention: memory that only it uses
HEADER = 4096  # bytes at the start of a workspace, for the addresses of tensors


@dataclass(frozen=True)
class Reading:
    """How an operation reads its first input.

    layout  of the input as it is read
    stride  (rows, columns) of it from one place of the output to the next
    phases  (of rows, of columns) lie one after the other among its channels; (1, 1): it is read as it is
    copied  it has to be brought into this layout first
    fill    what it finds beyond the border
    taps    of its window that touch the map
    """

    layout: Layout
    stride: tuple[int, int]
    phases: tuple[int, int]
    copied: bool
    fill: float = 0.0
    taps: Taps | None = None

    def places(self) -> dict[tuple[int, int], ReadPlaces]:
        """By (row, column) of the phase that they belong to: places of a tile that the window's taps read.

        Without a window, no place of a ring is read. Phases of which nothing is read are left out.
        """
        if self.taps is None:
            return {(0, 0): ReadPlaces()}
        found = {}
        for phase in np.ndindex(self.phases):
            rows, columns = (self._read(axis, number) for axis, number in enumerate(phase))
            if rows and columns:
                found[phase[0], phase[1]] = ReadPlaces(rows, columns)
        return found

    def _read(self, axis: int, number: int) -> tuple[int, ...]:
        """Rows or columns of a tile that are read of the phase with this number."""
        assert self.taps is not None
        steps = self.taps.steps[axis]
        mine = steps[steps % self.phases[axis] == number] // self.phases[axis]
        own = np.arange(self.layout.tile[axis] // self.stride[axis]) * self.stride[axis]
        return tuple(np.unique(mine[:, None] + own).tolist())


@dataclass(frozen=True)
class Arrangement:
    """Where things are: maps by value, and by operation how and where it reads its first input.

    copies are maps by operation and position among its inputs, where an input does not lie as it needs it
    """

    maps: dict[str, Map]
    readings: dict[str, Reading]
    copies: dict[tuple[str, int], Map]
    bytes: int


def arrange(subgraph: Subgraph, *, images: int, lanes: int, element: Element = FP32) -> Arrangement:
    """Places in the workspace for all that the operations read and make, `images` examples at a time.

    >>> from zeroskip.run.convolution.tiles.activation import RELU
    >>> relu = Operation("y", "scale", ("x",), (3, 8, 8), ("y",), activation=RELU)
    >>> subgraph = Subgraph((relu,), {"x": (3, 8, 8)}, {"y": (3, 8, 8)})
    >>> arrangement = arrange(subgraph, images=1, lanes=16)
    >>> arrangement.maps["y"].layout.grid, arrangement.readings["y"].copied
    ((1, 8, 2), True)
    """
    new = partial(fresh, images=images, lanes=lanes, element=element)
    subgraph = _in_vectors(subgraph)
    operations = subgraph.operations
    tiles, readings = _tiles(subgraph, new)
    roots = _roots(subgraph, tiles)
    layouts = _ringed(operations, tiles, readings, roots)
    readings = {name: _reread(reading) for name, reading in readings.items()}
    return _placed(subgraph, _Made(layouts, readings, roots))


def _in_vectors(subgraph: Subgraph) -> Subgraph:
    """The subgraph with shapes that count quads where values are 8-bit numbers: one vector holds four channels."""
    operations = [
        replace(each, shape=(quads(each.shape[0]), *each.shape[1:]))
        if each.name in subgraph.scalings
        else each
        for each in subgraph.operations
    ]
    return replace(subgraph, operations=tuple(operations))


def _tiles(subgraph: Subgraph, new: Callable[..., Layout]) -> tuple[dict[str, Layout], dict[str, Reading]]:
    """Layouts without rings of all values made, and how the operations read; `new` lays out a shape."""
    operations, inputs = subgraph.operations, subgraph.inputs
    tiles: dict[str, Layout] = {}
    readings: dict[str, Reading] = {}
    positive = _positive(operations)
    for operation in operations:
        source = operation.inputs[0]
        ideal = new(operation.shape)
        if operation.name in subgraph.scalings:
            ideal = replace(ideal, element=INT8)
        if operation.window is None:
            known = _known(operation, tiles) or new(inputs.get(source, operation.shape))
            size = (known.height, known.width) == operation.shape[1:]
            tiles[operation.name] = (
                replace(known, channels=operation.shape[0], element=ideal.element) if size else ideal
            )
            copied = source not in tiles or not (
                operation.kind == "join" or same_places(tiles[source], known)
            )
            readings[operation.name] = Reading(known, ONE, ONE, copied)
            continue
        known = tiles.get(source) or new(inputs[source])
        taps = touching(operation.window, operation.shape[1:], (known.height, known.width))
        inherited = _inherited(known, operation)
        # Maps have zeros around them, and a maximum must not see those where all else is below 0. A dilated window
        # may even see nothing else; its maximum is -inf.
        scaling = subgraph.scalings.get(source)
        least = scaling is not None and not scaling.zero_point  # bytes have nothing below 0
        harmless = operation.kind != "max" or (source in positive and operation.window.dilation == (1, 1))
        harmless = harmless or least
        fill = 0.0 if harmless or not _reads_beyond(operation, taps, known) else -math.inf
        if inherited is not None and inherited.vectors <= WASTE * ideal.vectors:
            tiles[operation.name] = replace(inherited, element=ideal.element)
            copied = source not in tiles or fill != 0
            readings[operation.name] = Reading(known, operation.window.stride, ONE, copied, fill, taps)
        else:
            tiles[operation.name] = ideal
            channels = known.channels * math.prod(operation.window.stride)
            phases = replace(ideal, channels=channels, element=known.element)
            readings[operation.name] = Reading(phases, ONE, operation.window.stride, True, fill, taps)
    return tiles, readings


def _known(operation: Operation, tiles: Mapping[str, Layout]) -> Layout | None:
    """The layout in which an operation without a window reads its first input: that of an input made before."""
    if operation.kind in ("mean", "rearrange", "attention") or len(operation.inputs) == 1:
        return tiles.get(operation.inputs[0])
    made = (tiles[name] for name in operation.inputs if name in tiles)
    return next((each for each in made if (each.height, each.width) == operation.shape[1:]), None)


def _positive(operations: Sequence[Operation]) -> frozenset[str]:
    """Values without anything below 0, around which zeros do no harm to a maximum."""
    positive: set[str] = set()
    for operation in operations:
        kept = operation.kind in ("max", "average", "concat") and positive.issuperset(operation.inputs)
        if kept or (operation.activation is not None and operation.activation.keeps_positive):
            positive.add(operation.name)
    return frozenset(positive)


def _reads_beyond(operation: Operation, taps: Taps, source: Layout) -> bool:
    """Whether taps of a window reach over the border of the map."""
    assert operation.window is not None
    sizes = operation.shape[1:], operation.window.stride, (source.height, source.width)
    return any(
        steps.min(initial=0) < 0 or (count - 1) * stride + steps.max(initial=0) >= size
        for steps, count, stride, size in zip(taps.steps, *sizes, strict=True)
    )


def _inherited(known: Layout, operation: Operation) -> Layout | None:
    """The tiles that an operation's value gets from those of its input, without moving a pixel between lanes."""
    assert operation.window is not None
    down, right = operation.window.stride
    channels, height, width = operation.shape
    tall, wide = known.tile[0] // down, known.tile[1] // right
    if known.tile[0] % down or known.tile[1] % right:
        return None
    if tall * known.grid[1] < height or wide * known.grid[2] < width:
        return None
    return replace(known, channels=channels, height=height, width=width, tile=(tall, wide))


def _roots(subgraph: Subgraph, tiles: Mapping[str, Layout]) -> dict[str, tuple[str, int]]:
    """Value -> the value whose memory it shares, and its first channel there.

    Parts of a concatenation are made in their places; a sum overwrites what it adds to, where that was its last use.
    """
    operations, outputs, scalings = subgraph.operations, subgraph.outputs, subgraph.scalings
    roots = {name: (name, 0) for name in tiles}
    last = {name: number for number, operation in enumerate(operations) for name in operation.inputs}
    parts: set[str] = set()
    for operation in operations:
        start = 0
        # All inputs must be maps of the subgraph, since a tensor made elsewhere has no channels counted here.
        all_maps = all(name in tiles for name in operation.inputs)
        for name in operation.inputs if operation.kind == "concat" else ():
            free = all_maps and name not in parts and roots[name] == (name, 0)
            free = free and scalings.get(name) == scalings.get(operation.name)
            if free and same_places(tiles[name], tiles[operation.name]):
                roots[name] = (operation.name, start)
                parts.add(name)
            start += tiles[name].channels if name in tiles else 0
    # Parts of a concatenation may live longer than it.
    whole = {operation.name for operation in operations if operation.kind == "concat"}
    for number, operation in enumerate(operations):
        added = operation.inputs[-1]
        kept = parts | whole | {*outputs, operation.inputs[0]}
        free = added in tiles and last[added] == number and added not in kept and operation.name not in parts
        if operation.kind == "conv" and free and same_places(tiles[added], tiles[operation.name]):
            roots[operation.name] = (roots[added][0], 0)
    return roots


def _ringed(
    operations: Sequence[Operation], tiles: Mapping[str, Layout], readings: Mapping[str, Reading],
    roots: Mapping[str, tuple[str, int]],
) -> dict[str, Layout]:  # fmt: skip
    """Root -> its layout, with the ring that its readers need."""
    layouts = {root: tiles[root] for root, _ in roots.values()}
    for operation in operations:
        reading = readings[operation.name]
        if not reading.copied:
            root = roots[operation.inputs[0]][0]
            layouts[root] = with_ring(layouts[root], _ring(reading))
    return layouts


def _ring(reading: Reading) -> tuple[int, int, int, int]:
    """Vectors around the tiles of a map as far as an operation reads them."""
    tall, wide = reading.layout.tile
    rows, columns = {0, tall - 1}, {0, wide - 1}
    for places in reading.places().values():
        rows.update(places.rows)
        columns.update(places.columns)
    return -min(rows), max(rows) - (tall - 1), -min(columns), max(columns) - (wide - 1)


def _reread(reading: Reading) -> Reading:
    """The reading of a copy, with the ring it needs; others are read from the layout that their root has."""
    return replace(reading, layout=with_ring(reading.layout, _ring(reading))) if reading.copied else reading


@dataclass(frozen=True)
class _Made:
    """Root -> its layout; operation -> how it reads its first input; value -> its root and first channel there."""

    layouts: Mapping[str, Layout]
    readings: Mapping[str, Reading]
    roots: Mapping[str, tuple[str, int]]


def _placed(subgraph: Subgraph, made: _Made) -> Arrangement:
    """Byte addresses: whatever lives at the same time lies apart, as far in front as possible."""
    operations, layouts, roots = subgraph.operations, made.layouts, made.roots
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, operation in enumerate(operations):
        for name in [operation.name, *operation.inputs]:
            if name in roots:
                root = roots[name][0]
                first.setdefault(root, number)
                last[root] = len(operations) if name in subgraph.outputs else max(last.get(root, 0), number)
    space = _Workspace()
    maps: dict[str, Map] = {}
    copies: dict[tuple[str, int], Map] = {}
    bases: dict[str, int] = {}
    for number, operation in enumerate(operations):
        for root in [root for root, when in first.items() if when == number]:
            bases[root] = space.take_(layouts[root].bytes, number, last[root])
        for position in range(len(operation.inputs)):
            layout = _copy_layout(operation, position, subgraph, made)
            if layout is not None:
                base = space.take_(layout.bytes, number, number)
                copies[operation.name, position] = Map(layout, base, range(layout.channels))
        if operation.kind == "attention":
            layout = _scores(operation, layouts, roots, copies)
            base = space.take_(layout.bytes, number, number)
            copies[operation.name, SCORES] = Map(layout, base, range(layout.channels))
    channels = {
        each.name: range(roots[each.name][1], roots[each.name][1] + each.shape[0]) for each in operations
    }
    read = _places_read(operations, made, channels)
    for name, (root, _) in roots.items():
        maps[name] = Map(layouts[root], bases[root], channels[name], read[name])
    return Arrangement(maps, dict(made.readings), copies, space.bytes)


def _places_read(
    operations: Sequence[Operation], made: _Made, channels: Mapping[str, range]
) -> dict[str, tuple[ReadPlaces, ...]]:
    """Value -> the places that windows read of its channels, be it as parts of another value or as that."""
    readers: dict[str, list[tuple[range, ReadPlaces]]] = {}
    for operation in operations:
        reading, source = made.readings[operation.name], operation.inputs[0]
        if reading.taps is not None and not reading.copied:
            places = [(channels[source], each) for each in reading.places().values()]
            readers.setdefault(made.roots[source][0], []).extend(places)
    found = {}
    for name, (root, _) in made.roots.items():
        mine = channels[name]
        several = [
            places
            for theirs, places in readers.get(root, [])
            if theirs.start < mine.stop and mine.start < theirs.stop
        ]
        found[name] = tuple(dict.fromkeys(several))
    return found


def _copy_layout(operation: Operation, position: int, subgraph: Subgraph, made: _Made) -> Layout | None:
    """The layout in which an operation wants an input that does not lie as it needs it; None where it does."""
    reading, name = made.readings[operation.name], operation.inputs[position]
    if position == 0 and operation.kind != "concat":
        return reading.layout if reading.copied else None
    if operation.kind == "join":
        return None
    own = made.layouts[made.roots[operation.name][0]]
    if operation.kind == "attention":  # which reads keys and values wherever they lie
        element = FP32 if own.element is INT8 else own.element
        new = partial(fresh, images=own.images, lanes=own.lanes, element=element)
        return None if name in made.roots else new(subgraph.inputs[name])
    known = made.layouts[made.roots[name][0]] if name in made.roots else None
    if operation.kind == "concat":
        # What is not in its place is copied there; bytes that get another scale as well have their places first.
        same = subgraph.scalings.get(name) == subgraph.scalings.get(operation.name)
        if same or known is None or same_places(known, own):
            return None
        vectors = next(each.shape[0] for each in subgraph.operations if each.name == name)
        return replace(own, channels=vectors, ring=(0, 0, 0, 0))
    to_all = operation.kind == "combine"  # an input of one pixel goes to all pixels, wherever it lies
    other = known is not None and known.element != own.element
    if known is not None and (
        same_places(replace(known, element=own.element), own) or (to_all and _is_pixel(known))
    ):
        return None
    if known is None and to_all and subgraph.inputs[name][1:] == (1, 1):
        return fresh(subgraph.inputs[name], images=own.images, lanes=own.lanes, element=own.element)
    if known is not None and other:  # 8-bit numbers that are added to fp32
        return replace(own, channels=known.channels, ring=(0, 0, 0, 0), element=known.element)
    return replace(own, channels=operation.shape[0], ring=(0, 0, 0, 0))


def _scores(
    operation: Operation, layouts: Mapping[str, Layout], roots: Mapping[str, tuple[str, int]],
    copies: Mapping[tuple[str, int], Map],
) -> Layout:  # fmt: skip
    """Memory for a vector of scores for each key and each lane without one; for products of bytes, more."""
    keys, values = (
        copies[operation.name, at].layout
        if (operation.name, at) in copies
        else layouts[roots[operation.inputs[at]][0]]
        for at in (1, 2)
    )
    given, places = operation.attention, keys.tile[0] * keys.tile[1]
    assert given is not None
    count = keys.lanes * places
    if given.in_bytes:
        sizes = keys.channels // given.key_heads, values.channels // given.key_heads
        count = scratch_vectors(places, keys.lanes, sizes)
    return replace(fresh((count, 1, 1), images=1, lanes=keys.lanes), element=FP32)


def _is_pixel(layout: Layout) -> bool:
    return (layout.height, layout.width) == (1, 1)


class _Workspace:
    """First-fit allocation of pieces (start, end, first step, last step): no two overlap in memory and in time."""

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
