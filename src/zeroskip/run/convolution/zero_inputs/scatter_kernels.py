"""Convolutions that send the non-zeros of their input; see `zeroskip.run.convolution.zero_inputs.scatter`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision, weight_sparsity
from zeroskip.run.convolution.zero_inputs import gather_kernels, scatter
from zeroskip.run.convolution.zero_inputs import skipping as convolution
from zeroskip.run.convolution.zero_inputs.stored_weights import BYTES
from zeroskip.run.dense import channels_last, pytorch


def accepts(layer: Layer, machine: Machine, precision: Precision, *, kind: str = "fp32") -> str | None:
    """None, or why the layer cannot be computed so, or other kernels are faster; weights are stored as `kind` says.

    >>> accepts(conv_of_20_channels, detect(), Precision())
    '128000 bytes of weights stay near: windows gather them faster'
    """
    if kind != "fp32" and precision.weights != kind:
        return f"stores weights in {kind}, and {precision.weights} was asked for"
    if layer.op != "conv2d":
        return f"computes convolutions, not {layer.op}"
    if layer.weight.dtype is not torch.float32:
        return f"computes float32 weights, not {str(layer.weight.dtype).removeprefix('torch.')}"
    sparsity, stored = weight_sparsity(layer.weight), BYTES[kind] * layer.weights
    if sparsity > gather_kernels.PRUNED:
        return f"{100 * sparsity:.0f} % of its weights are zero: kernels that skip those are faster"
    # From memory, these took 10 % less to 10 % more time than with gather; from the caches, always more.
    if stored <= machine.cache_bytes:
        return f"{stored} bytes of weights stay near: windows gather them faster"
    return scatter.misfit(layer, machine)


def build(
    layer: Layer, machine: Machine, precision: Precision, relu: bool, *, kind: str = "fp32"
) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images in any layout; its output is stored pixel by pixel.

    An input so dense that PyTorch is faster is given to PyTorch, with weights rounded alike; where that begins is
    measured here. A zero input is skipped, so its product with an infinite or NaN weight is 0 here and NaN in PyTorch.
    `kind` as in `accepts`.

    >>> build(conv, detect(), Precision(), True)(torch.zeros(1, 512, 7, 7)).shape
    torch.Size([1, 512, 7, 7])
    """
    skipping = scatter.build(layer, machine, relu, kind=kind)
    alike = replace(layer, weight=gather_kernels.rounded(kind, layer.weight))
    return convolution.falling_back(skipping, channels_last.build(alike, machine, precision, relu))


KERNEL = Kernel(
    "scatter",
    "scatter",
    accepts,
    build,
    pytorch.reference,
    skips="inputs",
    layout="channels_last",
    suits=gather_kernels.suits,
)
BF16 = Kernel(
    "scatter_bf16",
    "scatter",
    partial(accepts, kind="bf16"),
    partial(build, kind="bf16"),
    partial(gather_kernels.reference, kind="bf16"),
    weights="bf16",
    skips="inputs",
    layout="channels_last",
    suits=gather_kernels.suits,
)
KERNELS = (KERNEL, BF16)
