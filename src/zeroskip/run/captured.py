"""A captured network, which PyTorch ran once on the example: what is measured or checked later reads its values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.graph import Graph, Node, last_uses
from zeroskip.graph.recurrent import Recurrent
from zeroskip.graph.torch_operations import schema_of


@dataclass(frozen=True)
class Captured:
    """A network's operations, the tensors of the batch it is compiled for, and what PyTorch computed on that.

    count   the examples in the batch; 1 where no axis is theirs
    values  by the name of their node; those that were asked for, and the inputs of layers

    >>> {name: tuple(value.shape) for name, value in run_once(graph, [x], []).values.items()}
    {'input': (3, 6), 'linear': (3, 8)}
    """

    graph: Graph
    tensors: tuple[Tensor, ...]
    count: int
    values: dict[str, Tensor]


def run_once(graph: Graph, tensors: Sequence[Tensor], kept: Collection[str]) -> Captured:
    """Run the graph in PyTorch, keeping the inputs of its layers and the values named in `kept`."""
    kept = {*kept, *(name for node, _ in kernel_nodes(graph) for name in node.inputs)}
    changes = any(map(overwrites, graph.nodes))
    values: dict[str, Tensor] = {
        name: tensor.clone() for name, tensor in zip(graph.names, tensors, strict=True)
    }
    seen: dict[str, Tensor] = dict(zip(graph.names, tensors, strict=True))
    for node, ended in zip(graph.nodes, last_uses(graph), strict=True):
        given = [values[name] for name in node.inputs]
        if changes and node.layers:  # as the layer finds it, which others may have overwritten
            seen |= {name: value.clone() for name, value in zip(node.inputs, given, strict=True)}
        values[node.name] = node.function(*given)
        if node.name in kept:
            seen[node.name] = values[node.name].clone() if changes else values[node.name]
        for name in ended:
            del values[name]
    return Captured(graph, tuple(tensors), examples_in(graph, tensors), seen)


def examples_in(graph: Graph, tensors: Sequence[Tensor]) -> int:
    """How many examples the tensors hold; 1 where no axis is theirs.

    >>> examples_in(graph, [x])
    3
    """
    pairs = zip(graph.inputs, tensors, strict=True)
    return next((len(tensor) for each, tensor in pairs if each.has_batch), 1)


def taken(graph: Graph, tensors: Sequence[Tensor], count: int) -> list[Tensor]:
    """Copies of the first `count` examples; where there are fewer, the last is repeated: sorted lengths stay so.

    >>> taken(graph, [x], 4)[0].shape
    torch.Size([4, 6])
    """
    places = torch.arange(count).clamp(max=examples_in(graph, tensors) - 1)
    pairs = zip(graph.inputs, tensors, strict=True)
    return [tensor[places] if each.has_batch else tensor.clone() for each, tensor in pairs]


def layer_nodes(graph: Graph) -> list[tuple[Node, Layer]]:
    """The graph's layers, each with its node.

    >>> [(node.name, layer.name) for node, layer in layer_nodes(graph)]
    [('linear', 'fc1'), ('linear_1', 'fc2')]
    """
    return [(node, node.layer) for node in graph.nodes if node.layer is not None]


def layer_among(graph: Graph, names: Collection[str]) -> Layer:
    """The layer of the first of these nodes that has one, as the network has it: an operation on tiles reshapes it.

    >>> layer_among(graph, ["linear_1"]).name
    'fc2'
    """
    return next(layer for node, layer in layer_nodes(graph) if node.name in names)


def kernel_nodes(graph: Graph) -> list[tuple[Node, Layer | Recurrent]]:
    """What kernels compute, each with its node: layers, and recurrent operations as a whole.

    >>> [node.name for node, _ in kernel_nodes(graph)]
    ['linear', 'linear_1']
    """
    pairs = ((node, node.recurrent or node.layer) for node in graph.nodes)
    return [(node, computed) for node, computed in pairs if computed is not None]


def all_layers(graph: Graph) -> list[tuple[str, Layer]]:
    """All layers, and the matrices of recurrent operations, in the order of running, each with a key of its own.

    The key is the name of the node, for a matrix with the number that it has in there.

    >>> [(key, layer.name) for key, layer in all_layers(graph)]
    [('linear', 'fc1'), ('linear_1', 'fc2')]
    """
    return [
        (key_of_layer(node, number), layer)
        for node in graph.nodes
        for number, layer in enumerate(node.layers)
    ]


def key_of_layer(node: Node, number: int) -> str:
    """The key of the layer with that number in the node.

    >>> key_of_layer(graph.nodes[0], 0)
    'linear'
    """
    return node.name if node.recurrent is None else f"{node.name}.{number}"


def overwrites(node: Node) -> bool:
    """Whether the node writes into the memory of what it reads, by torch's schema: "aten.relu_.default" does.

    >>> overwrites(Node("y", "aten.relu_.default", ("x",), torch.relu_))
    True
    """
    schema = schema_of(node.op)
    return bool(node.inputs) and schema is not None and schema.is_mutable
