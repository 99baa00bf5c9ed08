"""A captured network in which layers compute in eight bits as `integer_reference` says, and the rest in PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.graph import Graph, Node
from zeroskip.graph.nodes import kind_of
from zeroskip.run import integer_reference as reference
from zeroskip.run.convolution.tiles.activation import RELU, Activation, activation_of
from zeroskip.run.convolution.tiles.graph_operations import barrier, operations_of
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.values import SAME, VIEWS
from zeroskip.run.integer_reference import ByteEpilogue, ByteMap, ByteWeight, Divisor
from zeroskip.run.quantisation import LIMIT, MapScale, Quantisation, check
from zeroskip.run.runner import Runner

LAYERS = ("conv", "depthwise", "linear")
RESCALING = (*LAYERS, "average", "mean", "add")  # may make bytes of any scale
FOLLOWING = ("max", "average", "mean", "add", "concat")  # compute on bytes where they read bytes anyway


@dataclass(frozen=True)
class ByteOperation:
    """An operation that can compute in eight bits.

    operation  what it does, as on tiles; "linear" is one of its kinds as well
    reads      the values that its nodes read
    axis       along which a concatenation puts its parts
    shape      of one example of the value that it makes
    """

    operation: Operation
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int = 1

    @property
    def name(self) -> str:
        """Of the value that it makes."""
        return self.operation.name

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
    nodes = {node.name: node for node in graph.nodes}
    found = [_byte_operation(each, nodes) for each in operations_of(graph)]
    found = [each for each in found if each is not None and _is_over_pixels(each, nodes, graph)]
    there = {name for each in found if each is not None for name in each.operation.names}
    rows = [_linear(node) for node in graph.nodes if node.name not in there]
    order = {node.name: number for number, node in enumerate(graph.nodes)}
    return sorted((each for each in (*found, *rows) if each is not None), key=lambda each: order[each.name])


def _byte_operation(operation: Operation, nodes: Mapping[str, Node]) -> ByteOperation | None:
    own = [nodes[name] for name in operation.names if name in nodes]
    linear = any(node.layer is not None and node.layer.op == "linear" for node in own)
    if operation.kind not in (*LAYERS, *FOLLOWING) or linear or operation.name not in nodes:
        return None
    made = nodes[operation.name]
    reads = tuple(name for node in own for name in node.inputs if name not in operation.names)
    shapes_known = made.shape is not None and len(reads) == len(operation.inputs)
    if not shapes_known or (operation.kind == "mean" and len(made.shape or ()) not in (1, 3)):
        return None
    axis = made.arguments.get("dim", 1) if operation.kind == "concat" else 1
    return ByteOperation(operation, reads, made.shape or (), axis if isinstance(axis, int) else 1)


def _is_over_pixels(each: ByteOperation, nodes: Mapping[str, Node], graph: Graph) -> bool:
    """Whether a mean is over all axes behind that of the channels; True of other operations."""
    node = nodes[each.name]
    if each.operation.kind != "mean" or kind_of(node) != "mean":
        return True
    axes = len(graph.shapes[each.reads[0]] or ()) + 1
    dim = node.arguments.get("dim")
    given = [axis % axes for axis in dim if isinstance(axis, int)] if isinstance(dim, (list, tuple)) else []
    return sorted(given) == [*range(2, axes)]


def _linear(node: Node) -> ByteOperation | None:
    """A linear layer, whose rows may be any axes."""
    layer = node.layer
    if layer is None or layer.op != "linear" or layer.weight.dtype is not torch.float32 or node.shape is None:
        return None
    activation = RELU if node.relu else None
    shape = layer.weight.shape[0], 1, 1
    made = Operation(
        node.name, "linear", node.inputs, shape, (node.name,), layer=layer, activation=activation
    )
    return ByteOperation(made, node.inputs, node.shape)


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
    adds = kind_of(node) == "add" and len(node.inputs) == 2 and node.arguments.get("alpha") in (None, 1)
    return bool(node.inputs) and (adds or kind_of(node) in POSITIVE or _pads_zeros(node))


POSITIVE = (
    *SAME, *VIEWS, "max_pool2d", "max_pool1d", "avg_pool2d", "avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    "mean", "cat", "concat", "slice", "select", "chunk", "split",
)  # fmt: skip


def in_bytes(
    operations: Sequence[ByteOperation], scales: Collection[str], layers: Collection[str]
) -> list[ByteOperation]:
    """Those that compute in eight bits: these layers, and what follows on bytes; all they read must have a scale."""
    chosen: list[ByteOperation] = []
    made: set[str] = set()
    for each in operations:
        wanted = each.name in layers if each.is_layer else bool(made & {*each.reads})
        needed = {*each.reads, *([each.name] if each.operation.kind == "concat" else [])}
        if wanted and needed <= {*scales}:
            chosen.append(each)
            made.add(each.name)
    return chosen


def integer_network(graph: Graph, quantisation: Quantisation, *, limit: float = LIMIT) -> Runner:
    """The network with every layer in eight bits that loses at most `limit`; all else in PyTorch, in fp32.

    What reads bytes made of fp32 numbers, and the other way round, is converted. A result is kept as bytes where an
    operation in eight bits reads it. Raises EngineError where the quantisation is of another network or unsound.

    >>> quantisation = run.calibrate(model, [x])
    >>> torch.allclose(integer_network(graph, quantisation)(x)[0], model(x), atol=0.02)
    True
    """
    operations = byte_operations(graph)
    layers = {*quantisation.errors} - {*quantisation.in_fp32(limit)}
    read = [name for each in operations if each.name in layers for name in each.reads]
    check(quantisation, graph, read, layers)
    return network_of(graph, operations, quantisation.values, quantisation.weights, layers)


def network_of(
    graph: Graph,
    operations: Sequence[ByteOperation],
    values: Mapping[str, MapScale],
    weights: Mapping[str, Tensor],
    layers: Collection[str],
) -> Runner:
    """`integer_network` with these scales, and these layers in eight bits."""
    chosen = in_bytes(operations, {*values}, layers)
    stored = {each.name: byte_weight_of(each, weights) for each in chosen if each.is_layer}
    read = {name for each in chosen for name in each.reads}
    calls = {each.name: partial(computed, each, stored.get(each.name), values) for each in chosen}
    steps = _steps(graph, chosen)

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        held: dict[str, Any] = {name: x.clone() for name, x in zip(graph.names, tensors, strict=True)}
        for name, reads, function, ended in steps:
            if function is None:
                y = calls[name]([_as_bytes(held, each, values[each]) for each in reads])
                held[name] = (
                    reference.next_map(y, values[name]) if isinstance(y, Tensor) and name in read else y
                )
            else:
                held[name] = function(*[_as_real(held[each]) for each in reads])
            for each in ended:
                del held[each]
        return [_as_real(held[name]) for name in graph.outputs]

    return run


_Step = tuple[str, tuple[str, ...], Callable[..., Any] | None, list[str]]
"""The value that is made, those that are read, PyTorch's function or None (in eight bits), values needed no more."""


