"""Parts of a value along an axis of its tensor, channels in another order: the simplest rearrangements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import cast

import torch

from zeroskip.graph import Node
from zeroskip.graph.exporting import END
from zeroskip.graph.nodes import kind_of
from zeroskip.graph.rebinding import made
from zeroskip.graph.torch_operations import Bound, Slot
from zeroskip.run.convolution.tiles.forms import Atom, Form, MapShape, channels_first, sequence
from zeroskip.run.convolution.tiles.node_operations import Operations, plain
from zeroskip.run.convolution.tiles.operations import Movement, Operation
from zeroskip.run.convolution.tiles.values import MapValue

Places = Sequence[int]
"""For each place of a value's axis its place in the source; -1: it has none."""


def slice_of(node: Node, x: MapValue, dim: int, places: Places) -> Operations:
    """The places of x along one axis of its tensor, as the value of the node."""
    shape = node.shape
    if shape is None or 0 in shape or not 0 <= dim < len(x.form.axes):
        return ()
    axis = axis_at(x, dim)
    if axis is None:
        return _slice_of_channels(node, x, dim, places)
    taken = {"c": range(x.shape[0]), "h": range(x.shape[1]), "w": range(x.shape[2])} | {axis: places}
    made = tuple(len(taken[name]) for name in "chw")
    form = x.form.with_axis(dim, axis, len(places))
    return (
        moved(
            node, x, MadeMap((made[0], made[1], made[2]), form), [movement(*(taken[name] for name in "chw"))]
        ),
    )


def place_of(node: Node, x: MapValue, dim: int, place: int) -> Operations:
    """The numbers of x at one place of an axis of its tensor, without that axis, as the value of the node."""
    taken = slice_of(node, x, dim, [place])
    if not taken or taken[-1].form is None:
        return ()
    axes = taken[-1].form.axes
    return (replace(taken[-1], form=Form((*axes[:dim], *axes[dim + 1 :]))),)


def _slice_of_channels(node: Node, x: MapValue, dim: int, places: Places) -> Operations:
    """The places along an axis of the tensor that is a part of the channels, such as heads, or features of a head."""
    atoms = x.form.axes[dim]
    if len(atoms) != 1 or atoms[0].axis != "c":
        return ()
    ((_, size, step),) = atoms
    outer, kept = x.shape[0] // (size * step), len(places)
    taken = [(o * size + p) * step + i for o in range(outer) for p in places for i in range(step)]
    axes = [
        tuple(
            Atom("c", each.size, each.step // size * kept) if each.axis == "c" and each.step > step else each
            for each in axis
        )
        for axis in x.form.axes
    ]
    axes[dim] = (Atom("c", kept, step),) if kept > 1 else ()
    made = MadeMap((len(taken), *x.shape[1:]), Form(tuple(axes)))
    return (moved(node, x, made, [movement(taken, range(x.shape[1]), range(x.shape[2]))]),)


def parts_of(node: Node, length: int) -> list[range]:
    """The places of an axis of that length that each part has which the node cuts."""
    arguments = node.arguments
    if kind_of(node) == "unbind":
        return [range(place, place + 1) for place in range(length)]
    sizes = arguments.get("split_sizes", arguments.get("split_size", arguments.get("chunks")))
    if kind_of(node) == "chunk":
        sizes = -(-length // int(cast(int, sizes)))
    if isinstance(sizes, int):
        return [range(start, min(start + sizes, length)) for start in range(0, length, sizes)]
    ends = [0, *accumulate(cast("list[int]", sizes))]
    return [range(start, end) for start, end in pairwise(ends)]


def is_whole_batch(node: Node) -> bool:
    """Whether the node is a slice of all examples, as `x[:, 1:]` begins with one."""
    arguments = node.arguments
    begins = kind_of(node) == "slice" and arguments.get("dim") == 0 and not arguments.get("start")
    whole = arguments.get("step", 1) == 1 and arguments.get("end") in (None, END)
    return bool(begins and whole)


def as_slice(node: Node, source: str, dim: int, places: range) -> Node:
    """The node as the slice of a value that it is, along an axis of a tensor of all examples."""
    bound = Bound(torch.ops.aten.slice.Tensor, [Slot(0), dim, places.start, places.stop, 1], {})
    return made(node.name, bound, [source], node.shape, node.dtype)


def channels_in_order(node: Node, x: MapValue) -> Operation | None:
    """What puts the channels of x, whose tensor has them in another order, into that order; None if none is needed."""
    form = x.form
    dims = [dim for dim, axis in enumerate(form.axes) if any(atom.axis == "c" for atom in axis)]
    if len(dims) != 1 or form.holds(dims[0], "c") or not form.only(dims[0], "c"):
        return None
    order = _places(form.axes[dims[0]])
    made = MadeMap(x.shape, form.with_axis(dims[0], "c", x.shape[0]))
    return moved(node, x, made, [movement(order, range(x.shape[1]), range(x.shape[2]))])


def axis_at(x: MapValue, dim: int) -> str | None:
    """The axis of the map that the tensor's axis is, the whole of it; None where it is none alone, or the batch."""
    if not 0 <= dim < len(x.form.axes):
        return None
    if x.form.axes[dim]:
        return next((name for name in "chw" if x.form.holds(dim, name)), None)
    # An axis of size 1 is known by its place only.
    named = {channels_first(x.shape): "chw", sequence(x.shape[0], x.shape[2]): "cw"}.get(x.form)
    return None if named is None else named[dim]


@dataclass(frozen=True)
class MadeMap:
    """The map that is made, and the form of its tensor."""

    shape: MapShape
    form: Form


def movement(channels: Places, rows: Places, columns: Places) -> Movement:
    """That of whole channels, rows and columns."""
    return Movement(tuple(range(len(channels))), tuple(channels), tuple(rows), tuple(columns))


def moved(
    node: Node, x: MapValue, made: MadeMap, movements: Sequence[Movement], fill: float = 0.0
) -> Operation:
    """The operation that makes the node's value by moving numbers of x; `fill` is where none come."""
    return replace(plain(node, "rearrange", x, made.shape, made.form), movements=tuple(movements), fill=fill)


def _places(axis: tuple[Atom, ...]) -> list[int]:
    """The place in the map of each place of a tensor's axis."""
    places = [0]
    for atom in axis:
        places = [place + atom.step * number for place in places for number in range(atom.size)]
    return places
