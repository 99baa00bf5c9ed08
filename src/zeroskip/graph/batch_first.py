"""Layers on values whose examples do not lie along the first axis, or not alone, compute with the examples first.

nn.MultiheadAttention works on (tokens, batch, features), GPT-2's linear layers on (batch x tokens, features). Both
only view numbers in between, so the same layers on (batch, tokens, features) give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from zeroskip.graph.exporting import Exported
from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import free, made, needed
from zeroskip.graph.torch_operations import Argument, Bound, Slot, known_arguments, title

Size = tuple[int, bool]
"""Places along an axis of a tensor, and whether there are so many for each example."""
Sizes = Mapping[str, tuple[Size, ...]]
"""Value -> the sizes of its axes, of values whose first axis is not that of the examples alone."""

ATEN = torch.ops.aten
BATCH = 0
RESHAPED = (
    "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "_unsafe_view", "contiguous", "clone", "alias",
)  # fmt: skip
SWAPPED = ("transpose", "swapaxes", "swapdims")
ALIKE = (
    "relu", "gelu", "silu", "tanh", "sigmoid", "mul", "div", "neg", "softmax", "layer_norm", "add", "hardswish", "abs",
)  # fmt: skip


@dataclass(frozen=True)
class _Viewed:
    """A tensor that holds the numbers of a value with the examples first, seen with other axes.

    base   the value
    parts  sizes into which the axes of one example of it are cut, in order
    axes   of the tensor: for each the numbers of its parts, from 1 on; the examples are BATCH
    """

    base: str
    parts: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]


def batch_first(graph: Graph, sizes: Sizes) -> Graph:
    """The graph in which layers between views of values compute with the examples first; the same where none do.

    >>> batch_first(graph, {}) == graph
    True
    """
    if not any(node.shape is None and node.layer is not None for node in graph.nodes) and not any(
        kind_of(node) in ("unbind", "bmm", "baddbmm", "select") for node in graph.nodes if node.shape is None
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
        self._viewed: dict[str, _Viewed] = {}
        self._lists: dict[str, tuple[str, int]] = {}
        self._cuts: dict[tuple[str, tuple[int, ...]], str] = {}

    def read(self, node: Node) -> None:
        value = self._value(node)
        if value is not None and node.shape is not None:
            self._write(value, node)
            value = None
        else:
            self.nodes.append(node)
        if value is not None:
            self._viewed[node.name] = value
        elif node.shape is not None:
            self._shapes[node.name] = node.shape

    def _value(self, node: Node) -> _Viewed | None:
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
            return self._reshaped(x, node)
        if kind in SWAPPED or kind == "permute":
            return replace(x, axes=_permuted(x.axes, node))
        if kind == "select":
            return self._selected(x, int(cast(int, node.arguments["dim"])), node.arguments["index"], node)
        return self._computed(node)

    def _known(self, name: str) -> _Viewed | None:
        shape = self._shapes.get(name)
        if name in self._viewed or shape is None:
            return self._viewed.get(name)
        return _Viewed(name, shape, tuple((number,) for number in range(len(shape) + 1)))

    def _reshaped(self, x: _Viewed, node: Node) -> _Viewed | None:
        wanted = (
            self._sizes.get(node.name)
            if node.shape is None
            else ((1, True), *((n, False) for n in node.shape))
        )
        if wanted is None or len(wanted) == len(x.axes) == 0:
            return None
        parts, order = list(x.parts), [number for axis in x.axes for number in axis]
        axes: list[tuple[int, ...]] = []
        while len(axes) < len(wanted):
            axis, cut = _taken(order, parts, wanted[len(axes)])
            if axis is None:
                return None
            if cut is not None:  # a part becomes two; all that come after it have other numbers
                number, size = cut
                parts[number - 1 : number] = [size, parts[number - 1] // size]
                order = _with_two(order, number)
                axes = [tuple(_with_two(each, number)) for each in axes]
                continue
            axes.append(tuple(axis))
            del order[: len(axis)]
        return None if any(parts[number - 1] > 1 for number in order if number) else _Viewed(
            x.base, tuple(parts), tuple(axes)
        )  # fmt: skip

    def _selected(self, x: _Viewed, dim: int, index: Argument, node: Node) -> _Viewed | None:
        """One place of an axis that is one part."""
        axis = x.axes[dim]
        if len(axis) != 1 or axis[0] == BATCH or not isinstance(index, int):
            return None
        (number,) = axis
        parts = x.parts[: number - 1] + x.parts[number:]
        base = self._cut(x)
        name = self._emitted(
            f"{node.name}_of_each", ATEN.select.int, [Slot(0), number, index], (base,), parts, node
        )
        axes = [each for place, each in enumerate(x.axes) if place != dim % len(x.axes)]
        return _Viewed(name, parts, tuple(tuple(n - (n > number) for n in each) for each in axes))

    def _computed(self, node: Node) -> _Viewed | None:
        """An operation that does the same to each row of features, for a value with the examples first."""
        kind = kind_of(node)
        known = [self._viewed.get(name) for name in node.inputs]
        given = [each for each in known if each is not None]
        if len(given) < len(known) or node.dtype is not torch.float32:
            return None
        if kind == "bmm":
            return self._product(node, given)
        is_linear = node.layer is not None and node.layer.op == "linear"
        same = all((each.parts, each.axes) == (given[0].parts, given[0].axes) for each in given)
        if not is_linear and not (kind in ALIKE and same and _is_by_row(node, len(given[0].axes))):
            return None
        features = given[0].axes[-1]
        if BATCH in features:
            return None
        rows = [number for axis in given[0].axes[:-1] for number in axis if number]
        moved = [self._moved(each, [*rows, *features], node) for each in given]
        axes = _renumbered(given[0].axes, [*rows, *features])
        cut = moved[0].parts
        merged = replace(moved[0], parts=(*cut[: len(rows)], math.prod(cut[len(rows) :])))
        bases = [self._in_shape(each.base, merged.parts, node) for each in moved]
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
        self._shapes[name] = shape
        self.twice.add(node.name)
        return _Viewed(name, shape, (*axes[:-1], (len(shape),)))

    def _product(self, node: Node, given: Sequence[_Viewed]) -> _Viewed | None:
        """A batch of products of matrices (examples x others, rows, columns)."""
        if len(given) != 2 or any(len(each.axes) != 3 or each.axes[0][:1] != (BATCH,) for each in given):
            return None
        moved = [
            self._moved(each, [number for axis in each.axes for number in axis if number], node)
            for each in given
        ]
        (count, rows, size), (_, _, columns) = (
            [math.prod(each.parts[number - 1] for number in axis if number) for axis in each.axes]
            for each in given
        )
        shapes = (count, rows, size), (count, size, columns)
        bases = [self._in_shape(each.base, shape, node) for each, shape in zip(moved, shapes, strict=True)]
        shape = count, rows, columns
        name = self._emitted(
            f"{node.name}_of_each", ATEN.matmul.default, [Slot(0), Slot(1)], tuple(bases), shape, node
        )
        self.twice.add(node.name)
        return _Viewed(name, shape, ((BATCH, 1), (2,), (3,)))

    def _cut(self, x: _Viewed) -> str:
        """The value as (examples, *parts)."""
        return self._in_shape(x.base, x.parts, None)

    def _moved(self, x: _Viewed, order: Sequence[int], node: Node) -> _Viewed:
        """The value whose parts lie in another order."""
        if list(order) == sorted(order):
            return x
        parts = tuple(x.parts[number - 1] for number in order)
        base, dims = self._cut(x), [0, *order]
        name = self._emitted(
            f"{node.name}_moved", ATEN.permute.default, [Slot(0), dims], (base,), parts, node
        )
        return _Viewed(name, parts, _renumbered(x.axes, order))

    def _in_shape(self, name: str, shape: tuple[int, ...], node: Node | None) -> str:
        if self._shapes[name] == shape:
            return name
        if (name, shape) not in self._cuts:
            self._cuts[name, shape] = self._emitted(
                f"{name}_in_parts", ATEN.reshape.default, [Slot(0), [-1, *shape]], (name,), shape, node
            )
        return self._cuts[name, shape]

    def _write(self, x: _Viewed, node: Node) -> None:
        """The node's value, whose examples are first, from the one of which it is a view."""
        assert node.shape is not None
        order = [number for axis in x.axes for number in axis if number]
        moved = self._moved(x, order, node)
        bound = Bound(ATEN.reshape.default, [Slot(0), [-1, *node.shape]], {})
        self.nodes.append(made(node.name, bound, (moved.base,), node.shape, node.dtype))

    def _emitted(
        self, wanted: str, target: Callable[..., Argument], arguments: list[Argument], inputs: tuple[str, ...],
        shape: tuple[int, ...], node: Node | None,
    ) -> str:  # fmt: skip
        name = free(wanted, self._taken)
        dtype = torch.float32 if node is None else node.dtype
        self.nodes.append(made(name, Bound(target, arguments, {}), inputs, shape, dtype))
        self._shapes[name] = shape
        return name


