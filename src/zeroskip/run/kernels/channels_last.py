"""Dense convolutions on images stored pixel by pixel, which PyTorch computes faster on many processors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.kernels import dense


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer cannot be computed pixel by pixel.

    >>> accepts(linear, detect(), Precision())
    'a layout of images, and linear has none'
    """
    if layer.op != "conv2d":
        return f"a layout of images, and {layer.op} has none"
    return dense.accepts(layer, machine, precision)


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images in any layout; its output is stored pixel by pixel.

    >>> build(conv, detect(), Precision(), True)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 20, 8, 8])
    """
    # Not .contiguous(), which leaves a weight of one input channel as it is: either layout fits it, and PyTorch
    # would then write the output in the other one.
    weight = torch.empty_like(layer.weight, memory_format=torch.channels_last).copy_(layer.weight)
    operation = dense.build(replace(layer, weight=weight), machine, precision, relu)
    return lambda x: operation(x.contiguous(memory_format=torch.channels_last))


KERNEL = Kernel(
    "channels_last",
    accepts,
    build,
    dense.reference,
    layout="channels_last",
)
