"""What the parts of a program take, by a clock that each operation puts forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from explained_networks import choice_of, half_zero
from torch import nn

from zeroskip.concepts import Choice, Kernel, Machine, Precision
from zeroskip.emit import detect
from zeroskip.graph import Graph, capture
from zeroskip.run.building import built
from zeroskip.run.captured import layer_nodes
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import STREAMED
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.dense import pytorch
from zeroskip.run.linear.zero_weights import spmm
from zeroskip.run.part_timing import part_seconds
from zeroskip.run.program import CompiledNetwork, Origin


class Watch:
    """A clock that stands still unless an operation puts it forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def after(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        """The function, which takes so many seconds."""

        def run(*values: Any) -> Any:
            self.now += seconds
            return function(*values)

        return run


def network(graph: Graph, kernels: dict[str, Kernel], tiles: dict[str, Kernel]) -> CompiledNetwork:
    machine: Machine = detect()
    return built(Origin(graph, Precision(), kernels, tiles), operations_of(graph), machine, 1)


def choices(graph: Graph, kernel: str, seconds: list[float]) -> list[Choice]:
    """The layers' choices, which took so many seconds alone."""
    layers = [layer.name for _, layer in layer_nodes(graph)]
    return [
        choice_of(kernel, 0.5, name, "linear", {kernel: took})
        for name, took in zip(layers, seconds, strict=True)
    ]


def timed(
    compiled: CompiledNetwork, watch: Watch, chosen: list[Choice], operations: list[Operation], *examples: int
) -> list[tuple[str, float, dict[str, float]]]:
    x = torch.randn(*examples)
    parts = part_seconds(compiled, operations, chosen, [x], 1, watch)
    return [(part.operation, part.seconds, dict(part.layers)) for part in parts]


def test_each_operation_and_layer_is_a_part_with_its_seconds() -> None:
    watch = Watch()
    model = half_zero(nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4)))
    compiled = network(
        capture(model, torch.randn(2, 4)), dict.fromkeys(["linear", "linear_1"], pytorch.KERNEL), {}
    )
    took = {"linear": 5.0, "linear_1": 1.0}
    functions = {name: watch.after(function, took[name]) for name, function in compiled.functions.items()}
    nodes = tuple(
        replace(node, function=watch.after(node.function, 2.0)) if node.layer is None else node
        for node in compiled.graph.nodes
    )
    slowed = replace(compiled, functions=functions, graph=replace(compiled.graph, nodes=nodes))
    assert timed(slowed, watch, choices(compiled.origin.graph, "dense", [9.0, 9.0]), [], 2, 4) == [
        ("layers", 5.0, {"linear": 5.0}),
        ("silu", 2.0, {}),
        ("layers", 1.0, {"linear_1": 1.0}),
    ]


def test_layers_in_one_call_share_its_seconds_as_they_took_them_alone() -> None:
    model = half_zero(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    graph = capture(model, torch.randn(2, 4))
    compiled = network(graph, dict.fromkeys(["linear", "linear_1"], spmm.KERNEL), {})
    ((operation, _, layers),) = timed(compiled, Watch(), choices(graph, "spmm", [3.0, 1.0]), [], 2, 4)
    assert (operation, [*layers]) == ("layers", ["linear", "linear_1"])
    ticking = Watch()
    parts = part_seconds(
        compiled, [], choices(graph, "spmm", [3.0, 1.0]), [torch.randn(2, 4)], 1, Ticks(ticking)
    )
    assert [*parts[0].layers.values()] == [0.75 * parts[0].seconds, 0.25 * parts[0].seconds]
    assert parts[0].seconds > 0


class Ticks:
    """A clock of which every reading takes a second, and every second one two more."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.count = watch, 0

    def __call__(self) -> float:
        self.count += 1
        self.watch.now += 1.0 if self.count % 2 else 3.0
        return self.watch.now


def test_a_network_that_is_bound_to_a_batch_size_is_called_as_often_as_the_examples_need() -> None:
    class Bound(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x.view(2, 4))

    watch, graph = Watch(), capture(Bound(), torch.randn(2, 4))
    assert graph.batch == 2
    nodes = tuple(replace(node, function=watch.after(node.function, 1.0)) for node in graph.nodes)
    compiled = network(replace(graph, nodes=nodes), {}, {})
    assert [took for _, took, _ in timed(compiled, watch, [], [], 5, 4)] == [3.0] * len(nodes)


class Sine(nn.Module):
    """A function that tiles lack."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin()


def test_a_segment_on_tiles_is_one_part_with_the_seconds_of_its_layers_and_tensors() -> None:
    model = half_zero(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), Sine()))
    graph = capture(model, torch.randn(1, 3, 8, 8))
    operations = operations_of(graph)
    compiled = network(graph, {}, {operation.name: STREAMED for operation in operations})
    ticks = Ticks(Watch())
    chosen = choices(graph, "streamed", [1.0, 1.0])
    segment, sine = part_seconds(compiled, operations, chosen, [torch.randn(1, 3, 8, 8)], 1, ticks)
    assert (segment.operation, sine.operation) == ("tiles", "sin")
    assert [*segment.layers] == [
        name for each in operations for name in each.names if name in ("conv2d", "conv2d_1")
    ]
    assert [*segment.entering] == [operations[0].name]
    assert [*segment.leaving] == [operations[1].name]
    inside = sum(map(sum, (each.values() for each in (segment.layers, segment.entering, segment.leaving))))
    assert 0 < inside <= segment.seconds + 1e-9
