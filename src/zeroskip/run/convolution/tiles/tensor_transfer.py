"""Tensors read onto tiles and written back, in fp32 on one side and the map's element on the other.

Squares of pixels and tiles are transposed, so that whole rows are read and written; a phase of a tensor is gathered
pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import ArgumentBlock, argument_block
from zeroskip.run.convolution.tiles.layout import Map, bits
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.quad_numbers import byte_of, interleaved
from zeroskip.run.convolution.tiles.relayout import WHOLE, Transfer, source_pixels
from zeroskip.run.convolution.tiles.steps import (
    Step,
    at_offset,
    compiled,
    function,
    lanes_of,
    mask_at,
)
from zeroskip.run.element import Scaling

READ, WRITE = "enter", "leave"  # names of the steps
ROWS = 256  # pieces of rows that are read or written for one square; code for more takes seconds to compile


@dataclass(frozen=True)
class TensorSlot:
    """A float32 tensor (images, *shape) whose address is in the workspace's word `slot`; shape is (c, h, w)."""

    slot: int
    shape: tuple[int, int, int]

    @property
    def offset(self) -> int:
        """Byte of the workspace at which the address stands."""
        return 8 * self.slot


@dataclass(frozen=True)
class _Squares:
    """What is transposed at a time: `width` neighbouring pixels of each tile, of `together` channels, or quads."""

    v: Vector
    width: int
    parts: int = 1  # channels in a lane

    @property
    def together(self) -> int:
        return max(1, min(self.v.lanes // self.width, ROWS // (self.v.lanes * self.parts)))


def read_tensor(tensor: TensorSlot, transfer: Transfer, machine: Machine) -> Step:
    """Read a phase of a tensor into the transfer's target, and into its ring where that is read."""
    return (_read_whole if transfer.phase == WHOLE else _read_phase)(tensor, transfer, machine)


def write_tensor(node: str, x: Map, slot: int, machine: Machine) -> Step:
    """Write the channels of a map into a tensor (images, channels, height, width) at the address in word `slot`."""
    source, channels = x.layout, len(x.channels)
    tall, wide = source.tile
    width = min(wide, source.lanes)  # columns of a tile that are transposed at a time
    first = _starts(range(source.slots), range(tall), range(0, wide, width))
    columns = np.minimum(first[:, 2:] + np.arange(width), wide - 1)  # the last columns may be read twice
    at = x.first + source.offset(first[:, :1], first[:, 1:2], columns)
    image, row, column = np.moveaxis(source.pixels(first), -1, 0)  # (count, lanes) each
    left = np.minimum(source.width - column, wide - first[:, 2:])
    held = np.where(image >= 0, np.clip(left, 0, width), 0)
    index = np.where(image >= 0, (image * channels * source.height + row) * source.width + column, 0)
    code = _write_code(machine, _Squares(source.vector, width))
    tensor = TensorSlot(slot, (channels, source.height, source.width))
    return Step(WRITE, node, code, _block(tensor, len(first), at, index, (1 << held) - 1))


def read_quads(tensor: TensorSlot, target: Map, node: str, scaling: Scaling, machine: Machine) -> Step:
    """Read a tensor as quads, rounded as `quantised` does, into a map and into its ring where that is read."""
    many, arrays = _pieces(tensor, target)
    channels, height, width = tensor.shape
    numbers = np.array([scaling.inverse, -scaling.zero_point, scaling.most], np.float32)
    code = _read_quads_code(machine, _Squares(target.layout.vector, many, QUAD), channels % QUAD)
    size = len(arrays[0]), channels // QUAD, height * width
    block = argument_block(tensor.offset, *size, *arrays, scaling.word & 0xFFFFFFFF, width, numbers)
    return Step(READ, node, code, block)


def _read_whole(tensor: TensorSlot, transfer: Transfer, machine: Machine) -> Step:
    many, arrays = _pieces(tensor, transfer.target)
    code = _read_whole_code(machine, _Squares(transfer.target.layout.vector, many), transfer.fill)
    return Step(READ, transfer.node, code, _block(tensor, len(arrays[0]), *arrays))


def _pieces(tensor: TensorSlot, into: Map) -> tuple[int, tuple[np.ndarray, ...]]:
    """How many columns are read at a time, and for each piece of rows: its places, and what is in the tensor."""
    target, (channels, height, width) = into.layout, tensor.shape
    first, many = _cover(into)
    columns = first[:, 2:] + np.arange(many)
    to = into.first + target.offset(first[:, :1], first[:, 1:2], columns)
    image, row, column = np.moveaxis(target.coordinates(first), -1, 0)
    held = (column[..., None] + np.arange(many) >= 0) & (column[..., None] + np.arange(many) < width)
    held &= ((row >= 0) & (row < height) & (image < target.images))[..., None]
    index = np.where(held.any(-1), (image * channels * height + row) * width + column, 0)
    return many, (to, index, bits(held))


def _read_phase(tensor: TensorSlot, transfer: Transfer, machine: Machine) -> Step:
    target, (channels, height, width) = transfer.target.layout, tensor.shape
    places = transfer.target.everywhere()
    pixels = source_pixels(target, places, transfer.phase)
    image, row, column = np.moveaxis(pixels, -1, 0)
    there = (pixels >= 0).all(-1) & (row < height) & (column < width)
    index = np.where(there, (image * channels * height + row) * width + column, 0).astype(np.int32)
    to = target.offset(*places.T) + transfer.first(channels)
    code = _read_phase_code(machine, target.vector, transfer.fill)
    return Step(READ, transfer.node, code, _block(tensor, len(places), to, index, bits(there)))


def _cover(target: Map) -> tuple[np.ndarray, int]:
    """(count, 3) slot, row and first column of pieces of rows that cover all places, and how many columns they have."""
    layout = target.layout
    wanted: dict[int, set[int]] = {}
    for slot, y, x in target.everywhere().tolist():
        if not slot:  # all slots are alike
            wanted.setdefault(y, set()).add(x)
    many = min(layout.lanes, max(_longest_run(columns) for columns in wanted.values()))
    last = layout.tile[1] + layout.ring[3] - many
    pieces = []
    for y, columns in wanted.items():
        covered = -layout.ring[2]
        for x in sorted(columns):
            if x >= covered:
                pieces.append((y, min(x, last)))  # the last columns may be written twice
                covered = pieces[-1][1] + many
    slots = np.repeat(np.arange(layout.slots), len(pieces))
    return np.column_stack([slots, np.tile(pieces, (layout.slots, 1))]), many


def _longest_run(numbers: set[int]) -> int:
    """How many of the numbers follow each other at most."""
    ordered = np.array(sorted(numbers))
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 2) != 1)
    return int(np.diff(starts, append=len(ordered)).max())


