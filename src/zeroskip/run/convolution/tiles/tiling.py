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
from zeroskip.run.convolution.tiles.lowering import Lowered, lower
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph, operations
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
    captured: Captured, chain: Sequence[Operation], candidates: Mapping[str, Sequence[Kernel]], machine: Machine, *,
    images: int, threads: int,
) -> NetworkOnTiles | None:  # fmt: skip
    """The network with all operations of `chain` on tiles, each convolution with the fastest of its `candidates`.

    None where a convolution has none. All kernels have the same element. `images` examples are worked on at a time.
    """
    usable = {each.name: tuple(candidates.get(each.name, ())) for each in chain if each.layer is not None}
    if not any(each.kind == "conv" for each in chain) or not all(usable.values()):
        return None
    stages = _stages(captured.graph, chain)
    seconds: dict[str, dict[str, float]] = {name: {} for name in usable}
    for kernel in dict.fromkeys(kernel for kernels in usable.values() for kernel in kernels):
        tried = {name: kernel if kernel in kernels else kernels[0] for name, kernels in usable.items()}
        measured = _measured(captured.values, _lowered(stages, tried, machine, images), images)
        for name in usable:
            if tried[name] == kernel:
                seconds[name][kernel.name] = measured[name]
    fastest = {
        name: min(kernels, key=lambda kernel: seconds[name][kernel.name]) for name, kernels in usable.items()
    }
    final = _with_segments(captured.graph, stages, _lowered(stages, fastest, machine, images), threads)
    return NetworkOnTiles(final, images, fastest, seconds, {each.name: each.names for each in chain})


def on_tiles(
    graph: Graph, chain: Sequence[Operation], kernels: Mapping[str, Kernel], machine: Machine, *, images: int,
    threads: int,
) -> Graph:  # fmt: skip
    """The network with the operations of `chain` on tiles, its convolutions by `kernels` (operation -> kernel).

    >>> from zeroskip.run.convolution.tiles.kernels import STREAMED
    >>> one = graph_of(conv, True)
    >>> [node.op for node in on_tiles(one, operations(one), {"y": STREAMED}, any_machine, images=1, threads=1).nodes]
    ['tiles', 'getitem']
    """
    stages = _stages(graph, chain)
    return _with_segments(graph, stages, _lowered(stages, kernels, machine, images), threads)


def values_of(chain: Sequence[Operation]) -> set[str]:
    """The names of the values that the operations read and make."""
    return {name for operation in chain for name in (operation.name, *operation.inputs)}


def _stages(graph: Graph, chain: Sequence[Operation]) -> list[Subgraph]:
    """As few segments as the nodes between them, which stay with torch, allow."""
    level = _levels(graph, chain)
    shapes: dict[str, Any] = {graph.input: graph.shape, **{node.name: node.shape for node in graph.nodes}}
    covered = {name for operation in chain for name in operation.names}
    readers = [(node.name, node.inputs) for node in graph.nodes if node.name not in covered]
    readers += [(operation.name, operation.inputs) for operation in chain]
    stages = []
    for number in sorted({level[operation.name] for operation in chain}):
        stage = tuple(operation for operation in chain if level[operation.name] == number)
        made = {operation.name for operation in stage}
        outside = {name: shapes[name] for operation in stage for name in operation.inputs if name not in made}
        needed = {
            *graph.outputs,
            *(name for reader, inputs in readers if reader not in made for name in inputs),
        }
        leaving = [each.name for each in stage if each.name in needed or each.kind == "mean"]
        stages.append(Subgraph(stage, outside, {name: shapes[name] for name in leaving}))
    return stages


def _levels(graph: Graph, chain: Sequence[Operation]) -> dict[str, int]:
    """How many changes between torch and tiles lie before each value: even in torch, odd on tiles."""
    operation_of = {name: operation for operation in chain for name in operation.names}
    level = {graph.input: 0}
    for node in graph.nodes:
        operation = operation_of.get(node.name)
        if operation is None:
            level[node.name] = max((level[name] + level[name] % 2 for name in node.inputs), default=0)
        elif node.name == operation.name:
            level[node.name] = max(level[name] + 1 - level[name] % 2 for name in operation.inputs)
    return level


def _lowered(
    stages: Sequence[Subgraph], kernels: Mapping[str, Kernel], machine: Machine, images: int
) -> list[Lowered]:
    methods = {name: kernel.method for name, kernel in kernels.items()}
    element = FP16 if any(kernel.element == FP16.name for kernel in kernels.values()) else FP32
    return [lower(stage, machine, images=images, methods=methods, element=element) for stage in stages]


def _measured(values: Mapping[str, Tensor], parts: Sequence[Lowered], images: int) -> dict[str, float]:
    """Median seconds of each operation on real inputs, for `images` examples."""
    spent: dict[str, list[float]] = {}
    for part in parts:
        memory = allocate(part.bytes)
        tensors = [_as_many(values[name], images) for name in (*part.inputs, *part.outputs)]
        memory[: 8 * len(tensors)].view(np.int64)[:] = [tensor.data_ptr() for tensor in tensors]
        for _ in range(ROUNDS):
            for name, took in seconds_by_node(part.chain, memory.ctypes.data, time.perf_counter).items():
                spent.setdefault(name, []).append(took)
    return {name: median(took) for name, took in spent.items()}


def _as_many(value: Tensor, images: int) -> Tensor:
    """A copy of `images` examples, since what leaves the tiles is written into it."""
    return value.repeat(-(-images // len(value)), *[1] * (value.ndim - 1))[:images].contiguous()


def _with_segments(
    graph: Graph, stages: Sequence[Subgraph], lowered: Sequence[Lowered], threads: int
) -> Graph:
    """The graph with a node for each segment, and one for each value that leaves it."""
    level = _levels(graph, [operation for stage in stages for operation in stage.operations])
    covered = {name for stage in stages for operation in stage.operations for name in operation.names}
    others = [node for node in graph.nodes if node.name not in covered]
    ordered: list[tuple[int, Node]] = [(level[node.name], node) for node in others]
    for stage, part in zip(stages, lowered, strict=True):
        number = level[stage.operations[0].name]
        name = f"tiles_{number}"
        ordered.append((number, Node(name, "tiles", tuple(stage.inputs), Segment(part, threads))))
        for position, value in enumerate(stage.outputs):
            ordered.append((number, Node(value, "getitem", (name,), itemgetter(position))))
    ordered.sort(key=lambda pair: pair[0])
    return replace(graph, nodes=tuple(node for _, node in ordered))


def alone(layer: Layer, relu: bool, kernel: Kernel, machine: Machine) -> Callable[[Tensor], Tensor]:
    """A single convolution on tiles, as a function of images (batch, *input_shape)."""
    graph = graph_of(layer, relu)
    (part,) = _lowered(_stages(graph, operations(graph)), {"y": kernel}, machine, 1)
    segment = Segment(part, 1)
    return lambda x: segment(x)[0]


def graph_of(layer: Layer, relu: bool) -> Graph:
    """A network of one layer: its input is "x", its output "y"."""
    function = partial(reference, layer, relu=relu)
    node = Node("y", "aten.conv2d.default", ("x",), function, layer, relu, {}, layer.output_shape)
    return Graph("x", (node,), ("y",), itemgetter(0), None, layer.input_shape)
