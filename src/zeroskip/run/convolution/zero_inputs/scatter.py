"""Convolutions that skip the zeros of their input: each non-zero is sent to all outputs that it reaches.

A block of weights is walked once, channel after channel, in the order in which it lies in memory: what a layer needs
whose weights come from beyond the caches. Those of a channel without non-zeros are never touched, and those of the
channel that is some way ahead are asked for. The weights of one channel, all taps of a few outputs, are in registers,
while its non-zeros add to sums in the first-level cache. There is a sum for every place that an input reaches through
some tap, be it an output or not, so that no non-zero asks where the image ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, Function
from zeroskip.emit.executable_memory import allocate
from zeroskip.run.convolution.zero_inputs.compiled_convolution import (
    PARAMETERS,
    CompiledConvolution,
    compiled_convolution,
    scratch_offsets,
)
from zeroskip.run.convolution.zero_inputs.convolution_shape import shape_of
from zeroskip.run.convolution.zero_inputs.number_formats import BYTES, LINE
from zeroskip.run.convolution.zero_inputs.scatter_blocking import ScatterBlocking, scatter_blocking


def build(layer: Layer, machine: Machine, relu: bool, *, storage: str = "fp32") -> CompiledConvolution:
    """The layer with the zeros of its input skipped, however few; without groups, and of stride 1."""
    cut = scatter_blocking(shape_of(layer), machine, storage=storage)
    f, scratch = emit(cut, relu=relu), pieces(cut)["end"]
    outputs = cut.blocks * cut.outputs
    return compiled_convolution(layer, machine, f, weights(layer, cut), outputs=outputs, scratch=scratch)


def weights(layer: Layer, cut: ScatterBlocking) -> np.ndarray:
    """The bytes of weights (blocks, channels, taps down, taps right, outputs), with zeros behind."""
    shape, outputs = cut.shape, cut.blocks * cut.outputs
    padded = np.zeros((outputs, shape.channels, *shape.taps), np.float32)
    padded[: shape.outputs] = layer.weight.detach().numpy()
    apart = padded.reshape(cut.blocks, cut.outputs, shape.channels, *shape.taps).transpose(0, 2, 3, 4, 1)
    memory = allocate(padded.size * BYTES[cut.storage])
    numbers = torch.from_numpy(memory).view(torch.float32 if cut.storage == "fp32" else torch.bfloat16)
    numbers.view(apart.shape).copy_(torch.from_numpy(apart))
    return memory


def pieces(cut: ScatterBlocking) -> dict[str, int]:
    """Where in the scratch each list begins, in floats; "end" is how many there are."""
    channels, plane = cut.shape.channels, _plane(cut)
    sizes = {
        **{"planes": cut.lanes * plane, "values": channels * plane, "places": channels * plane},
        **{"starts": 2 * (channels + 1), "channels": 2 * (channels + cut.ahead)},  # of 64 bits
        "sums": cut.sums,
    }
    return scratch_offsets(sizes)


def _plane(cut: ScatterBlocking) -> int:
    """Floats of a channel's plane, of which the last ones may belong to no pixel."""
    return -(-cut.shape.height * cut.shape.width // cut.lanes) * cut.lanes


@dataclass(frozen=True)
class _ChannelLists:
    """Where the lists of an image lie, and slots with how many values and channels they hold.

    values    float32, those of a channel together
    places    int32, how far into the sums those of a value begin, in bytes
    starts    int64, where the values of each channel begin that has any
    channels  int64, how far into a block the weights of that channel lie, in bytes; the first ones once more behind, as
              they are in the next block
    """

    values: str
    places: str
    starts: str
    channels: str
    filled: str
    alive: str


def emit(cut: ScatterBlocking, *, relu: bool) -> Function:
    """The kernel in LLVM IR: the lists of an image, then one block of its outputs after the other."""
    shape = cut.shape
    f = Function("scatter", PARAMETERS)
    at = {name: f.at("%scratch", place) for name, place in pieces(cut).items()}
    with f.loop(0, "%images") as image:
        x = f.at("%x", f.multiply(image, shape.height * shape.width * shape.channels))
        y = f.at("%y", f.multiply(image, shape.out_height * shape.out_width * shape.outputs))
        filled, alive = f.slot(INTEGER, "0"), f.slot(INTEGER, "0")
        lists = _ChannelLists(at["values"], at["places"], at["starts"], at["channels"], filled, alive)
        with f.loop(0, shape.channels, cut.lanes) as first:
            left = f.subtract(shape.channels, first)
            _emit_planes(f, cut, f.at(x, first), left, at["planes"])
            with f.loop(0, f.smaller(cut.lanes, left)) as each:
                plane = f.at(at["planes"], f.multiply(each, _plane(cut)))
                _emit_list(f, cut, plane, f.add(first, each), lists)
        _emit_end(f, cut, lists)
        with f.loop(0, cut.blocks) as block:
            _emit_block(f, cut, block, at["sums"], lists)
            _emit_outputs(f, cut, block, at["sums"], y, relu)
    return f


def _emit_planes(f: Function, cut: ScatterBlocking, x: str, left: str, planes: str) -> None:
    """A vector of channels of an image stored pixel by pixel, as planes one behind the other."""
    pixels = cut.shape.height * cut.shape.width
    whole = pixels // cut.lanes * cut.lanes
    with f.loop(0, whole, cut.lanes) as first:
        pixel = f.at(x, f.multiply(first, cut.shape.channels))
        _emit_square(f, cut, pixel, left, f.at(planes, first), cut.lanes)
    if pixels > whole:
        pixel = f.at(x, whole * cut.shape.channels)
        _emit_square(f, cut, pixel, left, f.at(planes, whole), pixels - whole)


def _emit_square(f: Function, cut: ScatterBlocking, x: str, left: str, planes: str, count: int) -> None:
    """So many pixels from `x` on, with zeros behind, as part of the planes of a vector of channels."""
    lanes, channels = cut.lanes, cut.shape.channels
    sources = [f.at(x, each * channels) for each in range(count)]
    if channels % lanes:
        mask = f.below(lanes, left)
        rows = [f.load_masked(cut.v, mask, source) for source in sources]
    else:
        rows = [f.load(cut.v, source) for source in sources]
    rows += ["zeroinitializer"] * (lanes - count)
    for channel, row in enumerate(f.transposed(cut.v, rows)):
        f.store(cut.v, row, f.at(planes, channel * _plane(cut)))


def _emit_list(f: Function, cut: ScatterBlocking, plane: str, channel: str, lists: _ChannelLists) -> None:
    """Append the non-zeros of a channel, and the channel if it has any."""
    v, numbers = cut.v, cut.v.of("i32")
    begin, alive = f.load(INTEGER, lists.filled), f.load(INTEGER, lists.alive)
    with f.loop(0, _plane(cut), v.lanes) as pixel:
        values, filled = f.load(v, f.at(plane, pixel)), f.load(INTEGER, lists.filled)
        mask = f.value(f"fcmp une {v} {values}, zeroinitializer")  # true of NaN
        places = f.compressed(numbers, mask, _places(f, cut, pixel))
        f.store(v, f.compressed(v, mask, values), f.at(lists.values, filled))
        f.store(numbers, places, f.at(lists.places, filled, "i32"))
        f.store(INTEGER, f.add(filled, f.count(v.lanes, mask)), lists.filled)
    f.store(INTEGER, begin, f.at(lists.starts, alive, INTEGER))
    f.store(INTEGER, f.multiply(channel, cut.channel), f.at(lists.channels, alive, INTEGER))
    has_any = f.smaller(1, f.subtract(f.load(INTEGER, lists.filled), begin))
    f.store(INTEGER, f.add(alive, has_any), lists.alive)


def _places(f: Function, cut: ScatterBlocking, pixel: str) -> str:
    """Where the sums of a vector of pixels begin, in bytes: rows of sums are longer than those of the image."""
    v = cut.v.of("i32")
    offsets = ", ".join(f"i32 {lane}" for lane in range(v.lanes))
    number = f.splat(v, f.value(f"trunc i64 {pixel} to i32"))
    number = f.value(f"add {v} {number}, <{offsets}>")
    row = f.value(f"udiv {v} {number}, {f.splat(v, str(cut.shape.width))}")
    behind = f.value(f"mul {v} {row}, {f.splat(v, str(cut.columns - cut.shape.width))}")
    place = f.value(f"add {v} {number}, {behind}")
    return f.value(f"mul {v} {place}, {f.splat(v, str(4 * cut.outputs))}")


def _emit_end(f: Function, cut: ScatterBlocking, lists: _ChannelLists) -> None:
    """Close the lists: where the last one ends, and which weights the next block begins with."""
    alive, size = f.load(INTEGER, lists.alive), cut.shape.channels * cut.channel
    f.store(INTEGER, f.load(INTEGER, lists.filled), f.at(lists.starts, alive, INTEGER))
    with f.loop(0, cut.ahead) as each:  # of fewer channels, some are places that are asked for in vain
        place = f.add(f.load(INTEGER, f.at(lists.channels, each, INTEGER)), size)
        f.store(INTEGER, place, f.at(lists.channels, f.add(alive, each), INTEGER))


def _emit_block(f: Function, cut: ScatterBlocking, block: str, sums: str, lists: _ChannelLists) -> None:
    """Sum one block of the outputs."""
    v = cut.v
    bias = f.at("%bias", f.multiply(block, cut.outputs))
    biases = [f.load(v, f.at(bias, cut.lanes * each)) for each in range(cut.vectors)]
    with f.loop(0, cut.rows * cut.columns) as pixel:
        for each, value in enumerate(biases):
            f.store(v, value, f.at(sums, f.add(f.multiply(pixel, cut.outputs), cut.lanes * each)))
    weights = f.at("%weights", f.multiply(block, cut.shape.channels * cut.channel), "i8")
    first = f.at(sums, (cut.margin[0] * cut.columns + cut.margin[1]) * cut.outputs)
    with f.loop(0, f.load(INTEGER, lists.alive)) as number:
        _emit_channel(f, cut, number, weights, first, lists)


def _emit_channel(
    f: Function, cut: ScatterBlocking, number: str, weights: str, sums: str, lists: _ChannelLists
) -> None:
    """Send the non-zeros of a channel; its weights are loaded, and others asked for, in the course of the first."""
    row, ahead = (
        f.at(weights, f.load(INTEGER, f.at(lists.channels, each, INTEGER)), "i8")
        for each in (number, f.add(number, cut.ahead))
    )
    begin, end = (f.load(INTEGER, f.at(lists.starts, each, INTEGER)) for each in (number, f.add(number, 1)))
    value, target = _nonzero(f, cut, begin, sums, lists)
    held = []
    for each, offset in enumerate(cut.targets):
        if BYTES[cut.storage] * cut.lanes * each % LINE == 0:
            f.prefetch(f.at(ahead, BYTES[cut.storage] * cut.lanes * each, "i8"))
        held.append(_weight(f, cut, row, each))
        _emit_sum(f, cut, value, held[each], f.at(target, offset))
    with f.loop(f.add(begin, 1), end) as entry:
        value, target = _nonzero(f, cut, entry, sums, lists)
        for weight, offset in zip(held, cut.targets, strict=True):
            _emit_sum(f, cut, value, weight, f.at(target, offset))


def _weight(f: Function, cut: ScatterBlocking, row: str, number: int) -> str:
    """A vector of weights as floats."""
    v, first = cut.v, cut.lanes * number
    if cut.storage == "fp32":
        return f.load(v, f.at(row, first))
    return f.from_bf16(v, f.load(v.of("i16"), f.at(row, first, "i16")))


def _nonzero(
    f: Function, cut: ScatterBlocking, entry: str, sums: str, lists: _ChannelLists
) -> tuple[str, str]:
    """A value in every lane, and where its sums begin."""
    value = f.splat(cut.v, f.load("float", f.at(lists.values, entry)))
    place = f.value(f"sext i32 {f.load('i32', f.at(lists.places, entry, 'i32'))} to i64")
    return value, f.at(sums, place, "i8")


def _emit_sum(f: Function, cut: ScatterBlocking, value: str, weight: str, place: str) -> None:
    f.store(cut.v, f.multiply_add(cut.v, value, weight, f.load(cut.v, place)), place)


def _emit_outputs(f: Function, cut: ScatterBlocking, block: str, sums: str, y: str, relu: bool) -> None:
    """Write one block of the outputs."""
    shape, v, lanes = cut.shape, cut.v, cut.lanes
    first = f.multiply(block, cut.outputs)
    left = f.subtract(shape.outputs, first)
    masks = [f.below(lanes, f.subtract(left, lanes * each)) for each in range(cut.vectors)]
    with f.loop(0, shape.out_height) as row, f.loop(0, shape.out_width) as column:
        place = f.add(f.multiply(f.add(row, cut.begin[0]), cut.columns), f.add(column, cut.begin[1]))
        pixel = f.add(f.multiply(row, shape.out_width), column)
        source = f.at(sums, f.multiply(place, cut.outputs))
        target = f.at(y, f.add(f.multiply(pixel, shape.outputs), first))
        for each, mask in enumerate(masks):
            value = f.load(v, f.at(source, lanes * each))
            value = f.relu(v, value) if relu else value
            if shape.outputs % cut.outputs:
                f.store_masked(v, mask, value, f.at(target, lanes * each))
            else:
                f.store(v, value, f.at(target, lanes * each))
