"""Kernels for convolutions that skip the zeros of their input, in one table.

gather       each window fetches the weights of its non-zeros; `gather_near`: for few channels at a time
scatter      each non-zero is sent to all outputs that it reaches, for weights beyond the caches

Weights are stored in fp32 or bf16, gather's in fp16 too (number_formats.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision, weight_sparsity
from zeroskip.run.convolution.zero_inputs import gather, scatter
from zeroskip.run.convolution.zero_inputs.compiled_convolution import CompiledConvolution
from zeroskip.run.convolution.zero_inputs.convolution_shape import shape_of
from zeroskip.run.convolution.zero_inputs.gather_blocking import cannot_be_listed, gather_blocking
from zeroskip.run.convolution.zero_inputs.nonzero_share import break_even
from zeroskip.run.convolution.zero_inputs.number_formats import BYTES
from zeroskip.run.convolution.zero_inputs.scatter_blocking import cannot_be_scattered
from zeroskip.run.dense import channels_last, pytorch
from zeroskip.run.element import FP16
from zeroskip.run.timing import preferred, raced, stop_watch

LEAST_ZEROS = 0.3  # of an input with fewer, PyTorch was faster for every layer that was tried
# On networks with 90 % zero weights it lost to kernels on tiles in every layer, and took longest to compile.
PRUNED = 0.85
NARROW = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SUFFIX = {"fp32": "", "bf16": "_bf16", "fp16": "_half"}  # names with _fp16 are those of kernels on tiles

_Builder = Callable[..., CompiledConvolution]
"""gather.build or scatter.build."""


def gather_accepts(
    layer: Layer, machine: Machine, precision: Precision, *, near: bool = False, storage: str = "fp32"
) -> str | None:
    """None, or why the windows of the layer do not fetch the weights of their non-zeros."""
    reason = _unasked(storage, machine, precision) or _refusal(layer) or cannot_be_listed(layer, machine)
    if reason is None and near and not _is_cut(layer, machine, storage):
        reason = "its few weights are near without being cut"
    return reason


def scatter_accepts(
    layer: Layer, machine: Machine, precision: Precision, *, storage: str = "fp32"
) -> str | None:
    """None, or why the non-zeros of the layer are not sent to its outputs, or other kernels are faster.

    >>> scatter_accepts(conv, machine, Precision())
    '288 bytes of weights stay near: windows gather them faster'
    """
    reason = _unasked(storage, machine, precision) or _refusal(layer)
    if reason:
        return reason
    # From memory, these took 10 % less to 10 % more time than with gather; from the caches, always more.
    stored = BYTES[storage] * layer.weights
    if stored <= machine.cache_bytes:
        return f"{stored} bytes of weights stay near: windows gather them faster"
    return cannot_be_scattered(layer, machine)


def _unasked(storage: str, machine: Machine, precision: Precision) -> str | None:
    if storage == "bf16" and precision.weights != "bf16":
        return f"stores weights in bf16, and {precision.weights} was asked for"
    if storage == "fp16" and precision.arithmetic != "fp16":
        return f"{precision.arithmetic} arithmetic was asked for"
    if storage == "fp16" and not FP16.can_be_baked(machine):
        return "gains by fp16 where the CPU computes in it (avx512fp16), and this one does not"
    return None


def _refusal(layer: Layer) -> str | None:
    if reason := pytorch.not_float32(layer, "conv2d"):
        return reason
    sparsity = layer.sparsity
    if sparsity > PRUNED:
        return f"{100 * sparsity:.0f} % of its weights are zero: kernels that skip those are faster"
    return None


def _is_cut(layer: Layer, machine: Machine, storage: str) -> bool:
    shape = shape_of(layer)
    far, close = (gather_blocking(shape, machine, near=near, storage=storage) for near in (False, True))
    return far.passes != close.passes


def _build(
    layer: Layer, machine: Machine, precision: Precision, relu: bool, *, skipping: _Builder, storage: str
) -> CompiledConvolution:
    """The layer as a function of images in any layout; its output is stored pixel by pixel.

    An input so dense that PyTorch is faster is given to PyTorch, with weights rounded alike; where that begins is
    measured here. A zero input is skipped, so its product with an infinite or NaN weight is 0 here and NaN in PyTorch.
    """
    alike = replace(layer, weight=rounded(storage, layer.weight))
    dense = channels_last.build(alike, machine, precision, relu)
    compiled = skipping(layer, machine, relu, storage=storage)
    return replace(compiled, dense=dense, most=break_even(compiled, dense, (1, *compiled.input_shape)))


def reference(layer: Layer, x: Tensor, relu: bool, *, storage: str) -> Tensor:
    """The layer in float32, of weights rounded to bf16, or of weights and input rounded to fp16."""
    x = x.half().to(x.dtype) if storage == "fp16" else x
    return pytorch.reference(replace(layer, weight=rounded(storage, layer.weight)), x, relu)


def rounded(storage: str, weight: Tensor) -> Tensor:
    """The weights that a kernel multiplies with, as float32.

    >>> rounded("bf16", torch.tensor([1.001]))
    tensor([1.])
    """
    return weight.detach().to(NARROW[storage]).to(weight.dtype)


def suits(layer: Layer, x: Tensor, *, storage: str = "fp32") -> str | None:
    """None, or why inputs like `x` are not for kernels that skip their zeros.

    >>> suits(conv, torch.ones(1, *conv.input_shape))
    '0 % zeros in the input: too few to skip'
    """
    zeros = weight_sparsity(x)
    if zeros < LEAST_ZEROS:
        return f"{100 * zeros:.0f} % zeros in the input: too few to skip"
    return _beyond(layer, x) if storage == "fp16" else None


def _beyond(layer: Layer, x: Tensor) -> str | None:
    """None, or why fp16 cannot hold the layer's numbers; sums of 32 products are no more than those of all."""
    if not x.numel():
        return None
    weight = layer.weight.detach().abs()
    sums = pytorch.reference(replace(layer, weight=weight, bias=None), x.abs(), False)
    largest = float(torch.stack([part.max() for part in (weight, x.abs(), sums)]).max())
    if (overflow := FP16.overflow(largest)) is not None:
        return overflow
    vanishes = 0 < float(sums.max()) < FP16.least
    return "all sums of the example nearly vanish in fp16" if vanishes else None


