"""Where every map lies: its tiles, its ring, and its address in the workspace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from zeroskip.run.convolution.tiles.layout import Layout, Map, fresh, same_places, with_ring
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph, Window
from zeroskip.run.convolution.tiles.quad_job import quads
from zeroskip.run.element import FP32, INT8, Element

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
    readings = {operation.name: _reread(readings[operation.name], operation) for operation in operations}
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


def reach(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row, and column, that a window reads, counted from the output's own times the stride.

    >>> reach(Window((3, 3), 1, (1, 1)))
    ((-1, 1), (-1, 1))
    """
    ends = zip(window.size, window.padding, window.dilation, strict=True)
    rows, columns = ((-pad, (size - 1) * step - pad) for size, pad, step in ends)
    return rows, columns


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
            copied = source not in tiles or not same_places(tiles[source], known)
            readings[operation.name] = Reading(known, 1, 1, copied)
            continue
        known = tiles.get(source) or new(inputs[source])
        inherited = _inherited(known, operation)
        # Maps have zeros around them, and a maximum must not see those where all else is below 0. A dilated window
        # may even see nothing else; its maximum is -inf.
        harmless = operation.kind != "max" or (source in positive and operation.window.dilation == (1, 1))
        fill = 0.0 if harmless or not _reads_beyond(operation, known) else -math.inf
        if inherited is not None and inherited.vectors <= WASTE * ideal.vectors:
            tiles[operation.name] = replace(inherited, element=ideal.element)
            copied = source not in tiles or fill != 0
            readings[operation.name] = Reading(known, operation.window.stride, 1, copied, fill)
        else:
            tiles[operation.name] = ideal
            channels = known.channels * operation.window.stride**2
            phases = replace(ideal, channels=channels, element=known.element)
            readings[operation.name] = Reading(phases, 1, operation.window.stride, True, fill)
    return tiles, readings


def _known(operation: Operation, tiles: Mapping[str, Layout]) -> Layout | None:
    """The layout in which an operation without a window reads its first input: that of an input made before."""
    if operation.kind in ("mean", "rearrange") or len(operation.inputs) == 1:
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


def _reads_beyond(operation: Operation, source: Layout) -> bool:
    """Whether a window reaches over the border of the map."""
    assert operation.window is not None
    ends = zip(reach(operation.window), operation.shape[1:], (source.height, source.width), strict=True)
    return any(
        first < 0 or (count - 1) * operation.window.stride + last >= size
        for (first, last), count, size in ends
    )


def _inherited(known: Layout, operation: Operation) -> Layout | None:
    """The tiles that an operation's value gets from those of its input, without moving a pixel between lanes."""
    assert operation.window is not None
    stride = operation.window.stride
    channels, height, width = operation.shape
    tall, wide = known.tile[0] // stride, known.tile[1] // stride
    if known.tile[0] % stride or known.tile[1] % stride:
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
        if reading.copied or operation.window is None:
            continue
        root = roots[operation.inputs[0]][0]
        layouts[root] = with_ring(layouts[root], _ring(operation, reading, tiles[operation.name]))
    return layouts


def _ring(operation: Operation, reading: Reading, made: Layout) -> tuple[int, int, int, int]:
    """Vectors around the tiles of a map that an operation reads."""
    assert operation.window is not None
    sides: list[int] = []
    for axis, (first, last) in enumerate(reach(operation.window)):
        first, last = first // reading.phases, last // reading.phases
        end = (made.tile[axis] - 1) * reading.stride + last
        sides += [max(0, -first), max(0, end - (reading.layout.tile[axis] - 1))]
    return sides[0], sides[1], sides[2], sides[3]


def _reread(reading: Reading, operation: Operation) -> Reading:
    """The reading of a copy, with the ring it needs; others are read from the layout that their root has."""
    if not reading.copied or operation.window is None:
        return reading
    tile = reading.layout.tile[0] // reading.stride, reading.layout.tile[1] // reading.stride
    made = replace(reading.layout, tile=tile)
    return replace(reading, layout=with_ring(reading.layout, _ring(operation, reading, made)))


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
    for name, (root, start) in roots.items():
        channels = next(operation.shape[0] for operation in operations if operation.name == name)
        maps[name] = Map(layouts[root], bases[root], range(start, start + channels))
    return Arrangement(maps, dict(made.readings), copies, space.bytes)


def _copy_layout(operation: Operation, position: int, subgraph: Subgraph, made: _Made) -> Layout | None:
    """The layout in which an operation wants an input that does not lie as it needs it; None where it does."""
    reading, name = made.readings[operation.name], operation.inputs[position]
    if position == 0 and operation.kind != "concat":
        return reading.layout if reading.copied else None
    if operation.kind == "concat":
        return None  # what is not in its place is copied there
    own = made.layouts[made.roots[operation.name][0]]
    known = made.layouts[made.roots[name][0]] if name in made.roots else None
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
