"""A network exported once for any length of its inputs, captured at one: sizes become numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from zeroskip.graph.capture import captured, quiet
from zeroskip.graph.exporting import Exported, export_for_lengths
from zeroskip.graph.inputs import Given, Inputs, of
from zeroskip.graph.layers import evaluating
from zeroskip.graph.nodes import Graph
from zeroskip.graph.signature import signature_of
from zeroskip.graph.undisturbed import undisturbed

Symbol: TypeAlias = Any
"""A size that torch.export left free: sympy's, which is slow to import and has no types."""


def capture_lengths(
    model: nn.Module, example: Given | Inputs, axes: Sequence[Sequence[int]]
) -> Callable[[Given | Inputs], Graph | None] | None:
    """A function: a batch of another length -> what `capture` makes of it, without exporting the network again.

    axes  those of each tensor that have the length; None where torch.export cannot leave them free, and for lengths
          that it finds impossible

    >>> at = capture_lengths(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 5, 4), [[1]])
    >>> at(torch.zeros(2, 7, 4)).inputs[0].shape
    (7, 4)
    """
    inputs = of(example)
    signature = signature_of(model, inputs)
    tensors = signature.tensors(inputs.args, inputs.kwargs)
    with evaluating(model), undisturbed(model), quiet():
        exported = export_for_lengths(model, signature, tensors, inputs, axes)
    if exported is None:
        return None

    def at(other: Given | Inputs) -> Graph | None:
        given = of(other)
        there = signature.tensors(given.args, given.kwargs)
        with evaluating(model), undisturbed(model), quiet():
            one = _of_length(exported, axes, [tensor.shape for tensor in there])
            return None if one is None else captured(model, one, signature, there, fold=True)

    return at


def _of_length(
    exported: Exported, axes: Sequence[Sequence[int]], shapes: Sequence[torch.Size]
) -> Exported | None:
    """The network for inputs of these shapes, which differ from those it was exported with in `axes` alone.

    None where torch.export found that the network has no such length.
    """
    sizes: dict[Symbol, int] = {}
    for node, several, shape in zip(exported.inputs, axes, shapes, strict=True):
        for axis in several:
            symbol = node.meta["val"].shape[axis].node.expr
            if not symbol.is_symbol or sizes.setdefault(symbol, shape[axis]) != shape[axis]:
                return None
    ranges = exported.program.range_constraints
    # torch.export takes 2 for the least size; whether the operations hold for 1 as well is seen when they run.
    if any(symbol in ranges and size > 1 and size not in ranges[symbol] for symbol, size in sizes.items()):
        return None
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(exported.graph, copies))
    announced: dict[tuple[object, ...], Tensor] = {}
    for node in list(graph.nodes):
        _with_numbers_(node, sizes, announced)
    return replace(exported, own=graph)


def _with_numbers_(
    node: fx.Node, sizes: Mapping[Symbol, int], announced: dict[tuple[object, ...], Tensor]
) -> None:
    """Put numbers in place of the value, where it is a size of these; else into its announced shape.

    `announced` values are kept by shape and type: to make one takes a millisecond.
    """
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        key = (*map(_expression, value.shape), value.dtype)
        if key not in announced:
            announced[key] = _of_shape(value, sizes)
        node.meta = {**node.meta, "val": announced[key]}
        return
    number = _number(value, sizes)
    if node.op != "call_function" or number is None:
        return

    def put(known: fx.Node) -> fx.node.Argument:
        return number if known is node else known

    for user in list(node.users):
        user.args = fx.map_arg(user.args, put)
        user.kwargs = fx.map_arg(user.kwargs, put)
    node.graph.erase_node(node)


def _number(value: object, sizes: Mapping[Symbol, int]) -> int | bool | None:
    """The size or condition as a number; None where it depends on more."""
    if not isinstance(value, (torch.SymInt, torch.SymBool)):
        return None
    found = value.node.expr.subs(sizes)
    if isinstance(value, torch.SymBool):
        return bool(found) if found in (True, False) else None
    return int(found) if found.is_number else None


def _of_shape(value: Tensor, sizes: Mapping[Symbol, int]) -> Tensor:
    """The announced value with numbers for these sizes."""
    symbols: list[Symbol] = [size for size in value.shape if isinstance(size, torch.SymInt)]
    if not any(size.node.expr.free_symbols & sizes.keys() for size in symbols):
        return value
    with value.fake_mode:  # type: ignore[attr-defined]
        return torch.empty([_size(size, sizes) for size in value.shape], dtype=value.dtype)


def _size(size: int | torch.SymInt, sizes: Mapping[Symbol, int]) -> int | torch.SymInt:
    if not isinstance(size, torch.SymInt):
        return size
    found = size.node.expr.subs(sizes)
    return int(found) if found.is_number else size.node.shape_env.create_symintnode(found, hint=None)


def _expression(size: int | torch.SymInt) -> object:
    return size.node.expr if isinstance(size, torch.SymInt) else size
