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
import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine
from zeroskip.emit.executable_memory import room
from zeroskip.graph import Graph, Node
from zeroskip.run.convolution.tiles.half_precision import SUFFIX, is_half
from zeroskip.run.convolution.tiles.lowering import Lowered, lower
from zeroskip.run.convolution.tiles.operations import LARGEST, Operation, is_too_large, operations
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.steps import seconds_by_node
from zeroskip.run.dense.pytorch import reference

ROUNDS = 5


@dataclass(frozen=True)
class Tiled:
    """A network whose convolutions work on tiles.

    graph    with a node for each part that does, in place of the nodes it stands for
    kernels  operation -> kernel, of the convolutions
    seconds  operation -> kernel -> seconds of its steps; measured one by one on the example
    nodes    operation -> the nodes of the original graph that it stands for
    """

    graph: Graph
    kernels: dict[str, str]
    seconds: dict[str, dict[str, float]]
    nodes: dict[str, tuple[str, ...]]


def tiled(
    graph: Graph, example: Tensor, machine: Machine, kernels: Mapping[str, Sequence[str]], *, images: int,
    threads: int,
) -> Tiled | None:  # fmt: skip
    """The network with all it can on tiles, each convolution with the fastest of its `kernels` (by layer name).

    None where a convolution has none. All kernels compute in fp32, or all in fp16. `images` examples are worked on
    at a time.

    >>> tiled(capture(model, x), x, detect(), {"conv1": ["baked", "streamed"]}, images=1, threads=1).kernels
    {'relu': 'baked'}
    """
    chain = operations(graph)
    usable = {one.name: _usable(one, kernels) for one in chain if one.kind == "conv"}
    if not usable or not all(usable.values()):
        return None
    stages = _stages(graph, chain)
    beside = f"depthwise{SUFFIX}" if any(map(is_half, usable.values())) else "depthwise"
    usable |= {one.name: [beside] for one in chain if one.kind == "depthwise"}
    seconds: dict[str, dict[str, float]] = {name: {} for name in usable}
    for kernel in dict.fromkeys(name for names in usable.values() for name in names):
        given = {one: kernel if kernel in names else names[0] for one, names in usable.items()}
        parts = _lowered(stages, given, machine, images)
        for one, took in _measured(graph, parts, example, images).items():
            if kernel in usable.get(one, ()):
                seconds[one][kernel] = took
    fastest = {one: min(took, key=took.__getitem__) for one, took in seconds.items()}
    final = _with_segments(graph, stages, fastest, machine, images, threads)
    return Tiled(final, fastest, seconds, {one.name: one.names for one in chain})


def on_tiles(
    graph: Graph, kernels: Mapping[str, str], machine: Machine, *, images: int, threads: int
) -> Graph:
    """The network with all it can on tiles, its convolutions by `kernels` (operation -> kernel).

    >>> on_tiles(graph, {"relu": "baked"}, detect(), images=1, threads=1).nodes[0].op
    'tiles'
    """
    return _with_segments(graph, _stages(graph, operations(graph)), kernels, machine, images, threads)


def _usable(one: Operation, kernels: Mapping[str, Sequence[str]]) -> Sequence[str]:
    assert one.layer is not None
    return kernels.get(one.layer.name, ())


@dataclass(frozen=True)
class _Stage:
    """Operations that one segment does, with the shapes of what enters and leaves it."""

    chain: tuple[Operation, ...]
    outside: dict[str, tuple[int, int, int]]
    leaving: dict[str, tuple[int, ...]]


def _stages(graph: Graph, chain: Sequence[Operation]) -> list[_Stage]:
    """As few segments as the nodes between them, which stay with torch, allow."""
    level = _levels(graph, chain)
    shapes: dict[str, Any] = {graph.input: graph.shape, **{node.name: node.shape for node in graph.nodes}}
    covered = {name for one in chain for name in one.names}
    readers = [(node.name, node.inputs) for node in graph.nodes if node.name not in covered]
    readers += [(one.name, one.inputs) for one in chain]
    stages = []
    for number in sorted({level[one.name] for one in chain}):
        mine = tuple(one for one in chain if level[one.name] == number)
        made = {one.name for one in mine}
        outside = {name: shapes[name] for one in mine for name in one.inputs if name not in made}
        needed = {name for reader, inputs in readers if reader not in made for name in inputs} | {
            *graph.outputs
        }
        leaving = {one.name: shapes[one.name] for one in mine if one.name in needed or one.kind == "mean"}
        stages.append(_Stage(mine, outside, leaving))
    return stages


def _levels(graph: Graph, chain: Sequence[Operation]) -> dict[str, int]:
    """How many changes between torch and tiles lie before each value: even in torch, odd on tiles."""
    operation = {name: one for one in chain for name in one.names}
    level = {graph.input: 0}
    for node in graph.nodes:
        one = operation.get(node.name)
        if one is None:
            level[node.name] = max((level[name] + level[name] % 2 for name in node.inputs), default=0)
        elif node.name == one.name:
            level[node.name] = max(level[name] + 1 - level[name] % 2 for name in one.inputs)
    return level


