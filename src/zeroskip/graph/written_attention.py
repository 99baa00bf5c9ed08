"""Attention that is written out, as products and a softmax, becomes the one operation of torch that it is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from zeroskip.graph.attention_masks import UNSEEN
from zeroskip.graph.nodes import Graph, Node, kind_of
from zeroskip.graph.rebinding import free, given, made, needed, slot_of
from zeroskip.graph.torch_operations import Argument, Bound, Slot

ATEN = torch.ops.aten
HEADS_PLACES_FEATURES = 3  # axes of one example
PRODUCTS = ("matmul", "bmm")
ALIKE = ("contiguous", "clone", "alias", "detach", "to", "type_as", "view", "reshape", "expand")


@dataclass(frozen=True)
class _Mask:
    """What is added to scores: a value or a constant; of truth values `fill` where they are `where`, else 0."""

    value: str | Tensor
    fill: float | None = None
    where: bool = True


@dataclass(frozen=True)
class _Scores:
    """scale x queries keys^T + masks; `keys` is the transposed one."""

    queries: str
    keys: str
    scale: float = 1.0
    masks: tuple[_Mask, ...] = ()


def with_attention(graph: Graph) -> Graph:
    """The graph with attention as one operation, wherever it is written as products around a softmax.

    >>> with_attention(graph) == graph  # nothing attends
    True
    """
    if not any(kind_of(node) == "softmax" for node in graph.nodes):
        return graph
    writing = _Writing(graph)
    for node in graph.nodes:
        writing.read(node)
    return replace(graph, nodes=needed(writing.nodes, graph.outputs)) if writing.found else graph


class _Writing:
    """The nodes written so far, and what is added to scores, which layers share."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Node] = []
        self.found = False
        self._known = {node.name: node for node in graph.nodes}
        self._shapes = {each.name: each.shape for each in graph.inputs if each.has_batch}
        self._shapes |= {node.name: node.shape for node in graph.nodes if node.shape is not None}
        self._reads = Counter([*graph.outputs, *(name for node in graph.nodes for name in node.inputs)])
        self._taken = {*graph.names, *self._known}
        self._sums: dict[tuple[object, ...], str] = {}

    def read(self, node: Node) -> None:
        attention = self._attention(node)
        self.found = self.found or attention is not None
        self.nodes.append(attention or node)

    def _attention(self, node: Node) -> Node | None:
        if kind_of(node) not in PRODUCTS or len(node.inputs) != 2 or node.dtype is not torch.float32:
            return None
        softmax = self._alone(node.inputs[0])
        if (
            softmax is None
            or kind_of(softmax) != "softmax"
            or softmax.arguments.get("dtype") not in (None, torch.float32)
        ):
            return None
        axes = len(softmax.shape or ()) + 1
        if cast(int, softmax.arguments["dim"]) not in (-1, axes - 1) or axes not in (3, 4, 5):
            return None
        scores = self._scores(softmax.inputs[0])
        fits = scores is not None and all(
            len(self._shapes.get(name) or ()) == axes - 1
            for name in (scores.queries, scores.keys, node.inputs[1])
        )
        return self._written(node, scores) if scores is not None and fits else None

    def _alone(self, name: str) -> Node | None:
        """The node that makes a value, behind others that change no number; None where more than one reads it."""
        node = self._known.get(name)
        while node is not None and self._reads[node.name] == 1:
            before = self._known.get(node.inputs[0]) if node.inputs else None
            if (
                kind_of(node) not in ALIKE
                or before is None
                or before.shape != node.shape
                or before.dtype != node.dtype
            ):
                return node
            node = before
        return None

    def _scores(self, name: str) -> _Scores | None:
        node = self._alone(name)
        if node is None or node.shape is None or node.dtype is not torch.float32:
            return None
        kind = kind_of(node)
        if kind in PRODUCTS:
            return _Scores(*node.inputs) if len(node.inputs) == 2 else None
        if kind in ("mul", "div"):
            return self._scaled(node)
        if kind == "add" and node.arguments.get("alpha", 1) == 1:
            return self._with_sum(node)
        if kind == "masked_fill":
            return self._filled(node, "self", "mask", given(node, "value"))
        if kind == "where":
            return self._filled(node, "self", "condition", given(node, "other"))
        return None

    def _scaled(self, node: Node) -> _Scores | None:
        factor, scores = _number(given(node, "other")), self._scores(node.inputs[0])
        if slot_of(node, "self") is None:
            factor = _number(given(node, "self")) if kind_of(node) == "mul" else None
        if scores is None or factor is None or scores.masks:
            return None
        if len(node.inputs) != 1 or node.arguments.get("rounding_mode"):
            return None
        return replace(scores, scale=scores.scale * (factor if kind_of(node) == "mul" else 1 / factor))

    def _with_sum(self, node: Node) -> _Scores | None:
        for name in node.inputs:
            scores = self._scores(name)
            others = [each for each in node.inputs if each != name]
            fixed = [value for value in node.arguments.values() if isinstance(value, Tensor)]
            added = others[0] if others else fixed[0] if fixed else None
            if (
                scores is not None
                and added is not None
                and (isinstance(added, Tensor) or added in self._shapes)
            ):
                return replace(scores, masks=(*scores.masks, _Mask(added)))
        return None

    def _filled(self, node: Node, scores: str, mask: str, fill: Argument) -> _Scores | None:
        """Scores, but a number far below all others where a mask of truth values is true (or is not, in `where`)."""
        slot, number = slot_of(node, scores), _number(fill)
        found = None if slot is None else self._scores(node.inputs[slot])
        if found is None or number is None or number > UNSEEN:
            return None
        place, constant = slot_of(node, mask), given(node, mask)
        value = constant if isinstance(constant, Tensor) else None if place is None else node.inputs[place]
        if value is None or (isinstance(value, str) and value not in self._shapes):
            return None
        return replace(found, masks=(*found.masks, _Mask(value, number, kind_of(node) == "masked_fill")))

    def _written(self, node: Node, scores: _Scores) -> Node | None:
        shape = cast("tuple[int, ...]", node.shape)
        names = [scores.queries, self._transposed(scores.keys), node.inputs[1]]
        mask = self._mask(scores.masks)
        if len(shape) <= HEADS_PLACES_FEATURES:
            return self._attending(node.name, names, (mask, scores.scale), shape)
        if isinstance(mask, str):
            return None
        # Windows and their heads are heads to torch, which takes four times as long for five axes.
        names = [self._joined(name) for name in names]
        if mask is not None and math.prod(mask.shape[:-2]) > 1:
            count = shape[0] * shape[1]
            mask = mask.expand(1, *shape[:2], *mask.shape[-2:]).reshape(1, count, *mask.shape[-2:])
        inner = self._attending("windows", names, (mask, scores.scale), (shape[0] * shape[1], *shape[2:]))
        name = self._once((node.name, "attention"), inner)
        return made(node.name, Bound(ATEN.reshape.default, [Slot(0), [-1, *shape]], {}), [name], shape)

    def _joined(self, name: str) -> str:
        first, second, *rest = self._shapes[name]
        shape = first * second, *rest
        bound = Bound(ATEN.reshape.default, [Slot(0), [-1, *shape]], {})
        return self._once(("joined", name), made(f"{name}_heads", bound, [name], shape))

    def _attending(
        self, name: str, read: list[str], added: tuple[str | Tensor | None, float], shape: tuple[int, ...]
    ) -> Node:
        mask, scale = added
        distinct = list(dict.fromkeys([*read, *([mask] if isinstance(mask, str) else [])]))
        slots: list[Argument] = [Slot(distinct.index(each)) for each in read]
        given_mask: Argument = Slot(distinct.index(mask)) if isinstance(mask, str) else mask
        bound = Bound(
            ATEN.scaled_dot_product_attention.default, [*slots, given_mask, 0.0, False], {"scale": scale}
        )
        return made(name, bound, distinct, shape)

    def _transposed(self, name: str) -> str:
        """The value with its last two axes in the other order."""
        node = self._known.get(name)
        if node is not None and kind_of(node) == "transpose":
            axes = len(node.shape or ()) + 1
            dims = {cast(int, node.arguments[each]) % axes for each in ("dim0", "dim1")}
            if dims == {axes - 1, axes - 2}:
                return node.inputs[0]
        *first, rows, columns = self._shapes[name] or ()
        bound = Bound(ATEN.transpose.int, [Slot(0), -1, -2], {})
        return self._once(("transposed", name), made("keys", bound, [name], (*first, columns, rows)))

    def _mask(self, masks: tuple[_Mask, ...]) -> str | Tensor | None:
        """The sum of all that is added: a constant, or a value where a part of it changes."""
        fixed = [_numbers(each) for each in masks if isinstance(each.value, Tensor)]
        changing = [self._as_numbers(each) for each in masks if isinstance(each.value, str)]
        constant = None if not fixed else sum(fixed[1:], fixed[0])
        if not changing:
            return constant
        total = changing[0]
        for other in changing[1:]:
            shape = torch.broadcast_shapes(self._shapes[total], self._shapes[other])
            bound = Bound(ATEN.add.Tensor, [Slot(0), Slot(1)], {})
            total = self._once(("sum", total, other), made("mask", bound, [total, other], tuple(shape)))
        if constant is None:
            return total
        shape = torch.broadcast_shapes((1, *(self._shapes[total] or ())), constant.shape)[1:]
        bound = Bound(ATEN.add.Tensor, [Slot(0), constant], {})
        key = "sum", total, tuple(constant.shape), constant.data_ptr()
        return self._once(key, made("mask", bound, [total], tuple(shape)))

    def _as_numbers(self, mask: _Mask) -> str:
        assert isinstance(mask.value, str)
        if mask.fill is None:
            return mask.value
        ends: list[Argument] = [mask.fill, 0.0] if mask.where else [0.0, mask.fill]
        bound = Bound(ATEN.where.Scalar, [Slot(0), *ends], {})
        return self._once(
            ("numbers", mask.value, mask.fill, mask.where),
            made("mask", bound, [mask.value], self._shapes[mask.value]),
        )

    def _once(self, key: tuple[object, ...], node: Node) -> str:
        if key not in self._sums:
            name = self._sums[key] = free(node.name, self._taken)
            self.nodes.append(replace(node, name=name))
            if node.shape is not None:
                self._shapes[name] = node.shape
        return self._sums[key]


def _numbers(mask: _Mask) -> Tensor:
    assert isinstance(mask.value, Tensor)
    if mask.fill is None:
        return mask.value.float()
    return torch.where(mask.value if mask.where else ~mask.value, mask.fill, 0.0)


def _number(argument: Argument) -> float | None:
    if isinstance(argument, Tensor) and argument.numel() == 1:
        return float(argument)
    is_number = isinstance(argument, (int, float)) and not isinstance(argument, bool)
    return float(cast(float, argument)) if is_number else None
