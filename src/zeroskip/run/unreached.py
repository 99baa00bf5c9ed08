"""The weights of a network that are in no layer, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from zeroskip.graph import Graph, Node, Weight, weights
from zeroskip.graph.nodes import kind_of
from zeroskip.graph.torch_operations import Argument
from zeroskip.graph.weights import ADDED, TABLE
from zeroskip.run.captured import all_layers
from zeroskip.run.measurement import Unreached

# Operation -> why zeros of what it reads save no multiplication.
NO_PRODUCTS = dict.fromkeys(
    ("embedding", "embedding_bag", "index", "index_select", "gather"), TABLE
) | dict.fromkeys(
    ("add", "sub", "rsub", "mul", "div", "cat", "stack", "where", "layer_norm", "group_norm", "rms_norm"),
    ADDED,
)


def unreached(model: nn.Module, graph: Graph) -> tuple[Unreached, ...]:
    """Every weight of the network that no layer of the graph multiplies with.

    >>> unreached(model, graph)
    ()
    """
    reached = {layer.name for _, layer in all_layers(graph)}
    readers = _readers(graph)
    return tuple(
        _of(name, weight, graph, readers) for name, weight in weights(model).items() if name not in reached
    )


def weight_zeros(model: nn.Module) -> dict[str, int]:
    """Every weight of the network -> how many of its numbers are zero.

    >>> weight_zeros(model)
    {'fc1': 36, 'fc2': 0}
    """
    return {name: _zeros(weight.tensor) for name, weight in weights(model).items()}


def _of(name: str, weight: Weight, graph: Graph, readers: Mapping[int, list[str]]) -> Unreached:
    found = readers.get(weight.tensor.untyped_storage().data_ptr()) or _readers_of_equal(weight, graph)
    reason = weight.kept_dense or next((NO_PRODUCTS[each] for each in found if each in NO_PRODUCTS), "")
    operation = found[0] if found and not reason else ""
    if operation:
        why = f"{operation}: no sparse kernel"
    elif reason or name not in graph.used:
        why = reason or "not used on this example"
    else:
        why = "computed once, from weights alone"
    return Unreached(name, weight.tensor.numel(), _zeros(weight.tensor), why, operation)


def _zeros(weight: Tensor) -> int:
    return weight.numel() - int(weight.count_nonzero())


def _readers(graph: Graph) -> dict[int, list[str]]:
    """Memory of a constant -> the plain names of the operations that read it."""
    readers: dict[int, list[str]] = {}
    for node in graph.nodes:
        for tensor in _tensors(node):
            readers.setdefault(tensor.untyped_storage().data_ptr(), []).append(kind_of(node))
    return readers


def _readers_of_equal(weight: Weight, graph: Graph) -> list[str]:
    """The operations that read what a parametrization, such as a mask, made of the weight: it is new memory."""
    if not any(hasattr(place.module, "parametrizations") for place in weight.places):
        return []
    value = weight.tensor
    return [
        kind_of(node)
        for node in graph.nodes
        if any(each.shape == value.shape and torch.equal(each, value) for each in _tensors(node))
    ]


def _tensors(node: Node) -> Iterator[Tensor]:
    waiting: list[Argument] = list(node.arguments.values())
    while waiting:
        argument = waiting.pop()
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            waiting += argument
