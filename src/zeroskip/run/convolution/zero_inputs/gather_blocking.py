"""How the work on a convolution is cut whose windows fetch weights, to fit registers and caches."""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import Vector
from zeroskip.run.convolution.zero_inputs.convolution_shape import ConvolutionShape, shape_of
from zeroskip.run.convolution.zero_inputs.number_formats import BYTES

# Worked on at a time: enough to read each weight often, few enough for their lists to stay near.
WINDOWS = 400
LISTED = 1 << 21  # values that their lists can hold
NEAR = 36 << 10  # bytes of weights that stay in a first-level cache
AHEAD = 4  # lines asked for at each step: more of them would take the place of the loads that sums are waiting for
WIDTHS = (4, 5, 6)  # vectors of outputs summed at a time


@dataclass(frozen=True)
class GatherBlocking:
    """How the work on a convolution is cut.

    lanes     floats in a vector
    vectors   of outputs that a window sums in registers; a *block* of the weights belongs to so many
    together  windows summed at the same time
    parts     parts that the channels are cut into, each of `channels` (the last one may have fewer)
    groups    that the taps of a window are cut into, each of as many rows: 1, or as many as there are rows
    images, lines  rows of the output worked on at a time: all of several images, or some of one
    ahead     lines of the weights of the next pass asked for at each step, if these come from beyond the caches
    storage   of the weights, one of number_formats.py
    """

    shape: ConvolutionShape
    lanes: int
    vectors: int
    together: int
    parts: int
    channels: int
    groups: int
    images: int
    lines: int
    ahead: int = 0
    storage: str = "fp32"

    @property
    def v(self) -> Vector:
        """Of floats, in LLVM."""
        return Vector(self.lanes)

    @property
    def outputs(self) -> int:
        """Output channels of a block."""
        return self.lanes * self.vectors

    @property
    def passes(self) -> int:
        """How often the sums of a block are added to."""
        return self.parts * self.groups

    @property
    def row(self) -> int:
        """Bytes of the weights of one input in a block."""
        return self.outputs * BYTES[self.storage]

    @property
    def weights(self) -> int:
        """Weights that a pass reads."""
        return self.shape.taps[0] * self.shape.taps[1] // self.groups * self.channels * self.outputs

    @property
    def blocks(self) -> int:
        """Blocks of the weights."""
        return -(-self.shape.outputs // self.outputs)

    @property
    def rows(self) -> int:
        """Rows of the input that so many rows of the output read at most."""
        if self.lines == self.shape.out_height:
            return self.images * self.shape.height
        taps, stride = self.shape.taps[0], self.shape.stride[0]
        reach = (self.lines - 1) * stride + (taps - 1) * self.shape.dilation[0] + 1
        return min(self.shape.height, reach)

    @property
    def windows(self) -> int:
        """Output pixels worked on at a time."""
        return self.images * self.lines * self.shape.out_width


def cannot_be_listed(layer: Layer, machine: Machine) -> str | None:
    """None, or why the non-zeros of the layer's windows cannot be listed.

    >>> cannot_be_listed(replace(conv, groups=2), machine)
    '2 groups: lists are of all channels'
    """
    if layer.groups > 1:
        return f"{layer.groups} groups: lists are of all channels"
    if layer.dilation[1] > 1 and layer.weight.shape[3] > 1:
        return f"dilation {layer.dilation[1]}: a window is listed by runs of neighbouring pixels"
    sizes = shape_of(layer)
    blocks = gather_blocking(sizes, machine)
    reach = max(sizes.width, *sizes.taps) * sizes.taps[0] * blocks.channels * blocks.outputs * 4
    return None if reach < 1 << 31 else f"weights of {reach} bytes: places of 32 bits reach {1 << 31}"


def gather_blocking(
    sizes: ConvolutionShape, machine: Machine, *, near: bool = False, storage: str = "fp32"
) -> GatherBlocking:
    """Sums fill the registers, and the weights of a pass half the second-level cache; `near`, the first-level cache.

    Near weights are read faster, but sums are read and written again for each part: that pays where a window
    finds some ten non-zeros in a part.
    """
    lanes = machine.vector_bytes // 4
    needed = -(-sizes.outputs // lanes)
    vectors = _vectors(needed, pairs=storage != "fp32")
    sums = 24 if machine.vector_bytes == 64 else 12  # of 32 and 16 registers
    column = vectors * lanes * BYTES[storage] * sizes.taps[1]  # bytes of a channel's weights in a row of taps
    most = NEAR if near else machine.cache_bytes
    groups = sizes.taps[0] if near and lanes * column * sizes.taps[0] > NEAR else 1
    channels = _channels(sizes.channels, lanes, most // (column * sizes.taps[0] // groups))
    windows = max(1, min(WINDOWS, LISTED // sizes.window))
    pixels = sizes.out_height * sizes.out_width
    whole = pixels <= windows
    # Rows that are listed must follow each other at equal distances.
    stepped = sizes.height != sizes.out_height or sizes.stride[0] > 1
    several = whole and not (sizes.pointwise and stepped)
    far = column * sizes.taps[0] * sizes.channels * needed // vectors > machine.cache_bytes // 2
    return GatherBlocking(
        shape=sizes,
        lanes=lanes,
        vectors=vectors,
        together=min(8, max(1, sums // vectors)),
        parts=-(-sizes.channels // channels),
        channels=channels,
        groups=groups,
        images=windows // pixels if several else 1,
        lines=sizes.out_height if whole else max(1, windows // sizes.out_width),
        ahead=AHEAD if far else 0,
        storage=storage,
    )


def _vectors(needed: int, *, pairs: bool) -> int:
    """Vectors of outputs in a block, of `needed` ones in all; an even number where they are stored as `pairs`."""
    widths = [each for each in WIDTHS if not pairs or each % 2 == 0]
    if needed < min(widths):
        return needed + needed % 2 if pairs else needed
    # Whatever leaves the fewest lanes empty; of equals the narrowest, whose weights take least of the caches.
    return min(widths, key=lambda each: -(-needed // each) * each)


def _channels(channels: int, lanes: int, most: int) -> int:
    """Channels of a part, at most so many: all of them, or whole vectors in parts as equal as can be."""
    if channels <= most:
        return channels
    parts = -(-channels // max(lanes, most // lanes * lanes))
    return -(-channels // (parts * lanes)) * lanes
