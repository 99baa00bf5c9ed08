"""The sizes of a convolution that skips the zeros of its input, and how its work is cut to fit the caches."""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.concepts import Layer, Machine
from zeroskip.run.convolution.zero_inputs.stored_weights import BYTES

WINDOWS = (
    400  # worked on at a time: enough to read each weight often, few enough for their lists to stay near
)
LISTED = 1 << 21  # values that their lists can hold
NEAR = 36 << 10  # bytes of weights that stay in a first-level cache
LINE = 64  # bytes of a cache line
AHEAD = 4  # lines asked for at each step: more of them would take the place of the loads that sums are waiting for
WIDTHS = (4, 5, 6)  # vectors of outputs summed at a time


@dataclass(frozen=True)
class Shape:
    """A convolution as numbers; pairs are (rows, columns), `before` is the padding above and to the left."""

    channels: int
    height: int
    width: int
    outputs: int
    out_height: int
    out_width: int
    taps: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def pointwise(self) -> bool:
        """Whether a window is one pixel of the image."""
        return self.taps == (1, 1) and self.before == (0, 0)

    @property
    def window(self) -> int:
        """Inputs that one output pixel reads."""
        return self.taps[0] * self.taps[1] * self.channels


@dataclass(frozen=True)
class Cut:
    """How the work on a convolution of that shape is cut.

    lanes     floats in a vector
    vectors   of outputs that a window sums in registers; a *block* of the weights belongs to so many
    together  windows summed at the same time
    parts     parts that the channels are cut into, each of `channels` (the last one may have fewer)
    groups    that the taps of a window are cut into, each of as many rows: 1, or as many as there are rows
    images, lines  rows of the output worked on at a time: all of several images, or some of one
    ahead     lines of the weights of the next pass asked for at each step, if these come from beyond the caches
    kind      of the weights, one of numbers.py
    """

    shape: Shape
    lanes: int
    vectors: int
    together: int
    parts: int
    channels: int
    groups: int
    images: int
    lines: int
    ahead: int = 0
    kind: str = "fp32"

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
        return self.outputs * BYTES[self.kind]

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
        reach = (
            (self.lines - 1) * self.shape.stride[0] + (self.shape.taps[0] - 1) * self.shape.dilation[0] + 1
        )
        return min(self.shape.height, reach)

    @property
    def windows(self) -> int:
        """Output pixels worked on at a time."""
        return self.images * self.lines * self.shape.out_width


def shape(layer: Layer) -> Shape:
    """The numbers of a convolution.

    >>> shape(conv).taps
    (3, 3)
    """
    (channels, height, width), (outputs, out_height, out_width) = layer.input_shape, layer.output_shape
    taps = layer.weight.shape[2], layer.weight.shape[3]
    return Shape(
        *(channels, height, width, outputs, out_height, out_width, taps),
        *(layer.stride, _before(layer, taps), layer.dilation),
    )


def _before(layer: Layer, taps: tuple[int, int]) -> tuple[int, int]:
    """Padding above and to the left; of an odd number of "same", PyTorch has the larger half behind."""
    if not isinstance(layer.padding, str):
        return layer.padding
    if layer.padding == "valid":
        return 0, 0
    return layer.dilation[0] * (taps[0] - 1) // 2, layer.dilation[1] * (taps[1] - 1) // 2


def misfit(layer: Layer, machine: Machine) -> str | None:
    """None, or why the non-zeros of the layer's windows cannot be listed.

    >>> misfit(depthwise, detect())
    '32 groups: lists are of all channels'
    """
    if layer.groups > 1:
        return f"{layer.groups} groups: lists are of all channels"
    if layer.dilation[1] > 1 and layer.weight.shape[3] > 1:
        return f"dilation {layer.dilation[1]}: a window is listed by runs of neighbouring pixels"
    sizes = shape(layer)
    how = cut(sizes, machine)
    reach = max(sizes.width, *sizes.taps) * sizes.taps[0] * how.channels * how.outputs * 4
    return None if reach < 1 << 31 else f"weights of {reach} bytes: places of 32 bits reach {1 << 31}"


def cut(sizes: Shape, machine: Machine, *, near: bool = False, kind: str = "fp32") -> Cut:
    """Sums fill the registers, and the weights of a pass half the second-level cache; `near`, the first-level cache.

    Near weights are read faster, but sums are read and written again for each part: that pays where a window
    finds some ten non-zeros in a part.

    >>> cut(shape(conv), detect()).vectors
    4
    """
    lanes = machine.vector_bytes // 4
    needed = -(-sizes.outputs // lanes)
    vectors = _vectors(needed, pairs=kind != "fp32")
    sums = 24 if machine.vector_bytes == 64 else 12  # of 32 and 16 registers
    together = min(8, max(1, sums // vectors))
    column = vectors * lanes * BYTES[kind] * sizes.taps[1]  # bytes of a channel's weights in a row of taps
    most = NEAR if near else machine.cache_bytes
    groups = sizes.taps[0] if near and lanes * column * sizes.taps[0] > NEAR else 1
    row = column * sizes.taps[0] // groups
    channels = _channels(sizes.channels, lanes, most // row)
    parts = -(-sizes.channels // channels)
    windows = max(1, min(WINDOWS, LISTED // sizes.window))
    pixels = sizes.out_height * sizes.out_width
    whole = pixels <= windows
    # Rows that are listed must follow each other at equal distances.
    stepped = sizes.height != sizes.out_height or sizes.stride[0] > 1
    several = whole and not (sizes.pointwise and stepped)
    far = column * sizes.taps[0] * sizes.channels * needed // vectors > machine.cache_bytes // 2
    return Cut(
        *(sizes, lanes, vectors, together, parts, channels, groups),
        images=windows // pixels if several else 1,
        lines=sizes.out_height if whole else max(1, windows // sizes.out_width),
        ahead=AHEAD if far else 0,
        kind=kind,
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
