"""Convolutions as machine code that holds nothing but the non-zero weights; see `baked`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.convolution.tiles.tiling import alone, refusal
from zeroskip.run.dense.pytorch import reference


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer cannot become machine code of its own.

    >>> accepts(conv, laptop_without_avx512, Precision())
    'its code is for AVX-512, which this machine lacks'
    """
    if "avx512f" not in machine.features or machine.vector_bytes != 64:
        return "its code is for AVX-512, which this machine lacks"
    if not sys.platform.startswith("linux"):
        return f"its code is for Linux, not {sys.platform}"
    return refusal(layer)


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images (batch, *input_shape), which it brings onto tiles and back.

    >>> build(conv, detect(), Precision(), True)(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 16, 8, 8])
    """
    return alone(layer, relu, "baked", machine)


KERNEL = Kernel("baked", "baked", accepts, build, reference, layout="tiles")