def _permuted(axes: tuple[tuple[int, ...], ...], node: Node) -> tuple[tuple[int, ...], ...]:
    count = len(axes)
    if kind_of(node) == "permute":
        return tuple(axes[int(place) % count] for place in cast("Sequence[int]", node.arguments["dims"]))
    one, two = [
        int(cast(int, value)) % count for name, value in node.arguments.items() if "0" in name or "1" in name
    ]
    order = list(range(count))
    order[one], order[two] = two, one
    return tuple(axes[place] for place in order)


def _taken(
    order: Sequence[int], parts: Sequence[int], wanted: Size
) -> tuple[list[int] | None, tuple[int, int] | None]:
    """The parts, from the first on, that fill an axis; and which part has to be cut first, into how many and the rest.

    None where the numbers do not fit.
    """
    size, has_examples = wanted
    axis: list[int] = []
    for number in order:
        if size == 1 and has_examples == (BATCH in axis):
            break
        if number == BATCH:
            if not has_examples:
                return None, None
        elif size % parts[number - 1] == 0:
            size //= parts[number - 1]
        elif parts[number - 1] % size == 0 and size > 1:
            return [], (number, size)
        else:
            return None, None
        axis.append(number)
    return (axis, None) if size == 1 and has_examples == (BATCH in axis) else (None, None)


def _with_two(order: Sequence[int], number: int) -> list[int]:
    """Numbers of parts, where the part with this number has become two."""
    made: list[int] = []
    for each in order:
        made += [each, each + 1] if each == number else [each + (each > number)]
    return made


def _renumbered(axes: Sequence[tuple[int, ...]], order: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The axes where parts lie in another order: part order[i] is number i + 1."""
    place = {number: position + 1 for position, number in enumerate(order)} | {BATCH: BATCH}
    return tuple(tuple(place[number] for number in axis) for axis in axes)


def _is_by_row(node: Node, axes: int) -> bool:
    """Whether the operation does to each row of features the same, whatever lies before them."""
    kind, arguments = kind_of(node), node.arguments
    if kind == "softmax":
        return arguments.get("dtype") is None and cast(int, arguments["dim"]) in (-1, axes - 1)
    if kind == "layer_norm":
        return len(cast("Sequence[int]", arguments["normalized_shape"])) == 1
    return all(value.ndim < 2 for value in arguments.values() if isinstance(value, torch.Tensor))


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
