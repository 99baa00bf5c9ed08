"""The kernels on tiles in fp16: the same steps, with maps, weights and sums of 16 bits; see `run.tiles.half`."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.convolution.tiles import baked_kernel, blocks_kernel, streamed_kernel
from zeroskip.run.convolution.tiles.convolution_job import FEATURES
from zeroskip.run.convolution.tiles.half_precision import SUFFIX
from zeroskip.run.convolution.tiles.tiling import alone
from zeroskip.run.dense import pytorch

TERMS = 2048  # a sum of ones stops growing there, since the next whole number has 12 bits


def refusal(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a convolution is not computed in fp16 on this machine.

    >>> refusal(conv, detect(), Precision())
    'fp32 arithmetic was asked for'
    """
    if precision.arithmetic != "fp16":
        return f"{precision.arithmetic} arithmetic was asked for"
    # All 64-bit ARM processors convert numbers to fp16 and back.
    if "f16c" not in machine.features and machine.arch not in ("aarch64", "arm64"):
        return "the processor cannot read fp16"
    terms = int(layer.weight.flatten(1).count_nonzero(1).max()) if layer.weight.numel() else 0
    if terms > TERMS:
        return f"an output sums {terms} products, and in fp16 a sum of equal ones stops growing at {TERMS}"
    return None


def reference(layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in float32, of weight, bias and input rounded to fp16.

    >>> reference(layer, torch.zeros(2, 3, 8, 8), False).shape
    torch.Size([2, 16, 8, 8])
    """
    bias = None if layer.bias is None else _rounded(layer.bias)
    return pytorch.reference(replace(layer, weight=_rounded(layer.weight), bias=bias), _rounded(x), relu)


def _rounded(x: Tensor) -> Tensor:
    return x.half().to(x.dtype)


def _in_half(kernel: Kernel) -> Kernel:
    name = f"{kernel.name}{SUFFIX}"

    def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
        why = refusal(layer, machine, precision)
        if why is None and kernel is baked_kernel.KERNEL and not FEATURES[2] <= machine.features:
            return "its fp16 code is for AVX512-FP16, which this machine lacks"
        return why or kernel.accepts(layer, machine, precision)

    return Kernel(
        name,
        kernel.method,
        accepts,
        lambda layer, machine, precision, relu: alone(layer, relu, name, machine),
        reference,
        element="fp16",
        weights="fp16",
        layout="tiles",
        # Rounded to 11 bits whenever something is added, sums of up to 2048 products were 2^-9.2 away at most, where
        # weights have both signs. As much four times over is left to other orders of adding.
        tolerance=2**-7,
    )


KERNELS = tuple(map(_in_half, (baked_kernel.KERNEL, streamed_kernel.KERNEL, blocks_kernel.KERNEL)))