def _steps(graph: Graph, chosen: Sequence[ByteOperation]) -> list[_Step]:
    """What runs, in order; an operation in eight bits stands where the last of its nodes stood."""
    by_name = {each.name: each for each in chosen}
    inside = {name for each in chosen for name in each.operation.names} - {*by_name}
    nodes = [node for node in graph.nodes if node.name not in inside]
    reads = [by_name[node.name].reads if node.name in by_name else node.inputs for node in nodes]
    steps: list[_Step] = []
    needed = set(graph.outputs)
    for node, names in zip(reversed(nodes), reversed(reads), strict=True):
        ended = {*names, node.name} - needed
        needed |= ended
        steps.append((node.name, names, None if node.name in by_name else node.function, sorted(ended)))
    return steps[::-1]


def _as_bytes(held: dict[str, Any], name: str, at: MapScale) -> ByteMap:
    value = held[name]
    if isinstance(value, ByteMap):
        return value
    return reference.byte_map(value, at)


def _as_real(value: Any) -> Any:
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
    each: ByteOperation, weight: ByteWeight | None, values: Mapping[str, MapScale], maps: Sequence[ByteMap]
) -> Tensor | ByteMap:
    """What the operation makes of maps of bytes: float32 numbers; bytes of max pooling and concatenation."""
    operation, x = each.operation, maps[0]
    kind, window, size = operation.kind, operation.window, (operation.shape[1], operation.shape[2])
    if kind == "concat":
        return reference.concatenated(maps, values[each.name], each.axis)
    if kind == "add":
        return reference.sum_of_maps(x, maps[1], operation.activation)
    if weight is not None:
        return _layer(operation, maps, weight)
    image = _as_image(x)
    if kind == "mean":
        return reference.mean_of_pixels(image).reshape(-1, *each.shape)
    assert window is not None
    if kind == "max":
        pooled = reference.largest_of_windows(image, window, size)
        return replace(pooled, numbers=pooled.numbers.reshape(-1, *each.shape))
    divisor = Divisor(operation.counts_padding, operation.divisor)
    return reference.mean_of_windows(image, window, size, divisor).reshape(-1, *each.shape)


def _layer(operation: Operation, maps: Sequence[ByteMap], weight: ByteWeight) -> Tensor:
    layer, window, x = operation.layer, operation.window, maps[0]
    assert layer is not None
    residual = maps[1] if len(maps) > 1 else None
    after = ByteEpilogue(layer.bias, residual, operation.activation)
    if window is None:
        return reference.finished(reference.sums_of_rows(x, weight), x.at, weight, after, axis=-1)
    sums = reference.sums_of_windows(_as_image(x), weight, window, layer.groups)
    if x.numbers.ndim == 3:
        sums = sums[:, :, 0]
    return reference.finished(sums, x.at, weight, after)


def _as_image(x: ByteMap) -> ByteMap:
    """A map of a sequence as one of a single row."""
    return replace(x, numbers=x.numbers[:, :, None]) if x.numbers.ndim == 3 else x
