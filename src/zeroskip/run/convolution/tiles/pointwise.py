"""Operations that look at one place, or at a window without weights: sums, scales, activations, pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, vector
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.operations import Operation, Window
from zeroskip.run.convolution.tiles.steps import Step, activated, compiled, function, kept, lanes_of, step


def pointwise(node: str, one: Operation, x: Map, other: Map | None, y: Map, machine: Machine) -> Step:
    """y = activation(scale x + shift + other), scale and shift for each channel.

    >>> pointwise("add_1", operation, x, other, y, detect()).name
    'pointwise'
    """
    places = y.layout.inside()
    maps = [x, y if other is None else other, y]
    offsets = [each.first + each.layout.offset(*places.T) for each in maps]
    channels = len(y.channels)
    scale, shift = (np.ones(channels, np.float32), np.zeros(channels, np.float32))
    if one.factors is not None:
        scale, shift = (factor.numpy() for factor in one.factors)
    layout, scaled = y.layout, one.factors is not None
    code = _pointwise_code(
        machine, layout.lanes, layout.element, scaled, other is not None, one.relu, one.most
    )
    factors = [factor.astype(layout.dtype) for factor in (scale, shift)]
    return step("pointwise", node, code, len(places), channels, *offsets, layout.masks(places), *factors)


def pool(
    node: str, one: Operation, x: Map, y: Map, taps: np.ndarray, stride: int, size: tuple[int, int],
    machine: Machine,
) -> Step:  # fmt: skip
    """The largest value, or the mean, of the window around each pixel; the taps are byte offsets into x.

    `size` is the height and width of the input, of which x may hold phases.

    >>> pool("pool1", operation, x, y, taps, 2, (56, 56), detect()).name
    'max'
    """
    assert one.window is not None
    places = y.layout.inside()
    slot, row, column = places.T
    source = x.first + x.layout.offset(slot, row * stride, column * stride)
    target = y.first + y.layout.offset(*places.T)
    code = _pool_code(machine, y.layout.lanes, y.layout.element, len(taps), one.kind == "max")
    shares = [] if one.kind == "max" else [_shares(y.layout, places, one, size)]
    masks, taps = y.layout.masks(places), taps.astype(np.int64)
    return step(one.kind, node, code, len(places), len(y.channels), source, target, masks, taps, *shares)


def mean(node: str, x: Map, slot: int, machine: Machine) -> Step:
    """The mean of every channel, into a tensor (images, channels) at the address in word `slot`.

    >>> mean("mean", x, 1, detect()).name
    'mean'
    """
    layout = x.layout
    places = layout.inside()
    offsets = x.first + layout.offset(*places.T)
    share = np.array([1 / (layout.height * layout.width)], np.float32)
    code = _mean_code(machine, layout.lanes, layout.element)
    return step(
        "mean",
        node,
        code,
        8 * slot,
        layout.slots,
        len(places) // layout.slots,
        len(x.channels),
        offsets,
        share,
    )


def _shares(layout: Layout, places: np.ndarray, one: Operation, size: tuple[int, int]) -> np.ndarray:
    """(places, lanes) float32: by what the sum of a window is divided, as a factor."""
    window = one.window
    assert window is not None
    pixels = layout.pixels(places)
    counts = np.ones(pixels.shape[:2])
    for axis in (0, 1):
        counts *= _counted(pixels[..., axis + 1], axis, size[axis], window, one.counts_padding)
    return (1 / np.maximum(1, counts if one.divisor is None else one.divisor)).astype(np.float32) * np.ones(
        counts.shape, np.float32
    )


def _counted(pixel: np.ndarray, axis: int, size: int, window: Window, padded: bool) -> np.ndarray:
    """How many pixels of a window count in one direction: those of the map, or of the map with its padding."""
    first = pixel * window.stride - window.padding[axis]
    last = first + window.size[axis]
    margin = window.padding[axis] if padded else 0
    return np.minimum(last, size + margin) - np.maximum(first, -margin)


@cache
def _pointwise_code(
    machine: Machine, lanes: int, element: str, scaled: bool, summed: bool, relu: bool, most: float | None
) -> Callable[..., None]:
    kind = vector(lanes, element)
    f = function("pointwise")
    count, channels, *arrays = f.fields("%plan", [INTEGER] * 2 + [POINTER] * 6)
    masks, scale, shift = arrays[3:]
    with f.loop(0, count) as number:
        source, other, target = (_place(f, array, number) for array in arrays[:3])
        mask = lanes_of(f, lanes, f.load(INTEGER, f.at(masks, number, INTEGER)))
        with f.loop(0, channels) as channel:
            at = f.multiply(channel, lanes)
            value = f.load(kind, f.at(source, at, element))
            if scaled:
                factor, term = (
                    f.splat(lanes, f.load(element, f.at(each, channel, element)), element)
                    for each in (scale, shift)
                )
                value = f.multiply_add(lanes, value, factor, term, element=element)
            if summed:
                value = f.value(f"fadd {kind} {value}, {f.load(kind, f.at(other, at, element))}")
            value = activated(f, lanes, value, relu, most, element=element)
            f.store(kind, kept(f, lanes, mask, value, element=element), f.at(target, at, element))
    return compiled(f, machine)


@cache
def _pool_code(machine: Machine, lanes: int, element: str, taps: int, largest: bool) -> Callable[..., None]:
    # The mean of a window is taken in float: its sum may be larger than any half.
    within = element if largest else "float"
    kind = vector(lanes, within)
    f = function("pool")

    def load(window: str, at: str) -> str:
        value = f.load(vector(lanes, element), f.at(window, at, element))
        return f.converted(lanes, value, element, within)

    count, channels, *arrays = f.fields(
        "%plan", [INTEGER] * 2 + [POINTER] * 4 + ([] if largest else [POINTER])
    )
    offsets = [f.load(INTEGER, f.at(arrays[3], tap, INTEGER)) for tap in range(taps)]
    with f.loop(0, count) as number:
        source, target = (_place(f, array, number) for array in arrays[:2])
        mask = lanes_of(f, lanes, f.load(INTEGER, f.at(arrays[2], number, INTEGER)))
        windows = [f.at(source, offset, "i8") for offset in offsets]
        share = None if largest else f.load(kind, f.at(arrays[4], f.multiply(number, lanes)))
        with f.loop(0, channels) as channel:
            at = f.multiply(channel, lanes)
            total = load(windows[0], at)
            for window in windows[1:]:
                value = load(window, at)
                total = (
                    f.larger(lanes, total, value, element=element)
                    if largest
                    else f.value(f"fadd {kind} {total}, {value}")
                )
            total = total if share is None else f.value(f"fmul {kind} {total}, {share}")
            total = f.converted(lanes, total, within, element)
            whole = kept(f, lanes, mask, total, element=element)
            f.store(vector(lanes, element), whole, f.at(target, at, element))
    return compiled(f, machine)


@cache
def _mean_code(machine: Machine, lanes: int, element: str) -> Callable[..., None]:
    kind = vector(lanes)  # sums of many pixels are taken in float, whatever the map holds
    f = function("mean")
    slot, images, places, channels, offsets, share = f.fields("%plan", [INTEGER] * 4 + [POINTER] * 2)
    y = f.load(POINTER, f.at("%base", slot, "i8"))
    factor = f.load("float", share)
    with f.loop(0, images) as image, f.loop(0, channels) as channel:
        total = f.slot(kind, "zeroinitializer")
        with f.loop(0, places) as place:
            number = f.add(f.multiply(image, places), place)
            at = f.at(_place(f, offsets, number), f.multiply(channel, lanes), element)
            value = f.converted(lanes, f.load(vector(lanes, element), at), element, "float")
            f.store(kind, f.value(f"fadd {kind} {f.load(kind, total)}, {value}"), total)
        whole = f.sum(lanes, f.load(kind, total))
        at = f.at(y, f.add(f.multiply(image, channels), channel))
        f.store("float", f.value(f"fmul float {whole}, {factor}"), at)
    return compiled(f, machine)


def _place(f: Function, offsets: str, number: str) -> str:
    return f.at("%base", f.load(INTEGER, f.at(offsets, number, INTEGER)), "i8")
