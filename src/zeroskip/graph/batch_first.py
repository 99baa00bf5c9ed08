"""Layers on values whose examples do not lie along the first axis, or not alone, compute with the examples first.

nn.MultiheadAttention works on (tokens, batch, features), GPT-2's linear layers on (batch x tokens, features). Both
only view numbers in between, so the same layers on (batch, tokens, features) give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch

from zeroskip.graph.exporting import Exported
from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import free, is_written, made, needed
from zeroskip.graph.torch_operations import Argument, Bound, Slot, known_arguments, title
from zeroskip.graph.views import (
    BATCH,
    Size,
    Viewed,
    is_inside,
    permuted_axes,
    renumbered,
    reshaped,
    sizes_of,
    without_ones,
)

Sizes = Mapping[str, tuple[Size, ...]]
"""Value -> the sizes of its axes, of values whose first axis is not that of the examples alone."""

ATEN = torch.ops.aten
RESHAPED = (
    "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "_unsafe_view", "contiguous", "clone", "alias",
)  # fmt: skip
SWAPPED = ("transpose", "swapaxes", "swapdims")
ALIKE = (
    "relu", "gelu", "silu", "tanh", "sigmoid", "mul", "div", "neg", "softmax", "layer_norm", "add", "hardswish", "abs",
)  # fmt: skip


def batch_first(graph: Graph, sizes: Sizes) -> Graph:
    """The graph in which layers between views of values compute with the examples first; the same where none do.

    >>> batch_first(graph, {}) == graph
    True
    """
    if not any(node.shape is None and node.layer is not None for node in graph.nodes) and not any(
        kind_of(node) in ("unbind", "bmm", "matmul", "select") for node in graph.nodes if node.shape is None
    ):
        return graph
    walk = _Walk(graph, sizes)
    for node in graph.nodes:
        walk.read(node)
    nodes = needed(walk.nodes, graph.outputs)
    left = {node.name for node in nodes}
    return graph if left & walk.twice else replace(graph, nodes=tuple(map(_as_reshape, nodes)))


def displaced(exported: Exported, names: Collection[str]) -> dict[str, tuple[Size, ...]]:
    """The sizes of these values of a network, where each is a number or so many for each example."""
    from torch.fx.experimental.symbolic_shapes import is_concrete_int, statically_known_true

    batched = zip(exported.inputs, exported.batched, strict=True)
    batches = [each.meta["val"].shape[0] for each, has in batched if has]

    def sized(size: torch.SymInt | int) -> Size | None:
        if is_concrete_int(size):
            return int(size), False
        for batch in batches:
            ours, theirs = size.node.hint, batch.node.hint  # type: ignore[union-attr]
            if ours and theirs and statically_known_true(size == batch * (ours // theirs)):
                return ours // theirs, True
        return None

    found = {}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.name in names and isinstance(value, torch.Tensor) and value.ndim:
            sizes = [sized(size) for size in value.shape]
            if all(sizes):
                found[node.name] = tuple(each for each in sizes if each is not None)
    return found


class _Walk:
    """The nodes read one after the other, and those written so far; what is no longer needed goes in the end.

    twice  nodes that are computed with the examples first as well: needed both ways, nothing would be gained
    """

    def __init__(self, graph: Graph, sizes: Sizes) -> None:
        self.nodes: list[Node] = []
        self.twice: set[str] = set()
        self._sizes = sizes
        self._shapes = {each.name: each.shape for each in graph.inputs if each.has_batch}
        self._taken = {*graph.names, *(node.name for node in graph.nodes)}
        self._viewed: dict[str, Viewed] = {}
        self._lists: dict[str, tuple[str, int]] = {}
        self._cuts: dict[tuple[str, tuple[int, ...]], str] = {}
        self._written: dict[str, str] = {}
        self._dtypes: dict[str, torch.dtype | None] = {each.name: each.dtype for each in graph.inputs}

    def read(self, node: Node) -> None:
        value = self._value(node)
        if value is not None and node.shape is not None:
            self._write(value, node)
            value = None
        else:
            self.nodes.append(node if value is not None else self._reading(node))
        self._dtypes[node.name] = node.dtype
        if value is not None:
            self._viewed[node.name] = value
        elif node.shape is not None:
            self._shapes[node.name] = node.shape

    def _reading(self, node: Node) -> Node:
        """The node, which reads what is computed with the examples first as it would find it without."""
        if kind_of(node) == "unbind":
            return node
        return replace(node, inputs=tuple(map(self._as_before, node.inputs)))

    def _as_before(self, name: str) -> str:
        """The value with its axes where the network has them; the node itself where nothing is gained by it."""
        x, sizes = self._viewed.get(name), self._sizes.get(name)
        if x is None or sizes is None or not x.is_computed:
            return name
        if name not in self._written:
            order = [number for axis in x.axes for number in axis]
            base = self._cut(x)
            if order != sorted(order):
                bound = Bound(ATEN.permute.default, [Slot(0), order], {})
                base = self._added(f"{name}_moved", bound, (base,), None, self._dtypes[name])
            bound = Bound(ATEN.reshape.default, [Slot(0), [-1 if has else size for size, has in sizes]], {})
            self._written[name] = self._added(f"{name}_as_before", bound, (base,), None, self._dtypes[name])
        return self._written[name]

    def _value(self, node: Node) -> Viewed | None:
        """The node's value as a view of one with the examples first, where it is displaced or made of such."""
        kind, first = kind_of(node), node.inputs[0] if node.inputs else ""
        if kind == "unbind" and self._known(first) is not None:
            self._lists[node.name] = first, int(cast(int, node.arguments.get("dim", 0)))
            return None
        if kind == "getitem" and first in self._lists:
            source, dim = self._lists[first]
            known = self._known(source)
            return None if known is None else self._selected(known, dim, node.arguments.get("1"), node)
        if first not in self._viewed and (
            node.shape is not None or kind not in (*RESHAPED, *SWAPPED, "permute")
        ):
            return None
        x = self._known(first)
        if x is None:
            return None
        if kind in RESHAPED:
            return reshaped(x, self._wanted(node))
        if kind in SWAPPED or kind == "permute":
            return replace(x, axes=permuted_axes(x.axes, node))
        if kind == "select":
            return self._selected(x, int(cast(int, node.arguments["dim"])), node.arguments["index"], node)
        return self._computed(node)

    def _known(self, name: str) -> Viewed | None:
        shape = self._shapes.get(name)
        if name in self._viewed or shape is None:
            return self._viewed.get(name)
        return without_ones(Viewed(name, shape, tuple((number,) for number in range(len(shape) + 1)), False))

    def _wanted(self, node: Node) -> tuple[Size, ...] | None:
        """The sizes of the node's axes."""
        if node.shape is None:
            return self._sizes.get(node.name)
        return (1, True), *((size, False) for size in node.shape)

    def _selected(self, x: Viewed, dim: int, index: Argument, node: Node) -> Viewed | None:
        """One place of an axis that is one part."""
        axis = x.axes[dim]
        if len(axis) != 1 or axis[0] == BATCH or not isinstance(index, int):
            return None
        (number,) = axis
        parts = x.parts[: number - 1] + x.parts[number:]
        base = self._cut(x)
        bound = Bound(ATEN.select.int, [Slot(0), number, index], {})
        name = self._added(f"{node.name}_of_each", bound, (base,), parts, self._dtypes[x.base])
        axes = [each for place, each in enumerate(x.axes) if place != dim % len(x.axes)]
        left = tuple(tuple(n - (n > number) for n in each) for each in axes)
        return replace(x, base=name, parts=parts, axes=left)

    def _computed(self, node: Node) -> Viewed | None:
        """An operation that does the same to each row of features, for a value with the examples first."""
        kind = kind_of(node)
        known = [self._viewed.get(name) for name in node.inputs]
        given = [each for each in known if each is not None]
        if kind == "scaled_dot_product_attention" and None not in known[:3]:
            return self._attention(node, given[:3])
        if len(given) < len(known) or node.dtype is not torch.float32 or is_written(node):
            return None
        if kind in ("bmm", "matmul") and node.layer is None:
            return self._product(node, given)
        is_linear = node.layer is not None and node.layer.op == "linear"
        same = all((each.parts, each.axes) == (given[0].parts, given[0].axes) for each in given)
        if not is_linear and not (kind in ALIKE and same and _is_by_row(node, given[0])):
            return None
        features = given[0].axes[-1]
        if BATCH in features:
            return None
        rows = [number for axis in given[0].axes[:-1] for number in axis if number]
        moved = [self._moved(each, [*rows, *features], node) for each in given]
        axes = renumbered(given[0].axes, [*rows, *features])
        cut = moved[0].parts
        merged = replace(moved[0], parts=(*cut[: len(rows)], math.prod(cut[len(rows) :])))
        bases = [self._in_shape(each.base, merged.parts) for each in moved]
        size = node.layer.weight.shape[0] if node.layer is not None else merged.parts[-1]
        shape = (*merged.parts[:-1], size)
        name = free(f"{node.name}_of_each", self._taken)
        of_each = replace(node, name=name, inputs=tuple(bases), shape=shape)
        if node.layer is not None:
            of_each = replace(
                of_each, layer=replace(node.layer, input_shape=merged.parts, output_shape=shape)
            )
        elif kind in ("softmax", "layer_norm"):
            of_each = _along_last(of_each)
        self.nodes.append(of_each)
        self._shapes[name], self._dtypes[name] = shape, node.dtype
        self.twice.add(node.name)
        return Viewed(name, shape, (*axes[:-1], (len(shape),)))

    def _product(self, node: Node, given: Sequence[Viewed]) -> Viewed | None:
        """A batch of products of matrices: (examples x others, ..., rows, columns)."""
        axes = len(given[0].axes)
        if len(given) != 2 or axes < 3 or len(given[1].axes) != axes or any(map(is_inside, given)):
            return None
        moved = [
            self._moved(each, [number for axis in each.axes for number in axis if number], node)
            for each in given
        ]
        (*first, rows, size), (*others, _, columns) = (sizes_of(each) for each in given)
        if first != others:
            return None
        shapes = (*first, rows, size), (*first, size, columns)
        bases = [self._in_shape(each.base, shape) for each, shape in zip(moved, shapes, strict=True)]
        bound, shape = Bound(ATEN.matmul.default, [Slot(0), Slot(1)], {}), (*first, rows, columns)
        name = self._added(f"{node.name}_of_each", bound, tuple(bases), shape, node.dtype)
        self.twice.add(node.name)
        return Viewed(name, shape, ((BATCH, 1), *((number,) for number in range(2, axes + 1))))

    def _attention(self, node: Node, given: Sequence[Viewed]) -> Viewed | None:
        """Attention over (examples x others, heads, places, features) stays as it is: torch is fast on four axes.

        What is made of it is computed with the examples first again.
        """
        whole = [sizes_of(each) for each in given]
        fits = len(node.inputs) >= 3 and all(len(each) == 4 for each in whole) and node.name in self._sizes
        if not fits or any(map(is_inside, given)):
            return None
        same = replace(node, name=free(f"{node.name}_of_all", self._taken))
        self.nodes.append(self._reading(same))
        shape = whole[0][0], *(size for size, _ in self._sizes[node.name][1:])
        bound = Bound(ATEN.reshape.default, [Slot(0), [-1, *shape]], {})
        name = self._added(f"{node.name}_of_each", bound, (same.name,), shape, node.dtype)
        self.twice.add(node.name)
        return Viewed(name, shape, ((BATCH, 1), (2,), (3,), (4,)))

    def _cut(self, x: Viewed) -> str:
        """The value as (examples, *parts)."""
        return self._in_shape(x.base, x.parts)

    def _moved(self, x: Viewed, order: Sequence[int], node: Node) -> Viewed:
        """The value whose parts lie in another order."""
        if list(order) == sorted(order):
            return x
        parts = tuple(x.parts[number - 1] for number in order)
        base, dims = self._cut(x), [0, *order]
        bound = Bound(ATEN.permute.default, [Slot(0), dims], {})
        name = self._added(f"{node.name}_moved", bound, (base,), parts, self._dtypes[x.base])
        return replace(x, base=name, parts=parts, axes=renumbered(x.axes, order))

    def _in_shape(self, name: str, shape: tuple[int, ...]) -> str:
        if self._shapes[name] == shape:
            return name
        if (name, shape) not in self._cuts:
            bound = Bound(ATEN.reshape.default, [Slot(0), [-1, *shape]], {})
            self._cuts[name, shape] = self._added(
                f"{name}_in_parts", bound, (name,), shape, self._dtypes[name]
            )
        return self._cuts[name, shape]

    def _write(self, x: Viewed, node: Node) -> None:
        """The node's value, whose examples are first, from the one of which it is a view."""
        assert node.shape is not None
        order = [number for axis in x.axes for number in axis if number]
        moved = self._moved(x, order, node)
        bound = Bound(ATEN.reshape.default, [Slot(0), [-1, *node.shape]], {})
        self.nodes.append(made(node.name, bound, (moved.base,), node.shape, node.dtype))

    def _added(
        self, wanted: str, bound: Bound, inputs: tuple[str, ...], shape: tuple[int, ...] | None,
        dtype: torch.dtype | None,
    ) -> str:  # fmt: skip
        name = free(wanted, self._taken)
        self.nodes.append(made(name, bound, inputs, shape, dtype))
        self._dtypes[name] = dtype
        if shape is not None:
            self._shapes[name] = shape
        return name


