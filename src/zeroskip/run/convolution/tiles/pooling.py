"""Pooling: the largest value of a window, or its mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.operations import Operation, Window
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at


@dataclass(frozen=True)
class WindowTaps:
    """Where a window's taps lie in a map.

    offsets  (taps,) bytes from the window's place, row by row
    stride   (rows, columns) of the map from one window to the next
    """

    offsets: np.ndarray
    stride: tuple[int, int]


def pool(
    operation: Operation, x: Map, y: Map, taps: WindowTaps, size: tuple[int, int], machine: Machine
) -> Step:
    """The largest value, or the mean, of the window around each pixel.

    `size` is the height and width of the input, of which x may hold phases.
    """
    places, largest = y.layout.inside(), operation.kind == "max"
    slot, row, column = places.T
    source = x.first + x.layout.offset(slot, row * taps.stride[0], column * taps.stride[1])
    target = y.first + y.layout.offset(*places.T)
    code = _pool_code(machine, y.layout.vector, len(taps.offsets), largest)
    arrays = [source, target, y.layout.masks(places), taps.offsets.astype(np.int64)]
    arrays += [] if largest else [shares(y.layout, places, operation, size)]
    return Step(operation.kind, operation.name, code, argument_block(len(places), len(y.channels), *arrays))


def shares(layout: Layout, places: np.ndarray, operation: Operation, size: tuple[int, int]) -> np.ndarray:
    """(places, lanes) float32: by what the sum of a window is divided, as a factor."""
    window = operation.window
    assert window is not None
    pixels = layout.pixels(places)
    counts = np.ones(pixels.shape[:2])
    for axis in (0, 1):
        counts *= _counted(pixels[..., axis + 1], axis, size[axis], window, operation.counts_padding)
    divisor = counts if operation.divisor is None else np.full_like(counts, operation.divisor)
    return (1 / np.maximum(1, divisor)).astype(np.float32)


def _counted(pixel: np.ndarray, axis: int, size: int, window: Window, padded: bool) -> np.ndarray:
    """How many pixels of a window count in one direction: those of the map, or of the map with its padding."""
    first = pixel * window.stride[axis] - window.padding[axis]
    last = first + window.size[axis]
    margin = window.padding[axis] if padded else 0
    return np.minimum(last, size + margin) - np.maximum(first, -margin)


@cache
def _pool_code(machine: Machine, v: Vector, taps: int, largest: bool) -> Callable[..., None]:
    # The mean of a window is taken in float: its sum may be larger than any half.
    sums = v if largest else v.of("float")
    f, fields = function("pool", [INTEGER] * 2 + [POINTER] * (4 if largest else 5))
    count, channels, *arrays = fields

    def load(window: str, at: str) -> str:
        return f.converted(v, f.load(v, f.at(window, at, v.element)), sums.element)

    offsets = [f.load(INTEGER, f.at(arrays[3], tap, INTEGER)) for tap in range(taps)]
    with f.loop(0, count) as number:
        source, target = (at_offset(f, array, number) for array in arrays[:2])
        mask = mask_at(f, v, arrays[2], number)
        windows = [f.at(source, offset, "i8") for offset in offsets]
        share = None if largest else f.load(sums, f.at(arrays[4], f.multiply(number, v.lanes)))
        with f.loop(0, channels) as channel:
            at = f.multiply(channel, v.lanes)
            total = load(windows[0], at) if windows else f.constant(sums, -math.inf if largest else 0.0)
            for window in windows[1:]:
                value = load(window, at)
                total = f.larger(v, total, value) if largest else f.value(f"fadd {sums} {total}, {value}")
            total = total if share is None else f.value(f"fmul {sums} {total}, {share}")
            total = f.converted(sums, total, v.element)
            f.store(v, kept(f, v, mask, total), f.at(target, at, v.element))
    return compiled(f, machine)
