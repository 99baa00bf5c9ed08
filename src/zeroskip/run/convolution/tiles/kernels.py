"""All kernels on tiles, in one table.

method     computes                                             on
baked      machine code that holds the non-zero weights         AVX-512; in fp16 AVX512-FP16
streamed   non-zero weights read as data                        any processor
blocks     the same, each input loaded once for 4 or 8 outputs  any processor; zeros in blocks of 4x1 or 8x1
depthwise  every weight of a depthwise convolution              any processor

Each of them in fp32 and in fp16, and all but "blocks" in int8, baked with AVX512-VNNI. Depthwise ones have no
alternative among their neighbours on tiles, so they are not among the kernels that are timed layer by layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.node_operations import FEW_ROWS
from zeroskip.run.convolution.tiles.operations import MAX_NONZEROS, Operation, is_too_large
from zeroskip.run.convolution.tiles.streamed import block_height
from zeroskip.run.convolution.tiles.tiling import alone, graph_of
from zeroskip.run.dense import pytorch
from zeroskip.run.element import FP16, FP32, INT8, SUM_LIMIT, Element, Scaling, weight_scales

TERMS = 2048  # a sum of ones stops growing there, since the next whole number has 12 bits

ON_TILES = ("conv2d", "conv1d", "linear", "conv_transpose1d", "conv_transpose2d")

_Accepts = Callable[[Layer, Machine, Precision], str | None]


def streamed_accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a layer cannot work on tiles.

    >>> streamed_accepts(Layer("fc", "linear", torch.ones(2, 3), None, (3,), (2,)), machine, Precision())
    'fewer than 8 rows, for which other kernels are faster'
    """
    if layer.op not in ON_TILES:
        return f"{layer.op} has no sparse kernel"
    if layer.weight.dtype is not torch.float32:
        return f"computes float32 weights, not {str(layer.weight.dtype).removeprefix('torch.')}"
    if is_too_large(layer):
        return f"more than {MAX_NONZEROS:,} non-zeros: their code would fill more memory than it is worth"
    if operations_of(graph_of(layer, False)):
        return None
    if layer.op == "linear":
        return f"fewer than {FEW_ROWS} rows, for which other kernels are faster"
    if layer.op == "conv2d" and len(layer.input_shape) == 3 and not layer.transposed:
        return f"padding {layer.padding} differs from side to side"
    return f"its input {layer.input_shape} or its steps are none that tiles can hold"


def baked_accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a layer cannot become machine code of its own."""
    if not FP32.can_be_baked(machine) or machine.vector_bytes != 64:
        return "its code is for AVX-512, which this machine lacks"
    if not sys.platform.startswith("linux"):
        return f"its code is for Linux, not {sys.platform}"
    return streamed_accepts(layer, machine, precision)


def blocks_accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a layer has no blocks of zeros that could be skipped on tiles."""
    why = streamed_accepts(layer, machine, precision)
    if why is None and (layer.groups > 1 or block_height(_rows(layer)) == 1):
        return "no 4 or 8 neighbouring output channels have their zeros in common"
    return why


def _rows(layer: Layer) -> np.ndarray:
    """(out, k) the weight as the operation on tiles has it."""
    operation = operations_of(graph_of(layer, False))[0]
    assert operation.layer is not None
    return operation.layer.weight.detach().flatten(1).numpy()


def depthwise_accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a layer is not computed channel by channel."""
    why = streamed_accepts(layer, machine, precision)
    if why is None and operations_of(graph_of(layer, False))[0].kind != "depthwise":
        return "computes depthwise convolutions of at most 25 weights a channel"
    return why


def fp16_refusal(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a convolution is not computed in fp16 on this machine."""
    if precision.arithmetic != FP16.name:
        return f"{precision.arithmetic} arithmetic was asked for"
    if not FP16.is_readable(machine):
        return "the processor cannot read fp16"
    terms = int(layer.weight.flatten(1).count_nonzero(1).max()) if layer.weight.numel() else 0
    if terms > TERMS:
        return f"an output sums {terms} products, and in fp16 a sum of equal ones stops growing at {TERMS}"
    return None


def _kernel(method: str, accepts: _Accepts, *, skips: str = "weights") -> Kernel:
    """The kernel in fp32."""

    def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
        return alone(layer, relu, kernel, machine)

    kernel = Kernel(method, method, accepts, build, pytorch.reference, skips=skips, layout="tiles")
    return kernel


def _in_fp16(fp32: Kernel) -> Kernel:
    """The same kernel with maps, weights and sums in fp16."""

    def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
        why = fp16_refusal(layer, machine, precision)
        if why is None and fp32.method == "baked" and not FP16.can_be_baked(machine):
            return "its fp16 code is for AVX512-FP16, which this machine lacks"
        return why or fp32.accepts(layer, machine, precision)

    def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
        return alone(layer, relu, kernel, machine)

    kernel = replace(
        fp32,
        name=f"{fp32.name}_{FP16.name}",
        element=FP16.name,
        weights=FP16.name,
        accepts=accepts,
        build=build,
        reference=FP16_REFERENCE,
        # Rounded to 11 bits whenever something is added, sums of up to 2048 products were 2^-9.2 away at most, where
        # weights have both signs. As much four times over is left to other orders of adding.
        tolerance=2**-7,
    )
    return kernel


def int8_sums_overflow(weight: Tensor) -> bool:
    """Whether 32 bits might not hold a sum of bytes with these weights."""
    if not weight.numel() or weight[0].numel() < SUM_LIMIT // (255 * 127):
        return False
    by_output = weight_scales(weight)[:, None]
    return float(255 * (weight.flatten(1) / by_output).round().abs().double().sum(1).max()) >= SUM_LIMIT


