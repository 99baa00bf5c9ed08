"""Layers as PyTorch computes them: always possible, and what every other kernel is compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Kernel, Layer, Machine, Precision


def reference(layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer's output for a batch `x` (batch, *input_shape) in plain PyTorch.

    >>> torch.equal(reference(layer, x, False), model.fc1(x))
    True
    """
    y = _operation(layer)(x)
    return torch.relu(y) if relu else y


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why PyTorch is not asked to run the layer.

    >>> accepts(replace(layer, op="lstm"), machine, Precision())
    'knows linear and conv2d, not lstm'
    """
    return None if layer.op in ("linear", "conv2d") else f"knows linear and conv2d, not {layer.op}"


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of its input."""
    operation = _operation(layer)
    # In place: the layer's output is new, and nobody else has it yet.
    return (lambda x: operation(x).relu_()) if relu else operation


def _operation(layer: Layer) -> Callable[[Tensor], Tensor]:
    if layer.op == "linear":
        return partial(functional.linear, weight=layer.weight, bias=layer.bias)
    return partial(
        functional.conv2d,
        weight=layer.weight,
        bias=layer.bias,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


KERNEL = Kernel("dense", "dense", accepts, build, reference, skips="nothing")
