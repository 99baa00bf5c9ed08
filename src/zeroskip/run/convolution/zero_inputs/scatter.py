"""Convolutions that skip the zeros of their input: each non-zero is sent to all outputs that it reaches.

A block of weights is walked once, channel after channel, in the order in which it lies in memory: what a layer needs
whose weights come from beyond the caches. Those of a channel without non-zeros are never touched, and those of the
channel that is some way ahead are asked for. The weights of one channel, all taps of a few outputs, are in registers,
while its non-zeros add to sums in the first-level cache. There is a sum for every place that an input reaches through
some tap, be it an output or not, so that no non-zero asks where the image ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, Function, compile_function, vector
from zeroskip.emit.executable_memory import room
from zeroskip.run.convolution.zero_inputs.gather import ARGUMENTS
from zeroskip.run.convolution.zero_inputs.shape import LINE, Shape, shape
from zeroskip.run.convolution.zero_inputs.skipping import Skipping
from zeroskip.run.convolution.zero_inputs.stored_weights import BYTES

SUMS = 40 << 10  # bytes of sums: what a first-level cache holds beside some channels' weights
HELD = 20  # vectors of weights in registers, of 32 that hold 64 bytes; half as many of 16 smaller ones
WIDEST = 8  # vectors of outputs in a block
AHEAD = 8 << 10  # bytes of weights on their way: half and twice as many took longer


@dataclass(frozen=True)
class Walk:
    """How a convolution of that shape is walked: blocks of `vectors` vectors of outputs, each of `lanes` floats.

    Weights are stored as `kind` says: "fp32", or "bf16", half the bytes, multiplied and summed in float32 as well.
    The sums are a map of `rows` x `columns` pixels; the output begins at its pixel `begin`. The first input adds to the
    pixel `margin` through its last tap, and to those behind it through the others.
    """

    shape: Shape
    lanes: int
    vectors: int
    kind: str = "fp32"

    @property
    def outputs(self) -> int:
        """Output channels of a block."""
        return self.lanes * self.vectors

    @property
    def blocks(self) -> int:
        """Blocks of the outputs."""
        return -(-self.shape.outputs // self.outputs)

    @property
    def channel(self) -> int:
        """Bytes of a channel's weights in a block."""
        return self.shape.taps[0] * self.shape.taps[1] * self.outputs * BYTES[self.kind]

    @property
    def ahead(self) -> int:
        """Channels with non-zeros by which weights are asked for before they are used."""
        return -(-AHEAD // self.channel)

    @property
    def sums(self) -> int:
        """Floats that a block is summed in."""
        return self.rows * self.columns * self.outputs

    @property
    def margin(self) -> tuple[int, int]:
        """Sums above and to the left that padding alone reaches."""
        down, right = (-behind for behind in self._behind)
        return max(0, down), max(0, right)

    @property
    def begin(self) -> tuple[int, int]:
        """Sums above and to the left of the first output."""
        down, right = self._behind
        return max(0, down), max(0, right)

    @property
    def rows(self) -> int:
        """Rows of sums."""
        return self._size(0, self.shape.height, self.shape.out_height)

    @property
    def columns(self) -> int:
        """Columns of sums."""
        return self._size(1, self.shape.width, self.shape.out_width)

    @property
    def targets(self) -> list[int]:
        """For each vector of a channel's weights, how far from a non-zero's first sum it is added, in floats."""
        (down, right), (below, beside) = self.shape.taps, self.shape.dilation
        pixels = [
            (down - 1 - row) * below * self.columns + (right - 1 - column) * beside
            for row in range(down)
            for column in range(right)
        ]
        return [pixel * self.outputs + self.lanes * each for pixel in pixels for each in range(self.vectors)]

    @property
    def _behind(self) -> tuple[int, int]:
        """How far behind the first input's sums the output begins; negative where it begins before them."""
        down, right = (self._reach(axis) - self.shape.before[axis] for axis in (0, 1))
        return down, right

    def _reach(self, axis: int) -> int:
        return (self.shape.taps[axis] - 1) * self.shape.dilation[axis]

    def _size(self, axis: int, inputs: int, outputs: int) -> int:
        return max(self.margin[axis] + inputs + self._reach(axis), self.begin[axis] + outputs)


def walk(sizes: Shape, machine: Machine, *, kind: str = "fp32") -> Walk:
    """Blocks so wide that a channel's weights fill two thirds of the registers.

    >>> walk(shape(conv), detect()).vectors
    2
    """
    lanes, held = machine.vector_bytes // 4, HELD if machine.vector_bytes == 64 else HELD // 2
    vectors = min(held // (sizes.taps[0] * sizes.taps[1]), WIDEST, -(-sizes.outputs // lanes))
    return Walk(sizes, lanes, max(1, vectors), kind)


def misfit(layer: Layer, machine: Machine) -> str | None:
    """None, or why the non-zeros of the layer cannot be sent to its outputs, or its sums are too many to be near.

    >>> misfit(depthwise, detect())
    '32 groups: every input reaches all outputs here'
    """
    if layer.groups > 1:
        return f"{layer.groups} groups: every input reaches all outputs here"
    if max(layer.stride) > 1:
        return f"stride {max(layer.stride)}: every input reaches outputs through all taps here"
    needed = 4 * walk(shape(layer), machine).sums
    return None if needed <= SUMS else f"{needed} bytes of sums for some outputs: {SUMS} stay near"


def build(layer: Layer, machine: Machine, relu: bool, *, kind: str = "fp32") -> Skipping:
    """The layer with the zeros of its input skipped, however few there are; `misfit` has refused groups and strides.

    >>> build(conv, detect(), True)(torch.zeros(2, 64, 14, 14)).shape
    torch.Size([2, 128, 14, 14])
    """
    how = walk(shape(layer), machine, kind=kind)
    run = compile_function(emit(how, relu=relu).text(machine), "scatter", machine, len(ARGUMENTS))
    stored, bias = weights(layer, how)
    outputs, height, width = layer.output_shape
    return Skipping(
        run=run,
        fixed=(stored.ctypes.data, bias.ctypes.data),
        alive=(stored, bias),
        takes=tuple(layer.input_shape),
        gives=(outputs, height, width),
        strides=(height * width * outputs, 1, width * outputs, outputs),
        scratch=rooms(how)["end"],
        machine=machine,
    )


def weights(layer: Layer, walk: Walk) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of weights (blocks, channels, taps down, taps right, outputs), and biases, with zeros behind.

    >>> weights(conv, walk)[0].nbytes
    294912
    """
    shape, outputs = walk.shape, walk.blocks * walk.outputs
    padded = np.zeros((outputs, shape.channels, *shape.taps), np.float32)
    padded[: shape.outputs] = layer.weight.detach().numpy()
    apart = padded.reshape(walk.blocks, walk.outputs, shape.channels, *shape.taps).transpose(0, 2, 3, 4, 1)
    memory = room(padded.size * BYTES[walk.kind])
    numbers = torch.from_numpy(memory).view(torch.float32 if walk.kind == "fp32" else torch.bfloat16)
    numbers.view(apart.shape).copy_(torch.from_numpy(apart))
    bias = np.zeros(outputs, np.float32)
    if layer.bias is not None:
        bias[: shape.outputs] = layer.bias.detach().numpy()
    return memory, bias


def rooms(walk: Walk) -> dict[str, int]:
    """Where in the scratch each piece begins, in floats; "end" is how many there are.

    >>> rooms(walk)["end"]
    184320
    """
    channels, plane = walk.shape.channels, _plane(walk)
    sizes = {
        **{"planes": walk.lanes * plane, "values": channels * plane, "places": channels * plane},
        **{"starts": 2 * (channels + 1), "channels": 2 * (channels + walk.ahead)},  # of 64 bits
        "sums": walk.sums,
    }
    begin, found = 0, {}
    for name, size in sizes.items():
        found[name] = begin
        begin += -(-size // 16) * 16 + 16  # whole vectors are written
    return found | {"end": begin}


def _plane(walk: Walk) -> int:
    """Floats of a channel's plane, of which the last ones may be nobody's."""
    return -(-walk.shape.height * walk.shape.width // walk.lanes) * walk.lanes


@dataclass(frozen=True)
class _Lists:
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


def emit(walk: Walk, *, relu: bool) -> Function:
    """The kernel in LLVM IR: the lists of an image, then one block of its outputs after the other.

    >>> emit(walk, relu=True).name
    'scatter'
    """
    shape = walk.shape
    f = Function("scatter", ARGUMENTS)
    at = {name: f.at("%scratch", place) for name, place in rooms(walk).items()}
    with f.loop(0, "%images") as image:
        x = f.at("%x", f.multiply(image, shape.height * shape.width * shape.channels))
        y = f.at("%y", f.multiply(image, shape.out_height * shape.out_width * shape.outputs))
        filled, alive = f.slot(INTEGER, "0"), f.slot(INTEGER, "0")
        lists = _Lists(at["values"], at["places"], at["starts"], at["channels"], filled, alive)
        with f.loop(0, shape.channels, walk.lanes) as first:
            left = f.subtract(shape.channels, first)
            _emit_planes(f, walk, f.at(x, first), left, at["planes"])
            with f.loop(0, f.smaller(walk.lanes, left)) as each:
                plane = f.at(at["planes"], f.multiply(each, _plane(walk)))
                _emit_list(f, walk, plane, f.add(first, each), lists)
        _emit_end(f, walk, lists)
        with f.loop(0, walk.blocks) as block:
            _emit_block(f, walk, block, at["sums"], lists)
            _emit_outputs(f, walk, block, at["sums"], y, relu)
    return f


def _emit_planes(f: Function, walk: Walk, x: str, left: str, planes: str) -> None:
    """A vector of channels of an image stored pixel by pixel, as planes one behind the other."""
    pixels = walk.shape.height * walk.shape.width
    whole = pixels // walk.lanes * walk.lanes
    with f.loop(0, whole, walk.lanes) as first:
        pixel = f.at(x, f.multiply(first, walk.shape.channels))
        _emit_square(f, walk, pixel, left, f.at(planes, first), walk.lanes)
    if pixels > whole:
        pixel = f.at(x, whole * walk.shape.channels)
        _emit_square(f, walk, pixel, left, f.at(planes, whole), pixels - whole)


def _emit_square(f: Function, walk: Walk, x: str, left: str, planes: str, count: int) -> None:
    """So many pixels from `x` on, with zeros behind, as part of the planes of a vector of channels."""
    lanes, channels = walk.lanes, walk.shape.channels
    sources = [f.at(x, each * channels) for each in range(count)]
    if channels % lanes:
        mask = f.below(lanes, left)
        rows = [f.load_masked(lanes, mask, source) for source in sources]
    else:
        rows = [f.load(vector(lanes), source) for source in sources]
    rows += ["zeroinitializer"] * (lanes - count)
    for channel, row in enumerate(f.transposed(rows)):
        f.store(vector(lanes), row, f.at(planes, channel * _plane(walk)))


def _emit_list(f: Function, walk: Walk, plane: str, channel: str, lists: _Lists) -> None:
    """Append the non-zeros of a channel, and the channel if it has any."""
    lanes, kind, numbers = walk.lanes, vector(walk.lanes), vector(walk.lanes, "i32")
    begin, alive = f.load(INTEGER, lists.filled), f.load(INTEGER, lists.alive)
    with f.loop(0, _plane(walk), lanes) as pixel:
        values, filled = f.load(kind, f.at(plane, pixel)), f.load(INTEGER, lists.filled)
        mask = f.value(f"fcmp une {kind} {values}, zeroinitializer")  # true of NaN
        places = f.compressed(lanes, mask, _places(f, walk, pixel), element="i32")
        f.store(kind, f.compressed(lanes, mask, values), f.at(lists.values, filled))
        f.store(numbers, places, f.at(lists.places, filled, "i32"))
        f.store(INTEGER, f.add(filled, f.count(lanes, mask)), lists.filled)
    f.store(INTEGER, begin, f.at(lists.starts, alive, INTEGER))
    f.store(INTEGER, f.multiply(channel, walk.channel), f.at(lists.channels, alive, INTEGER))
    found = f.smaller(1, f.subtract(f.load(INTEGER, lists.filled), begin))
    f.store(INTEGER, f.add(alive, found), lists.alive)


def _places(f: Function, walk: Walk, pixel: str) -> str:
    """Where the sums of a vector of pixels begin, in bytes: rows of sums are longer than those of the image."""
    lanes, kind = walk.lanes, vector(walk.lanes, "i32")
    offsets = ", ".join(f"i32 {lane}" for lane in range(lanes))
    number = f.splat(lanes, f.value(f"trunc i64 {pixel} to i32"), "i32")
    number = f.value(f"add {kind} {number}, <{offsets}>")
    row = f.value(f"udiv {kind} {number}, {f.splat(lanes, str(walk.shape.width), 'i32')}")
    behind = f.value(f"mul {kind} {row}, {f.splat(lanes, str(walk.columns - walk.shape.width), 'i32')}")
    place = f.value(f"add {kind} {number}, {behind}")
    return f.value(f"mul {kind} {place}, {f.splat(lanes, str(4 * walk.outputs), 'i32')}")


def _emit_end(f: Function, walk: Walk, lists: _Lists) -> None:
    """Close the lists: where the last one ends, and which weights the next block begins with."""
    alive, size = f.load(INTEGER, lists.alive), walk.shape.channels * walk.channel
    f.store(INTEGER, f.load(INTEGER, lists.filled), f.at(lists.starts, alive, INTEGER))
    with f.loop(0, walk.ahead) as each:  # of fewer channels, some are places that are asked for in vain
        place = f.add(f.load(INTEGER, f.at(lists.channels, each, INTEGER)), size)
        f.store(INTEGER, place, f.at(lists.channels, f.add(alive, each), INTEGER))


def _emit_block(f: Function, walk: Walk, block: str, sums: str, lists: _Lists) -> None:
    """Sum one block of the outputs."""
    kind = vector(walk.lanes)
    bias = f.at("%bias", f.multiply(block, walk.outputs))
    biases = [f.load(kind, f.at(bias, walk.lanes * each)) for each in range(walk.vectors)]
    with f.loop(0, walk.rows * walk.columns) as pixel:
        for each, value in enumerate(biases):
            f.store(kind, value, f.at(sums, f.add(f.multiply(pixel, walk.outputs), walk.lanes * each)))
    weights = f.at("%weights", f.multiply(block, walk.shape.channels * walk.channel), "i8")
    first = f.at(sums, (walk.margin[0] * walk.columns + walk.margin[1]) * walk.outputs)
    with f.loop(0, f.load(INTEGER, lists.alive)) as number:
        _emit_channel(f, walk, number, weights, first, lists)


def _emit_channel(f: Function, walk: Walk, number: str, weights: str, sums: str, lists: _Lists) -> None:
    """Send the non-zeros of a channel; its weights are loaded, and others asked for, in the course of the first."""
    row, ahead = (
        f.at(weights, f.load(INTEGER, f.at(lists.channels, each, INTEGER)), "i8")
        for each in (number, f.add(number, walk.ahead))
    )
    begin, end = (f.load(INTEGER, f.at(lists.starts, each, INTEGER)) for each in (number, f.add(number, 1)))
    value, target = _nonzero(f, walk, begin, sums, lists)
    held = []
    for each, offset in enumerate(walk.targets):
        if BYTES[walk.kind] * walk.lanes * each % LINE == 0:
            f.prefetch(f.at(ahead, BYTES[walk.kind] * walk.lanes * each, "i8"))
        held.append(_weight(f, walk, row, each))
        _emit_sum(f, walk, value, held[each], f.at(target, offset))
    with f.loop(f.add(begin, 1), end) as entry:
        _emit_nonzero(f, walk, *_nonzero(f, walk, entry, sums, lists), held)


def _weight(f: Function, walk: Walk, row: str, number: int) -> str:
    """A vector of weights as floats; bf16 is the upper half of one."""
    lanes, words = walk.lanes, vector(walk.lanes, "i32")
    if walk.kind == "fp32":
        return f.load(vector(lanes), f.at(row, lanes * number))
    halves = f.load(vector(lanes, "i16"), f.at(row, lanes * number, "i16"))
    bits = f.value(f"zext {vector(lanes, 'i16')} {halves} to {words}")
    bits = f.value(f"shl {words} {bits}, {f.splat(lanes, '16', 'i32')}")
    return f.value(f"bitcast {words} {bits} to {vector(lanes)}")


def _nonzero(f: Function, walk: Walk, entry: str, sums: str, lists: _Lists) -> tuple[str, str]:
    """A value in every lane, and where its sums begin."""
    value = f.splat(walk.lanes, f.load("float", f.at(lists.values, entry)))
    place = f.value(f"sext i32 {f.load('i32', f.at(lists.places, entry, 'i32'))} to i64")
    return value, f.at(sums, place, "i8")


def _emit_nonzero(f: Function, walk: Walk, value: str, target: str, held: Sequence[str]) -> None:
    """Add a value times all weights of its channel to its sums."""
    for weight, offset in zip(held, walk.targets, strict=True):
        _emit_sum(f, walk, value, weight, f.at(target, offset))


def _emit_sum(f: Function, walk: Walk, value: str, weight: str, place: str) -> None:
    kind = vector(walk.lanes)
    f.store(kind, f.multiply_add(walk.lanes, value, weight, f.load(kind, place)), place)


def _emit_outputs(f: Function, walk: Walk, block: str, sums: str, y: str, relu: bool) -> None:
    """Write one block of the outputs."""
    shape, lanes = walk.shape, walk.lanes
    first = f.multiply(block, walk.outputs)
    left = f.subtract(shape.outputs, first)
    masks = [f.below(lanes, f.subtract(left, lanes * each)) for each in range(walk.vectors)]
    with f.loop(0, shape.out_height) as row, f.loop(0, shape.out_width) as column:
        place = f.add(f.multiply(f.add(row, walk.begin[0]), walk.columns), f.add(column, walk.begin[1]))
        pixel = f.add(f.multiply(row, shape.out_width), column)
        source = f.at(sums, f.multiply(place, walk.outputs))
        target = f.at(y, f.add(f.multiply(pixel, shape.outputs), first))
        for each, mask in enumerate(masks):
            value = f.load(vector(lanes), f.at(source, lanes * each))
            value = f.relu(lanes, value) if relu else value
            if shape.outputs % walk.outputs:
                f.store_masked(lanes, mask, value, f.at(target, lanes * each))
            else:
                f.store(vector(lanes), value, f.at(target, lanes * each))
