"""Steps between maps of quads and of fp32, and those that need no sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.quad_numbers import byte_of, interleaved, nearest
from zeroskip.run.convolution.tiles.quad_products import byte
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at
from zeroskip.run.element import Scaling

TO_BYTES, TO_FP32 = "quantise", "dequantise"  # names of the steps that convert


def quantised(node: str, x: Map, y: Map, scaling: Scaling, machine: Machine) -> Step:
    """A map of fp32 as quads: x x (1 / scale), rounded to the nearest, within what a byte holds; NaN is 0."""
    arrays = _places(x, y)
    numbers = np.array([scaling.inverse, -scaling.zero_point, scaling.most], np.float32)
    block = argument_block(
        len(arrays[0]), len(y.channels), len(x.channels), scaling.word & 0xFFFFFFFF, *arrays, numbers
    )
    return Step(TO_BYTES, node, _quantised_code(machine, y.layout.vector), block)


def dequantised(node: str, x: Map, y: Map, scaling: Scaling, machine: Machine) -> Step:
    """A map of quads as fp32: scale x (q - zero point), rounded once."""
    arrays = _places(x, y)
    numbers = np.array([scaling.scale, scaling.zero_point], np.float32)
    block = argument_block(len(arrays[0]), len(y.channels), *arrays, numbers)
    return Step(TO_FP32, node, _dequantised_code(machine, x.layout.vector), block)


def largest_quads(
    node: str, x: Map, y: Map, taps: tuple[np.ndarray, tuple[int, int]], scaling: Scaling, machine: Machine
) -> Step:
    """The largest byte of a window around each pixel; `taps`: bytes from the window's place, and its stride."""
    offsets, stride = taps
    arrays = [*_places(x, y, stride), offsets.astype(np.int64)]
    block = argument_block(len(arrays[0]), len(y.channels), scaling.word & 0xFFFFFFFF, *arrays)
    return Step("max", node, _largest_code(machine, y.layout.vector, len(offsets)), block)


def _places(x: Map, y: Map, stride: tuple[int, int] = (1, 1)) -> list[np.ndarray]:
    """Where in the workspace each place of y reads and writes, and which lanes hold pixels."""
    places = y.layout.inside()
    slot, row, column = places.T
    source = x.first + x.layout.offset(slot, row * stride[0], column * stride[1])
    return [source, y.first + y.layout.offset(*places.T), y.layout.masks(places)]


@cache
def _quantised_code(machine: Machine, v: Vector) -> Callable[..., None]:
    f, fields = function("quantise", [INTEGER] * 4 + [POINTER] * 4)
    (count, quads, channels, word, xs, ys, masks, numbers), w = fields, v.of("float")
    scaling = [f.splat(w, f.load("float", f.at(numbers, at))) for at in range(3)]
    fill = f.splat(v, f.value(f"trunc i64 {word} to i32"))
    last = f.subtract(channels, 1)
    with f.loop(0, count) as row:
        x, y, mask = at_offset(f, xs, row), at_offset(f, ys, row), mask_at(f, v, masks, row)
        with f.loop(0, quads) as quad:
            whole = []
            for part in range(QUAD):
                channel = f.add(f.multiply(quad, QUAD), part)
                value = f.load(w, f.at(x, f.multiply(f.smaller(channel, last), v.lanes)))
                real = f.value(f"icmp sle i64 {channel}, {last}")
                number = byte_of(f, w, value, scaling)
                whole.append(f.value(f"select i1 {real}, {v} {number}, {v} zeroinitializer"))
            woven = interleaved(f, v, whole)
            signed = f.value(f"xor {v} {woven}, {fill}")
            f.store(v, kept(f, v, mask, signed, fill), f.at(y, f.multiply(quad, v.lanes), "i32"))
    return compiled(f, machine)


@cache
def _dequantised_code(machine: Machine, v: Vector) -> Callable[..., None]:
    f, fields = function("dequantise", [INTEGER] * 2 + [POINTER] * 4)
    (count, channels, xs, ys, masks, numbers), w = fields, v.of("float")
    scale, zero_point = (f.splat(w, f.load("float", f.at(numbers, at))) for at in range(2))
    with f.loop(0, count) as number:
        x, y, mask = at_offset(f, xs, number), at_offset(f, ys, number), mask_at(f, v, masks, number)
        with f.loop(0, channels) as channel:
            quad, part = (f.value(f"{word} i64 {channel}, {QUAD}") for word in ("udiv", "urem"))
            words = f.load(v, f.at(x, f.multiply(quad, v.lanes), "i32"))
            one = byte(f, v, words, f.value(f"trunc i64 {part} to i32"))
            value = f.value(f"fsub {w} {f.value(f'uitofp {v} {one} to {w}')}, {zero_point}")
            value = f.value(f"fmul {w} {value}, {scale}")
            f.store(w, kept(f, w, mask, value), f.at(y, f.multiply(channel, v.lanes)))
    return compiled(f, machine)