def _lowered(
    stages: Sequence[_Stage], kernels: Mapping[str, str], machine: Machine, images: int
) -> list[Lowered]:
    half = is_half(kernels.values())
    plain = {one: name.removesuffix(SUFFIX) for one, name in kernels.items()}
    return [
        lower(stage.chain, stage.outside, stage.leaving, machine, images=images, kernels=plain, half=half)
        for stage in stages
    ]


def _measured(graph: Graph, parts: Sequence[Lowered], example: Tensor, images: int) -> dict[str, float]:
    """Median seconds of each operation on real inputs, for `images` examples."""
    found: dict[str, list[float]] = {}
    values = values_of(graph, example)
    for part in parts:
        memory = room(part.bytes)
        tensors = [_as_many(values[name], images) for name in part.entering]
        tensors += [_as_many(values[name], images) for name in part.leaving]
        memory[: 8 * len(tensors)].view(np.int64)[:] = [tensor.data_ptr() for tensor in tensors]
        for _ in range(ROUNDS):
            spent = seconds_by_node(part.chain, memory.ctypes.data, time.perf_counter)
            for name, took in spent.items():
                found.setdefault(name, []).append(took)
    return {name: median(took) for name, took in found.items()}


def _as_many(value: Tensor, images: int) -> Tensor:
    return value.repeat(-(-images // len(value)), *[1] * (value.ndim - 1))[:images].contiguous()


def values_of(graph: Graph, example: Tensor) -> dict[str, Tensor]:
    """Every value of the network, by the name of its node.

    >>> values_of(graph, x)["relu"].shape
    torch.Size([1, 64, 56, 56])
    """
    values: dict[str, Any] = {graph.input: example.clone()}
    for node in graph.nodes:
        values[node.name] = node.function(*[values[name] for name in node.inputs])
    return values


def _with_segments(
    graph: Graph,
    stages: Sequence[_Stage],
    kernels: Mapping[str, str],
    machine: Machine,
    images: int,
    threads: int,
) -> Graph:
    """The graph with a node for each segment, and one for each value that leaves it."""
    segments = [Segment(part, threads) for part in _lowered(stages, kernels, machine, images)]
    level = _levels(graph, [one for stage in stages for one in stage.chain])
    covered = {name for stage in stages for one in stage.chain for name in one.names}
    ordered: list[tuple[int, Node]] = [
        (level[node.name], node) for node in graph.nodes if node.name not in covered
    ]
    for stage, segment in zip(stages, segments, strict=True):
        number = level[stage.chain[0].name]
        name = f"tiles_{number}"
        ordered.append((number, Node(name, "tiles", tuple(stage.outside), segment)))
        for position, value in enumerate(stage.leaving):
            ordered.append((number, Node(value, "getitem", (name,), itemgetter(position))))
    ordered.sort(key=lambda pair: pair[0])
    return replace(graph, nodes=tuple(node for _, node in ordered))


def alone(layer: Layer, relu: bool, kernel: str, machine: Machine) -> Callable[[Tensor], Tensor]:
    """A single convolution on tiles, as a function of images; `kernel` is "baked", "streamed_fp16", ...

    >>> alone(layer, True, "baked", detect())(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 16, 8, 8])
    """
    graph = _graph_of(layer, relu)
    stages = _stages(graph, operations(graph))
    (part,) = _lowered(stages, {"y": kernel}, machine, 1)
    segment = Segment(part, 1)
    return lambda x: segment(x)[0]


def refusal(layer: Layer) -> str | None:
    """None, or why a layer cannot work on tiles.

    >>> refusal(linear)
    'computes convolutions, not linear'
    """
    if layer.op != "conv2d":
        return f"computes convolutions, not {layer.op}"
    if layer.weight.dtype is not torch.float32:
        return f"computes float32 weights, not {str(layer.weight.dtype).removeprefix('torch.')}"
    if layer.stride[0] != layer.stride[1]:
        return f"steps by as many rows as columns, not {layer.stride}"
    if len(layer.input_shape) != 3:
        return "its input is not a batch of images"
    if is_too_large(layer):
        return f"more than {LARGEST:,} non-zeros: their code would fill more memory than it is worth"
    graph = _graph_of(layer, False)
    return None if operations(graph) else f"padding {layer.padding} differs from side to side"


def _graph_of(layer: Layer, relu: bool) -> Graph:
    function = partial(reference, layer, relu=relu)
    node = Node("y", "aten.conv2d.default", ("x",), function, layer, relu, {}, layer.output_shape)
    return Graph("x", (node,), ("y",), itemgetter(0), None, layer.input_shape)
