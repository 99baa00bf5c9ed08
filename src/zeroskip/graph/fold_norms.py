"""Batch norms that disappear into the layer before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zeroskip.concepts import Layer


def fold_norm(layer: Layer, norm: Mapping[str, Any]) -> Layer | None:
    """The layer with a batch norm in evaluation mode as part of its weight and bias; None where that cannot be.

    norm  arguments of torch's batch_norm by name: running_mean, running_var, weight and bias (each (out,), the
          last two may be None), eps

    gamma (w x + b - mean) / sqrt(var + eps) + beta is again a layer (Ioffe and Szegedy 2015, section 3.1). It is
    computed in float64. A zero weight stays +0.0, and no other becomes one unless gamma is 0. What is not finite
    afterwards (a negative variance) is not folded.

    >>> fold_norm(Layer("a", "linear", torch.ones(1, 1), None, (1,), (1,)), arguments).weight
    tensor([[2.]])
    """
    scale = (norm["running_var"].double() + norm["eps"]).rsqrt()  # (out,)
    if norm["weight"] is not None:
        scale = scale * norm["weight"].double()
    weight = _scaled(layer.weight, scale)
    bias = -scale * norm["running_mean"].double()
    if layer.bias is not None:
        bias = bias + scale * layer.bias.double()
    if norm["bias"] is not None:
        bias = bias + norm["bias"].double()
    bias = bias.to(layer.weight.dtype)
    finite = bool(weight.isfinite().all() and bias.isfinite().all())
    return replace(layer, weight=weight, bias=bias) if finite else None


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """weight (out, ...) times scale (out,), with zeros exactly where one of the two is zero."""
    scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
    product = weight.double() * scale
    # A product too small for the weight's type would be rounded to a zero that nobody pruned.
    smallest = torch.finfo(weight.dtype).tiny
    product = torch.where(product != 0, product.abs().clamp_min(smallest).copysign(product), product)
    return product.to(weight.dtype) + 0.0  # -0.0 + 0.0 is +0.0
