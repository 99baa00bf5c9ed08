"""The weights of a network that are in no layer, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from zeroskip.graph import Graph, Node, weights
from zeroskip.graph.torch_operations import Argument
from zeroskip.run.captured import layer_nodes
from zeroskip.run.measurement import Unreached

LOOKED_UP = ("embedding", "embedding_bag", "_embedding_bag")
ADDED = ("add", "sub", "rsub", "mul", "div", "cat", "layer_norm", "group_norm", "rms_norm")


def unreached(model: nn.Module, graph: Graph) -> tuple[Unreached, ...]:
    """Every weight of the network that no layer of the graph multiplies with.

    >>> unreached(model, graph)
    ()
    """
    reached = {layer.name for _, layer in layer_nodes(graph)}
    readers = _readers(graph)
    return tuple(
        Unreached(
            name, weight.tensor.numel(), _zeros(weight.tensor), _why(name, weight.tensor, graph, readers)
        )
        for name, weight in weights(model).items()
        if name not in reached
    )


def _zeros(weight: Tensor) -> int:
    return weight.numel() - int(weight.count_nonzero())


def _readers(graph: Graph) -> dict[int, list[str]]:
    """Memory of a constant -> the plain names of the operations that read it."""
    readers: dict[int, list[str]] = {}
    for node in graph.nodes:
        for tensor in _tensors(node):
            readers.setdefault(tensor.untyped_storage().data_ptr(), []).append(_kind(node))
    return readers


def _tensors(node: Node) -> Iterator[Tensor]:
    waiting: list[Argument] = list(node.arguments.values())
    while waiting:
        argument = waiting.pop()
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            waiting += argument


def _kind(node: Node) -> str:
    return node.op.removeprefix("aten.").split(".")[0].rstrip("_")


def _why(name: str, weight: Tensor, graph: Graph, readers: Mapping[int, list[str]]) -> str:
    found = readers.get(weight.untyped_storage().data_ptr(), [])
    if not found:
        return "computed once, from weights alone" if name in graph.used else "not used on this example"
    if found[0] in LOOKED_UP:
        return f"{found[0]}: rows are looked up, not multiplied"
    return f"{found[0]}: " + ("added or scaled, not multiplied" if found[0] in ADDED else "no sparse kernel")
