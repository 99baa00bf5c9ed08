"""Operations that look at one place, or at a window without weights: sums, scales, activations, pooling, means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.operations import Operation, Window
from zeroskip.run.convolution.tiles.steps import (
    Epilogue,
    Step,
    at_offset,
    compiled,
    finished,
    function,
    kept,
    mask_at,
)
from zeroskip.run.convolution.tiles.tensor_transfer import TensorSlot


@dataclass(frozen=True)
class WindowTaps:
    """Where a window's taps lie in a map.

    offsets  (taps,) bytes from the window's place, row by row
    stride   places of the map from one window to the next
    """

    offsets: np.ndarray
    stride: int


def pointwise(operation: Operation, x: Map, other: Map | None, y: Map, machine: Machine) -> Step:
    """y = epilogue(scale x + shift), scale and shift for each channel; `other` is what the epilogue adds."""
    places, layout = y.layout.inside(), y.layout
    maps = [x, y if other is None else other, y]
    offsets = [each.first + each.layout.offset(*places.T) for each in maps]
    channels = len(y.channels)
    scale, shift = (np.ones(channels, np.float32), np.zeros(channels, np.float32))
    if operation.factors is not None:
        scale, shift = (factor.numpy() for factor in operation.factors)
    epilogue = Epilogue(other is not None, operation.relu, operation.bound)
    code = _pointwise_code(machine, layout.vector, operation.factors is not None, epilogue)
    factors = [factor.astype(layout.element.dtype) for factor in (scale, shift)]
    block = argument_block(len(places), channels, *offsets, layout.masks(places), *factors)
    return Step("pointwise", operation.name, code, block)


def pool(
    operation: Operation, x: Map, y: Map, taps: WindowTaps, size: tuple[int, int], machine: Machine
) -> Step:
    """The largest value, or the mean, of the window around each pixel.

    `size` is the height and width of the input, of which x may hold phases.
    """
    places, largest = y.layout.inside(), operation.kind == "max"
    slot, row, column = places.T
    source = x.first + x.layout.offset(slot, row * taps.stride, column * taps.stride)
    target = y.first + y.layout.offset(*places.T)
    code = _pool_code(machine, y.layout.vector, len(taps.offsets), largest)
    arrays = [source, target, y.layout.masks(places), taps.offsets.astype(np.int64)]
    arrays += [] if largest else [_shares(y.layout, places, operation, size)]
    return Step(operation.kind, operation.name, code, argument_block(len(places), len(y.channels), *arrays))


def mean(operation: Operation, x: Map, slot: int, machine: Machine) -> Step:
    """The mean of every channel, into a tensor (images, channels) at the address in word `slot`."""
    layout = x.layout
    places = layout.inside()
    offsets = x.first + layout.offset(*places.T)
    share = np.array([1 / (layout.height * layout.width)], np.float32)
    counts = layout.slots, len(places) // layout.slots, len(x.channels)
    tensor = TensorSlot(slot, operation.shape)
    block = argument_block(tensor.offset, *counts, offsets, share)
    return Step("mean", operation.name, _mean_code(machine, layout.vector), block)


def _shares(layout: Layout, places: np.ndarray, operation: Operation, size: tuple[int, int]) -> np.ndarray:
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
    first = pixel * window.stride - window.padding[axis]
    last = first + window.size[axis]
    margin = window.padding[axis] if padded else 0
    return np.minimum(last, size + margin) - np.maximum(first, -margin)


@cache
def _pointwise_code(machine: Machine, v: Vector, scaled: bool, epilogue: Epilogue) -> Callable[..., None]:
    f, (count, channels, *arrays) = function("pointwise", [INTEGER] * 2 + [POINTER] * 6)
    masks, scale, shift = arrays[3:]
    with f.loop(0, count) as number:
        source, other, target = (at_offset(f, array, number) for array in arrays[:3])
        mask = mask_at(f, v, masks, number)
        with f.loop(0, channels) as channel:
            at = f.multiply(channel, v.lanes)
            value = f.load(v, f.at(source, at, v.element))
            if scaled:
                factor, term = (
                    f.splat(v, f.load(v.element, f.at(each, channel, v.element))) for each in (scale, shift)
                )
                value = f.multiply_add(v, value, factor, term)
            residual = f.at(other, at, v.element) if epilogue.residual else None
            value = finished(f, v, epilogue, value, residual, mask)
            f.store(v, value, f.at(target, at, v.element))
    return compiled(f, machine)


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
            total = load(windows[0], at)
            for window in windows[1:]:
                value = load(window, at)
                total = f.larger(v, total, value) if largest else f.value(f"fadd {sums} {total}, {value}")
            total = total if share is None else f.value(f"fmul {sums} {total}, {share}")
            total = f.converted(sums, total, v.element)
            f.store(v, kept(f, v, mask, total), f.at(target, at, v.element))
    return compiled(f, machine)


@cache
def _mean_code(machine: Machine, v: Vector) -> Callable[..., None]:
    sums = v.of("float")  # sums of many pixels are taken in float, whatever the map holds
    f, fields = function("mean", [INTEGER] * 4 + [POINTER] * 2)
    slot, images, places, channels, offsets, share = fields
    y = f.load(POINTER, f.at("%base", slot, "i8"))
    factor = f.load("float", share)
    with f.loop(0, images) as image, f.loop(0, channels) as channel:
        total = f.slot(sums, "zeroinitializer")
        with f.loop(0, places) as place:
            number = f.add(f.multiply(image, places), place)
            at = f.at(at_offset(f, offsets, number), f.multiply(channel, v.lanes), v.element)
            value = f.converted(v, f.load(v, at), "float")
            f.store(sums, f.value(f"fadd {sums} {f.load(sums, total)}, {value}"), total)
        whole = f.sum(sums, f.load(sums, total))
        at = f.at(y, f.add(f.multiply(image, channels), channel))
        f.store("float", f.value(f"fmul float {whole}, {factor}"), at)
    return compiled(f, machine)
