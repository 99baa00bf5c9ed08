"""A captured network in which layers compute in eight bits as `integer_reference` says, and the rest in PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer
from zeroskip.errors import EngineError
from zeroskip.graph import Graph, Node
from zeroskip.graph.nodes import kind_of
from zeroskip.run import integer_reference as reference
from zeroskip.run.convolution.tiles.activation import RELU, Activation, activation_of
from zeroskip.run.convolution.tiles.forms import Form, MapShape, from_map, to_map
from zeroskip.run.convolution.tiles.graph_operations import barrier, maps_of, operations_of
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.quantising import LAYERS as TILED
from zeroskip.run.convolution.tiles.quantising import chosen, has_bytes, values_in_bytes
from zeroskip.run.convolution.tiles.quantising import in_bytes as on_bytes
from zeroskip.run.convolution.tiles.tiling import left
from zeroskip.run.convolution.tiles.values import SAME, VIEWS
from zeroskip.run.element import INT8, Scaling, whole_bias
from zeroskip.run.integer_reference import ByteEpilogue, ByteMap, ByteWeight, Divisor
from zeroskip.run.quantisation import LIMIT, Quantisation, check, demand_quantisation
from zeroskip.run.runner import Runner

LAYERS = (*TILED, "linear")
RESCALING = (*LAYERS, "average", "mean", "add", "combine", "scale")  # may make bytes of any scale


@dataclass(frozen=True)
class ByteOperation:
    """An operation that can compute in eight bits.

    operation  what it does, as on tiles; "linear" is one of its kinds as well: a linear layer that no tile holds
    maps       the shapes and forms of what it reads, then of what it makes, as maps; () of a "linear"
    """

    operation: Operation
    maps: tuple[tuple[MapShape, Form], ...] = ()

    @property
    def name(self) -> str:
        """Of the value that it makes."""
        return self.operation.name

    @property
    def reads(self) -> tuple[str, ...]:
        """The values that it reads."""
        return self.operation.inputs

    @property
    def is_layer(self) -> bool:
        """Whether it has weights."""
        return self.operation.kind in LAYERS


def byte_operations(graph: Graph) -> list[ByteOperation]:
    """The operations that can compute in eight bits, in running order.

    >>> [(each.name, each.reads) for each in byte_operations(graph)]
    [('linear', ('input',)), ('linear_1', ('linear',))]
    """
    if barrier(graph):
        return []
    tiled = operations_of(graph)
    maps = maps_of(graph, tiled)
    shapes = {name: shape for name, (shape, _) in maps.items()}
    order = {name: number for number, name in enumerate([*graph.names, *(node.name for node in graph.nodes)])}
    found = [
        ByteOperation(each, tuple(maps[name] for name in (*each.inputs, each.name)))
        for each in tiled
        if has_bytes(each, shapes)
    ]
    there = {name for each in found for name in each.operation.names}
    rows = [_linear(node) for node in graph.nodes if node.name not in there]
    return sorted(
        (each for each in (*found, *rows) if each is not None),
        key=lambda each: order[each.operation.names[-1]],
    )


def _linear(node: Node) -> ByteOperation | None:
    """A linear layer, whose rows may be any axes."""
    layer = node.layer
    if layer is None or layer.op != "linear" or layer.weight.dtype is not torch.float32 or node.shape is None:
        return None
    activation = RELU if node.relu else None
    shape = layer.weight.shape[0], 1, 1
    return ByteOperation(
        Operation(node.name, "linear", node.inputs, shape, (node.name,), layer=layer, activation=activation)
    )


def same_scales(graph: Graph, operations: Sequence[ByteOperation]) -> dict[str, str]:
    """Value -> another one whose scale it has.

    Max pooling and what only moves numbers keep the scale of what they read. What is read by a concatenation alone
    has its scale, so that it is made in its place.

    >>> same_scales(graph, byte_operations(graph))
    {}
    """
    uses = Counter([*graph.outputs, *(name for node in graph.nodes for name in node.inputs)])
    makers = {each.name: each.operation.kind for each in operations}
    same: dict[str, str] = {}
    for node in graph.nodes:
        moves = kind_of(node) in (*SAME, *VIEWS) or _pads_zeros(node)
        if (moves or makers.get(node.name) == "max") and node.inputs:
            same[node.name] = node.inputs[0]
    for each in operations:
        if each.operation.kind == "rearrange":
            # The pixels of a transposed convolution, before they are interleaved, are no value of the graph.
            phases = makers.get(each.reads[0]) == "conv" and each.reads[0] not in uses
            same |= {each.reads[0]: each.name} if phases else {each.name: each.reads[0]}
        if each.operation.kind == "concat":
            own = [name for name in each.reads if uses[name] == 1 and makers.get(name) in RESCALING]
            same |= dict.fromkeys(own, each.name)
    return same


def _pads_zeros(node: Node) -> bool:
    return kind_of(node) in ("constant_pad_nd", "pad") and not node.arguments.get("value")


def never_negative(graph: Graph) -> set[str]:
    """The values that hold nothing below 0, as their operations say.

    >>> never_negative(graph)
    {'linear'}
    """
    found: set[str] = set()
    for node in graph.nodes:
        activation = activation_of(node)
        ends = activation is not None and (activation.keeps_positive or _starts_at_0(activation))
        if node.relu or ends or (_keeps_positive(node) and found.issuperset(node.inputs)):
            found.add(node.name)
    return found


def _starts_at_0(activation: Activation) -> bool:
    return activation.kind == "clamp" and activation.numbers[0] >= 0


def _keeps_positive(node: Node) -> bool:
    """Whether the node makes nothing below 0 of values that have nothing below 0."""
    adds = (
        kind_of(node) in ("add", "mul") and len(node.inputs) == 2 and node.arguments.get("alpha") in (None, 1)
    )
    return bool(node.inputs) and (adds or kind_of(node) in POSITIVE or _pads_zeros(node))


POSITIVE = (
    *SAME, *VIEWS, "max_pool2d", "max_pool1d", "avg_pool2d", "avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    "mean", "cat", "concat", "slice", "select", "chunk", "split",
)  # fmt: skip


def in_bytes(
    operations: Sequence[ByteOperation], scales: Collection[str], layers: Collection[str]
) -> list[ByteOperation]:
    """Those that compute in eight bits: these layers, and what follows on bytes; all they read must have a scale."""
    names = {each.name for each in chosen([each.operation for each in operations], scales, layers)}
    return [each for each in operations if each.name in names]


def integer_network(
    graph: Graph,
    quantisation: Quantisation,
    functions: Mapping[str, Callable[..., Tensor]] = MappingProxyType({}),
    *,
    limit: float = LIMIT,
) -> Runner:
    """The network with every layer in eight bits that loses at most `limit`; all else in PyTorch, in fp32.

    Linear layers of few rows, which are not on tiles, are what `functions` says, by node; else in fp32 too: their
    kernels take and make fp32 numbers. What reads bytes made of fp32 numbers, and the other way round, is converted. A
    result is kept as bytes where an operation in eight bits reads it, and that of a product always. Raises EngineError
    where the quantisation is of another network or unsound.

    >>> quantisation = run.calibrate(model, [x])
    >>> torch.allclose(integer_network(graph, quantisation)(x)[0], model(x), atol=0.02)
    True
    """
    demand_fit(graph, quantisation, limit=limit)
    operations = [each for each in byte_operations(graph) if each.maps]
    layers = layers_in_bytes(quantisation, limit)
    nodes = tuple(replace(node, function=functions.get(node.name, node.function)) for node in graph.nodes)
    return network_of(replace(graph, nodes=nodes), operations, quantisation.values, layers, layers)


def demand_fit(graph: Graph, quantisation: Quantisation, *, limit: float = LIMIT) -> None:
    """EngineError unless the quantisation is of this network, and has sound scales for all that computes in bytes.

    >>> demand_fit(graph, run.calibrate(model, [x]))
    """
    demand_quantisation(quantisation)
    layers = {*quantisation.errors} - {*quantisation.in_fp32(limit)}
    computing = [each for each in byte_operations(graph) if each.name in layers]
    check(quantisation, graph, [name for each in computing for name in each.reads], layers)
    for each in computing:
        byte_weight_of(each, quantisation.weights)


def layers_in_bytes(quantisation: Quantisation, limit: float = LIMIT) -> dict[str, Tensor]:
    """Layer that computes in eight bits, wherever it can -> the scales of its weights.

    >>> list(layers_in_bytes(run.calibrate(model, [x])))
    ['linear', 'linear_1']
    """
    gone = quantisation.in_fp32(limit)
    return {
        name: scales
        for name, scales in quantisation.weights.items()
        if name in quantisation.errors and name not in gone
    }


def with_bytes(graph: Graph, operations: Sequence[Operation], quantisation: Quantisation) -> list[Operation]:
    """The operations on tiles, of which those compute in eight bits that do in `integer_network`.

    >>> with_bytes(graph, [], run.calibrate(model, [x]))
    []
    """
    shapes = {name: shape for name, (shape, _) in maps_of(graph, operations).items()}
    return on_bytes(operations, shapes, quantisation.values, layers_in_bytes(quantisation))


def saturated(
    graph: Graph, quantisation: Quantisation | None, tensors: Sequence[Tensor], kernels: Mapping[str, Kernel]
) -> int:
    """How many numbers of the network's inputs lie beyond the range that was calibrated; 0 where nothing has 8 bits.

    A layer in fp32 may stand before those in eight bits: what it makes of such numbers is cut off there.
    kernels  of operations on tiles and of nodes

    >>> saturated(graph, run.calibrate(model, [x]), [9 * x], {"linear": run.kernels.BY_NAME["quad_gaps_int8"]})
    16
    """
    if quantisation is None or all(kernel.element != INT8.name for kernel in kernels.values()):
        return 0
    operations, values = byte_operations(graph), quantisation.values
    same = same_scales(graph, operations)
    read = {_moved_from(name, same): name for each in operations for name in each.reads if name in values}
    named = [(read[name], x) for name, x in zip(graph.names, tensors, strict=True) if name in read]
    return sum(reference.saturating(x, values[name]) for name, x in named)


def _moved_from(name: str, same: Mapping[str, str]) -> str:
    """The value that operations which only move numbers made this one of."""
    while name in same:
        name = same[name]
    return name


def network_of(
    graph: Graph,
    operations: Sequence[ByteOperation],
    values: Mapping[str, Scaling],
    weights: Mapping[str, Tensor],
    layers: Collection[str],
) -> Runner:
    """`integer_network` with these scales, and these layers in eight bits."""
    computing = in_bytes(operations, {*values}, layers)
    stored = {each.name: byte_weight_of(each, weights) for each in computing if each.is_layer}
    kept = values_in_bytes(each.operation for each in computing)
    calls = {each.name: partial(computed, each, stored.get(each.name), values) for each in computing}
    steps = steps_of(graph, computing)

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        held: dict[str, Any] = {name: x.clone() for name, x in zip(graph.names, tensors, strict=True)}
        for name, reads, function, ended in steps:
            if function is None:
                y = calls[name]([_as_bytes(held, each, values[each]) for each in reads])
                held[name] = (
                    reference.next_map(y, values[name]) if isinstance(y, Tensor) and name in kept else y
                )
            else:
                held[name] = function(*[_as_real(held[each]) for each in reads])
            for each in ended:
                del held[each]
        return [cast("Tensor", _as_real(held[name])) for name in graph.outputs]

    return run


ByteStep = tuple[str, tuple[str, ...], Callable[..., object] | None, list[str]]
"""The value that is made, those that are read, PyTorch's function or None (in eight bits), values needed no more."""


