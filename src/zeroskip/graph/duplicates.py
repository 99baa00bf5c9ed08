"""Operations that make what an earlier one has made, as masks that each layer prepares anew."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch

from zeroskip.graph.nodes import Graph, Node
from zeroskip.graph.rebinding import comparable, has_effects, is_written
from zeroskip.graph.torch_operations import Bound

LARGEST = 1 << 20  # numbers of a constant that is compared


def without_duplicates(graph: Graph) -> Graph:
    """The graph in which each value is computed once; the same where none is computed twice.

    >>> without_duplicates(graph) == graph
    True
    """
    written = {node.inputs[0] for node in graph.nodes if is_written(node)}
    first: dict[Hashable, str] = {}
    same: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if same and not same.keys().isdisjoint(node.inputs):
            node = replace(node, inputs=tuple(same.get(name, name) for name in node.inputs))
        key = None if node.name in written or has_effects(node) else _key(node)
        if key is not None and key in first and node.name not in graph.outputs:
            same[node.name] = first[key]
            continue
        if key is not None:
            first[key] = node.name
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes)) if same else graph


def _key(node: Node) -> Hashable | None:
    """What two nodes that compute the same have in common; None of layers, and of what draws random numbers."""
    bound = node.function
    if node.layer is not None or node.recurrent is not None or len({*node.inputs}) < len(node.inputs):
        return None
    if not isinstance(bound, Bound):
        return (node.op, node.inputs, str(node.arguments)) if node.op == "getitem" else None
    if torch.Tag.nondeterministic_seeded in getattr(bound.target, "tags", ()):
        return None
    given = [*bound.arguments, *bound.named.values()]
    if any(isinstance(each, torch.Tensor) and each.numel() > LARGEST for each in given):
        return None
    named = tuple((name, comparable(value)) for name, value in bound.named.items())
    return node.op, node.inputs, tuple(map(comparable, bound.arguments)), named
