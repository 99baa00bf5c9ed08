"""Convolutions that skip the zeros of their input; see `zeroskip.run.convolution.zero_inputs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision, weight_sparsity
from zeroskip.run.convolution.tiles.convolution_job import FEATURES
from zeroskip.run.convolution.tiles.half_precision import LARGEST, LEAST, TRUSTED
from zeroskip.run.convolution.zero_inputs import skipping as convolution
from zeroskip.run.convolution.zero_inputs.shape import cut, misfit, shape
from zeroskip.run.convolution.zero_inputs.stored_weights import BYTES
from zeroskip.run.dense import channels_last, pytorch
from zeroskip.run.timing import interleaved, medians

LEAST_ZEROS = 0.3  # of an input with fewer, PyTorch was faster for every layer that was tried
# On networks with 90 % zero weights it lost to kernels on tiles in every layer, and took longest to compile.
PRUNED = 0.85


def accepts(
    layer: Layer, machine: Machine, precision: Precision, *, near: bool = False, kind: str = "fp32"
) -> str | None:
    """None, or why the zeros of the layer's input cannot be skipped; any machine and any weights will do.

    near  works with few channels at a time;  kind  what weights are stored in (run/skipping/numbers.py)

    >>> accepts(linear, detect(), Precision())
    'computes convolutions, not linear'
    """
    reason = _unasked(kind, machine, precision)
    if reason:
        return reason
    if layer.op != "conv2d":
        return f"computes convolutions, not {layer.op}"
    if layer.weight.dtype is not torch.float32:
        return f"computes float32 weights, not {str(layer.weight.dtype).removeprefix('torch.')}"
    sparsity = weight_sparsity(layer.weight)
    if sparsity > PRUNED:
        return f"{100 * sparsity:.0f} % of its weights are zero: kernels that skip those are faster"
    reason = misfit(layer, machine)
    if reason is None and near and not _is_cut(layer, machine, kind):
        reason = "its few weights are near without being cut"
    return reason


def _unasked(kind: str, machine: Machine, precision: Precision) -> str | None:
    if kind == "bf16" and precision.weights != "bf16":
        return f"stores weights in bf16, and {precision.weights} was asked for"
    if kind == "fp16" and precision.arithmetic != "fp16":
        return f"{precision.arithmetic} arithmetic was asked for"
    if kind == "fp16" and not FEATURES[2] <= machine.features:
        return "gains by fp16 where the CPU computes in it (avx512fp16), and this one does not"
    return None


def _is_cut(layer: Layer, machine: Machine, kind: str) -> bool:
    far, close = (cut(shape(layer), machine, near=near, kind=kind) for near in (False, True))
    return far.passes != close.passes


def build(
    layer: Layer,
    machine: Machine,
    precision: Precision,
    relu: bool,
    *,
    near: bool = False,
    kind: str = "fp32",
) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images in any layout; its output is stored pixel by pixel.

    An input so dense that PyTorch is faster is given to PyTorch, with weights rounded alike; where that begins is
    measured here. A zero input is skipped, so its product with an infinite or NaN weight is 0 here and NaN in PyTorch.
    `near` and `kind` as in `accepts`.

    >>> build(conv, detect(), Precision(), True)(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 20, 8, 8])
    """
    skipping = convolution.build(layer, machine, relu, near=near, kind=kind)
    alike = replace(layer, weight=rounded(kind, layer.weight))
    return convolution.falling_back(skipping, channels_last.build(alike, machine, precision, relu))


def reference(layer: Layer, x: Tensor, relu: bool, *, kind: str) -> Tensor:
    """The layer in float32, of weights rounded to bf16, or of weights and input rounded to fp16.

    >>> reference(conv, torch.zeros(2, 64, 8, 8), True, kind="bf16").shape
    torch.Size([2, 20, 8, 8])
    """
    x = x.half().to(x.dtype) if kind == "fp16" else x
    return pytorch.reference(replace(layer, weight=rounded(kind, layer.weight)), x, relu)


def rounded(kind: str, weight: Tensor) -> Tensor:
    """The weights that a kernel multiplies with, as float32.

    >>> rounded("bf16", torch.tensor([1.001]))
    tensor([1.])
    """
    narrow = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    return weight.detach().to(narrow).to(weight.dtype)


def suits(layer: Layer, x: Tensor, *, kind: str = "fp32") -> str | None:
    """None, or why inputs like `x` are not for kernels that skip their zeros.

    >>> suits(conv, torch.ones(1, 64, 8, 8))
    '0 % zeros in the input: too few to skip'
    """
    zeros = weight_sparsity(x)
    if zeros < LEAST_ZEROS:
        return f"{100 * zeros:.0f} % zeros in the input: too few to skip"
    return _beyond(layer, x) if kind == "fp16" else None


def _beyond(layer: Layer, x: Tensor) -> str | None:
    """None, or why fp16 cannot hold the layer's numbers; sums of 32 products are no more than those of all."""
    if not x.numel():
        return None
    weight = layer.weight.detach().abs()
    sums = pytorch.reference(replace(layer, weight=weight, bias=None), x.abs(), False)
    largest = float(torch.stack([part.max() for part in (weight, x.abs(), sums)]).max())
    if not largest <= TRUSTED:  # NaN is not
        return f"reaches {largest:.3g} on the example; fp16 ends at {LARGEST:.0f}, and half of that is left to others"
    vanishes = 0 < float(sums.max()) < LEAST
    return "all sums of the example nearly vanish in fp16" if vanishes else None


def alone(
    layer: Layer, machine: Machine, relu: bool, x: Tensor, *, kind: str = "fp32"
) -> Callable[[Tensor], Tensor]:
    """The layer by the form that is faster on `x`, with nobody to fall back on: for races between engines.

    >>> alone(conv, detect(), True, x)(x).shape
    torch.Size([2, 20, 8, 8])
    """
    ways = (False, True) if _is_cut(layer, machine, kind) else (False,)
    forms = {str(near): convolution.build(layer, machine, relu, near=near, kind=kind) for near in ways}
    calls = {name: partial(form, x) for name, form in forms.items()}
    seconds = medians(interleaved(calls, rounds=9, seconds=1e-3))
    return forms[min(seconds, key=seconds.__getitem__)]


def _kernel(name: str, near: bool, kind: str) -> Kernel:
    exact = kind == "fp32"
    return Kernel(
        name + {"fp32": "", "bf16": "_bf16", "fp16": "_half"}[kind],  # those that end with _fp16 are on tiles
        name,
        partial(accepts, near=near, kind=kind),
        partial(build, near=near, kind=kind),
        pytorch.reference if exact else partial(reference, kind=kind),
        element="fp16" if kind == "fp16" else "fp32",
        weights=kind,
        skips="inputs",
        layout="channels_last",
        # Up to 32 products of fp16 are rounded to 11 bits as they are summed.
        tolerance=2**-7 if kind == "fp16" else Kernel.tolerance,
        suits=partial(suits, kind=kind),
    )


KERNELS = tuple(
    _kernel(name, near, kind) for kind in BYTES for name, near in (("gather", False), ("gather_near", True))
)
KERNEL, NEAR = KERNELS[:2]