def _starts(*axes: range | np.ndarray) -> np.ndarray:
    """(count, 3) slot, row and first column of every square."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], 1)


def _block(tensor: TensorSlot, count: int, *arrays: np.ndarray) -> ArgumentBlock:
    channels, height, width = tensor.shape
    return argument_block(tensor.offset, count, channels, height * width, *arrays)


@dataclass(frozen=True)
class _Fields:
    """What a step's code finds in its block, as names of values: see `_block`."""

    tensor: str
    count: str
    channels: str
    area: str
    offsets: str
    index: str
    masks: str


def _function(name: str) -> tuple[Function, _Fields]:
    f, (slot, *others) = function(name, [INTEGER] * 4 + [POINTER] * 3)
    return f, _Fields(f.load(POINTER, f.at("%base", slot, "i8")), *others)


def _channel_groups(f: Function, squares: _Squares, fields: _Fields) -> list[tuple[str, str, int]]:
    """(first, end, how many at a time): what is left of channels that fill a square together goes one by one."""
    rest = f.value(f"urem i64 {fields.channels}, {squares.together}")
    even = f.value(f"sub i64 {fields.channels}, {rest}")
    return [("0", even, squares.together), (even, fields.channels, 1)]


def _square(f: Function, squares: _Squares, fields: _Fields, number: str) -> tuple[list[str], ...]:
    """Byte offsets of a square's `width` places, and for each lane its row in the tensor and which pixels it has."""
    lanes = squares.v.lanes
    sizes = (fields.offsets, squares.width), (fields.index, lanes), (fields.masks, lanes)
    return tuple(
        [f.load(INTEGER, f.at(array, f.add(f.multiply(number, size), at), INTEGER)) for at in range(size)]
        for array, size in sizes
    )


