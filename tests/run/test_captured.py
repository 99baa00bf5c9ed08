"""Running a captured network once: the values that layers read, also where others overwrite them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from zeroskip.graph import Graph, Input, Node, capture
from zeroskip.run.captured import layer_nodes, overwrites, run_once
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.tiling import values_of


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2, 4)
    ).eval()


def test_inputs_of_layers_are_kept_besides_what_was_asked_for_and_nothing_else() -> None:
    model, x = convolutional(), torch.randn(2, 1, 8, 8)
    graph = capture(model, x)
    captured = run_once(graph, [x], [])
    assert set(captured.values) == {*graph.names, *(node.inputs[0] for node, _ in layer_nodes(graph))}
    operations = operations_of(graph)
    captured = run_once(graph, [x], values_of(operations))
    assert {name for each in operations for name in (each.name, *each.inputs)} <= set(captured.values)
    with torch.no_grad():
        torch.testing.assert_close(captured.values["max_pool2d"], model[:2](x))


def test_every_node_runs_once() -> None:
    counts: list[str] = []

    def counted(name: str) -> Node:
        return Node(name, "aten.neg.default", ("x",), lambda x: counts.append(name) or -x)

    graph = Graph((Input("x"),), (counted("a"), counted("b")), ("a", "b"), list)
    run_once(graph, [torch.ones(1)], ["a"])
    assert counts == ["a", "b"]


class Overwriting(nn.Module):
    """A layer reads the input, then one is added, and another layer reads that."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).relu() + self.second(x + 1)


def test_values_are_as_the_layer_found_them_and_the_example_stays_as_it_was() -> None:
    model, x = Overwriting().eval(), torch.randn(3, 4)
    before = x.clone()
    graph = capture(model, x.clone())
    # As in programs that were saved when networks were still captured with what they overwrite.
    added = next(node for node in graph.nodes if node.layer is None and node.inputs == ("x",))
    overwriting = replace(added, op="aten.add_.Tensor", function=lambda x: x.add_(1))
    nodes = tuple(overwriting if node is added else node for node in graph.nodes)
    graph = replace(graph, nodes=nodes)
    assert any(map(overwrites, graph.nodes))
    with torch.no_grad():
        captured = run_once(graph, [x], [node.name for node, _ in layer_nodes(graph)])
        (first, _), (second, _) = layer_nodes(graph)
        assert torch.equal(x, before)
        assert torch.equal(captured.tensors[0], before)
        torch.testing.assert_close(captured.values[second.inputs[0]], before + 1)
        torch.testing.assert_close(captured.values[first.name], model.first(before).relu())


def test_what_overwrites_is_known_by_the_schema_and_not_by_the_name() -> None:
    for op in ("aten.relu_.default", "aten.__iand__.Tensor", "aten.index_put_.default"):
        assert overwrites(Node("y", op, ("x",), torch.relu_))
    names = (
        "aten.relu.default",
        "aten.add.Tensor",
        "aten.__and__.Tensor",
        "aten.none.such",
        "tiles",
        "getitem",
    )
    assert not any(overwrites(Node("y", op, ("x",), torch.relu)) for op in names)
    assert not overwrites(Node("y", "aten.zero_.default", (), torch.zeros))
