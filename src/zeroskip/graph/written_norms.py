"""RMSNorm that is written out as a mean of squares becomes the one operation of torch that it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import given, made, needed
from zeroskip.graph.torch_operations import Argument, Bound, Slot

NORM = torch.ops.aten.rms_norm.default


def with_norms(graph: Graph) -> Graph:
    """The graph with `rms_norm` in place of x / sqrt(mean(x^2) + eps), times a weight where one follows.

    >>> with_norms(graph) == graph  # nothing is squared
    True
    """
    if not any(kind_of(node) == "rsqrt" for node in graph.nodes):
        return graph
    known = {node.name: node for node in graph.nodes}
    reads = Counter([*graph.outputs, *(name for node in graph.nodes for name in node.inputs)])
    nodes: list[Node] = []
    for node in graph.nodes:
        found = _norm(node, known) or _weighted(node, known, reads)
        known[node.name] = found or node
        nodes.append(found or node)
    return replace(graph, nodes=needed(nodes, graph.outputs))


def _norm(node: Node, known: Mapping[str, Node]) -> Node | None:
    """x times one over the root of the mean of its squares."""
    if (
        kind_of(node) != "mul"
        or len(node.inputs) != 2
        or node.shape is None
        or node.dtype is not torch.float32
    ):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        epsilon = _epsilon(known.get(other), x, known, len(node.shape) + 1)
        if epsilon is not None:
            return made(
                node.name, Bound(NORM, [Slot(0), [node.shape[-1]], None, epsilon], {}), [x], node.shape
            )
    return None


def _epsilon(root: Node | None, x: str, known: Mapping[str, Node], axes: int) -> float | None:
    """What is added to the mean of the squares of x along its last axis before the root; None for another value."""
    total = None if root is None or kind_of(root) != "rsqrt" else known.get(root.inputs[0])
    if (
        total is None
        or kind_of(total) != "add"
        or len(total.inputs) != 1
        or total.arguments.get("alpha", 1) != 1
    ):
        return None
    epsilon = total.arguments.get("other")
    mean = known.get(total.inputs[0])
    if (
        not isinstance(epsilon, float)
        or mean is None
        or kind_of(mean) != "mean"
        or not mean.arguments.get("keepdim")
    ):
        return None
    dims = cast("list[int]", mean.arguments.get("dim"))
    squares = known.get(mean.inputs[0])
    if (
        dims not in ([-1], [axes - 1])
        or mean.arguments.get("dtype") not in (None, torch.float32)
        or squares is None
    ):
        return None
    return epsilon if squares.inputs == (x,) and _is_square(squares) else None


def _is_square(node: Node) -> bool:
    if kind_of(node) == "pow":
        return node.arguments.get("exponent") in (2, 2.0)
    return kind_of(node) == "square" or (
        kind_of(node) == "mul" and given(node, "self") == given(node, "other") == Slot(0)
    )


def _weighted(node: Node, known: Mapping[str, Node], reads: Counter[str]) -> Node | None:
    """A norm times a number for each feature."""
    norm = known.get(node.inputs[0]) if len(node.inputs) == 1 and kind_of(node) == "mul" else None
    if norm is None or norm.op != "aten.rms_norm.default" or norm.arguments["weight"] is not None:
        return None
    weight = node.arguments.get("self", node.arguments.get("other"))
    fits = isinstance(weight, Tensor) and weight.dtype is torch.float32 and weight.ndim == 1
    if not fits or norm.shape is None or len(cast(Tensor, weight)) != norm.shape[-1] or reads[norm.name] != 1:
        return None
    arguments: list[Argument] = [Slot(0), [norm.shape[-1]], cast(Tensor, weight), norm.arguments["eps"]]
    return made(node.name, Bound(NORM, arguments, {}), norm.inputs, node.shape)
