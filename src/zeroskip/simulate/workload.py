"""A layer as an accelerator meets it: where its weights, inputs and outputs are zero, and nothing else.

Axes have one order everywhere: groups g, outputs m of a group, inputs c of a group, kernel rows r and columns s;
examples n, rows and columns. A linear layer is a convolution of 1 x 1 pixel, its positions are examples. The
multiply-accumulates (MACs) of a layer are weights x positions, those with the zeros of the padding included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from zeroskip.concepts import Layer, Trace, pair
from zeroskip.errors import ModelError
from zeroskip.simulate.lane_counts import filter_counts, folded

PerAxis = tuple[int, int]
"""Of rows, and of columns."""


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

    weight   bool (groups, outputs, inputs, kernel rows, kernel columns)
    input    bool (examples, groups, inputs, rows, columns), without the padding
    output   bool (examples, groups, outputs, rows, columns), as the next layer will read it
    examples how many there are; the first axis has several places for each that is a sequence of vectors
    padding  rows above and below, columns left and right
    outside  maps that the network is given or gives, see `in_network`: "", "A" its input, "O" its output, "AO"

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


def of_layer(layer: Layer, x: Tensor, y: Tensor) -> Workload:
    """The workload of a layer with its real input (examples, *input_shape) and output. NaN is no zero."""
    weight, x, y = (_non_zeros(tensor) for tensor in (layer.weight, x, y))
    examples = len(x)
    if layer.op == "linear":
        x, y = (mask.reshape(-1, 1, mask.shape[-1], 1, 1) for mask in (x, y))
        return Workload(layer.name, layer.op, weight[None, :, :, None, None], x, y, examples)
    weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
    x, y = (mask.reshape(mask.shape[0], layer.groups, -1, *mask.shape[2:]) for mask in (x, y))
    padding, dilation = layer.padding, pair(layer.dilation)
    sides = _sides(
        padding if isinstance(padding, str) else pair(padding), tuple(layer.weight.shape[2:]), dilation
    )
    return Workload(layer.name, layer.op, weight, x, y, examples, pair(layer.stride), sides, dilation)


def _non_zeros(values: Tensor) -> Tensor:
    return values.cpu() if values.dtype == torch.bool else (values != 0).cpu()


def of_trace(trace: Trace) -> list[Workload]:
    """The workloads of a recorded network, in order.

    A chip applies ReLU before it stores an output. Here it is taken to, where the next layer sees nothing negative.

    >>> [work.name for work in of_trace(recorded)]
    ['fc1', 'fc2']
    """
    works = []
    for place, (layer, x, y) in enumerate(trace):
        rectified = place + 1 < len(trace) and not bool((trace[place + 1][1] < 0).any())
        works.append(of_layer(layer, x, y.clamp(min=0) if rectified else y))
    return works


def in_network(works: Sequence[Workload]) -> list[Workload]:
    """The layers in their places: the first has its input from outside, the last hands its output out.

    Each is for as many examples as the first, whatever its own first axis has of each.

    >>> [work.outside for work in in_network(of_trace(recorded))]
    ['A', 'O']
    """
    last = len(works) - 1
    outsides = ["A" * (place == 0) + "O" * (place == last) for place in range(len(works))]
    return [
        replace(work, examples=works[0].examples, outside=outside)
        for work, outside in zip(works, outsides, strict=True)
    ]


def of_masks(
    name: str, weight: Tensor, x: Tensor, geometry: Geometry = Geometry(), *, output: Tensor | None = None
) -> Workload:
    """A layer known by its masks only: weight (out, in) or (out, in / groups, kh, kw), x with the examples first.

    Without an output mask every output counts as non-zero. ModelError where the shapes do not fit.

    >>> of_masks("fc", torch.ones(4, 6) != 0, torch.ones(2, 6) != 0).macs
    48
    """
    op, options = ("linear", {}) if weight.ndim == 2 else ("conv2d", asdict(geometry))
    compute = getattr(torch.nn.functional, op)
    try:  # on tensors without memory, since only the output's shape is wanted
        shape = compute(x.to("meta").float(), weight.to("meta").float(), None, **options).shape
        y = torch.ones(shape) if output is None else output.reshape(shape)
    except (RuntimeError, ValueError) as fact:
        raise ModelError(
            f'layer "{name}": masks of weight {tuple(weight.shape)}, input {tuple(x.shape)} and '
            f"output {None if output is None else tuple(output.shape)} do not fit together: {fact}. "
            f"Give weight (out, in) or (out, in / groups, kh, kw), and the input with its examples first."
        ) from None
    return of_layer(Layer(name, op, weight, None, tuple(x.shape[1:]), tuple(shape[1:]), **options), x, y)


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


def _sides(padding: PerAxis | str, kernel: tuple[int, ...], dilation: PerAxis) -> tuple[int, int, int, int]:
    """Rows of zeros above and below, columns left and right."""
    if isinstance(padding, tuple):
        return padding[0], padding[0], padding[1], padding[1]
    # "same" and "valid" as torch has them: an odd zero comes last
    tall, wide = (
        (size - 1) * step * (padding == "same") for size, step in zip(kernel, dilation, strict=True)
    )
    return tall // 2, tall - tall // 2, wide // 2, wide - wide // 2