def steps_of(graph: Graph, computing: Sequence[ByteOperation]) -> list[ByteStep]:
    """What runs, in order; an operation in eight bits stands where the last of its nodes stood."""
    by_place: dict[str, list[ByteOperation]] = {}
    for each in computing:
        by_place.setdefault(each.operation.names[-1], []).append(each)
    rest = {node.name for node in left(graph, [each.operation for each in computing])}
    running: list[tuple[str, tuple[str, ...], Callable[..., object] | None]] = []
    for node in graph.nodes:
        running += [(each.name, each.reads, None) for each in by_place.get(node.name, ())]
        if node.name in rest:
            running.append((node.name, node.inputs, node.function))
    steps: list[ByteStep] = []
    needed = set(graph.outputs)
    for name, reads, function in reversed(running):
        ended = {*reads, name} - needed
        needed |= ended
        steps.append((name, reads, function, sorted(ended)))
    return steps[::-1]


def _as_bytes(held: dict[str, Any], name: str, at: Scaling) -> ByteMap:
    value = held[name]
    if isinstance(value, ByteMap):
        return value
    return reference.byte_map(value, at)


def _as_real(value: object) -> object:
    return value.real if isinstance(value, ByteMap) else value


def byte_weight_of(operation: ByteOperation, scales: Mapping[str, Tensor]) -> ByteWeight:
    """A layer's weights in bytes; EngineError where the scales are not one for each output, or sums may overflow."""
    layer = operation.operation.layer
    assert layer is not None
    own = scales.get(operation.name)
    if own is not None and len(own) != len(layer.weight):
        raise EngineError(
            f"the quantisation has {len(own)} scales for the {len(layer.weight)} outputs of {operation.name}. "
            "Calibrate the network again: run.calibrate(model, batches)."
        )
    weight = reference.byte_weight(layer.weight, own)
    reference.demand_sums(layer.name, weight)
    return weight


