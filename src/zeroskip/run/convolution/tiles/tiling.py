"""Which part of a network works on tiles, with which kernels, and the network with that part as one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

import numpy as np
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine
from zeroskip.emit.executable_memory import allocate
from zeroskip.graph import Graph, Input, Node
from zeroskip.graph.nodes import kind_of
from zeroskip.run.captured import Captured, overwrites
from zeroskip.run.convolution.tiles.forms import to_map
from zeroskip.run.convolution.tiles.graph_operations import maps_of, operations_of
from zeroskip.run.convolution.tiles.lowering import lower
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.convolution.tiles.quantising import converted, in_bytes
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.segment_code import SegmentCode
from zeroskip.run.convolution.tiles.steps import seconds_by_node
from zeroskip.run.dense.pytorch import reference
from zeroskip.run.element import FP16, FP32, Element, Scaling, weight_scales
from zeroskip.run.timing import Clock, preferred, reading_seconds, settled, thread_clock

ASIDE = 0.1  # share by which a layer must gain by another kernel than the others have
FEWEST, MOST = 12, 60  # rounds of running every way twice
BUDGET = 0.4  # seconds after which no further round begins


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

    def computes_in(self, element: Element) -> bool:
        """Whether a convolution does."""
        return any(kernel.element == element.name for kernel in self.kernels.values())


def fastest_on_tiles(
    captured: Captured, operations: Sequence[Operation], candidates: Mapping[str, Sequence[Kernel]],
    machine: Machine, *, images: int, threads: int,
) -> NetworkOnTiles | None:  # fmt: skip
    """The network with these operations on tiles, each convolution with the fastest of its `candidates`.

    None where a convolution has none. All kernels have the same element, but for operations in eight bits. `images`
    examples are worked on at a time.
    """
    layers = [operation.name for operation in operations if operation.layer is not None]
    usable = {name: tuple(candidates.get(name, ())) for name in layers}
    if not any(each.kind == "conv" for each in operations) or not all(usable.values()):
        return None
    subgraphs = _subgraphs(captured.graph, operations)
    ways = {
        kernel: {name: kernel if kernel in several else several[0] for name, several in usable.items()}
        for kernel in dict.fromkeys(kernel for several in usable.values() for kernel in several)
    }
    codes = {kernel: _codes(subgraphs, way, machine, images) for kernel, way in ways.items()}
    measured = _measured(captured.values, codes, images, thread_clock())
    seconds = {
        name: {kernel.name: measured[kernel][name] for kernel in several} for name, several in usable.items()
    }
    chosen = _chosen(usable, seconds)
    same = next((kernel for kernel, way in ways.items() if way == chosen), None)
    final = codes[same] if same is not None else _codes(subgraphs, chosen, machine, images)
    graph = _with_segments(captured.graph, subgraphs, final, threads)
    return NetworkOnTiles(graph, images, chosen, seconds, {each.name: each.names for each in operations})


def _chosen(
    usable: Mapping[str, Sequence[Kernel]], seconds: Mapping[str, Mapping[str, float]]
) -> dict[str, Kernel]:
    """The kernel of each operation: the one with which all operations together take least, where it can be used.

    Where that pays in all, layers that gain much by another kernel have it. Where code comes to lie makes a layer
    faster or slower by several percent, anew each time that it is written: no choice is made by less.
    """

    def total(chosen: Mapping[str, Kernel]) -> float:
        return sum(seconds[name][kernel.name] for name, kernel in chosen.items())

    def leaning(common: Kernel, share: float) -> dict[str, Kernel]:
        ordered = {name: sorted(several, key=lambda each: each != common) for name, several in usable.items()}
        return {
            name: preferred({kernel: seconds[name][kernel.name] for kernel in several}, share)
            for name, several in ordered.items()
        }

    alike = {kernel: leaning(kernel, math.inf) for several in usable.values() for kernel in several}
    common = preferred({kernel: total(chosen) for kernel, chosen in alike.items()})
    ways = {"alike": alike[common], "mixed": leaning(common, ASIDE)}
    return ways[preferred({way: total(chosen) for way, chosen in ways.items()})]


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


def as_maps(captured: Captured, operations: Sequence[Operation]) -> dict[str, Tensor]:
    """The captured values that operations read and make, as maps (batch, channels, height, width)."""
    maps = maps_of(captured.graph, operations)
    return {
        name: to_map(form, shape, captured.values[name])
        for name, (shape, form) in maps.items()
        if name in captured.values
    }


def values_of(operations: Sequence[Operation]) -> set[str]:
    """The names of the values that the operations read and make."""
    return {name for operation in operations for name in (operation.name, *operation.inputs)}


def _subgraphs(graph: Graph, operations: Sequence[Operation]) -> list[Subgraph]:
    """The operations grouped into segments, cut only where a torch node lies between."""
    level = _levels(graph, operations)
    maps = maps_of(graph, operations)
    readers = [(node.name, node.inputs) for node in left(graph, operations)]
    readers += [(operation.name, operation.inputs) for operation in operations]
    subgraphs = []
    for number in sorted({level[operation.name] for operation in operations}):
        inside = tuple(operation for operation in operations if level[operation.name] == number)
        made = {operation.name for operation in inside}
        outside = dict.fromkeys(name for each in inside for name in each.inputs if name not in made)
        read = {name for reader, inputs in readers if reader not in made for name in inputs}
        needed = read.union(graph.outputs)
        leaving = [each.name for each in inside if each.name in needed]
        entering, made_here = ({name: maps[name][0] for name in names} for names in (outside, leaving))
        forms = {name: maps[name][1] for name in (*outside, *leaving)}
        subgraphs.append(Subgraph(inside, entering, made_here, forms))
    return subgraphs


def left(graph: Graph, operations: Sequence[Operation]) -> list[Node]:
    """The nodes that PyTorch computes: those that no operation stands for, and that something needs.

    >>> [node.name for node in left(graph, [])]
    ['linear', 'linear_1']
    """
    covered = {name for operation in operations for name in operation.names}
    needed = {*graph.outputs, *(name for operation in operations for name in operation.inputs)}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.name not in covered and (node.name in needed or overwrites(node)):
            nodes.append(node)
            needed |= {*node.inputs}
    return nodes[::-1]


def _levels(graph: Graph, operations: Sequence[Operation]) -> dict[str, int]:
    """How many changes between torch and tiles lie before each value: even in torch, odd on tiles."""
    covered = {name for operation in operations for name in operation.names}
    ending: dict[str, list[Operation]] = {}
    for operation in operations:
        ending.setdefault(operation.names[-1], []).append(operation)
    level = dict.fromkeys(graph.names, 0)
    for node in graph.nodes:
        if node.name not in covered:
            level[node.name] = max(
                (level[name] + level[name] % 2 for name in node.inputs if name in level), default=0
            )
        for operation in ending.get(node.name, ()):
            level[operation.name] = max(level[name] + 1 - level[name] % 2 for name in operation.inputs)
    return level


def count_segments(graph: Graph, operations: Sequence[Operation], also: str = "") -> int:
    """How many segments the operations form, if what PyTorch computes by the name `also` were on tiles as well.

    >>> from zeroskip.graph import capture
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softshrink(), nn.Conv2d(8, 4, 3))
    >>> graph = capture(network, torch.zeros(1, 3, 8, 8))
    >>> count_segments(graph, operations_of(graph)), count_segments(graph, operations_of(graph), "softshrink")
    (2, 1)
    """
    # Views of what is inside an operation stay in the graph, and nothing reads them.
    more = [
        Operation(node.name, "other", node.inputs, (0, 0, 0), (node.name,))
        for node in left(graph, operations)
        if node.inputs and kind_of(node) == also
    ]
    level = _levels(graph, [*operations, *more])
    return len({level[operation.name] for operation in operations})


def _codes(
    subgraphs: Sequence[Subgraph], kernels: Mapping[str, Kernel], machine: Machine, images: int
) -> list[SegmentCode]:
    methods = {name: kernel.method for name, kernel in kernels.items()}
    element = FP16 if any(kernel.element == FP16.name for kernel in kernels.values()) else FP32
    return [
        lower(converted(subgraph), machine, images=images, methods=methods, element=element)
        for subgraph in subgraphs
    ]


def _measured(
    values: Mapping[str, Tensor], codes: Mapping[Kernel, Sequence[SegmentCode]], images: int, clock: Clock
) -> dict[Kernel, dict[str, float]]:
    """Kernel -> operation -> its seconds on real inputs, for `images` examples: the least of several rounds.

    In a round the network runs twice with each kernel, since the first run finds another kernel's data in the caches.
    Rounds are repeated until the halves of them agree about each whole network.
    """
    memories = [_prepared(values, several, images) for several in zip(*codes.values(), strict=True)]
    runs = {kernel: list(zip(several, memories, strict=True)) for kernel, several in codes.items()}
    spent: dict[Kernel, list[dict[str, float]]] = {kernel: [] for kernel in codes}
    reading = reading_seconds(clock)
    for number in range(MOST):
        totals = {kernel: [sum(each.values()) for each in several] for kernel, several in spent.items()}
        done = number >= FEWEST and all(map(settled, totals.values()))
        if done or (number > 1 and sum(map(sum, totals.values())) > BUDGET):
            break
        for kernel in (each for each in runs for _ in range(2)):
            took: dict[str, float] = {}
            for code, (memory, _) in runs[kernel]:
                took |= seconds_by_node(code.chain, memory.ctypes.data, clock, reading)
            spent[kernel].append(took)
    return {
        kernel: {name: min(each[name] for each in several) for name in several[0]}
        for kernel, several in spent.items()
    }


def _prepared(
    values: Mapping[str, Tensor], codes: Sequence[SegmentCode], images: int
) -> tuple[np.ndarray, list[Tensor]]:
    """Memory to run a segment in by each of several kernels, one at a time, and the tensors that the memory names."""
    memory = allocate(max(code.bytes for code in codes))
    tensors = [_as_many(codes[0].tensor(name, values[name]), images) for name in codes[0].inputs]
    tensors += [codes[0].empty(name, images) for name in codes[0].outputs]
    memory[: 8 * len(tensors)].view(np.int64)[:] = [tensor.data_ptr() for tensor in tensors]
    return memory, tensors


def _as_many(value: Tensor, images: int) -> Tensor:
    """A copy of `images` examples."""
    return value.repeat(-(-images // len(value)), *[1] * (value.ndim - 1))[:images].contiguous()


def _with_segments(
    graph: Graph, subgraphs: Sequence[Subgraph], codes: Sequence[SegmentCode], threads: int
) -> Graph:
    """The graph with a node for each segment, and one for each value that leaves it."""
    operations = [operation for subgraph in subgraphs for operation in subgraph.operations]
    level = _levels(graph, operations)
    ordered: list[tuple[int, Node]] = [(level[node.name], node) for node in left(graph, operations)]
    for subgraph, code in zip(subgraphs, codes, strict=True):
        number = level[subgraph.operations[0].name]
        name = f"tiles_{number}"
        ordered.append((number, Node(name, "tiles", tuple(subgraph.inputs), Segment(code, threads))))
        for position, value in enumerate(subgraph.outputs):
            ordered.append((number, Node(value, "getitem", (name,), itemgetter(position))))
    ordered.sort(key=lambda pair: pair[0])
    return replace(graph, nodes=tuple(node for _, node in ordered))


def alone(
    layer: Layer, relu: bool, kernel: Kernel, machine: Machine, scale: Scaling | None = None
) -> Callable[[Tensor], Tensor]:
    """A single convolution on tiles, as a function of images (batch, *input_shape); in bytes of that scale, if any."""
    graph = graph_of(layer, relu)
    operations = operations_of(graph)
    if scale is not None:
        weights = {
            each.name: weight_scales(each.layer.weight) for each in operations if each.layer is not None
        }
        shapes = {name: shape for name, (shape, _) in maps_of(graph, operations).items()}
        operations = in_bytes(operations, shapes, {"x": scale}, weights)
    kernels = {operation.name: kernel for operation in operations if operation.layer is not None}
    (code,) = _codes(_subgraphs(graph, operations), kernels, machine, 1)
    segment = Segment(code, 1)
    return lambda x: segment(x)[0]


def graph_of(layer: Layer, relu: bool) -> Graph:
    """A network of one layer: its input is "x", its output "y"."""
    function = partial(reference, layer, relu=relu)
    overload = "input" if layer.op == "conv_transpose2d" else "default"
    node = Node("y", f"aten.{layer.op}.{overload}", ("x",), function, layer, relu, {}, layer.output_shape)
    return Graph((Input("x", layer.input_shape),), (node,), ("y",), itemgetter(0))
