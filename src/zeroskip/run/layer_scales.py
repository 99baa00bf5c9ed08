"""Kernels for linear layers beside code on tiles, each with the scales that a quantisation has for its layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.graph import Graph, Node
from zeroskip.run.element import INT8
from zeroskip.run.integer_network import byte_operations, same_scales
from zeroskip.run.linear_quads import kernels as quads
from zeroskip.run.linear_quads.quad_layer import RowScales, computed
from zeroskip.run.quantisation import LIMIT, Quantisation

Scales = Mapping[str, "RowScales | str"]
"""Node of a linear layer -> its scales, or why it has none; empty where nothing computes in eight bits."""

METHODS = tuple(kernel.method for kernel in quads.KERNELS)
NO_SCALES = "it was not calibrated for eight bits, or its sums would not fit 32 bits"


def scales_of_layers(graph: Graph, quantisation: Quantisation | None) -> Scales:
    """The scales of all linear layers.

    >>> scales_of_layers(graph, run.calibrate(model, [x]))["linear"].weights.shape
    torch.Size([8])
    """
    if quantisation is None:
        return {}
    same = same_scales(graph, byte_operations(graph))
    nodes = [node for node in graph.nodes if node.layer is not None and node.layer.op == "linear"]
    return {node.name: _scales(node, same, quantisation) for node in nodes}


def _scales(node: Node, same: Mapping[str, str], quantisation: Quantisation) -> RowScales | str:
    error, weights = quantisation.errors.get(node.name), quantisation.weights.get(node.name)
    source: str | None = node.inputs[0]
    while source is not None and source not in quantisation.values:
        source = same.get(source)
    if error is None or weights is None or source is None:
        return NO_SCALES
    if not error <= LIMIT:  # NaN is not
        return stays_in_fp32(error)
    return RowScales(quantisation.values[source], weights)


def stays_in_fp32(error: float) -> str:
    """Why a layer does not compute in eight bits.

    >>> stays_in_fp32(0.2)
    'stays in fp32: in eight bits it loses 20.0% of its output, and 5% are allowed'
    """
    return f"stays in fp32: in eight bits it loses {error:.1%} of its output, and {LIMIT:.0%} are allowed"


def with_scales(kernels: Sequence[Kernel], scales: RowScales | str | None) -> list[Kernel]:
    """The kernels for a linear layer with these scales: those in eight bits compute with them.

    Kernels that store weights in eight bits take part too: they round less.

    >>> from zeroskip.run.linear.zero_weights.gaps import KERNELS
    >>> kernels = with_scales(KERNELS, scales_of_layers(graph, run.calibrate(model, [x]))["linear"])
    >>> [kernel.name for kernel in kernels if kernel.accepts(layer, machine, Precision("int8")) is None]
    ['gaps_fp32', 'gaps_int8']
    """
    if scales is None:
        return list(kernels)
    if isinstance(scales, str):
        return [
            replace(each, accepts=_refusing(scales)) if each.method in METHODS else each for each in kernels
        ]
    reference = partial(computed, scales)
    return [_with_scales(each, scales, reference) for each in kernels]


def _with_scales(
    kernel: Kernel, scales: RowScales, reference: Callable[[Layer, Tensor, bool], Tensor]
) -> Kernel:
    if kernel.method in METHODS:
        return quads.with_scales(kernel, scales, reference)
    if not _stores_bytes(kernel):
        return kernel

    def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
        return kernel.accepts(layer, machine, replace(precision, weights=INT8.name))

    return replace(kernel, accepts=accepts)


def _refusing(why: str) -> Callable[[Layer, Machine, Precision], str]:
    return lambda *_: why


def _stores_bytes(kernel: Kernel) -> bool:
    return kernel.layout == "rows" and kernel.element == "fp32" and kernel.weights == INT8.name


def needs_scales(kernel: Kernel, precision: Precision) -> bool:
    """Whether the kernel was chosen for a layer because of its scales.

    >>> needs_scales(run.kernels.BY_NAME["gaps_int8"], Precision("int8"))
    True
    """
    return kernel.method in METHODS or (_stores_bytes(kernel) and precision.weights != kernel.weights)
