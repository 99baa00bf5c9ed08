"""Attention reads as little as it needs: no mask where one is causal, each key once, masks as numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import free, given, made, needed, slot_of
from zeroskip.graph.torch_operations import Argument, Bound, Slot, known_arguments

UNSEEN = -1e30  # added to a score, as good as minus infinity
MASK = 3  # its place among what attention reads


def with_numbers(graph: Graph) -> Graph:
    """The graph in which attention adds numbers to its scores: 0 where a mask is true, else minus infinity.

    >>> with_numbers(graph) == graph  # nothing attends
    True
    """
    known = {node.name: node for node in graph.nodes}
    taken = {*known, *graph.names}
    numbers: dict[str, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        mask = known.get(node.inputs[MASK]) if _attends(node) and len(node.inputs) > MASK else None
        if mask is not None and mask.dtype is torch.bool and node.dtype is torch.float32:
            if mask.name not in numbers:
                numbers[mask.name] = _in_numbers(mask, taken)
                nodes.append(numbers[mask.name])
            node = replace(node, inputs=(*node.inputs[:MASK], numbers[mask.name].name))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes)) if numbers else graph


def with_causes(graph: Graph) -> Graph:
    """The graph in which attention is causal by its own words where a constant mask says so, and without empty masks.

    >>> with_causes(graph) == graph
    True
    """
    return replace(
        graph, nodes=tuple(_caused(node, graph) if _attends(node) else node for node in graph.nodes)
    )


def with_shared_heads(graph: Graph) -> Graph:
    """The graph in which attention reads each head of keys and values once, not copied for all heads of queries.

    >>> with_shared_heads(graph) == graph
    True
    """
    known = {node.name: node for node in graph.nodes}
    nodes = [_shared(node, known) if _attends(node) else node for node in graph.nodes]
    changed = any(new is not old for new, old in zip(nodes, graph.nodes, strict=True))
    return replace(graph, nodes=needed(nodes, graph.outputs)) if changed else graph


def _caused(node: Node, graph: Graph) -> Node:
    mask, places = given(node, "attn_mask"), [slot_of(node, name) for name in ("query", "key")]
    if not isinstance(mask, Tensor) or given(node, "is_causal") or None in places:
        return node
    queries, keys = (graph.shapes.get(node.inputs[place or 0]) for place in places)
    if queries is None or keys is None or mask.numel() != queries[-2] * keys[-2]:
        return node
    seen = mask if mask.dtype is torch.bool else mask == 0
    hidden = ~mask if mask.dtype is torch.bool else mask <= UNSEEN
    seen, hidden = (each.reshape(queries[-2], keys[-2]) for each in (seen, hidden))
    whole = torch.ones_like(seen)
    if bool(seen.all()):
        return _attending(node, {"attn_mask": None})
    causal = torch.equal(seen, whole.tril()) and torch.equal(hidden, ~whole.tril())
    return _attending(node, {"attn_mask": None, "is_causal": True}) if causal else node


def _shared(node: Node, known: dict[str, Node]) -> Node:
    slots = [slot_of(node, name) for name in ("key", "value")]
    query = slot_of(node, "query")
    if query is None or None in slots:
        return node
    found = [_repeated(known.get(node.inputs[slot or 0]), known) for slot in slots]
    shape = node.shape or ()
    heads = {each[1] for each in found if each is not None}
    if None in found or len(heads) != 1 or len(shape) != 3 or shape[0] % min(heads):
        return node
    names = dict(zip(slots, (each[0] for each in found if each is not None), strict=True))
    inputs = tuple(names.get(number, name) for number, name in enumerate(node.inputs))
    return replace(_attending(node, {"enable_gqa": True}), inputs=inputs)


def _repeated(node: Node | None, known: dict[str, Node]) -> tuple[str, int] | None:
    """The value whose heads stand several times side by side in another, and how many it has."""
    if node is None or node.shape is None or len(node.shape) != 3:
        return None
    if kind_of(node) == "repeat_interleave" and node.arguments.get("dim") in (1, -3):
        times = node.arguments.get("repeats")
        return (node.inputs[0], node.shape[0] // times) if isinstance(times, int) and times else None
    expanded = known.get(node.inputs[0]) if kind_of(node) in ("reshape", "view", "flatten", "clone") else None
    if expanded is not None and kind_of(expanded) == "clone":
        expanded = known.get(expanded.inputs[0])
    if expanded is None or kind_of(expanded) != "expand" or len(expanded.shape or ()) != 4:
        return None
    single = known.get(expanded.inputs[0])
    shape = None if single is None else single.shape
    if (
        single is None
        or kind_of(single) != "unsqueeze"
        or shape is None
        or shape[1:2] != (1,)
        or len(shape) != 4
    ):
        return None
    return (single.inputs[0], shape[0]) if shape[2:] == node.shape[1:] else None


def _attending(node: Node, changed: dict[str, Argument]) -> Node:
    """The node with other arguments, given by name."""
    bound = node.function
    assert isinstance(bound, Bound)
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    arguments = [changed.get(name, given(node, name)) for name in names]
    named = {name: changed.get(name, given(node, name)) for name in ("scale", "enable_gqa")}
    function = Bound(bound.target, arguments, named)
    return replace(node, function=function, arguments=known_arguments(function))


def _attends(node: Node) -> bool:
    return kind_of(node) == "scaled_dot_product_attention"


def _in_numbers(mask: Node, taken: set[str]) -> Node:
    bound = Bound(torch.ops.aten.where.Scalar, [Slot(0), 0.0, -math.inf], {})
    return made(free(f"{mask.name}_as_numbers", taken), bound, [mask.name], mask.shape)
