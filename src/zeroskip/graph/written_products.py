"""Products of two values by Einstein's sums, as attention is written at times, become products of matrices."""

from __future__ import annotations

from dataclasses import replace

import torch

from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import free, made
from zeroskip.graph.torch_operations import Argument, Bound, Slot

ATEN = torch.ops.aten


def with_products(graph: Graph) -> Graph:
    """The graph with `matmul`, between views, in place of sums over one axis of two values.

    >>> with_products(graph) == graph
    True
    """
    if not any(kind_of(node) == "einsum" for node in graph.nodes):
        return graph
    taken = {*graph.names, *(node.name for node in graph.nodes)}
    shapes = {each.name: each.shape for each in graph.inputs if each.has_batch}
    shapes |= {node.name: node.shape for node in graph.nodes if node.shape is not None}
    nodes = [each for node in graph.nodes for each in _product(node, shapes, taken) or (node,)]
    return replace(graph, nodes=tuple(nodes))


def _product(node: Node, shapes: dict[str, tuple[int, ...]], taken: set[str]) -> tuple[Node, ...] | None:
    bound = node.function
    if kind_of(node) != "einsum" or not isinstance(bound, Bound) or node.dtype is not torch.float32:
        return None
    sides, _, out = str(bound.arguments[0]).replace(" ", "").partition("->")
    letters = sides.split(",")
    given = bound.arguments[1] if len(bound.arguments) > 1 else None
    parts = _parts(letters, out) if len(letters) == 2 else None
    if parts is None or len(node.inputs) != 2 or given != [Slot(0), Slot(1)] or node.shape is None:
        return None
    sizes: dict[str, int] = {}
    for each, name in zip(letters, node.inputs, strict=True):
        if len(shapes.get(name, ())) + 1 != len(each):
            return None
        sizes |= dict(zip(each[1:], shapes[name], strict=True))
    same, rows, summed, columns = parts
    read, nodes = [], list[Node]()
    for name, each, order in zip(
        node.inputs, letters, (same + rows + summed, same + summed + columns), strict=True
    ):
        made_here = _permuted(free(f"{node.name}_side", taken), name, (each, order), sizes)
        nodes += [] if each == order else [made_here]
        read.append(name if each == order else made_here.name)
    product = same + rows + columns
    name = node.name if product == out else free(f"{node.name}_product", taken)
    bound = Bound(ATEN.matmul.default, [Slot(0), Slot(1)], {})
    nodes.append(made(name, bound, read, tuple(sizes[letter] for letter in product[1:])))
    last = () if product == out else (_permuted(node.name, name, (product, out), sizes),)
    return (*nodes, *last)


def _parts(sides: list[str], out: str) -> tuple[str, str, str, str] | None:
    """The axes that both have and the result too, the rows, what is summed over, the columns; None for other sums."""
    x, y = sides
    if not all(each.isalpha() and len({*each}) == len(each) for each in (x, y, out)):
        return None
    same = "".join(letter for letter in out if letter in x and letter in y)
    rows = "".join(letter for letter in out if letter in x and letter not in y)
    columns = "".join(letter for letter in out if letter in y and letter not in x)
    summed = "".join(letter for letter in x if letter in y and letter not in out)
    whole = sorted(x) == sorted(same + rows + summed) and sorted(y) == sorted(same + summed + columns)
    is_product = whole and len(rows) == len(columns) == len(summed) == 1
    first = {x[0], y[0], out[0]} == {same[:1]}  # the examples
    return (same, rows, summed, columns) if is_product and first else None


def _permuted(name: str, source: str, order: tuple[str, str], sizes: dict[str, int]) -> Node:
    before, after = order
    dims: list[Argument] = [before.index(letter) for letter in after]
    shape = tuple(sizes[letter] for letter in after[1:])
    return made(name, Bound(ATEN.permute.default, [Slot(0), dims], {}), [source], shape)
