"""Batch norms as part of the layer before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.graph.torch_operations import Argument


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm in evaluation mode, gamma (x - mean) / sqrt(variance + eps) + beta; tensors are (channels,)."""

    mean: Tensor
    variance: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    eps: float

    @property
    def scale(self) -> Tensor:
        """gamma / sqrt(variance + eps): (channels,) float64."""
        scale = (self.variance.double() + self.eps).rsqrt()
        return scale if self.gamma is None else scale * self.gamma.double()


def batch_norm(arguments: Mapping[str, Argument]) -> BatchNorm | None:
    """The batch norm with these arguments of torch's operation; None while training or if its tensors may change.

    >>> batch_norm({"training": True}) is None
    True
    """
    mean, variance = arguments.get("running_mean"), arguments.get("running_var")
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or arguments.get("training"):
        return None
    if "weight" not in arguments or "bias" not in arguments:
        return None
    gamma, beta = (cast("Tensor | None", arguments[name]) for name in ("weight", "bias"))
    return BatchNorm(mean, variance, gamma, beta, cast(float, arguments["eps"]))


def fold_norm(layer: Layer, norm: BatchNorm) -> Layer | None:
    """The layer with the batch norm after it as part of its weight and bias; None where that cannot be.

    gamma (w x + b - mean) / sqrt(variance + eps) + beta is a layer (Ioffe and Szegedy 2015, section 3.1), computed
    in float64. A zero weight stays +0.0, and no other becomes one unless gamma is 0. Layers that would not be
    finite (a negative variance) are not folded.

    >>> norm = BatchNorm(torch.zeros(1), torch.tensor([0.25]), None, None, eps=0.0)
    >>> fold_norm(Layer("a", "linear", torch.ones(1, 1), None, (1,), (1,)), norm).weight
    tensor([[2.]])
    """
    if layer.transposed and layer.groups > 1:
        return None  # the weight of a group has outputs of its own along the second axis
    scale = norm.scale  # (out,)
    weight = _scaled(layer.weight, scale, axis=1 if layer.transposed else 0)
    bias = -scale * norm.mean.double()
    if layer.bias is not None:
        bias = bias + scale * layer.bias.double()
    if norm.beta is not None:
        bias = bias + norm.beta.double()
    bias = bias.to(layer.weight.dtype)
    finite = bool(weight.isfinite().all() and bias.isfinite().all())
    return replace(layer, weight=weight, bias=bias) if finite else None


def _scaled(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    """The weight times the scale (out,) of each of its outputs, with zeros exactly where one of the two is zero."""
    scale = scale.reshape(*[1] * axis, -1, *[1] * (weight.ndim - 1 - axis))
    product = weight.double() * scale
    # A product too small for the weight's type would be rounded to zero, as if it were pruned.
    smallest = torch.finfo(weight.dtype).tiny
    product = torch.where(product != 0, product.abs().clamp_min(smallest).copysign(product), product)
    return product.to(weight.dtype) + 0.0  # -0.0 + 0.0 is +0.0