def int8_refusal(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a convolution is not computed in eight bits."""
    if precision.arithmetic != INT8.name:
        return f"{precision.arithmetic} arithmetic was asked for"
    if layer.weight.dtype is torch.float32 and int8_sums_overflow(layer.weight):
        return "adds so many products that a sum of bytes may pass 2^31"
    return None


def _in_int8(fp32: Kernel) -> Kernel:
    """The same kernel with maps and weights of bytes, and sums of 32 bits."""

    def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
        why = int8_refusal(layer, machine, precision)
        if why is None and fp32.method == "baked" and not INT8.can_be_baked(machine):
            return "its int8 code is for AVX512-VNNI, which this machine lacks"
        return why or fp32.accepts(layer, machine, precision)

    def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
        plain = alone(replace(layer, bias=None), False, kernel, machine, ALONE)
        return partial(scaled_to_one, layer, relu, lambda x: plain(x))

    kernel = replace(
        fp32,
        name=f"{fp32.name}_{INT8.name}",
        element=INT8.name,
        weights=INT8.name,
        accepts=accepts,
        build=build,
        reference=int8_reference,
    )
    return kernel


ALONE = Scaling(float(np.float32(1 / 127)), 128)  # of a layer alone, whose inputs are divided by the largest


def int8_reference(layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in PyTorch, of weights and inputs rounded to 8 bits: the largest of each output, or of all, is 127."""
    weight = _rounded(layer)

    def computed(x: Tensor) -> Tensor:
        numbers = (x * float(ALONE.inverse)).round().clamp(ALONE.least, ALONE.most)
        numbers = torch.where(numbers.isnan(), 0.0, numbers) * ALONE.scale
        return pytorch.reference(replace(layer, weight=weight, bias=None), numbers, False)

    return scaled_to_one(layer, relu, computed, x)


def _rounded(layer: Layer) -> Tensor:
    """The weight in steps of 1/127 of the largest of each output; of a transposed one, of each output's phase."""
    if not layer.transposed:
        by_output = weight_scales(layer.weight).reshape(-1, *[1] * (layer.weight.ndim - 1))
        return (layer.weight / by_output).round() * by_output
    rounded = torch.empty_like(layer.weight)
    for phase in np.ndindex(*layer.stride):
        taps = (slice(None), slice(None), *map(slice, phase, layer.weight.shape[2:], layer.stride))
        cut = layer.weight[taps].unflatten(0, (layer.groups, -1))  # (groups, in, out, taps)
        scales = weight_scales(cut.movedim(1, 2).flatten(0, 1)).reshape(
            layer.groups, 1, -1, *[1] * (cut.ndim - 3)
        )
        rounded[taps] = ((cut / scales).round() * scales).flatten(0, 1)
    return rounded


def scaled_to_one(layer: Layer, relu: bool, computed: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`computed` of inputs whose largest magnitude is 1, times that magnitude, and what follows in the layer."""
    largest = x.abs().max().clamp_min(2.0**-60) if x.numel() else 1.0
    y = computed(x / largest) * largest
    if layer.bias is not None:
        y = y + (layer.bias if layer.op == "linear" else layer.bias.reshape(-1, *[1] * (y.ndim - 2)))
    return torch.relu(y) if relu else y


FP16_REFERENCE = partial(pytorch.rounded_reference, torch.float16)
BAKED = _kernel("baked", baked_accepts)
STREAMED = _kernel("streamed", streamed_accepts)
BLOCKS = _kernel("blocks", blocks_accepts)
DEPTHWISE = _kernel("depthwise", depthwise_accepts, skips="nothing")
BAKED_FP16, STREAMED_FP16, BLOCKS_FP16, DEPTHWISE_FP16 = map(_in_fp16, (BAKED, STREAMED, BLOCKS, DEPTHWISE))
BAKED_INT8, STREAMED_INT8, DEPTHWISE_INT8 = map(_in_int8, (BAKED, STREAMED, DEPTHWISE))

KERNELS = (BAKED, STREAMED, BLOCKS, BAKED_FP16, STREAMED_FP16, BLOCKS_FP16, BAKED_INT8, STREAMED_INT8)
DEPTHWISE_KERNELS = (DEPTHWISE, DEPTHWISE_FP16, DEPTHWISE_INT8)


def depthwise_in(element: Element) -> Kernel:
    """The only kernel of depthwise convolutions among neighbours that compute in `element`."""
    return {FP16.name: DEPTHWISE_FP16, INT8.name: DEPTHWISE_INT8}.get(element.name, DEPTHWISE)


def streamed_in(element: Element) -> Kernel:
    """The kernel for maps of `element` that every processor runs."""
    return {FP16.name: STREAMED_FP16, INT8.name: STREAMED_INT8}.get(element.name, STREAMED)


def element_of(operation: Operation, others: Element) -> Element:
    """What the kernel of an operation computes in, whose neighbours that are not in bytes compute in `others`."""
    return others if operation.in_bytes is None else INT8


def works_on_tiles(kernel: Kernel, element: Element) -> bool:
    """Whether the kernel reads and writes maps on tiles that hold `element`."""
    return kernel.layout == "tiles" and kernel.element == element.name


def computes_in(tiles: Mapping[str, Kernel], element: Element) -> bool:
    """Whether any of these kernels computes in `element`."""
    return any(kernel.element == element.name for kernel in tiles.values())
