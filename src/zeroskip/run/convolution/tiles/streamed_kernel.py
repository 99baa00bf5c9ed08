"""Convolutions that read their non-zero weights as data, on any processor; see `streamed`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.convolution.tiles.tiling import alone, refusal
from zeroskip.run.dense.pytorch import reference


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer cannot work on tiles.

    >>> accepts(linear, detect(), Precision())
    'computes convolutions, not linear'
    """
    return refusal(layer)


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images (batch, *input_shape), which it brings onto tiles and back.

    >>> build(conv, detect(), Precision(), True)(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 16, 8, 8])
    """
    return alone(layer, relu, "streamed", machine)


KERNEL = Kernel("streamed", "streamed", accepts, build, reference, layout="tiles")