@cache
def _read_whole_code(machine: Machine, squares: _Squares, fill: float) -> Callable[..., None]:
    (f, fields), v, width = _function("enter"), squares.v, squares.width
    groups = _channel_groups(f, squares, fields)
    with f.loop(0, fields.count) as number:
        places, rows, held = _square(f, squares, fields, number)
        for start, stop, several in groups:
            with f.loop(start, stop, several) as channel:
                images = [
                    f.at(fields.tensor, f.multiply(f.add(channel, part), fields.area))
                    for part in range(several)
                ]
                pairs = zip(rows, held, strict=True)
                pixels = [_row(f, squares, images, row, flags, fill) for row, flags in pairs]
                pixels = [f.converted(v.of("float"), floats, v.element) for floats in pixels]
                offset = f.multiply(channel, v.lanes)
                turned = f.transposed(v, pixels)
                for position, value in enumerate(turned[: several * width]):
                    place = f.at("%base", places[position % width], "i8")
                    at = f.at(place, f.add(offset, position // width * v.lanes), v.element)
                    f.store(v, value, at)
    return compiled(f, machine)


@cache
def _read_quads_code(machine: Machine, squares: _Squares, rest: int) -> Callable[..., None]:
    """`rest`: how many channels the last quad has, if it is not whole."""
    f, (slot, *names) = function("enter", [INTEGER] * 4 + [POINTER] * 3 + [INTEGER] * 2 + [POINTER])
    fields, v, width = (
        _Fields(f.load(POINTER, f.at("%base", slot, "i8")), *names[:6]),
        squares.v,
        squares.width,
    )
    numbers = [f.splat(v.of("float"), f.load("float", f.at(names[8], at))) for at in range(3)]
    fill = f.splat(v, f.value(f"trunc i64 {names[6]} to i32"))
    groups = [(*each, QUAD) for each in _channel_groups(f, squares, fields)]
    groups += [(fields.channels, f.add(fields.channels, 1), 1, rest)] if rest else []
    with f.loop(0, fields.count) as number:
        places, rows, held = _square(f, squares, fields, number)
        for start, stop, several, parts in groups:
            with f.loop(start, stop, several) as quad:
                images = _images(f, fields, quad, several)
                woven = []
                for row, flags in zip(rows, held, strict=True):
                    for each in (image for those in images[:parts] for image in those):
                        f.prefetch(f.at(f.at(each, row), names[7]))  # of the next row of the picture
                    floats = [_row(f, squares, each, row, flags, 0.0) for each in images[:parts]]
                    whole = [byte_of(f, v.of("float"), each, numbers) for each in floats]
                    woven.append(f.value(f"xor {v} {interleaved(f, v, whole)}, {fill}"))
                for position, value in enumerate(f.transposed(v, woven)[: several * width]):
                    place = f.at("%base", places[position % width], "i8")
                    to = f.multiply(f.add(quad, position // width), v.lanes)
                    f.store(v, value, f.at(place, to, "i32"))
    return compiled(f, machine)


def _images(f: Function, fields: _Fields, quad: str, several: int) -> list[list[str]]:
    """Pointers to the tensor's channels, by their place in a quad, of `several` quads."""
    first = f.multiply(quad, QUAD)
    return [
        [
            f.at(fields.tensor, f.multiply(f.add(first, QUAD * number + part), fields.area))
            for number in range(several)
        ]
        for part in range(QUAD)
    ]


def _row(f: Function, squares: _Squares, images: list[str], row: str, held: str, fill: float) -> str:
    """`width` pixels of each of several channels, side by side in one vector of floats."""
    v, width = squares.v.of("float"), squares.width
    value = f.constant(v, fill) if fill else "zeroinitializer"
    for number, image in enumerate(images):
        mask = lanes_of(f, v, f.value(f"shl i64 {held}, {number * width}"))
        value = f.load_masked(v, mask, f.at(f.at(image, row), -number * width), other=value)
    return value


@cache
def _write_code(machine: Machine, squares: _Squares) -> Callable[..., None]:
    (f, fields), v, width = _function("leave"), squares.v, squares.width
    floats = v.of("float")
    groups = _channel_groups(f, squares, fields)
    with f.loop(0, fields.count) as number:
        places, rows, held = _square(f, squares, fields, number)
        for start, stop, several in groups:
            with f.loop(start, stop, several) as channel:
                offset = f.multiply(channel, v.lanes)
                vectors = [
                    f.load(v, f.at(f.at("%base", place, "i8"), f.add(offset, part * v.lanes), v.element))
                    for part in range(several)
                    for place in places
                ]
                vectors += ["zeroinitializer"] * (v.lanes - len(vectors))
                turned = f.transposed(v, vectors)
                turned = [f.converted(v, pixels, "float") for pixels in turned]
                for part in range(several):
                    image = f.at(fields.tensor, f.multiply(f.add(channel, part), fields.area))
                    for row, flags, pixels in zip(rows, held, turned, strict=True):
                        mask = lanes_of(f, v, f.value(f"shl i64 {flags}, {part * width}"))
                        f.store_masked(floats, mask, pixels, f.at(f.at(image, row), -part * width))
    return compiled(f, machine)


@cache
def _read_phase_code(machine: Machine, v: Vector, fill: float) -> Callable[..., None]:
    (f, fields), floats = _function("enter"), v.of("float")
    with f.loop(0, fields.count) as number:
        target = at_offset(f, fields.offsets, number)
        where = f.load(v.of("i32"), f.at(fields.index, f.multiply(number, v.lanes), "i32"))
        mask = mask_at(f, v, fields.masks, number)
        with f.loop(0, fields.channels) as channel:
            image = f.at(fields.tensor, f.multiply(channel, fields.area))
            value = f.gather(floats, mask, image, where, f.constant(floats, fill))
            value = f.converted(floats, value, v.element)
            f.store(v, value, f.at(target, f.multiply(channel, v.lanes), v.element))
    return compiled(f, machine)
