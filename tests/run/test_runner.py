"""From a graph to one function: joining calls, freeing memory, cutting batches."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import pytest
import torch
from drawn import HERE, sparse_
from torch import Tensor, nn

from zeroskip.concepts import Precision
from zeroskip.graph import Graph, Input, Node, capture
from zeroskip.run import runner as module
from zeroskip.run.linear.compiled_linear import CompiledLinear
from zeroskip.run.linear.zero_weights import sell
from zeroskip.run.runner import runner


def compiled(graph: Graph) -> dict[str, CompiledLinear]:
    """Every linear layer of the graph in machine code, zeros or not."""
    return {
        node.name: sell.build(node.layer, HERE, Precision(), node.relu)
        for node in graph.nodes
        if node.layer is not None and node.layer.op == "linear"
    }


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each joined call holds, filled as runners are made."""
    sizes: list[int] = []
    true = module.sequence

    def sequence(layers: Any) -> CompiledLinear:
        sizes.append(len(layers))
        return true(layers)

    monkeypatch.setattr(module, "sequence", sequence)
    return sizes


def test_3_layers_in_machine_code_that_follow_each_other_become_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = counted(monkeypatch)
    model = sparse_(nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 7), nn.Linear(7, 5)))
    graph = capture(model, torch.randn(1, 9))
    run = runner(graph, compiled(graph))
    x = torch.randn(6, 9)
    torch.testing.assert_close(run(x)[0], model(x).detach())
    assert sizes == [3]


class Shared(nn.Module):
    """The second layer's output is needed twice, so it cannot stay inside a call."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        b = self.b(self.a(x))
        return self.d(self.c(b)), b


def test_a_value_that_is_needed_twice_is_not_joined_away(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    model = sparse_(Shared(), 0.5)
    graph = capture(model, torch.randn(2, 4))
    x = torch.randn(3, 4)
    for ours, theirs in zip(runner(graph, compiled(graph))(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
    assert sizes == [2, 2]


def test_a_layer_with_another_operation_between_is_called_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    model = sparse_(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), 0.5)
    graph = capture(model, torch.randn(2, 4))
    x = torch.randn(3, 4)
    torch.testing.assert_close(runner(graph, compiled(graph))(x)[0], model(x).detach())
    assert sizes == []


def test_values_are_forgotten_after_their_last_use() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def double(x: Tensor) -> Tensor:
        assert sum(each() is not None for each in alive) <= 1
        y = x * 2
        alive.append(weakref.ref(y))
        return y

    def both(x: Tensor, y: Tensor) -> Tensor:
        return x + y

    names = ["x", "a", "b", "c"]
    nodes = [Node(name, "double", (before,), double) for before, name in itertools.pairwise(names)]
    graph = Graph((Input("x"),), (*nodes, Node("d", "both", ("c", "x"), both)), ("d",), list)
    assert runner(graph, {})(torch.ones(1))[0].item() == 9.0
    assert len(alive) == 3


def test_batches_of_3_are_cut_from_7_and_the_last_is_filled_with_its_last_example() -> None:
    seen: list[list[float]] = []

    def remember(x: Tensor) -> Tensor:
        seen.append(x.flatten().tolist())
        return x + 1

    graph = Graph((Input("x"),), (Node("y", "remember", ("x",), remember),), ("y",), list, 3)
    (y,) = runner(graph, {})(torch.arange(7.0).view(7, 1))
    assert y.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert seen == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert runner(graph, {})(torch.zeros(0, 1))[0].shape == (0, 1)


def test_a_network_that_does_nothing_returns_its_input() -> None:
    graph = Graph((Input("x"),), (), ("x",), list)
    x = torch.randn(2)
    assert runner(graph, {})(x)[0] is x
