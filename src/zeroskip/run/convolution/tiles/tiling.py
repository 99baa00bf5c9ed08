"""Which part of a network works on tiles, with which kernels, and the network with that part as one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine
from zeroskip.emit.executable_memory import allocate
from zeroskip.graph import Graph, Node
from zeroskip.run.captured import Captured
from zeroskip.run.convolution.tiles.lowering import SegmentCode, lower
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph, operations_of
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.steps import seconds_by_node
from zeroskip.run.dense.pytorch import reference
from zeroskip.run.element import FP16, FP32

ROUNDS = 5


@dataclass(frozen=True)
class NetworkOnTiles:
    """A network whose convolutions work on tiles, `images` examples at a time.

    graph    with a node for each part that does, in place of the nodes it stands for
    kernels  operation -> kernel, of the convolutions
    seconds  operation -> name of a kernel -> seconds of its steps; measured one by one on the example
    nodes    operation -> the nodes of the original graph that it stands for
    """

    graph: Graph
    images: int
    kernels: dict[str, Kernel]
    seconds: dict[str, dict[str, float]]
    nodes: dict[str, tuple[str, ...]]


def fastest_on_tiles(
    captured: Captured, operations: Sequence[Operation], candidates: Mapping[str, Sequence[Kernel]],
    machine: Machine, *, images: int, threads: int,
) -> NetworkOnTiles | None:  # fmt: skip
    """The network with these operations on tiles, each convolution with the fastest of its `candidates`.

    None where a convolution has none. All kernels have the same element. `images` examples are worked on at a time.
    """
    layers = [operation.name for operation in operations if operation.layer is not None]
    usable = {name: tuple(candidates.get(name, ())) for name in layers}
    if not any(each.kind == "conv" for each in operations) or not all(usable.values()):
        return None
    subgraphs = _subgraphs(captured.graph, operations)
    seconds: dict[str, dict[str, float]] = {name: {} for name in usable}
    for kernel in dict.fromkeys(kernel for kernels in usable.values() for kernel in kernels):
        tried = {name: kernel if kernel in kernels else kernels[0] for name, kernels in usable.items()}
        measured = _measured(captured.values, _codes(subgraphs, tried, machine, images), images)
        for name in usable:
            if tried[name] == kernel:
                seconds[name][kernel.name] = measured[name]
    fastest = {
        name: min(kernels, key=lambda kernel: seconds[name][kernel.name]) for name, kernels in usable.items()
    }
    final = _with_segments(captured.graph, subgraphs, _codes(subgraphs, fastest, machine, images), threads)
    return NetworkOnTiles(final, images, fastest, seconds, {each.name: each.names for each in operations})


def on_tiles(
    graph: Graph, operations: Sequence[Operation], kernels: Mapping[str, Kernel], machine: Machine, *, images: int,
    threads: int,
) -> Graph:  # fmt: skip
    """The network with these operations on tiles, its convolutions by `kernels` (operation -> kernel).

    >>> from zeroskip.run.convolution.tiles.kernels import STREAMED
    >>> one = graph_of(conv, True)
    >>> [node.op for node in on_tiles(one, operations_of(one), {"y": STREAMED}, any_machine, images=1, threads=1).nodes]
    ['tiles', 'getitem']
    """
    subgraphs = _subgraphs(graph, operations)
    return _with_segments(graph, subgraphs, _codes(subgraphs, kernels, machine, images), threads)


def values_of(operations: Sequence[Operation]) -> set[str]:
    """The names of the values that the operations read and make."""
    return {name for operation in operations for name in (operation.name, *operation.inputs)}


def _subgraphs(graph: Graph, operations: Sequence[Operation]) -> list[Subgraph]:
    """The operations grouped into segments, cut only where a torch node lies between."""
    level = _levels(graph, operations)
    shapes: dict[str, Any] = {graph.input: graph.shape, **{node.name: node.shape for node in graph.nodes}}
    covered = {name for operation in operations for name in operation.names}
    readers = [(node.name, node.inputs) for node in graph.nodes if node.name not in covered]
    readers += [(operation.name, operation.inputs) for operation in operations]
    subgraphs = []
    for number in sorted({level[operation.name] for operation in operations}):
        inside = tuple(operation for operation in operations if level[operation.name] == number)
        made = {operation.name for operation in inside}
        entering = {name: shapes[name] for each in inside for name in each.inputs if name not in made}
        read = {name for reader, inputs in readers if reader not in made for name in inputs}
        needed = read.union(graph.outputs)
        leaving = [each.name for each in inside if each.name in needed or each.kind == "mean"]
        subgraphs.append(Subgraph(inside, entering, {name: shapes[name] for name in leaving}))
    return subgraphs


def _levels(graph: Graph, operations: Sequence[Operation]) -> dict[str, int]:
    """How many changes between torch and tiles lie before each value: even in torch, odd on tiles."""
    operation_of = {name: operation for operation in operations for name in operation.names}
    level = {graph.input: 0}
    for node in graph.nodes:
        operation = operation_of.get(node.name)
        if operation is None:
            level[node.name] = max((level[name] + level[name] % 2 for name in node.inputs), default=0)
        elif node.name == operation.name:
            level[node.name] = max(level[name] + 1 - level[name] % 2 for name in operation.inputs)
    return level


def _codes(
    subgraphs: Sequence[Subgraph], kernels: Mapping[str, Kernel], machine: Machine, images: int
) -> list[SegmentCode]:
    methods = {name: kernel.method for name, kernel in kernels.items()}
    element = FP16 if any(kernel.element == FP16.name for kernel in kernels.values()) else FP32
    return [
        lower(subgraph, machine, images=images, methods=methods, element=element) for subgraph in subgraphs
    ]


def _measured(values: Mapping[str, Tensor], codes: Sequence[SegmentCode], images: int) -> dict[str, float]:
    """Median seconds of each operation on real inputs, for `images` examples."""
    spent: dict[str, list[float]] = {}
    for code in codes:
        memory = allocate(code.bytes)
        tensors = [_as_many(values[name], images) for name in (*code.inputs, *code.outputs)]
        memory[: 8 * len(tensors)].view(np.int64)[:] = [tensor.data_ptr() for tensor in tensors]
        for _ in range(ROUNDS):
            for name, took in seconds_by_node(code.chain, memory.ctypes.data, time.perf_counter).items():
                spent.setdefault(name, []).append(took)
    return {name: median(took) for name, took in spent.items()}


def _as_many(value: Tensor, images: int) -> Tensor:
    """A copy of `images` examples, since what leaves the tiles is written into it."""
    return value.repeat(-(-images // len(value)), *[1] * (value.ndim - 1))[:images].contiguous()


def _with_segments(
    graph: Graph, subgraphs: Sequence[Subgraph], codes: Sequence[SegmentCode], threads: int
) -> Graph:
    """The graph with a node for each segment, and one for each value that leaves it."""
    operations = [operation for subgraph in subgraphs for operation in subgraph.operations]
    level = _levels(graph, operations)
    covered = {name for operation in operations for name in operation.names}
    others = [node for node in graph.nodes if node.name not in covered]
    ordered: list[tuple[int, Node]] = [(level[node.name], node) for node in others]
    for subgraph, code in zip(subgraphs, codes, strict=True):
        number = level[subgraph.operations[0].name]
        name = f"tiles_{number}"
        ordered.append((number, Node(name, "tiles", tuple(subgraph.inputs), Segment(code, threads))))
        for position, value in enumerate(subgraph.outputs):
            ordered.append((number, Node(value, "getitem", (name,), itemgetter(position))))
    ordered.sort(key=lambda pair: pair[0])
    return replace(graph, nodes=tuple(node for _, node in ordered))


def alone(layer: Layer, relu: bool, kernel: Kernel, machine: Machine) -> Callable[[Tensor], Tensor]:
    """A single convolution on tiles, as a function of images (batch, *input_shape)."""
    graph = graph_of(layer, relu)
    (code,) = _codes(_subgraphs(graph, operations_of(graph)), {"y": kernel}, machine, 1)
    segment = Segment(code, 1)
    return lambda x: segment(x)[0]


def graph_of(layer: Layer, relu: bool) -> Graph:
    """A network of one layer: its input is "x", its output "y"."""
    function = partial(reference, layer, relu=relu)
    node = Node("y", "aten.conv2d.default", ("x",), function, layer, relu, {}, layer.output_shape)
    return Graph("x", (node,), ("y",), itemgetter(0), None, layer.input_shape)
