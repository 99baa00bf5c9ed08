"""A captured network, which PyTorch ran once on the example: what is measured or checked later reads its values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.graph import Graph, Node, last_uses


@dataclass(frozen=True)
class Captured:
    """A network's operations, the batch it is compiled for, and what PyTorch computed on that.

    values  by the name of their node; those that were asked for, and the inputs of layers

    >>> {name: tuple(value.shape) for name, value in run_once(graph, x, []).values.items()}
    {'input': (3, 6), 'linear': (3, 8)}
    """

    graph: Graph
    example: Tensor
    values: dict[str, Tensor]


def run_once(graph: Graph, example: Tensor, kept: Collection[str]) -> Captured:
    """Run the graph in PyTorch, keeping the inputs of its layers and the values named in `kept`."""
    kept = {*kept, *(node.inputs[0] for node, _ in layer_nodes(graph))}
    changes = any(map(overwrites, graph.nodes))
    values: dict[str, Any] = {graph.input: example.clone()}
    seen: dict[str, Tensor] = {graph.input: example}
    for node, ended in zip(graph.nodes, last_uses(graph), strict=True):
        given = [values[name] for name in node.inputs]
        if changes and node.layer is not None:  # as the layer finds it, which others may have overwritten
            seen[node.inputs[0]] = given[0].clone()
        values[node.name] = node.function(*given)
        if node.name in kept:
            seen[node.name] = values[node.name].clone() if changes else values[node.name]
        for name in ended:
            del values[name]
    return Captured(graph, example, seen)


def layer_nodes(graph: Graph) -> list[tuple[Node, Layer]]:
    """The graph's layers, each with its node.

    >>> [(node.name, layer.name) for node, layer in layer_nodes(graph)]
    [('linear', 'fc1'), ('linear_1', 'fc2')]
    """
    return [(node, node.layer) for node in graph.nodes if node.layer is not None]


def overwrites(node: Node) -> bool:
    """Whether the node writes its result into its first input, as "aten.relu_.default" does.

    >>> overwrites(Node("y", "aten.relu_.default", ("x",), torch.relu_))
    True
    """
    return bool(node.inputs) and node.op.count(".") > 1 and node.op.split(".")[1].endswith("_")
