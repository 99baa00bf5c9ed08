"""A layer as an accelerator meets it: where its weights, inputs and outputs are zero, and nothing else.

Axes have one order everywhere: groups g, outputs m of a group, inputs c of a group, kernel rows r and columns s;
examples n, rows and columns. A linear layer is a convolution of 1 x 1 pixel, its positions are examples. The
multiply-accumulates (MACs) of a layer are weights x positions, those with the zeros of the padding included.
How other operations are brought into this form is in operations.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zeroskip.simulate.lane_counts import filter_counts, folded

PerAxis = tuple[int, int]
"""Of rows, and of columns."""

RUNS_AS = {"bilinear": "linear"} | {
    f"conv{kind}{axes}d": "conv2d" for kind in ("", "_transpose") for axes in (1, 2, 3)
}
"""Operation of a layer -> the one that its chip must know; operations that are not here run as themselves."""


@dataclass(frozen=True)
class Geometry:
    """How the kernel of a convolution passes over its input, as `torch.nn.functional.conv2d` takes it.

    >>> masks = torch.ones(2, 3, 3, 3) != 0, torch.ones(1, 3, 8, 8) != 0
    >>> of_masks("conv", *masks, Geometry(stride=(2, 2), padding=(1, 1))).positions
    16
    """

    stride: PerAxis = (1, 1)
    padding: PerAxis | str = (0, 0)
    dilation: PerAxis = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Workload:
    """One layer as masks, True where a number is not zero.

    op       of the Layer: "conv1d"; a chip runs it as `runs_as`
    weight   bool (groups, outputs, inputs, kernel rows, kernel columns)
    input    bool (examples, groups, inputs, rows, columns), without the padding
    output   bool (examples, groups, outputs, rows, columns), as the next layer will read it
    examples how many there are; the first axis has several places for each that is a sequence of vectors
    padding  rows above and below, columns left and right
    outside  maps that the network is given or gives, see `in_network`: "", "A" its input, "O" its output, "AO"
    stored_input, stored_output  the maps as they lie in memory, on the same axes, where `input` has their numbers
             several times or multiplied, or where several of `output` are added up to one
    note     what of its zeros was not recorded; "" where all were

    >>> work = of_masks("fc", torch.ones(4, 6) != 0, torch.ones(2, 6) != 0)
    >>> work.positions, work.inputs, work.macs
    (2, 6, 48)
    """

    name: str
    op: str
    weight: Tensor
    input: Tensor
    output: Tensor
    examples: int
    stride: PerAxis = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: PerAxis = (1, 1)
    outside: str = ""
    stored_input: Tensor | None = None
    stored_output: Tensor | None = None
    note: str = ""

    @property
    def runs_as(self) -> str:
        """The operation that a chip must know, of those in `Accelerator.ops`: "linear" or "conv2d"."""
        return RUNS_AS.get(self.op, self.op)

    @property
    def operands(self) -> dict[str, Tensor]:
        """Masks of weights "W", inputs "A" and outputs "O" as they lie in memory."""
        x, y = self.stored_input, self.stored_output
        return {"W": self.weight, "A": self.input if x is None else x, "O": self.output if y is None else y}

    @property
    def positions(self) -> int:
        """Outputs of one filter: examples x output rows x output columns."""
        return self.output.shape[0] * math.prod(self.output.shape[3:])

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer done densely."""
        return self.weight.numel() * self.positions

    @property
    def inputs(self) -> int:
        """Weights of one filter: inputs x kernel rows x kernel columns."""
        return math.prod(self.weight.shape[2:])

    @cached_property
    def weight_counts(self) -> Tensor:
        """Filters of a group with a weight at each (group, input, kernel row, kernel column), int64."""
        return filter_counts(self.weight, max(self.weight.shape[1], 1))[:, 0]

    @cached_property
    def input_counts(self) -> Tensor:
        """Positions that meet a non-zero input at each (group, input, kernel row, kernel column), int64."""
        up, across = _visits(self, 0), _visits(self, 1)
        return folded(self.input, up.mT, across.mT).sum(0, dtype=torch.float64).long()


@dataclass(frozen=True)
class Macs:
    """How many MACs have both factors non-zero, a non-zero weight, a non-zero input, and all."""

    both: int
    weight: int
    input: int
    total: int


def padded(work: Workload) -> Tensor:
    """The input mask (examples, groups, inputs, rows, columns) with the zeros of its padding."""
    top, bottom, left, right = work.padding
    return torch.nn.functional.pad(work.input, (left, right, top, bottom))


def count_macs(work: Workload) -> Macs:
    """The MACs of each kind, exact, without a loop over them.

    >>> count_macs(of_masks("fc", torch.eye(4) != 0, torch.ones(2, 4) != 0))
    Macs(both=8, weight=8, input=32, total=32)
    """
    weights, inputs = work.weight_counts, work.input_counts
    return Macs(
        both=int((inputs * weights).sum()),
        weight=int(weights.sum()) * work.positions,
        input=int(inputs.sum()) * work.weight.shape[1],
        total=work.macs,
    )


def _visits(work: Workload, axis: int) -> Tensor:
    """At how many outputs a kernel's row (axis 0) or column (1) meets one of the input: float (kernel, length)."""
    length, outputs, kernel = (mask.shape[3 + axis] for mask in (work.input, work.output, work.weight))
    steps = torch.arange(outputs) * work.stride[axis] - work.padding[2 * axis]
    place = torch.arange(kernel)[:, None] * work.dilation[axis] + steps
    inside = (place >= 0) & (place < length)
    return torch.zeros(kernel, length).scatter_add_(1, place.clamp(0, length - 1), inside.float())


def windows(work: Workload, *, numbers: int = 1 << 24) -> Iterator[Tensor]:
    """What the positions see, in blocks of about so many numbers: bool (positions, groups, kernel places, inputs).

    Kernel places are rows x columns; inputs come last, so that neighbouring channels are neighbours.

    >>> [block.shape for block in windows(of_masks("fc", torch.eye(4) != 0, torch.ones(2, 4) != 0))]
    [torch.Size([2, 1, 1, 4])]
    """
    yield from patches(padded(work), work, numbers=numbers)


def patches(source: Tensor, work: Workload, *, numbers: int = 1 << 24) -> Iterator[Tensor]:
    """`windows` of any tensor (examples, groups, channels, padded rows, padded columns)."""
    last = source.permute(0, 3, 4, 1, 2).contiguous()  # (n, rows, columns, g, c)
    (up, across), (kh, kw), (tall, wide) = work.stride, work.weight.shape[3:], work.output.shape[3:]
    n, row, column, group, channel = last.stride()
    shape = (last.shape[0], tall, wide, *last.shape[3:4], kh, kw, last.shape[4])
    steps = (n, up * row, across * column, group, work.dilation[0] * row, work.dilation[1] * column, channel)
    view = last.as_strided(shape, steps)
    band = max(1, numbers // max(1, wide * math.prod(shape[3:])))  # output rows at a time
    for examples in view.split(max(1, band // tall)):
        for rows in examples.split(band, dim=1):
            yield rows.reshape(-1, shape[3], kh * kw, shape[6])