def _is_by_row(node: Node, x: Viewed) -> bool:
    """Whether the operation does to each row of features the same, whatever lies before them."""
    kind, arguments, axes = kind_of(node), node.arguments, len(x.axes)
    if kind == "softmax":
        return arguments.get("dtype") is None and cast(int, arguments["dim"]) in (-1, axes - 1)
    if kind == "layer_norm":
        return len(cast("Sequence[int]", arguments["normalized_shape"])) == 1
    # A constant may differ along axes behind the first, which stay as they are.
    whole = all(len(axis) == 1 and axis[0] for axis in x.axes[1:]) and BATCH in x.axes[0]
    return all(
        value.ndim < 2 or (whole and (value.ndim < axes or (value.ndim == axes and len(value) == 1)))
        for value in arguments.values()
        if isinstance(value, torch.Tensor)
    )


def _along_last(node: Node) -> Node:
    """The operation with its axis counted from the last."""
    if kind_of(node) != "softmax":
        return node
    bound = Bound(ATEN.softmax.int, [Slot(0), -1], {})
    return replace(node, op=title(bound.target), function=bound, arguments=known_arguments(bound))


def _as_reshape(node: Node) -> Node:
    """The node without its demand on where the numbers lie, which may be elsewhere now."""
    if node.op != "aten.view.default" or not isinstance(node.function, Bound):
        return node
    bound = Bound(ATEN.reshape.default, node.function.arguments, {})
    return replace(node, op=title(bound.target), function=bound, arguments=known_arguments(bound))
