"""Small layers of every kind that a kernel may meet: any size from none and one up, any pattern of zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(*shape: int, zeros: float, seed: int, distinct: int | None = None) -> Tensor:
    """Normal weights, or so many distinct ones, each of which is zero with probability `zeros`."""
    weight = torch.randn(shape, generator=draw(seed))
    if distinct is not None:
        table = torch.randn(distinct, generator=draw(seed))
        weight = table[torch.randint(distinct, shape, generator=draw(seed))]
    weight[torch.rand(shape, generator=draw(seed + 1)) < zeros] = 0
    return weight


def linear(name: str, weight: Tensor, *, bias: bool = True) -> Layer:
    out, inputs = weight.shape
    return Layer(
        name, "linear", weight, torch.randn(out, generator=draw(out)) if bias else None, (inputs,), (out,)
    )


def in_blocks(out: int, inputs: int, most: int, *, lacking: int = 0) -> Tensor:
    """`most` weights in each 16 inputs of a row, but one less in the first `lacking` of them; 15 distinct ones."""
    weight = weights(out * inputs // 16, 16, zeros=0, seed=out, distinct=15)
    order = torch.rand(weight.shape, generator=draw(most)).argsort(1)
    weight[order >= most] = 0
    weight[:lacking][order[:lacking] == most - 1] = 0
    return weight.reshape(out, inputs)


def with_rows(weight: Tensor, rows: list[int], value: float) -> Tensor:
    weight[rows] = value
    return weight


def conv(name: str, weight: Tensor, size: tuple[int, int], *, bias: bool = True, **options: Any) -> Layer:
    """A convolution of images of `size`; options are those of functional.conv2d."""
    shape = weight.shape[1] * options.get("groups", 1), *size
    y = functional.conv2d(torch.zeros(1, *shape), weight, **options)
    shift = torch.randn(len(weight), generator=draw(len(weight))) if bias else None
    return Layer(name, "conv2d", weight, shift, shape, tuple(y.shape[1:]), **options)


def other(op: str, weight: Tensor, size: tuple[int, ...], **options: Any) -> Layer:
    """A convolution along other than two axes, or a transposed one, of maps of `size`."""
    axes, transposed = int(op[-2]), "transpose" in op
    channels = weight.shape[0] if transposed else weight.shape[1]
    y = getattr(functional, op)(torch.zeros(1, channels, *size), weight, **options)
    bias = torch.randn(y.shape[1], generator=draw(axes))
    steps = dict.fromkeys(("stride", "dilation"), (1,) * axes) | dict.fromkeys(
        ("padding", "output_padding"), (0,) * axes
    )
    return Layer(op, op, weight, bias, (channels, *size), tuple(y.shape[1:]), **(steps | options))  # type: ignore[arg-type]


def in_rows_of(height: int, weight: Tensor) -> Tensor:
    """The weights with the zeros of each `height` neighbouring outputs in common."""
    weight[(weight[::height] == 0).repeat_interleave(height, 0)[: len(weight)]] = 0
    return weight


LINEAR = (
    linear("one weight", torch.tensor([[0.5]])),
    linear("one weight of zero", torch.tensor([[0.0]])),
    linear("one output", weights(1, 40, zeros=0.5, seed=1)),
    linear("one input", weights(40, 1, zeros=0.5, seed=2)),
    linear("no bias", weights(17, 5, zeros=0.6, seed=3), bias=False),
    linear("37 x 70", weights(37, 70, zeros=0.7, seed=4)),
    linear("stored as inputs by outputs", weights(70, 37, zeros=0.7, seed=13).t()),
    linear("rows of zeros", with_rows(weights(20, 33, zeros=0.5, seed=5), [0, 7, 19], 0.0)),
    linear("all zero", torch.zeros(16, 32)),
    linear("far apart", weights(9, 700, zeros=0.99, seed=6)),
    linear("few values", weights(33, 64, zeros=0.8, seed=7, distinct=15), bias=False),
    linear("16 values", weights(5, 100, zeros=0.3, seed=8, distinct=16)),
    linear("2:16", in_blocks(20, 64, 2)),
    linear("5:16", in_blocks(18, 48, 5, lacking=3), bias=False),
    linear("dense square", weights(130, 130, zeros=0.0, seed=9)),
    linear("square of few values", weights(130, 131, zeros=0.7, seed=10, distinct=15)),
    linear("wide", weights(3, 5600, zeros=0.7, seed=11, distinct=15), bias=False),
    linear("tall", weights(4200, 4, zeros=0.7, seed=12)),
    linear("no outputs", torch.zeros(0, 4)),
    linear("no inputs", torch.zeros(4, 0)),
)
CONVOLUTIONS = (
    conv("one pixel", torch.tensor([[[[0.5]]]]), (1, 1), bias=False),
    conv("one weight of zero", torch.zeros(1, 1, 1, 1), (2, 3)),
    conv("3x3", weights(5, 3, 3, 3, zeros=0.5, seed=20), (6, 7), padding=(1, 1)),
    conv("wide border", weights(33, 17, 3, 3, zeros=0.3, seed=21), (5, 4), padding=(2, 2), stride=(2, 2)),
    conv("1x1", weights(24, 20, 1, 1, zeros=0.6, seed=22), (6, 7), stride=(2, 2), bias=False),
    conv("blocks of 4", in_rows_of(4, weights(16, 9, 3, 3, zeros=0.8, seed=23)), (5, 5), padding=(1, 1)),
    conv("all zero", torch.zeros(8, 4, 3, 3), (4, 4)),
    conv("outputs of zeros", with_rows(weights(9, 4, 3, 3, zeros=0.4, seed=24), [0, 8], 0.0), (4, 5)),
    conv("depthwise", weights(24, 1, 3, 3, zeros=0.1, seed=25), (9, 9), padding=(1, 1), groups=24),
    conv("groups", weights(8, 3, 3, 3, zeros=0.5, seed=26), (5, 5), groups=2),
    conv("dilation", weights(6, 5, 2, 3, zeros=0.5, seed=27), (8, 8), dilation=(2, 2)),
    conv("many channels", weights(16, 130, 3, 3, zeros=0.1, seed=28), (3, 3), padding=(1, 1)),
)
OTHERS = (
    other("conv1d", weights(6, 3, 3, zeros=0.6, seed=40), (9,), stride=(2,), padding=(1,)),
    other("conv3d", weights(4, 2, 3, 2, 1, zeros=0.6, seed=41), (4, 3, 5), padding=(1, 0, 0)),
    other("conv_transpose1d", weights(3, 5, 4, zeros=0.6, seed=42), (6,), stride=(2,), output_padding=(1,)),
    other("conv_transpose2d", weights(3, 2, 3, 3, zeros=0.6, seed=43), (3, 4), stride=(2, 1), padding=(1, 1)),
    other("conv_transpose3d", weights(2, 3, 2, 2, 2, zeros=0.6, seed=44), (2, 3, 2)),
)
LAYERS = (*LINEAR, *CONVOLUTIONS, *OTHERS)


def inputs(layer: Layer, count: int) -> Tensor:
    """Normal inputs (count, *input_shape); of three examples none is zero, otherwise three of five inputs are."""
    x = torch.randn(count, *layer.input_shape, generator=draw(count))
    zeros = torch.rand(x.shape, generator=draw(count + 1)) < (0.0 if count == 3 else 0.6)
    return torch.where(zeros, 0.0, x)
