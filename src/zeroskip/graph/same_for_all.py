"""Values that are the same for all examples become constants: they depend on nothing but how many there are.

Decoders of transformers make their causal mask so, in a dozen operations of every call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import is_written, needed, with_constant
from zeroskip.graph.torch_operations import Bound

COUNTS = (1, 17)  # of examples: what is the same for so many knows nothing of their number
LARGEST = 1 << 22  # numbers of a constant
# Operations that give a value with one row to each example, as PyTorch does to axes of size 1.
SPREADING = (
    "scaled_dot_product_attention", "add", "sub", "mul", "div", "where", "__and__", "__or__", "logical_and",
    "logical_or", "bitwise_and", "bitwise_or", "maximum", "minimum", "eq", "ne", "le", "lt", "ge", "gt", "masked_fill",
)  # fmt: skip


def with_constants(graph: Graph) -> Graph:
    """The graph in which operations read constants in place of values that are the same for all examples.

    >>> with_constants(graph) == graph  # all depends on the input
    True
    """
    constants: dict[str, Tensor] = {}
    counted: dict[str, list[object]] = {}
    batched = {each.name for each in graph.inputs if each.has_batch}
    for node in graph.nodes:
        _count(node, counted, batched)
        rows = counted.get(node.name)
        if node.shape is not None and rows is not None and _are_same(rows):
            first = rows[0]
            assert isinstance(first, Tensor)
            constants[node.name] = first
    if not constants:
        return graph
    by_example = batched | {node.name for node in graph.nodes if node.shape is not None}
    nodes = [_reading(node, constants, by_example) for node in graph.nodes]
    return replace(graph, nodes=needed(nodes, graph.outputs))


def _count(node: Node, counted: dict[str, list[object]], batched: set[str]) -> None:
    """Work out the value of a node that depends on the number of examples alone, for each of COUNTS."""
    if kind_of(node) == "sym_size" and node.inputs[0] in batched and node.arguments.get("dim") == 0:
        counted[node.name] = list(COUNTS)
        return
    known = [counted[name] for name in node.inputs if name in counted]
    if not known or len(known) < len(node.inputs) or not isinstance(node.function, Bound):
        return
    if _is_random(node) or node.layer is not None or node.recurrent is not None:
        return
    try:
        counted[node.name] = [node.function(*values) for values in zip(*known, strict=True)]
    except Exception:  # of an operation that fails for one of these numbers
        return


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(getattr(node.function, "target", None), "tags", ())


def _are_same(values: Sequence[object]) -> bool:
    """Whether the rows of the second value are those of the first, which has one."""
    one, several = values
    if not isinstance(one, Tensor) or not isinstance(several, Tensor) or one.numel() > LARGEST:
        return False
    return (
        len(one) == 1 and several.shape[1:] == one.shape[1:] and torch.equal(one.expand_as(several), several)
    )


def _reading(node: Node, constants: Mapping[str, Tensor], by_example: set[str]) -> Node:
    """The node that reads constants; another of its inputs has to have a row for each example."""
    if kind_of(node) not in SPREADING or not isinstance(node.function, Bound):
        return node
    if not any(name in by_example and name not in constants for name in node.inputs):
        return node
    for number in reversed(range(is_written(node), len(node.inputs))):
        if node.inputs[number] in constants:
            node = with_constant(node, number, constants[node.inputs[number]])
    return node
