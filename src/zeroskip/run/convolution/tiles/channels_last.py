"""Tensors whose pixels hold all channels side by side, as tokens do, read onto tiles and written back.

At a place of the tiles as many channels as there are lanes are a square, channels x lanes: transposed, each lane's
pixel has its channels in a row, as in the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Map, bits
from zeroskip.run.convolution.tiles.relayout import Transfer, source_pixels
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, lanes_of
from zeroskip.run.convolution.tiles.tensor_transfer import READ, WRITE, TensorSlot


def read_channels_last(tensor: TensorSlot, transfer: Transfer, machine: Machine) -> Step:
    """Read a phase of a tensor (images, height, width, channels) into the transfer's target, ring included."""
    target, (channels, height, width) = transfer.target.layout, tensor.shape
    places = transfer.target.everywhere()
    pixels = source_pixels(target, places, transfer.phase)
    image, row, column = np.moveaxis(pixels, -1, 0)  # (count, lanes) each
    there = (pixels >= 0).all(-1) & (row < height) & (column < width)
    index = np.where(there, (image * height + row) * width + column, 0) * channels
    to = target.offset(*places.T) + transfer.first(channels)
    code = _read_code(machine, target.vector, channels % target.lanes, transfer.fill)
    block = argument_block(tensor.offset, len(places), channels, to, index, bits(there))
    return Step(READ, transfer.node, code, block)


def write_channels_last(node: str, x: Map, slot: int, machine: Machine) -> Step:
    """Write the channels of a map into a tensor (images, height, width, channels) at the address in word `slot`."""
    source, channels = x.layout, len(x.channels)
    places = source.inside()
    image, row, column = np.moveaxis(source.pixels(places), -1, 0)  # (count, lanes) each
    pixel = (image * source.height + row) * source.width + column
    index = np.where(image >= 0, pixel, 0) * channels
    at = x.first + source.offset(*places.T)
    code = _write_code(machine, source.vector, channels % source.lanes)
    tensor = TensorSlot(slot, (channels, source.height, source.width))
    block = argument_block(tensor.offset, len(places), channels, at, index, source.masks(places))
    return Step(WRITE, node, code, block)


@dataclass(frozen=True)
class _Square:
    """Channels of a place, as names of values.

    place    pointer to the first one's vector
    pixels   for each lane the pointer to the first channel of its pixel
    flags    for each lane 64 bits, all set where it holds a pixel
    count    how many channels
    """

    place: str
    pixels: list[str]
    flags: list[str]
    count: int

    def mask(self, f: Function, v: Vector, lane: int) -> str:
        """The lane's channels in the tensor, all of them or none."""
        every = self.count == v.lanes
        held = self.flags[lane] if every else f.value(f"and i64 {self.flags[lane]}, {(1 << self.count) - 1}")
        return lanes_of(f, v.of("float"), held)


@cache
def _read_code(machine: Machine, v: Vector, rest: int, fill: float) -> Callable[..., None]:
    (f, fields), floats = function("enter", [INTEGER] * 3 + [POINTER] * 3), v.of("float")
    for square in _squares(f, v, fields, rest):
        other = f.constant(floats, fill) if fill else "zeroinitializer"
        rows = [
            f.load_masked(floats, square.mask(f, v, lane), pixel, other=other)
            for lane, pixel in enumerate(square.pixels)
        ]
        turned = f.transposed(v, [f.converted(floats, row, v.element) for row in rows])
        for number, value in enumerate(turned[: square.count]):
            f.store(v, value, f.at(square.place, number * v.lanes, v.element))
    return compiled(f, machine)


@cache
def _write_code(machine: Machine, v: Vector, rest: int) -> Callable[..., None]:
    (f, fields), floats = function("leave", [INTEGER] * 3 + [POINTER] * 3), v.of("float")
    for square in _squares(f, v, fields, rest):
        vectors = [f.load(v, f.at(square.place, at * v.lanes, v.element)) for at in range(square.count)]
        turned = f.transposed(v, [*vectors, *["zeroinitializer"] * (v.lanes - square.count)])
        for lane, (pixel, value) in enumerate(zip(square.pixels, turned, strict=True)):
            row = f.converted(v, value, "float")
            f.store_masked(floats, square.mask(f, v, lane), row, pixel)
    return compiled(f, machine)


def _squares(f: Function, v: Vector, fields: list[str], rest: int) -> Iterator[_Square]:
    """Inside of loops over places and squares; the last `rest` channels of each place are a square of their own."""
    slot, count, channels, offsets, index, masks = fields
    tensor = f.load(POINTER, f.at("%base", slot, "i8"))
    even = f.value(f"sub i64 {channels}, {rest}")
    with f.loop(0, count) as number:
        place, first = at_offset(f, offsets, number), f.multiply(number, v.lanes)
        held = f.load(INTEGER, f.at(masks, number, INTEGER))
        starts = [
            f.at(tensor, f.load(INTEGER, f.at(index, f.add(first, lane), INTEGER))) for lane in range(v.lanes)
        ]
        flags = [
            f.value(f"ashr i64 {f.value(f'shl i64 {held}, {63 - lane}')}, 63") for lane in range(v.lanes)
        ]

        def square(channel: str, together: int) -> _Square:
            at = f.at(place, f.multiply(channel, v.lanes), v.element)
            return _Square(at, [f.at(start, channel) for start in starts], flags, together)

        with f.loop(0, even, v.lanes) as channel:
            yield square(channel, v.lanes)
        if rest:
            yield square(even, rest)
