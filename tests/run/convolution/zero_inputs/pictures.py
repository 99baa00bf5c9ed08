"""Convolutions and images with zeros, drawn at random, and what float64 makes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer


def layer_of(
    channels: int,
    outputs: int,
    taps: tuple[int, int],
    size: tuple[int, int],
    *,
    seed: int = 0,
    **options: Any,
) -> Layer:
    """A convolution of normal weights and biases for images (channels, *size)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels, *taps, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    y = functional.conv2d(torch.zeros(1, channels, *size), weight, **options)
    return Layer("drawn", "conv2d", weight, bias, (channels, *size), tuple(y.shape[1:]), **options)


def images(layer: Layer, count: int, sparsity: float, *, seed: int = 0) -> Tensor:
    """Images of normal values, each zero with probability `sparsity`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *layer.input_shape, generator=generator)
    return torch.where(torch.rand(x.shape, generator=generator) < sparsity, 0.0, x)


def exact(layer: Layer, x: Tensor, relu: bool = False) -> Tensor:
    """The layer's output in float64."""
    options = layer.stride, layer.padding, layer.dilation
    y = functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), *options)  # type: ignore[union-attr]
    return y.relu() if relu else y