@cache
def _largest_code(machine: Machine, v: Vector, taps: int) -> Callable[..., None]:
    f, fields = function("max", [INTEGER] * 3 + [POINTER] * 4)
    (count, quads, word, xs, ys, masks, taps_at), b = fields, Vector(QUAD * v.lanes, "i8")
    fill = f.splat(v, f.value(f"trunc i64 {word} to i32"))
    offsets = [f.load(INTEGER, f.at(taps_at, tap, INTEGER)) for tap in range(taps)]
    with f.loop(0, count) as number:
        x, y, mask = at_offset(f, xs, number), at_offset(f, ys, number), mask_at(f, v, masks, number)
        windows = [f.at(x, offset, "i8") for offset in offsets]
        with f.loop(0, quads) as quad:
            at = f.multiply(quad, v.lanes)
            total, *others = (f.load(b, f.at(window, at, "i32")) for window in windows)
            for other in others:
                total = f.call(b, f"llvm.umax.{b.suffix}", f"{b} {total}", f"{b} {other}")
            words = f.value(f"bitcast {b} {total} to {v}")
            f.store(v, kept(f, v, mask, words, fill), f.at(y, at, "i32"))
    return compiled(f, machine)


def mean_quads(node: str, x: Map, y: Map, scalings: tuple[Scaling, Scaling | None], machine: Machine) -> Step:
    """The mean of every channel over all pixels, into a map of one pixel: its sum times scale / count, rounded.

    It stays fp32 where the second of the `scalings` is None.
    """
    layout, (before, after) = x.layout, scalings
    places = layout.inside()
    count = len(places) // layout.slots
    # Lanes without a pixel hold the zero point: they are taken out of the sum with the others.
    start = -before.zero_point * count * layout.lanes
    factor = np.float32(before.scale) / np.float32(layout.height * layout.width)
    targets = y.first + y.layout.offset(np.arange(layout.slots), 0, 0)
    sources = x.first + layout.offset(*places.T)
    if after is None:
        floats = np.array([factor], np.float32)
        block = argument_block(layout.slots, count, len(y.channels), start, 0, targets, sources, floats)
        return Step("mean", node, _mean_code(machine, layout.vector, quantised=False), block)
    numbers = np.array([factor, after.inverse, after.least, after.most], np.float32)
    block = argument_block(
        *(layout.slots, count, len(x.channels), start, after.word & 0xFFFFFFFF),
        *(targets, sources, numbers),
    )
    return Step("mean", node, _mean_code(machine, layout.vector, quantised=True), block)


@dataclass(frozen=True)
class _MeanFields:
    """Names of values: the fields of the argument block; `vectors` are those of y."""

    images: str
    places: str
    vectors: str
    start: str
    word: str
    targets: str
    sources: str
    numbers: str


@cache
def _mean_code(machine: Machine, v: Vector, *, quantised: bool) -> Callable[..., None]:
    f, names = function("mean", [INTEGER] * 5 + [POINTER] * 3)
    fields, w = _MeanFields(*names), v.of("float")
    numbers = [f.splat(w, f.load("float", f.at(fields.numbers, at))) for at in range(4 if quantised else 1)]
    fill = f.splat(v, f.value(f"trunc i64 {fields.word} to i32"))
    only = f.below(v.lanes, "1")
    with f.loop(0, fields.images) as image:
        target = at_offset(f, fields.targets, image)
        with f.loop(0, fields.vectors) as vector:
            to = f.multiply(vector, v.lanes)
            if quantised:
                woven = _woven_means(f, v, fields, (image, vector), numbers)
                signed = f.value(f"xor {v} {woven}, {fill}")
                f.store(v, kept(f, v, only, signed, fill), f.at(target, to, "i32"))
            else:
                quad, part = (f.value(f"{word} i64 {vector}, {QUAD}") for word in ("udiv", "urem"))
                place = [f.value(f"trunc i64 {part} to i32")]
                (value,) = _means(f, v, fields, (image, quad, numbers[0]), place)
                f.store(w, kept(f, w, only, value), f.at(target, to))
    return compiled(f, machine)


def _woven_means(
    f: Function, v: Vector, fields: _MeanFields, where: tuple[str, str], numbers: Sequence[str]
) -> str:
    """In all lanes the bytes of a quad, counted from the zero point; `where`: the image and the quad."""
    w = v.of("float")
    means = _means(f, v, fields, (*where, numbers[0]), [str(part) for part in range(QUAD)])
    scaled = [f.value(f"fmul {w} {value}, {numbers[1]}") for value in means]
    return interleaved(f, v, [nearest(f, w, value, numbers[2], numbers[3]) for value in scaled])


def _means(
    f: Function, v: Vector, fields: _MeanFields, where: tuple[str, str, str], parts: Sequence[str]
) -> list[str]:
    """In all lanes the mean of these parts of a quad; `where`: the image, the quad, and the factor of sums."""
    image, quad, factor = where
    w, at = v.of("float"), f.multiply(quad, v.lanes)
    first = f.splat(v, f.value(f"trunc i64 {fields.start} to i32"))
    totals = [f.slot(v, "zeroinitializer") for _ in parts]
    with f.loop(0, fields.places) as place:
        source = at_offset(f, fields.sources, f.add(f.multiply(image, fields.places), place))
        words = f.load(v, f.at(source, at, "i32"))
        for part, total in zip(parts, totals, strict=True):
            f.store(v, f.value(f"add {v} {f.load(v, total)}, {byte(f, v, words, part)}"), total)
    means = []
    for total in totals:
        whole = f.call("i32", f"llvm.vector.reduce.add.{v.suffix}", f"{v} {f.load(v, total)}")
        centred = f.value(f"add {v} {f.splat(v, whole)}, {first}")
        means.append(f.value(f"fmul {w} {f.value(f'sitofp {v} {centred} to {w}')}, {factor}"))
    return means
