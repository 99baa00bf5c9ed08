"""Values whose numbers are sums of a few numbers of one map, each times a constant, plus a constant.

Rotary embeddings are such, however they are written: slices, negations, concatenations, products with tables and
sums. So are a class token in front of others, and positions that are added. What the operations do to numbers, they
do here to the numbers' places and weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from zeroskip.graph import Node
from zeroskip.graph.nodes import kind_of
from zeroskip.run.convolution.tiles.forms import Atom, Form, MapShape, from_map, to_map
from zeroskip.run.convolution.tiles.operations import Mixing, Movement, Operation
from zeroskip.run.convolution.tiles.values import SAME, VIEWS, MapValue

LARGEST = 1 << 22  # numbers of a value of one example
MOST = 3  # numbers of one pixel that are added up
MOVING = (
    *VIEWS, *(name for name in SAME if not name.startswith("_")),
    "slice", "narrow", "select", "cat", "concat", "concatenate", "stack", "flip", "type_as", "to", "expand",
)  # fmt: skip
MIXING = (*MOVING, "neg", "mul", "multiply", "div", "add", "sub")


@dataclass(frozen=True)
class Mixture:
    """A tensor (of one example) whose numbers are sums over terms of weight x a number of a map, plus shift.

    base      the map; None where there is only shift
    places    for each term the number of what it takes in the map, from 1 on, as float64, which holds them exactly; 0
              where the term takes nothing
    weights   for each term, of the tensor's shape, float64
    shift     of the tensor's shape, float64
    """

    base: MapValue | None
    places: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    shift: Tensor


def of_map(value: MapValue) -> Mixture:
    """A map as a mixture of itself."""
    count = math.prod(value.shape)
    places = from_map(value.form, torch.arange(1, count + 1, dtype=torch.float64).reshape(1, *value.shape))[0]
    return Mixture(value, (places,), (torch.ones_like(places),), torch.zeros_like(places))


def constant(value: Tensor) -> Mixture:
    """Numbers that are the same for all examples."""
    return Mixture(None, (), (), value.double())


def mixed(node: Node, inputs: Sequence[Mixture | None]) -> Mixture | None:
    """The node's value as a mixture, from those of its inputs; None for an input that is only a size. None for others."""
    kind, known = kind_of(node), [each for each in inputs if each is not None]
    shape = node.shape
    if kind not in MIXING or shape is None or math.prod(shape) > LARGEST or "_." in node.op:
        return None
    if not known:
        return constant(node.function(*(1 for _ in inputs))[0]) if kind == "expand" else None
    bases = {each.base for each in known if each.base is not None}
    if len(bases) > 1:
        return None
    base = next(iter(bases), None)
    if kind in ("neg", "mul", "multiply", "div"):
        made = _scaled(node, kind, known)
    elif kind in ("add", "sub"):
        made = _summed(node, kind, known)
    else:
        made = _moved(node, inputs)
    fits = made is not None and made.shift.shape == shape and len(made.places) <= 2 * MOST
    return replace(cast(Mixture, made), base=base) if fits else None


def _scaled(node: Node, kind: str, known: Sequence[Mixture]) -> Mixture | None:
    factor = -1.0 if kind == "neg" else _constant(node)
    first = "other" not in node.arguments
    if factor is None or len(known) != 1 or (kind == "div" and (first or node.arguments.get("rounding_mode"))):
        return None
    (x,), shape = known, cast("tuple[int, ...]", node.shape)

    def times(value: Tensor) -> Tensor:
        made = value / factor if kind == "div" else value * factor
        return made.reshape(made.shape[made.ndim - len(shape) :]) if made.ndim > len(shape) else made

    if not _is_for_all(factor, shape) or any(times(each).shape != shape for each in (*x.weights, x.shift)):
        return None
    return replace(x, weights=tuple(map(times, x.weights)), shift=times(x.shift))


