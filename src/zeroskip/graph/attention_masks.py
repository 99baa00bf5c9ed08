"""Masks of attention that hold truth values become numbers, once for all layers that read one."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.torch_operations import Bound, Slot, known_arguments

MASK = 3  # its place among what attention reads


def with_numbers(graph: Graph) -> Graph:
    """The graph in which attention adds numbers to its scores: 0 where a mask is true, else minus infinity.

    >>> with_numbers(graph) == graph  # nothing attends
    True
    """
    known = {node.name: node for node in graph.nodes}
    taken = {*known, *graph.names}
    made: dict[str, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        mask = known.get(node.inputs[MASK]) if _attends(node) and len(node.inputs) > MASK else None
        if mask is not None and mask.dtype is torch.bool and node.dtype is torch.float32:
            if mask.name not in made:
                made[mask.name] = _in_numbers(mask, taken)
                nodes.append(made[mask.name])
            node = replace(node, inputs=(*node.inputs[:MASK], made[mask.name].name))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes)) if made else graph


def _attends(node: Node) -> bool:
    return kind_of(node) == "scaled_dot_product_attention"


def _in_numbers(mask: Node, taken: set[str]) -> Node:
    name = f"{mask.name}_as_numbers"
    while name in taken:
        name += "_"
    taken.add(name)
    bound = Bound(torch.ops.aten.where.Scalar, [Slot(0), 0.0, -math.inf], {})
    numbers = replace(mask, name=name, op="aten.where.Scalar", inputs=(mask.name,), function=bound)
    return replace(numbers, arguments=known_arguments(bound), dtype=torch.float32)
