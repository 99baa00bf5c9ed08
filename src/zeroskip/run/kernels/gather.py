"""Convolutions that skip the zeros of their input; see `zeroskip.run.skipping`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision, weight_sparsity
from zeroskip.run.kernels import channels_last, dense
from zeroskip.run.skipping import convolution
from zeroskip.run.skipping.shape import cut, misfit, shape
from zeroskip.run.timing import interleaved, medians

# On networks with 90 % zero weights it lost to kernels on tiles in every layer, and took longest to compile.
PRUNED = 0.85


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the zeros of the layer's input cannot be skipped; any machine and any weights will do.

    >>> accepts(linear, detect(), Precision())
    'computes convolutions, not linear'
    """
    if layer.op != "conv2d":
        return f"computes convolutions, not {layer.op}"
    if layer.weight.dtype is not torch.float32:
        return f"computes float32 weights, not {str(layer.weight.dtype).removeprefix('torch.')}"
    sparsity = weight_sparsity(layer.weight)
    if sparsity > PRUNED:
        return f"{100 * sparsity:.0f} % of its weights are zero: kernels that skip those are faster"
    return misfit(layer, machine)


def accepts_near(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """The same of a kernel that works with few channels at a time.

    >>> accepts_near(conv_of_3_channels, detect(), Precision())
    'its few weights are near without being cut'
    """
    reason = accepts(layer, machine, precision)
    if reason is None and cut(shape(layer), machine, near=True).passes == cut(shape(layer), machine).passes:
        reason = "its few weights are near without being cut"
    return reason


def build(
    layer: Layer, machine: Machine, precision: Precision, relu: bool, *, near: bool = False
) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images in any layout; its output is stored pixel by pixel.

    An input so dense that PyTorch is faster is given to PyTorch; where that begins is measured here. A zero input is
    skipped, so its product with an infinite or NaN weight is 0 here and NaN in PyTorch. `near` as in `shape.cut`.

    >>> build(conv, detect(), Precision(), True)(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 20, 8, 8])
    """
    skipping = convolution.build(layer, machine, relu, near=near)
    return convolution.falling_back(skipping, channels_last.build(layer, machine, precision, relu))


def alone(layer: Layer, machine: Machine, relu: bool, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The layer by the form that is faster on `x`, with nobody to fall back on: for races between engines.

    >>> alone(conv, detect(), True, x)(x).shape
    torch.Size([2, 20, 8, 8])
    """
    ways = (False, True) if accepts_near(layer, machine, Precision()) is None else (False,)
    forms = {str(near): convolution.build(layer, machine, relu, near=near) for near in ways}
    calls = {name: partial(form, x) for name, form in forms.items()}
    seconds = medians(interleaved(calls, rounds=9, seconds=1e-3))
    return forms[min(seconds, key=seconds.__getitem__)]


# Of an input with fewer zeros than that, PyTorch was faster for every layer that was tried.
KERNEL = Kernel("gather", accepts, build, dense.reference, layout="channels_last", least_zeros=0.3)
NEAR = replace(KERNEL, name="gather_near", accepts=accepts_near, build=partial(build, near=True))
KERNELS = (KERNEL, NEAR)