def _summed(node: Node, kind: str, known: Sequence[Mixture]) -> Mixture | None:
    if node.arguments.get("alpha", 1) != 1 or len(node.inputs) > 2:
        return None
    sign, shape = (1.0 if kind == "add" else -1.0), cast("tuple[int, ...]", node.shape)
    if len(known) == 1:
        number = _constant(node)
        if number is None or not _is_for_all(number, shape) or len(node.inputs) != 1:
            return None
        (x,) = known
        added = number.double() if isinstance(number, Tensor) else torch.tensor(number, dtype=torch.float64)
        added = added.reshape(added.shape[max(0, added.ndim - len(shape)) :])
        is_first = "other" not in node.arguments  # the constant less the value
        mine, theirs = (sign, 1.0) if is_first and kind == "sub" else (1.0, sign)
        shift = mine * x.shift + theirs * added
        return replace(x, weights=tuple(mine * each for each in x.weights), shift=shift)
    x, other = known
    if any(each.shift.shape != shape for each in known):
        return None
    weights = (*x.weights, *(sign * each for each in other.weights))
    return Mixture(None, (*x.places, *other.places), weights, x.shift + sign * other.shift)


def _moved(node: Node, inputs: Sequence[Mixture | None]) -> Mixture | None:
    """Numbers in other places: what the operation does to numbers is done to their places, weights and shifts."""
    terms = max(len(each.places) for each in inputs if each is not None)

    def done(parts: Callable[[Mixture], Tensor]) -> Tensor:
        values = [1 if each is None else parts(each)[None] for each in inputs]
        return cast(Tensor, node.function(*values))[0]

    def term(number: int, kind: str) -> Callable[[Mixture], Tensor]:
        return lambda each: (
            getattr(each, kind)[number] if number < len(each.places) else torch.zeros_like(each.shift)
        )

    # Constants among what is put side by side are part of the shift alone.
    rest = done(lambda each: torch.zeros_like(each.shift))
    places = tuple(done(term(number, "places")) - rest for number in range(terms))
    weights = tuple(done(term(number, "weights")) - rest for number in range(terms))
    return Mixture(None, places, weights, done(lambda each: each.shift))


