"""A network that was exported for any length, at one length: sizes become numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx

from zeroskip.graph.exporting import Exported


def of_length(
    exported: Exported, axes: Sequence[Sequence[int]], shapes: Sequence[torch.Size]
) -> Exported | None:
    """The network for inputs of these shapes, which differ from those it was exported with in `axes` alone.

    None where torch.export found that the network has no such length.
    """
    sizes: dict[Any, int] = {}  # symbol -> number
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
    for node in list(graph.nodes):
        _with_numbers_(node, sizes)
    return replace(exported, own=graph)


def _with_numbers_(node: fx.Node, sizes: Mapping[Any, int]) -> None:
    """Put numbers in place of the value, where it is a size of these; else into its announced shape."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        node.meta = {**node.meta, "val": _of_shape(value, sizes)}
        return
    number = _number(value, sizes)
    if node.op != "call_function" or number is None:
        return
    for user in list(node.users):
        user.args = cast("Any", fx.map_arg(user.args, lambda known: number if known is node else known))
        user.kwargs = cast("Any", fx.map_arg(user.kwargs, lambda known: number if known is node else known))
    node.graph.erase_node(node)


def _number(value: object, sizes: Mapping[Any, int]) -> int | bool | None:
    """The size or condition as a number; None where it depends on more."""
    if not isinstance(value, (torch.SymInt, torch.SymBool)):
        return None
    found = value.node.expr.subs(sizes)
    if isinstance(value, torch.SymBool):
        return bool(found) if found in (True, False) else None
    return int(found) if found.is_number else None


def _of_shape(value: Tensor, sizes: Mapping[Any, int]) -> Tensor:
    """The announced value with numbers for these sizes."""
    symbols: list[Any] = [size for size in value.shape if isinstance(size, torch.SymInt)]
    if not any(size.node.expr.free_symbols & sizes.keys() for size in symbols):
        return value
    with value.fake_mode:  # type: ignore[attr-defined]
        return torch.empty([_size(size, sizes) for size in value.shape], dtype=value.dtype)


def _size(size: int | torch.SymInt, sizes: Mapping[Any, int]) -> int | torch.SymInt:
    if not isinstance(size, torch.SymInt):
        return size
    found = size.node.expr.subs(sizes)
    return int(found) if found.is_number else size.node.shape_env.create_symintnode(found, hint=None)
