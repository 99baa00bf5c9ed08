"""What each part of a program takes: one run on the example, measured call by call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from zeroskip.concepts import Choice
from zeroskip.graph import Graph, Node, last_uses
from zeroskip.graph.nodes import kind_of
from zeroskip.run.captured import all_layers, examples_in, key_of_layer, overwrites, taken
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.segment import Segment, StepSeconds, step_seconds
from zeroskip.run.program import CompiledNetwork
from zeroskip.run.runner import joined
from zeroskip.run.timing import Clock, reading_seconds

FEWEST, MOST = 3, 10  # runs
BUDGET = 0.03  # seconds after which no further run begins


@dataclass(frozen=True)
class Part:
    """One call of a program.

    operation          "tiles" of a segment, "layers" of others, else what PyTorch computes: "silu"
    layers             node of a layer in it -> its seconds
    entering, leaving  of a segment: operation -> seconds in which tensors are read onto tiles for it; value -> seconds
                       in which its tensor is written
    """

    name: str
    operation: str
    seconds: float
    layers: Mapping[str, float] = field(default_factory=dict)
    entering: Mapping[str, float] = field(default_factory=dict)
    leaving: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_piece(self) -> bool:
        """Whether it computes layers, or works on tiles."""
        return self.operation in ("tiles", "layers")


def part_seconds(
    compiled: CompiledNetwork, operations: Sequence[Operation], choices: Sequence[Choice], tensors: Sequence[Tensor],
    threads: int, clock: Clock,
) -> tuple[Part, ...]:  # fmt: skip
    """The program's parts in running order, for the whole batch: their seconds in the fastest of several runs.

    What a segment's layers take is measured step by step; what layers take that are one call is divided as they took
    it alone. `operations` are those that may be on tiles, `choices` are in the order of the layers.

    >>> from time import thread_time
    >>> program = run.compile(model, x)
    >>> {part.operation for part in part_seconds(program.compiled, [], program.choices, [x], 1, thread_time)}
    {'layers'}
    """
    origin, graph = compiled.origin, joined(compiled.graph, compiled.functions)
    # A network that is bound to one batch size is called several times.
    calls = 1 if graph.batch is None else -(-examples_in(graph, tensors) // graph.batch)
    given = list(tensors) if graph.batch is None else taken(graph, tensors, graph.batch)
    seconds, steps = _fastest(graph, given, threads, clock)
    pairs = zip(all_layers(origin.graph), choices, strict=True)
    alone = {key: choice.seconds[choice.kernel] for (key, _), choice in pairs}
    keys = {
        node.name: [key_of_layer(node, number) for number in range(len(node.layers))]
        for node in origin.graph.nodes
    }
    on_tiles = {each.name: each.names for each in operations}
    waiting, parts = iter(compiled.graph.nodes), []
    for node in graph.nodes:
        inside = [node.name]
        while (name := next(waiting).name) != node.name:
            inside.insert(0, name)
        if node.op == "getitem":
            continue
        took = calls * seconds[node.name]
        if node.name in steps:
            parts.append(_segment(node.name, took, steps[node.name], on_tiles, alone))
            continue
        mine = {key: alone[key] for name in inside for key in keys.get(name, ())}
        whole = Part(node.name, "layers" if mine else kind_of(node), took)
        parts.append(replace(whole, layers=_divided(mine, took)))
    return tuple(parts)


def _divided(alone: Mapping[str, float], seconds: float) -> dict[str, float]:
    total = sum(alone.values())
    return {name: seconds * took / total if total else 0.0 for name, took in alone.items()}


def _segment(
    name: str, seconds: float, steps: StepSeconds, on_tiles: Mapping[str, Sequence[str]], alone: Mapping[str, float]
) -> Part:  # fmt: skip
    """A segment's part. Run one by one its steps may take longer than in one call: then they are scaled to that."""
    total = sum(steps.total.values())
    scale = min(1.0, seconds / total) if total else 0.0
    every, entering, leaving = (
        {operation: scale * took for operation, took in each.items()}
        for each in (steps.total, steps.entering, steps.leaving)
    )
    layers = {
        node: took - entering.get(operation, 0.0) - leaving.get(operation, 0.0)
        for operation, took in every.items()
        for node in on_tiles.get(operation, ())
        if node in alone
    }
    return Part(name, "tiles", seconds, layers, entering, leaving)


def _fastest(
    graph: Graph, tensors: Sequence[Tensor], threads: int, clock: Clock
) -> tuple[dict[str, float], dict[str, StepSeconds]]:
    """Node -> its seconds in the fastest of several runs; segment -> those of its steps."""
    reading, runs = reading_seconds(clock), list[dict[str, float]]()
    steps: dict[str, StepSeconds] = {}

    def timed(node: Node, given: Sequence[Any]) -> Any:
        function = node.function
        start = clock()
        value = function(*given)
        runs[-1][node.name] = max(0.0, clock() - start - reading)
        return value

    def step_by_step(node: Node, given: Sequence[Any]) -> Any:
        if isinstance(node.function, Segment):
            steps[node.name] = step_seconds(node.function, given, threads, clock, reading)
        return node.function(*given)

    if any(isinstance(node.function, Segment) for node in graph.nodes):
        _run(graph, tensors, step_by_step)
    for number in range(MOST):
        if number >= FEWEST and sum(map(_total, runs)) > BUDGET:
            break
        runs.append({})
        _run(graph, tensors, timed)
    return min(runs, key=_total), steps


def _total(run: Mapping[str, float]) -> float:
    return sum(run.values())


def _run(graph: Graph, tensors: Sequence[Tensor], call: Callable[[Node, Sequence[Any]], Any]) -> None:
    """The network once, whose nodes are computed by `call`."""
    changes = any(map(overwrites, graph.nodes))
    given = [tensor.clone() if changes else tensor for tensor in tensors]
    values: dict[str, Any] = dict(zip(graph.names, given, strict=True))
    for node, ended in zip(graph.nodes, last_uses(graph), strict=True):
        values[node.name] = call(node, [values[name] for name in node.inputs])
        for name in ended:
            del values[name]