def _constant(node: Node) -> float | Tensor | None:
    value = node.arguments.get("other", node.arguments.get("self"))
    if isinstance(value, Tensor):
        return value.detach().double() if value.dtype is torch.float32 else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_for_all(value: float | Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a constant is the same for all examples of a value of that shape."""
    return not isinstance(value, Tensor) or value.ndim <= len(shape) or (value.ndim == len(shape) + 1 and len(value) == 1)


def operations_of_mixture(node: Node, mixture: Mixture) -> tuple[Operation, ...]:
    """The operations that make the node's value of the map; none where they cannot be made on tiles."""
    base = mixture.base
    if base is None or not mixture.places:
        return ()
    places = torch.stack(mixture.places).round().long()  # (terms, *shape)
    taken, pixels = places > 0, base.shape[1] * base.shape[2]
    channel, pixel = (places - 1).clamp(min=0) // pixels, (places - 1).clamp(min=0) % pixels
    where = _pixels(pixel, taken)
    found = None if where is None else _target(where, base)
    if found is None or where is None:
        return ()
    shape, form = found

    def as_map(value: Tensor) -> Tensor:
        return to_map(form, shape, value[None])[0]

    source = as_map(where)[0]  # (height, width): the pixel that each comes from; -1: from none
    channels = torch.stack([as_map(each) for each in channel])
    weights = torch.stack([as_map(each) for each in mixture.weights])
    sources = _sources(channels, weights)
    if sources is None:
        return ()
    parts, shift = sources, as_map(mixture.shift)
    same = shape[1:] == base.shape[1:] and _is_in_place(source)
    plain = len(parts) == 1 and not bool(shift.any()) and bool((parts[0][1] == (source >= 0)).all())
    made = Operation(node.name, "rearrange", (base.base,), shape, (node.name,), form=form)
    if plain:
        return (replace(made, movements=_movements(tuple(parts[0][0].tolist()), source, base.shape)),)
    mixing = Mixing(
        tuple(tuple(each.tolist()) for each, _ in parts), tuple(each.float() for _, each in parts),
        shift.float() if bool(shift.any()) else None,
    )  # fmt: skip
    last = replace(made, kind="mix", mixing=mixing)
    if same:
        return (last,)
    between = replace(
        made, name=f"{node.name}.moved", shape=(base.shape[0], *shape[1:]), form=None,
        movements=_movements(tuple(range(base.shape[0])), source, base.shape),
    )  # fmt: skip
    return between, replace(last, inputs=(between.name,))


def _pixels(pixel: Tensor, taken: Tensor) -> Tensor | None:
    """The pixel of the map from which each number of the tensor comes, -1: none; None where it comes from several."""
    least = torch.where(taken, pixel, pixel.max() + 1).amin(0)
    most = torch.where(taken, pixel, -1).amax(0)
    return torch.where(most >= 0, least, -1) if bool(((least == most) | (most < 0)).all()) else None


def _target(where: Tensor, base: MapValue) -> tuple[MapShape, Form] | None:
    """The map that the tensor holds: axes along which the pixel changes are its places, the others its channels."""
    axes = range(where.ndim)
    first = [where.amax(dim=axis, keepdim=True) for axis in axes]
    varies = [bool(((where != most) & (where >= 0)).any()) or not _is_even(where, axis) for axis, most in enumerate(first)]
    rows = [axis for axis in axes if varies[axis]]
    if len(rows) > 2 or (len(rows) == 2 and not _is_grid(where, rows)):
        return None
    sizes = [where.shape[axis] for axis in axes]
    height, width = [1, 1, *(sizes[axis] for axis in rows)][-2:]
    channels = math.prod(sizes[axis] for axis in axes if axis not in rows)
    left, form = channels, []
    for axis in axes:
        if axis in rows:
            name = "h" if len(rows) == 2 and axis == rows[0] else "w"
            form.append((Atom(name, sizes[axis], 1),))
            continue
        left //= sizes[axis]
        form.append((Atom("c", sizes[axis], left),) if sizes[axis] > 1 else ())
    whole = where.amax(dim=[axis for axis in axes if axis not in rows], keepdim=True) if channels > 1 else where
    fits = bool(((where == whole) | (where < 0)).all())
    return ((channels, height, width), Form(tuple(form))) if fits else None


def _is_even(where: Tensor, axis: int) -> bool:
    """Whether the numbers along an axis come from a pixel all, or none of them."""
    some = where >= 0
    return bool((some.any(axis) == some.all(axis)).all())


def _is_grid(where: Tensor, rows: Sequence[int]) -> bool:
    """Whether both axes of places lie in the order of the map; only then are rows and columns their places."""
    return rows[0] < rows[1]


def _is_in_place(source: Tensor) -> bool:
    """Whether each pixel comes from its own place, or from none."""
    own = torch.arange(source.numel()).reshape(source.shape)
    return bool(((source == own) | (source < 0)).all())


def _sources(channels: Tensor, weights: Tensor) -> list[tuple[Tensor, Tensor]] | None:
    """For up to MOST terms: (channels,) the channel each takes from, (channels, height, width) the weights of it."""
    found: list[tuple[Tensor, Tensor]] = []
    left = weights != 0  # (terms, channels, height, width)
    while bool(left.any()):
        if len(found) == MOST:
            return None
        each = torch.where(left, channels, -1).amax((0, 2, 3))
        mine = left & (channels == each[None, :, None, None])
        found.append((each.clamp(min=0), torch.where(mine, weights, 0).sum(0)))
        left = left & ~mine
    return found or None


def _movements(channels: tuple[int, ...], source: Tensor, base: MapShape) -> tuple[Movement, ...]:
    """What brings pixels into their places: source (height, width) are the numbers of the pixels that they come from."""
    targets, width = tuple(range(len(channels))), base[2]
    rows, columns = source // width, source % width
    row = torch.where(source >= 0, rows, -1).amax(1)
    column = torch.where(source >= 0, columns, -1).amax(0)
    whole = torch.where((row[:, None] >= 0) & (column[None] >= 0), row[:, None] * width + column[None], -1)
    if torch.equal(whole, source):
        return (Movement(targets, channels, tuple(row.tolist()), tuple(column.tolist())),)
    movements = []
    for target in range(len(source)):
        for each in sorted({*rows[target][source[target] >= 0].tolist()}):
            here = tuple(int(each) if number == target else -1 for number in range(len(source)))
            mine = (rows[target] == each) & (source[target] >= 0)
            movements.append(
                Movement(targets, channels, here, tuple(torch.where(mine, columns[target], -1).tolist()))
            )
    return tuple(movements)