def fastest_gather(
    layer: Layer, machine: Machine, relu: bool, x: Tensor, *, storage: str = "fp32"
) -> CompiledConvolution:
    """The layer by the form of gather that is faster on `x`, without PyTorch for dense inputs: for races."""
    forms = {
        str(near): gather.build(layer, machine, relu, near=near, storage=storage)
        for near in ((False, True) if _is_cut(layer, machine, storage) else (False,))
    }
    calls = {name: partial(form, x) for name, form in forms.items()}
    return forms[preferred(raced(calls, stop_watch()))]


def _kernel(method: str, storage: str, accepts: Callable[..., str | None], skipping: _Builder) -> Kernel:
    return Kernel(
        name=method + SUFFIX[storage],
        method=method,
        accepts=partial(accepts, storage=storage),
        build=partial(_build, skipping=skipping, storage=storage),
        reference=pytorch.reference if storage == "fp32" else partial(reference, storage=storage),
        element="fp16" if storage == "fp16" else "fp32",
        weights=storage,
        skips="inputs",
        layout="channels_last",
        # Up to 32 products of fp16 are rounded to 11 bits as they are summed.
        tolerance=2**-7 if storage == "fp16" else Kernel.tolerance,
        suits=partial(suits, storage=storage),
    )


GATHER = tuple(
    kernel
    for storage in BYTES
    for kernel in (
        _kernel("gather", storage, gather_accepts, gather.build),
        _kernel("gather_near", storage, partial(gather_accepts, near=True), partial(gather.build, near=True)),
    )
)
SCATTER = tuple(_kernel("scatter", storage, scatter_accepts, scatter.build) for storage in ("fp32", "bf16"))
KERNELS = (*GATHER, *SCATTER)
