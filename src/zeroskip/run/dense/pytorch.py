"""Layers as PyTorch computes them: always possible, and what every other kernel is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.concepts.engine import Computed
from zeroskip.graph.layer_functions import OPS, function_of
from zeroskip.graph.recurrent import Recurrent
from zeroskip.graph.recurrent import function_of as recurrent_function


def reference(layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer's output for a batch `x` (batch, *input_shape) in plain PyTorch.

    >>> torch.equal(reference(layer, x, False), model.fc1(x))
    True
    """
    y = function_of(layer)(x)
    return torch.relu(y) if relu else y


def rounded_reference(dtype: torch.dtype, layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in float32, of weight, bias and input rounded to `dtype`."""
    weight, rounded_x = (tensor.to(dtype).to(x.dtype) for tensor in (layer.weight, x))
    bias = None if layer.bias is None else layer.bias.to(dtype).to(x.dtype)
    return reference(replace(layer, weight=weight, bias=bias), rounded_x, relu)


def not_float32(layer: Layer, op: str) -> str | None:
    """None, or why kernels for float32 layers of this `op` do not compute the layer.

    >>> not_float32(conv, "linear")
    'computes linear layers, not conv2d'
    """
    if layer.op != op:
        known = {"linear": "linear layers", "conv2d": "convolutions"}
        return (
            f"computes {known[op]}, not {layer.op}"
            if layer.op in known
            else f"{layer.op} has no sparse kernel"
        )
    if layer.weight.dtype is not torch.float32:
        return f"computes float32 weights, not {str(layer.weight.dtype).removeprefix('torch.')}"
    return None


def accepts(layer: Layer | Recurrent, machine: Machine, precision: Precision) -> str | None:
    """None, or why PyTorch is not asked to run the layer.

    >>> accepts(replace(layer, op="lstm"), machine, Precision())
    'knows no lstm'
    """
    if isinstance(layer, Recurrent):
        return None
    return None if layer.op in OPS else f"knows no {layer.op}"


def build(
    layer: Layer | Recurrent, machine: Machine, precision: Precision, relu: bool
) -> Callable[..., Computed]:
    """The layer as a function of its input."""
    if isinstance(layer, Recurrent):
        return recurrent_function(layer)
    operation = function_of(layer)
    # In place: the layer's output is new, and nothing else reads it.
    return (lambda *values: operation(*values).relu_()) if relu else operation


KERNEL = Kernel("dense", "dense", accepts, build, reference, skips="nothing")
