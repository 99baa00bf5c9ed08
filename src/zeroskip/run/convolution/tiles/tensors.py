"""From tensors onto tiles and back: squares of pixels and tiles are turned, so that whole rows are read and written."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, vector
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.steps import Step, compiled, constant, function, lanes_of, step

ROWS = 256  # pieces of rows that are read or written for one square; code for more takes seconds to compile


def enter_whole(
    node: str, slot: int, shape: tuple[int, int, int], y: Map, machine: Machine, *, fill: float = 0.0
) -> Step:
    """Read a tensor (images, *shape), whose address is in the workspace's word `slot`, ring and all.

    Where the target wants pixels that the tensor does not have, it gets `fill`.

    >>> enter_whole("x", 0, (64, 56, 56), Map(layout, 4096, range(64)), detect()).name
    'enter'
    """
    target, (channels, height, width) = y.layout, shape
    (above, below, left, right), (tall, wide), lanes = target.ring, target.tile, target.lanes
    many = min(target.pitch, lanes)
    starts = np.minimum(np.arange(-left, wide + right, many), wide + right - many)
    grid = np.meshgrid(np.arange(target.slots), np.arange(-above, tall + below), starts, indexing="ij")
    first = np.stack([axis.ravel() for axis in grid], 1)
    columns = first[:, 2:] + np.arange(many)
    to = y.first + target.offset(first[:, :1], first[:, 1:2], columns)
    image, row, column = np.moveaxis(target.coordinates(first), -1, 0)
    held = (column[..., None] + np.arange(many) >= 0) & (column[..., None] + np.arange(many) < width)
    held &= ((row >= 0) & (row < height) & (image < target.images))[..., None]
    index = np.where(held.any(-1), (image * channels * height + row) * width + column, 0)
    bits = (held.astype(np.int64) << np.arange(many)).sum(-1)
    code = _enter_code(machine, lanes, target.element, many, _together(lanes, many), fill)
    return step("enter", node, code, 8 * slot, len(first), channels, height * width, to, index, bits)


def leave(node: str, x: Map, slot: int, machine: Machine) -> Step:
    """Write the channels of a map into a tensor (images, channels, height, width) at the address in word `slot`.

    >>> leave("pool5", Map(layout, 4096, range(256)), 1, detect()).name
    'leave'
    """
    source, channels = x.layout, len(x.channels)
    lanes, (tall, wide) = source.lanes, source.tile
    width = min(wide, lanes)  # columns of a tile that are turned at a time
    grid = np.meshgrid(np.arange(source.slots), np.arange(tall), np.arange(0, wide, width), indexing="ij")
    first = np.stack([axis.ravel() for axis in grid], 1)
    columns = np.minimum(first[:, 2:] + np.arange(width), wide - 1)  # the last columns may be read twice
    at = x.first + source.offset(first[:, :1], first[:, 1:2], columns)
    pixels = source.pixels(first)  # (count, lanes, 3)
    image, row, column = np.moveaxis(pixels, -1, 0)
    left = np.minimum(source.width - column, wide - first[:, 2:])
    held = np.where(image >= 0, np.clip(left, 0, width), 0)
    index = np.where(image >= 0, (image * channels * source.height + row) * source.width + column, 0)
    code = _leave_code(machine, lanes, source.element, width, _together(lanes, width))
    area = source.height * source.width
    return step("leave", node, code, 8 * slot, len(first), channels, area, at, index, (1 << held) - 1)


def _together(lanes: int, width: int) -> int:
    """How many channels, `width` pixels of each, to turn at a time."""
    return max(1, min(lanes // width, ROWS // lanes))


@cache
def _enter_code(
    machine: Machine, lanes: int, element: str, width: int, together: int, fill: float
) -> Callable[..., None]:
    f = function("enter")
    x, blocks, channels, area, even, block = _frame(f, lanes, width, together)
    with f.loop(0, blocks) as number:
        places, rows, bits = block(number)
        for start, stop, several in ((0, even, together), (even, channels, 1)):
            with f.loop(start, stop, several) as channel:
                images = [f.at(x, f.multiply(f.add(channel, one), area)) for one in range(several)]
                pixels = [_row(f, lanes, width, images, pair, fill) for pair in zip(rows, bits, strict=True)]
                pixels = [f.converted(lanes, each, "float", element) for each in pixels]
                offset = f.multiply(channel, lanes)
                for number_, value in enumerate(f.transposed(pixels, element=element)[: several * width]):
                    place = f.at("%base", places[number_ % width], "i8")
                    at = f.at(place, f.add(offset, number_ // width * lanes), element)
                    f.store(vector(lanes, element), value, at)
    return compiled(f, machine)


def _row(f: Function, lanes: int, width: int, images: list[str], pair: tuple[str, str], fill: float) -> str:
    """`width` pixels of each of several channels, side by side in one vector."""
    row, bits = pair
    value = constant(f, lanes, fill) if fill else "zeroinitializer"
    for one, image in enumerate(images):
        mask = lanes_of(f, lanes, f.value(f"shl i64 {bits}, {one * width}"))
        value = f.load_masked(lanes, mask, f.at(f.at(image, row), -one * width), other=value)
    return value


@cache
def _leave_code(machine: Machine, lanes: int, element: str, width: int, together: int) -> Callable[..., None]:
    f = function("leave")
    kind = vector(lanes, element)
    y, blocks, channels, area, even, block = _frame(f, lanes, width, together)
    with f.loop(0, blocks) as number:
        places, rows, bits = block(number)
        for start, stop, several in ((0, even, together), (even, channels, 1)):
            with f.loop(start, stop, several) as channel:
                offset = f.multiply(channel, lanes)
                vectors = [
                    f.load(kind, f.at(f.at("%base", place, "i8"), f.add(offset, one * lanes), element))
                    for one in range(several)
                    for place in places
                ]
                vectors += ["zeroinitializer"] * (lanes - len(vectors))
                turned = f.transposed(vectors, element=element)
                turned = [f.converted(lanes, each, element, "float") for each in turned]
                for one in range(several):
                    image = f.at(y, f.multiply(f.add(channel, one), area))
                    for row, held, pixels in zip(rows, bits, turned, strict=True):
                        mask = lanes_of(f, lanes, f.value(f"shl i64 {held}, {one * width}"))
                        f.store_masked(lanes, mask, pixels, f.at(f.at(image, row), -one * width))
    return compiled(f, machine)


_Block = Callable[[str], tuple[list[str], list[str], list[str]]]


def _frame(f: Function, lanes: int, width: int, together: int) -> tuple[str, str, str, str, str, _Block]:
    """The tensor, the number of blocks and channels, floats of a channel, how many channels go `together`, and what
    belongs to a block: byte offsets of its `width` places, and for each lane its row and which pixels it has.

    Narrow tiles fill a square with several channels; what is left of the channels goes one by one.
    """
    slot, blocks, channels, area, at, index, masks = f.fields("%plan", [INTEGER] * 4 + [POINTER] * 3)
    tensor = f.load(POINTER, f.at("%base", slot, "i8"))
    even = f.value(f"sub i64 {channels}, {f.value(f'urem i64 {channels}, {together}')}")

    def block(number: str) -> tuple[list[str], list[str], list[str]]:
        sizes = (at, width), (index, lanes), (masks, lanes)
        first, second, third = (
            [
                f.load(INTEGER, f.at(array, f.add(f.multiply(number, size), one), INTEGER))
                for one in range(size)
            ]
            for array, size in sizes
        )
        return first, second, third

    return tensor, blocks, channels, area, even, block
