"""A Layer as a function of its input, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer
from zeroskip.graph.torch_operations import Argument

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
OPS = ("linear", *CONVOLUTIONS, *TRANSPOSED, "bilinear")


def arguments_of(layer: Layer) -> dict[str, Argument]:
    """What the layer's operation is called with besides its input, by torch's names.

    >>> list(arguments_of(conv))
    ['weight', 'bias', 'stride', 'padding', 'dilation', 'groups']
    """
    named: dict[str, Argument] = {"weight": layer.weight, "bias": layer.bias}
    if layer.op in CONVOLUTIONS + TRANSPOSED:
        named |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    if layer.op in TRANSPOSED:
        named["output_padding"] = layer.output_padding
    return named


def function_of(layer: Layer) -> Callable[..., Tensor]:
    """The layer as PyTorch computes it.

    >>> torch.equal(function_of(layer)(x), model.fc1(x))
    True
    """
    named = arguments_of(layer)
    if layer.op == "bilinear":  # of one value with itself it has one input
        return lambda *values: functional.bilinear(values[0], values[-1], **named)  # type: ignore[arg-type]
    return partial(getattr(functional, layer.op), **named)


def with_relu(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function with a ReLU after it.

    >>> with_relu(torch.neg)(torch.tensor([-1.0, 1.0]))
    tensor([1., 0.])
    """
    return lambda *values: torch.relu(function(*values))
