"""How a convolution is cut whose inputs are sent to all outputs: blocks of outputs, and the map of their sums."""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import Vector
from zeroskip.run.convolution.zero_inputs.convolution_shape import ConvolutionShape, shape_of
from zeroskip.run.convolution.zero_inputs.number_formats import BYTES

SUMS = 40 << 10  # bytes of sums: what a first-level cache holds besides a few channels' weights
HELD = 20  # vectors of weights in registers, of 32 that hold 64 bytes; half as many of 16 smaller ones
WIDEST = 8  # vectors of outputs in a block
AHEAD = 8 << 10  # bytes of weights on their way: half and twice as many took longer


@dataclass(frozen=True)
class ScatterBlocking:
    """How the work on a convolution is cut: blocks of `vectors` vectors of outputs, each of `lanes` floats.

    Weights are stored as `storage` says: "fp32", or "bf16", half the bytes, multiplied and summed in float32 as well.
    The sums are a map of `rows` x `columns` pixels; the output begins at its pixel `begin`. The first input adds to the
    pixel `margin` through its last tap, and to those behind it through the others.
    """

    shape: ConvolutionShape
    lanes: int
    vectors: int
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
    def blocks(self) -> int:
        """Blocks of the outputs."""
        return -(-self.shape.outputs // self.outputs)

    @property
    def channel(self) -> int:
        """Bytes of a channel's weights in a block."""
        return self.shape.taps[0] * self.shape.taps[1] * self.outputs * BYTES[self.storage]

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
        (down, right), dilation = self.shape.taps, self.shape.dilation
        pixels = [
            (down - 1 - row) * dilation[0] * self.columns + (right - 1 - column) * dilation[1]
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


def scatter_blocking(sizes: ConvolutionShape, machine: Machine, *, storage: str = "fp32") -> ScatterBlocking:
    """Blocks so wide that a channel's weights fill two thirds of the registers."""
    lanes, held = machine.vector_bytes // 4, HELD if machine.vector_bytes == 64 else HELD // 2
    vectors = min(held // (sizes.taps[0] * sizes.taps[1]), WIDEST, -(-sizes.outputs // lanes))
    return ScatterBlocking(sizes, lanes, max(1, vectors), storage)


def cannot_be_scattered(layer: Layer, machine: Machine) -> str | None:
    """None, or why the non-zeros of the layer cannot be sent to its outputs, or its sums are too many to be near."""
    if layer.groups > 1:
        return f"{layer.groups} groups: every input reaches all outputs here"
    if max(layer.stride) > 1:
        return f"stride {max(layer.stride)}: every input reaches outputs through all taps here"
    needed = 4 * scatter_blocking(shape_of(layer), machine).sums
    return None if needed <= SUMS else f"{needed} bytes of sums for some outputs: {SUMS} stay near"
