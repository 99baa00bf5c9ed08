"""Operations that look at many pixels or channels for each number: means over a map, norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.activation import Activation, activated
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.quad_numbers import ByteEnds, ends_of, rounding_way, write_quads
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at
from zeroskip.run.element import Scaling

TOGETHER = 8  # channels whose sums are in registers at a time
CHAINS = 4  # sums of one pixel's channels that do not wait for each other
BLOCK = 64  # numbers that are added to one sum: of many more it would lose its last digits


def mean(operation: Operation, x: Map, y: Map, machine: Machine) -> Step:
    """The mean of every channel, into a map of one pixel."""
    layout = x.layout
    places = layout.inside()
    offsets = x.first + layout.offset(*places.T)
    share = np.array([1 / (layout.height * layout.width)], np.float32)
    counts = layout.slots, len(places) // layout.slots, len(x.channels)
    targets = y.first + y.layout.offset(np.arange(layout.slots), 0, 0)
    block = argument_block(*counts, targets, offsets, share)
    return Step("mean", operation.name, _mean_code(machine, layout.vector), block)


def layer_norm(operation: Operation, x: Map, y: Map, machine: Machine, output: Scaling | None = None) -> Step:
    """Each pixel: less the mean of its channels, over their standard deviation; then factor and shift by channel.

    Of groups of channels each by itself. An RMSNorm takes no mean off (Zhang and Sennrich 2019). Into bytes of the
    scaling `output`, if there is one; of these there is one group.
    """
    places, layout = y.layout.inside(), y.layout
    offsets = [x.first + x.layout.offset(*places.T), y.first + layout.offset(*places.T)]
    factors = [factor.numpy().astype(np.float32) for factor in operation.factors or ()]
    counts = len(places), operation.groups, len(x.channels) // operation.groups
    numbers = np.array([1 / counts[2], operation.epsilon], np.float32)
    word, ends = 0 if output is None else output.word & 0xFFFFFFFF, np.array(ends_of(output), np.float32)
    way = None if output is None else rounding_way(machine, x.layout.vector, output)
    form = _NormForm(operation.kind == "layer_norm", operation.activation, way)
    code = _layer_norm_code(machine, x.layout.vector, form)
    arrays = [*offsets, layout.masks(places), *factors, numbers]
    block = argument_block(*counts, *arrays, word, ends)
    return Step("norm", operation.name, code, block)


def group_norm(operation: Operation, x: Map, y: Map, machine: Machine) -> Step:
    """As `layer_norm`, with mean and deviation of a group of channels over all pixels of an image."""
    places, layout = y.layout.inside(), y.layout
    offsets = [x.first + x.layout.offset(*places.T), y.first + layout.offset(*places.T)]
    factors = [factor.numpy().astype(np.float32) for factor in operation.factors or ()]
    channels = len(y.channels) // operation.groups
    numbers = np.array([1 / (channels * layout.height * layout.width), operation.epsilon], np.float32)
    counts = layout.slots, len(places) // layout.slots, operation.groups, channels
    code = _group_norm_code(machine, layout.vector, operation.activation)
    block = argument_block(*counts, *offsets, layout.masks(places), *factors, numbers)
    return Step("norm", operation.name, code, block)


@cache
def _mean_code(machine: Machine, v: Vector) -> Callable[..., None]:
    sums = v.of("float")  # sums of many pixels are taken in float, whatever the map holds
    f, (images, places, channels, *arrays) = function("mean", [INTEGER] * 3 + [POINTER] * 3)
    factor = f.load("float", arrays[2])
    even = f.subtract(channels, f.value(f"urem i64 {channels}, {TOGETHER}"))
    with f.loop(0, images) as image:
        target = at_offset(f, arrays[0], image)
        for first, end, several in (("0", even, TOGETHER), (even, channels, 1)):
            with f.loop(first, end, several) as channel:
                totals = [f.slot(sums, "zeroinitializer") for _ in range(several)]
                with _summed(f, sums, places, totals) as (place, parts):
                    number = f.add(f.multiply(image, places), place)
                    at = f.at(at_offset(f, arrays[1], number), f.multiply(channel, v.lanes), v.element)
                    for part, total in enumerate(parts):
                        value = f.converted(v, f.load(v, f.at(at, part * v.lanes, v.element)), "float")
                        _add(f, sums, value, total)
                for part, total in enumerate(totals):
                    whole = f.value(f"fmul float {f.sum(sums, f.load(sums, total))}, {factor}")
                    single = f.value(f"insertelement {sums} zeroinitializer, float {whole}, i32 0")
                    at = f.at(target, f.multiply(f.add(channel, part), v.lanes), v.element)
                    f.store(v, f.converted(sums, single, v.element), at)
    return compiled(f, machine)


@dataclass(frozen=True)
class _NormForm:
    """What the code depends on: whether the mean is taken off, what follows, how bytes are rounded (None: no bytes)."""

    centered: bool
    activation: Activation | None
    way: str | None


@cache
def _layer_norm_code(machine: Machine, v: Vector, form: _NormForm) -> Callable[..., None]:
    wide = v.of("float")
    kinds = [INTEGER] * 3 + [POINTER] * 6 + [INTEGER, POINTER]
    f, (count, groups, channels, *arrays, word, ends) = function("layer_norm", kinds)
    rounding = None if form.way is None else ByteEnds.read(f, wide, ends, word, form.way)
    share, epsilon = (f.splat(wide, f.load("float", f.at(arrays[5], place))) for place in (0, 1))
    with f.loop(0, count) as number, f.loop(0, groups) as group:
        first = f.multiply(group, channels)
        begin = f.multiply(first, v.lanes)
        source, target = (f.at(at_offset(f, array, number), begin, v.element) for array in arrays[:2])
        mask = mask_at(f, v, arrays[2], number)

        def pixel(channel: str, source: str = source) -> str:
            return f.converted(v, f.load(v, f.at(source, f.multiply(channel, v.lanes), v.element)), "float")

        totals, squares = _chains(f, wide), _chains(f, wide)
        middle = "zeroinitializer"
        if form.centered:
            for channel, part in _in_chains(f, wide, channels, totals):
                _add(f, wide, pixel(channel), part)
            middle = f.value(f"fmul {wide} {_whole(f, wide, totals)}, {share}")
        for channel, part in _in_chains(f, wide, channels, squares):
            away = f.value(f"fsub {wide} {pixel(channel)}, {middle}")
            f.store(wide, f.multiply_add(wide, away, away, f.load(wide, part)), part)
        scale = _one_over_deviation(f, wide, _whole(f, wide, squares), share, epsilon)

        def made(
            channel: str, pixel: Callable[[str], str] = pixel, each: tuple[str, ...] = (middle, scale, first)
        ) -> str:
            middle, scale, first = each
            away = f.value(f"fsub {wide} {pixel(channel)}, {middle}")
            place = f.add(first, channel)
            factor, shift = (f.splat(wide, f.load("float", f.at(each, place))) for each in arrays[3:5])
            value = f.multiply_add(wide, f.value(f"fmul {wide} {away}, {scale}"), factor, shift)
            value = f.converted(wide, value, v.element)
            return value if form.activation is None else activated(f, v, form.activation, value)

        if rounding is not None:
            write_quads(f, wide, rounding, made, (channels, mask, target))
        else:
            with f.loop(0, channels) as channel:
                at = f.at(target, f.multiply(channel, v.lanes), v.element)
                f.store(v, kept(f, v, mask, made(channel)), at)
    return compiled(f, machine)


@cache
def _group_norm_code(machine: Machine, v: Vector, activation: Activation | None) -> Callable[..., None]:
    wide = v.of("float")
    f, fields = function("group_norm", [INTEGER] * 4 + [POINTER] * 6)
    images, places, groups, channels, *arrays = fields
    share, epsilon = (f.splat(wide, f.load("float", f.at(arrays[5], place))) for place in (0, 1))
    with f.loop(0, images) as image, f.loop(0, groups) as group:
        first = f.multiply(group, channels)

        def pixels(*totals: str, image: str = image, first: str = first) -> Iterator[_Pixel]:
            """Every vector of the group, and the sums that are part of the totals."""
            with _summed(f, wide, places, totals) as (place, in_block):
                number = f.add(f.multiply(image, places), place)
                source, target = (at_offset(f, array, number) for array in arrays[:2])
                mask = mask_at(f, v, arrays[2], number)
                with _summed(f, wide, channels, in_block) as (number, parts):
                    channel = f.add(first, number)
                    at = f.multiply(channel, v.lanes)
                    value = f.converted(v, f.load(v, f.at(source, at, v.element)), "float")
                    yield _Pixel(value, mask, f.at(target, at, v.element), channel, *parts)

        total, squares = f.slot(wide, "zeroinitializer"), f.slot(wide, "zeroinitializer")
        for pixel in pixels(total):
            _add(f, wide, pixel.value, pixel.part)
        whole = f.splat(wide, f.sum(wide, f.load(wide, total)))
        middle = f.value(f"fmul {wide} {whole}, {share}")
        for pixel in pixels(squares):
            away = kept(f, wide, pixel.mask, f.value(f"fsub {wide} {pixel.value}, {middle}"))
            f.store(wide, f.multiply_add(wide, away, away, f.load(wide, pixel.part)), pixel.part)
        whole = f.splat(wide, f.sum(wide, f.load(wide, squares)))
        scale = _one_over_deviation(f, wide, whole, share, epsilon)
        for pixel in pixels():
            away = f.value(f"fsub {wide} {pixel.value}, {middle}")
            factor, shift = (
                f.splat(wide, f.load("float", f.at(each, pixel.channel))) for each in arrays[3:5]
            )
            value = f.multiply_add(wide, f.value(f"fmul {wide} {away}, {scale}"), factor, shift)
            value = f.converted(wide, value, v.element)
            value = value if activation is None else activated(f, v, activation, value)
            f.store(v, kept(f, v, pixel.mask, value), pixel.target)
    return compiled(f, machine)


@dataclass(frozen=True)
class _Pixel:
    """Names of values: the numbers of a vector as float, which lanes hold pixels, where result and sum go."""

    value: str
    mask: str
    target: str
    channel: str
    part: str = ""


def _chains(f: Function, v: Vector) -> list[str]:
    """Slots of sums that become one, and do not wait for each other."""
    return [f.slot(v, "zeroinitializer") for _ in range(CHAINS)]


def _in_chains(f: Function, v: Vector, count: str, totals: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Loops below `count`: each number, and the slot of the sum that it joins."""
    even = f.subtract(count, f.value(f"urem i64 {count}, {CHAINS}"))
    with _summed(f, v, even, totals, CHAINS) as (first, parts):
        for place, part in enumerate(parts):
            yield f.add(first, place), part
    with f.loop(even, count) as number:
        yield number, totals[0]