def computed(
    each: ByteOperation, weight: ByteWeight | None, values: Mapping[str, Scaling], inputs: Sequence[ByteMap]
) -> Tensor | ByteMap:
    """What the operation makes of maps of bytes: float32 numbers; bytes of max pooling and concatenation."""
    if not each.maps:
        layer = each.operation.layer
        assert layer is not None
        assert weight is not None
        bias = _bias(layer, inputs[0].at, weight)
        after = ByteEpilogue(bias, None, each.operation.activation)
        return reference.finished(
            reference.sums_of_rows(inputs[0], weight), inputs[0].at, weight, after, axis=-1
        )
    maps = [
        replace(x, numbers=to_map(form, shape, x.numbers))
        for x, (shape, form) in zip(inputs, each.maps, strict=False)
    ]
    y, form = _of_maps(each.operation, weight, values, maps), each.maps[-1][1]
    return replace(y, numbers=from_map(form, y.numbers)) if isinstance(y, ByteMap) else from_map(form, y)


def _bias(layer: Layer, x: Scaling, weight: ByteWeight) -> Tensor | None:
    return None if layer.bias is None else whole_bias(layer.bias, x, weight.scales)


def _of_maps(
    operation: Operation, weight: ByteWeight | None, values: Mapping[str, Scaling], maps: Sequence[ByteMap]
) -> Tensor | ByteMap:
    kind, window, size, x = operation.kind, operation.window, operation.shape[1:], maps[0]
    if kind == "concat":
        return reference.concatenated(maps, values[operation.name])
    if kind == "add":
        return reference.sum_of_maps(x, maps[1], operation.activation)
    if kind == "mean":
        return reference.mean_of_pixels(x)[..., None, None]
    if kind == "rearrange":
        return reference.rearranged(x, operation.movements, operation.shape)
    if kind == "combine":
        return reference.product_of_maps(x, maps[1], operation.activation)
    if kind == "scale":
        return reference.scaled(x, operation.factors, operation.activation)
    assert window is not None
    if weight is not None:
        layer = operation.layer
        assert layer is not None
        residual = maps[1] if len(maps) > 1 else None
        after = ByteEpilogue(_bias(layer, x.at, weight), residual, operation.activation)
        return reference.finished(
            reference.sums_of_windows(x, weight, window, layer.groups, size), x.at, weight, after
        )
    if kind == "max":
        return reference.largest_of_windows(x, window, size)
    divisor = Divisor(operation.counts_padding, operation.divisor)
    return reference.mean_of_windows(x, window, size, divisor)
