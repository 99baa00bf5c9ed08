"""The kernels for linear layers of few rows in eight bits, and such a kernel with the scales of a layer.

method        quads of the input are found by       on
quad_gaps     a pointer for each lane                any processor
quad_windows  permutations of registers              AVX-512

A layer alone has the scales that tiles have there: those of its weights, and inputs divided by the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import Function
from zeroskip.run.argument_block import ArgumentBlock
from zeroskip.run.convolution.tiles.kernels import ALONE, int8_reference, int8_refusal, scaled_to_one
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.dense.pytorch import not_float32
from zeroskip.run.element import INT8
from zeroskip.run.linear.compiled_linear import CompiledLinear, compiled, compiled_layer
from zeroskip.run.linear_quads import quad_gaps, quad_windows
from zeroskip.run.linear_quads.quad_code import TOGETHER
from zeroskip.run.linear_quads.quad_layer import (
    QuadLayer,
    RowScales,
    own_scales,
    quad_layer,
    stride,
)

MOST_ROWS = 64  # of an example, for which a layer is timed

Slices = Callable[[QuadLayer, Machine], ArgumentBlock]
Emit = Callable[[Machine, bool], Function]


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer is not computed in eight bits.

    >>> accepts(layer, machine, Precision())
    'fp32 arithmetic was asked for'
    """
    why = int8_refusal(layer, machine, precision) or not_float32(layer, "linear")
    if why is None and not layer.weight.numel():
        return "has no weights"
    if why is None and not bool(layer.weight.isfinite().all()):
        return "weights that are not finite have no scale"
    return why


def accepts_windows(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why there are no windows of quads for this layer and machine.

    >>> accepts_windows(layer, replace(machine, vector_bytes=32), Precision("int8"))
    'needs the permutations of AVX-512'
    """
    why = accepts(layer, machine, precision)
    if why is None and machine.vector_bytes != 64:
        return "needs the permutations of AVX-512"
    if why is None and layer.weight.shape[1] > QUAD * quad_windows.MOST:
        return f"{layer.weight.shape[1]} inputs: windows begin at quads 0 to {quad_windows.MOST - 1}"
    return why


def with_scales(
    kernel: Kernel, scales: RowScales, reference: Callable[[Layer, Tensor, bool], Tensor]
) -> Kernel:
    """The kernel for the layer that has these scales; `reference` is `quad_layer.computed` with them.

    >>> from zeroskip.run.linear_quads.quad_layer import computed
    >>> scales = own_scales(layer, ALONE)
    >>> kernel = with_scales(KERNELS[0], scales, partial(computed, scales))
    >>> torch.equal(kernel.build(layer, any_machine, Precision("int8"), True)(x), kernel.reference(layer, x, True))
    True
    """

    def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> CompiledLinear:
        return _compiled(kernel.method, layer, scales, machine, relu)

    return replace(kernel, build=build, reference=reference)


def _compiled(method: str, layer: Layer, scales: RowScales, machine: Machine, relu: bool) -> CompiledLinear:
    slices, emit, _ = PARTS[method]
    quads = quad_layer(layer, scales)
    words = max(stride(quads.words.shape[1]), PARTS[method][2])
    run = compiled(emit, machine, relu)
    return compiled_layer(layer, machine, run, slices(quads, machine), scratch=TOGETHER * words)


def _suits(layer: Layer, x: Tensor) -> str | None:
    rows = x.numel() // max(1, layer.weight.shape[1])
    return f"{rows} rows, and it is for {MOST_ROWS} at most" if rows > MOST_ROWS else None


def _kernel(method: str, accepts: Callable[[Layer, Machine, Precision], str | None]) -> Kernel:
    def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
        plain = _compiled(method, replace(layer, bias=None), own_scales(layer, ALONE), machine, False)
        return partial(scaled_to_one, layer, relu, plain)

    return Kernel(
        f"{method}_{INT8.name}", method, accepts, build, int8_reference, element=INT8.name, weights=INT8.name,
        suits=_suits,
    )  # fmt: skip


PARTS: dict[str, tuple[Slices, Emit, int]] = {
    "quad_gaps": (quad_gaps.slices, quad_gaps.emit, 0),
    "quad_windows": (quad_windows.slices, quad_windows.emit, quad_windows.WINDOW),
}
"""Method -> how the weight is cut, the code, and how many quads an example has at least in memory."""

GAPS, WINDOWS = _kernel("quad_gaps", accepts), _kernel("quad_windows", accepts_windows)
KERNELS = (GAPS, WINDOWS)
