"""Layers in PyTorch with weights and inputs of 16 bits (bfloat16): half the memory traffic of float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.dense import pytorch


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer is not computed in bfloat16."""
    if precision.arithmetic != "bf16":
        return f"{precision.arithmetic} arithmetic was asked for"
    if layer.op == "bilinear":
        return "bilinear has no kernel in bf16"
    return pytorch.accepts(layer, machine, precision)


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of its input, which is rounded to bfloat16; the output has the input's type."""
    bias = None if layer.bias is None else layer.bias.bfloat16()
    rounded = replace(layer, weight=layer.weight.bfloat16(), bias=bias)
    operation = pytorch.build(rounded, machine, precision, relu)
    return lambda x: operation(x.bfloat16()).to(x.dtype)


# Sums are kept in float32, and only the output is rounded to 8 bits: by at most 2^-8 of itself, which is at most
# sum |weight x input|. As much again is left to processors that round partial sums.
KERNEL = Kernel(
    "dense_bf16",
    "dense",
    accepts,
    build,
    partial(pytorch.rounded_reference, torch.bfloat16),
    element="bf16",
    weights="bf16",
    skips="nothing",
    tolerance=2**-7,
)
