"""From an origin, which says which kernel computes what, to a network that runs; also for inputs of other sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine
from zeroskip.graph import Graph, Node
from zeroskip.graph.layer_functions import arguments_of, function_of, with_relu
from zeroskip.graph.recurrent import Recurrent, is_same, with_weights_of
from zeroskip.graph.recurrent import function_of as recurrent_function
from zeroskip.run.captured import kernel_nodes, layer_among
from zeroskip.run.convolution.tiles.graph_operations import operations_of, without_layers
from zeroskip.run.convolution.tiles.half_precision import holds_constants
from zeroskip.run.convolution.tiles.kernels import (
    DEPTHWISE,
    computes_in,
    depthwise_in,
    element_of,
    streamed_in,
    works_on_tiles,
)
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.shared_weights import SharedWeights
from zeroskip.run.convolution.tiles.tiling import on_tiles
from zeroskip.run.dense import pytorch
from zeroskip.run.element import FP16, FP32, INT8
from zeroskip.run.integer_network import integer_network, with_bytes
from zeroskip.run.program import CompiledNetwork, Origin
from zeroskip.run.runner import Runner, runner

Functions = Mapping[str, Callable[..., Tensor]]
"""Node of a layer -> what computes it."""


def built(
    origin: Origin, operations: Sequence[Operation], machine: Machine, threads: int, known: Functions | None = None
) -> CompiledNetwork:  # fmt: skip
    """The network of this origin; `known` functions are not built anew."""
    final, known = origin.graph, known or {}
    if origin.tiles:
        final = on_tiles(final, operations, origin.tiles, machine, images=origin.images, threads=threads)
    functions = {
        node.name: known.get(node.name)
        or origin.kernels[node.name].build(computed, machine, origin.precision, node.relu)
        for node, computed in kernel_nodes(final)
    }
    return CompiledNetwork(runner(final, functions), origin, machine, final, functions)


def resized(
    first: CompiledNetwork, graph: Graph, threads: int, others: Sequence[CompiledNetwork] = (), *,
    streamed: bool = False,
) -> CompiledNetwork:  # fmt: skip
    """The network `graph`, which is that of `first` for inputs of another size, by the same kernels; nothing is timed.

    Weights are those of `first` where they are equal, functions where they do not depend on the size, and what layers
    on tiles have in memory is that of `first` or `others`. If `streamed`, all layers on tiles have that kernel.
    """
    origin, machine = first.origin, first.machine
    before = {node.name: node for node in origin.graph.nodes}
    graph = replace(graph, nodes=tuple(_with_weights_of(before.get(node.name), node) for node in graph.nodes))
    operations = without_layers(operations_of(graph), origin.kernels) if origin.tiles else []
    if origin.quantisation is not None and computes_in(origin.tiles, INT8):
        operations = with_bytes(graph, operations, origin.quantisation)
    if computes_in(origin.tiles, FP16) and not holds_constants(operations):
        operations = []
    operations = with_known(operations, [first, *others])
    tiles = {
        each.name: _on_tiles(each, layer_among(graph, each.names), origin, machine, streamed)
        for each in operations
        if each.layer is not None
    }
    covered = {name for each in operations for name in each.names} if tiles else set()
    kernels = {
        node.name: _kernel(node, computed, origin, machine)
        for node, computed in kernel_nodes(graph)
        if node.name not in covered
    }
    other = replace(origin, graph=graph, kernels=kernels, tiles=tiles)
    return built(other, operations, machine, threads, shared_functions(first, graph, kernels))


def with_known(operations: Sequence[Operation], networks: Sequence[CompiledNetwork]) -> list[Operation]:
    """The operations, each with what these networks have in memory of its weights."""
    nodes = [node.function for network in networks for node in network.graph.nodes]
    known: dict[str, list[SharedWeights]] = {}
    for segment in (each for each in nodes if isinstance(each, Segment)):
        for step in segment.code.chain.steps:
            if step.weights is not None and step.weights not in known.setdefault(step.node, []):
                known[step.node].append(step.weights)
    return [replace(each, known=tuple(known.get(each.name, ()))) for each in operations]


def rounded(origin: Origin) -> Runner:
    """The network in PyTorch, with what has eight bits rounded as in the compiled one."""
    references = {
        node.name: partial(_reference, origin.kernels[node.name], node.layer, node.relu)
        for node in origin.graph.nodes
        if node.layer is not None and len(node.inputs) == 1 and node.name in origin.kernels
    }
    if origin.quantisation is None or not computes_in(origin.tiles, INT8):
        return runner(origin.graph, references)
    return integer_network(origin.graph, origin.quantisation, references)


def _reference(kernel: Kernel, layer: Layer, relu: bool, x: Tensor) -> Tensor:
    return kernel.reference(layer, x, relu)


def shared_functions(first: CompiledNetwork, graph: Graph, kernels: Mapping[str, Kernel]) -> Functions:
    """The functions of `first` that compute layers of `graph` as well: linear ones with the same weights."""
    old, new = ({node.name: node for node, _ in kernel_nodes(each)} for each in (first.origin.graph, graph))
    return {
        name: function
        for name, function in first.functions.items()
        if name in kernels
        and kernels[name].name == first.origin.kernels[name].name
        and _is_same(old[name], new[name])
    }


def _with_weights_of(known: Node | None, node: Node) -> Node:
    """The node with the weights of `known` where they are equal, so that they are in memory once."""
    if known is not None and known.recurrent is not None and node.recurrent is not None:
        recurrent = with_weights_of(known.recurrent, node.recurrent)
        return replace(node, recurrent=recurrent, function=recurrent_function(recurrent))
    if known is None or known.layer is None or node.layer is None:
        return node
    old, new = known.layer, node.layer
    if not _equal(old.weight, new.weight) or not _equal(old.bias, new.bias):
        return node
    if new.weight.data_ptr() == old.weight.data_ptr():
        return node
    layer = replace(new, weight=old.weight, bias=old.bias)
    function = with_relu(function_of(layer)) if node.relu else function_of(layer)
    return replace(node, layer=layer, function=function, arguments=arguments_of(layer))


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.data_ptr() == other.data_ptr():
        return one is other or (one is not None and other is not None and one.shape == other.shape)
    return one.dtype == other.dtype and torch.equal(one, other)


def _is_same(known: Node, node: Node) -> bool:
    """Whether the node is a linear layer, or recurrent, and computes what `known` does, on any size."""
    if known.recurrent is not None and node.recurrent is not None:
        return is_same(known.recurrent, node.recurrent)
    if node.layer is None or known.layer is None or node.layer.op != "linear" or known.relu != node.relu:
        return False
    return known.layer.weight.data_ptr() == node.layer.weight.data_ptr() and _equal(
        known.layer.bias, node.layer.bias
    )


def _kernel(node: Node, computed: Layer | Recurrent, origin: Origin, machine: Machine) -> Kernel:
    """The kernel of the layer in `origin`, or of another run of the same weight; dense where it is none for it."""
    same_weight = [
        origin.kernels[other.name]
        for other, known in kernel_nodes(origin.graph)
        if other.name in origin.kernels and type(known) is type(computed) and known.name == computed.name
    ]
    kernel = origin.kernels.get(node.name) or next(iter(same_weight), pytorch.KERNEL)
    return kernel if kernel.accepts(computed, machine, origin.precision) is None else pytorch.KERNEL


def _on_tiles(operation: Operation, layer: Layer, origin: Origin, machine: Machine, streamed: bool) -> Kernel:
    element = element_of(operation, FP16 if computes_in(origin.tiles, FP16) else FP32)
    if operation.kind == "depthwise":
        return depthwise_in(element)
    if streamed:
        return streamed_in(element)
    kernel = origin.tiles.get(operation.name, streamed_in(element))
    fits = works_on_tiles(kernel, element) and kernel.method != DEPTHWISE.method
    accepted = kernel.accepts(layer, machine, origin.precision) is None
    return kernel if fits and accepted else streamed_in(element)
