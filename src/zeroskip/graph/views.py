"""Tensors seen as views of values that have the examples first: which parts of the value their axes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from zeroskip.graph.nodes import Node, kind_of

Size = tuple[int, bool]
"""Places along an axis of a tensor, and whether there are so many for each example."""

BATCH = 0


@dataclass(frozen=True)
class Viewed:
    """A tensor that holds the numbers of a value with the examples first, seen with other axes.

    base         the value
    parts        sizes into which the axes of one example of it are cut, in order
    axes         of the tensor: for each the numbers of its parts, from 1 on; the examples are BATCH
    is_computed  whether operations were done with the examples first; else it is a view of a value of the network
    """

    base: str
    parts: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    is_computed: bool = True


def reshaped(x: Viewed, wanted: Sequence[Size] | None) -> Viewed | None:
    """The value with other axes for the same numbers in the same order; None where its parts cannot be cut so.

    >>> reshaped(Viewed("x", (6, 4), ((BATCH,), (1,), (2,))), [(6, True), (2, False), (2, False)]).axes
    ((0, 1), (2,), (3,))
    """
    if wanted is None:
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
    if any(parts[number - 1] > 1 for number in order if number):
        return None
    return without_ones(replace(x, parts=tuple(parts), axes=tuple(axes)))


def without_ones(x: Viewed) -> Viewed:
    """The same without parts of one place."""
    kept = [number for number, size in enumerate(x.parts, 1) if size > 1]
    axes = tuple(tuple(number for number in axis if number == BATCH or number in kept) for axis in x.axes)
    return replace(x, parts=tuple(x.parts[number - 1] for number in kept), axes=renumbered(axes, kept))


def sizes_of(x: Viewed) -> list[int]:
    """The places along each axis of the tensor, those of one example."""
    return [math.prod(x.parts[number - 1] for number in axis if number) for axis in x.axes]


def is_inside(x: Viewed) -> bool:
    """Whether the examples do not come first in the first axis, with something else behind them."""
    return x.axes[0][:1] != (BATCH,) or len(x.axes[0]) < 2


def permuted_axes(axes: tuple[tuple[int, ...], ...], node: Node) -> tuple[tuple[int, ...], ...]:
    """The axes in the order that a node gives them: it permutes them, or swaps two."""
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


def renumbered(axes: Sequence[tuple[int, ...]], order: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The axes where parts lie in another order: part order[i] is number i + 1."""
    place = {number: position + 1 for position, number in enumerate(order)} | {BATCH: BATCH}
    return tuple(tuple(place[number] for number in axis) for axis in axes)
