"""Activation functions that are written out in several operations become the one operation of torch that they are.

GPT-2 writes its GELU as 0.5 x (1 + tanh(...)), others SiLU as x sigmoid(x). How it is written does not matter: what
operations on single numbers make of one value is compared with the functions of torch, at many numbers, in float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import made, needed
from zeroskip.graph.torch_operations import Argument, Bound, Slot

ATEN = torch.ops.aten
FUNCTIONS: Mapping[str, tuple[Callable[..., Argument], Mapping[str, Argument]]] = {
    "gelu": (ATEN.gelu.default, {}),
    "gelu_tanh": (ATEN.gelu.default, {"approximate": "tanh"}),
    "silu": (ATEN.silu.default, {}),
    "mish": (ATEN.mish.default, {}),
    "hardswish": (ATEN.hardswish.default, {}),
}
NUMBERWISE = ("mul", "multiply", "add", "sub", "rsub", "div", "pow", "square", "tanh", "erf", "sigmoid", "exp", "neg",
              "reciprocal", "softplus", "clamp", "hardtanh", "relu", "relu6", "hardsigmoid", "sqrt")  # fmt: skip
CURVED = ("tanh", "erf", "sigmoid", "exp", "softplus", "hardsigmoid", "relu6", "clamp", "hardtanh")
"""All of the functions have one of these, and end in one of those that follow."""
LAST = ("mul", "multiply", "div")
FEW = 8  # readers of a value within a function
SAME = 2e-6  # of the values, which constants with few digits keep apart: sqrt(2 / pi) is written 0.7978845608


@dataclass(frozen=True)
class _Made:
    """A value made of another number by number: its numbers at the samples."""

    source: str
    numbers: Tensor


def with_functions(graph: Graph) -> Graph:
    """The graph with one operation wherever several make a known function of one value.

    >>> with_functions(graph) == graph  # it has two linear layers
    True
    """
    if not any(_is_candidate(node) for node in graph.nodes):
        return graph
    reads = Counter([*graph.outputs, *(name for node in graph.nodes for name in node.inputs)])
    values: dict[str, list[_Made]] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        values[node.name] = _of_each(node, values) if reads[node.name] < FEW else []
        nodes.append(_named(node, values[node.name]) or node)
    return replace(graph, nodes=needed(nodes, graph.outputs))


def _is_candidate(node: Node) -> bool:
    return kind_of(node) in CURVED


def _of_each(node: Node, values: Mapping[str, list[_Made]]) -> list[_Made]:
    """The node as a function of each value of which its inputs are functions number by number."""
    bound = node.function
    if (
        kind_of(node) not in NUMBERWISE
        or node.layer is not None
        or not isinstance(bound, Bound)
        or node.shape is None
    ):
        return []
    if node.op.split(".")[1].endswith("_") or node.dtype is not torch.float32 or not _is_plain(bound):
        return []
    made_of = [{each.source: each.numbers for each in values.get(name, [])} for name in node.inputs]
    sources = dict.fromkeys([*node.inputs, *(source for several in made_of for source in several)])
    found = []
    for source in sources:
        numbers = [
            _samples() if name == source else several.get(source)
            for name, several in zip(node.inputs, made_of, strict=True)
        ]
        if all(each is not None for each in numbers):
            result = bound(*numbers)
            found += [_Made(source, result)] if isinstance(result, Tensor) else []
    return found


def _is_plain(bound: Bound) -> bool:
    """Whether all that the operation is given besides its inputs are single numbers."""
    given = [*bound.arguments, *bound.named.values()]
    return not any(
        isinstance(each, list) or (isinstance(each, Tensor) and each.numel() > 1) for each in given
    )


def _named(node: Node, known: list[_Made]) -> Node | None:
    """The one operation that the node's value is; None where it is none of those known, or is one already."""
    if kind_of(node) not in LAST:
        return None
    for each in known:
        for name, (target, named) in FUNCTIONS.items():
            expected = _expected()[name]
            if bool(((each.numbers - expected).abs() <= SAME * (1 + expected.abs())).all()):
                return made(node.name, Bound(target, [Slot(0)], named), [each.source], node.shape)
    return None


@cache
def _samples() -> Tensor:
    """Numbers near 0, where functions bend, and far away, where some are cut off; none of them round."""
    far = torch.tensor([-70_001.3, -913.7, -41.3, -0.013, 0.017, 37.9, 871.3, 69_999.1])
    return torch.cat([torch.linspace(-12.1, 12.3, 401), far]).double()


@cache
def _expected() -> Mapping[str, Tensor]:
    return {name: target(_samples(), **named) for name, (target, named) in FUNCTIONS.items()}  # type: ignore[misc]