def _whole(f: Function, v: Vector, totals: Sequence[str]) -> str:
    a, b, c, d = (f.load(v, total) for total in totals)
    pairs = f.value(f"fadd {v} {a}, {b}"), f.value(f"fadd {v} {c}, {d}")
    return f.value(f"fadd {v} {pairs[0]}, {pairs[1]}")


@contextmanager
def _summed(
    f: Function, v: Vector, count: str, totals: Sequence[str], step: int = 1
) -> Iterator[tuple[str, list[str]]]:
    """A loop below `count`: its number, and for each total the sum of a block, which joins it after the block."""
    with f.loop(0, count, BLOCK) as start:
        parts = [f.slot(v, "zeroinitializer") for _ in totals]
        with f.loop(start, f.smaller(f.add(start, BLOCK), count), step) as number:
            yield number, parts
        for part, total in zip(parts, totals, strict=True):
            _add(f, v, f.load(v, part), total)


def _add(f: Function, v: Vector, value: str, total: str) -> None:
    f.store(v, f.value(f"fadd {v} {f.load(v, total)}, {value}"), total)


def _one_over_deviation(f: Function, v: Vector, squares: str, share: str, epsilon: str) -> str:
    """1 / sqrt(squares x share + epsilon)."""
    variance = f.multiply_add(v, squares, share, epsilon)
    root = f.call(v, f"llvm.sqrt.{v.suffix}", f"{v} {variance}")
    return f.value(f"fdiv {v} {f.constant(v, 1.0)}, {root}")
