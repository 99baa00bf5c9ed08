"""Dense convolutions on images stored pixel by pixel, which PyTorch computes faster on many processors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.dense import pytorch


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer cannot be computed pixel by pixel.

    >>> accepts(layer, machine, Precision())
    'a layout of images, and linear has none'
    """
    if layer.op != "conv2d":
        return f"a layout of images, and {layer.op} has none"
    return pytorch.accepts(layer, machine, precision)


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images in any layout; its output is stored pixel by pixel.

    Where PyTorch has oneDNN, the weight is laid out for it once: `conv2d` does that anew at each call.

    >>> y = build(conv, machine, Precision(), True)(torch.zeros(3, *conv.input_shape))
    >>> y.shape, y.stride()
    (torch.Size([3, 4, 8, 8]), (256, 1, 32, 4))
    """
    # Not .contiguous(), which leaves a weight of one input channel as it is: either layout fits it, and PyTorch
    # would then write the output in the other one.
    weight = torch.empty_like(layer.weight, memory_format=torch.channels_last).copy_(layer.weight)
    operation = pytorch.build(replace(layer, weight=weight), machine, precision, relu)

    def plain(x: Tensor) -> Tensor:
        return operation(x.contiguous(memory_format=torch.channels_last))

    return _packed(layer, relu, plain) if _can_pack(layer) else plain


def _can_pack(layer: Layer) -> bool:
    able = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    return able and layer.weight.dtype is torch.float32 and not isinstance(layer.padding, str)


def _packed(layer: Layer, relu: bool, plain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The layer with its weight as oneDNN likes it, as torch.compile has it; `plain` for batches without images."""
    shape = layer.padding, layer.stride, layer.dilation, layer.groups
    image = layer.input_shape[-3:]  # an example may be several: two frames, patches
    weight = torch.ops.mkldnn._reorder_convolution_weight(layer.weight, *shape, (1, *image))
    convolve = torch.ops.mkldnn._convolution_pointwise.default

    def call(x: Tensor) -> Tensor:
        if not len(x):
            return plain(x)
        x = x.contiguous(memory_format=torch.channels_last)
        y = convolve(x, weight, layer.bias, *shape, "none", [], "")
        return y.relu_() if relu else y  # oneDNN's own ReLU makes 0 of NaN

    return call


KERNEL = Kernel(
    "channels_last", "dense", accepts, build, pytorch.reference, skips="nothing", layout="channels_last"
)
