"""Values whose numbers are sums of a few numbers of one map, each times a constant, plus a constant.

Rotary embeddings are such, however they are written: slices, negations, concatenations, products with tables and
sums. So are a class token in front of others, and positions that are added. What the operations do to numbers, they
do here to the numbers' places and weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import torch
from torch import Tensor

from zeroskip.graph import Node
from zeroskip.graph.nodes import kind_of
from zeroskip.graph.rebinding import comparable
from zeroskip.graph.torch_operations import Bound
from zeroskip.run.convolution.tiles.forms import Atom, Form, MapShape, from_map, to_map
from zeroskip.run.convolution.tiles.operations import Mixing, Movement, Operation
from zeroskip.run.convolution.tiles.values import SAME, VIEWS

LARGEST = 1 << 22  # numbers of a value of one example
MOST = 3  # numbers of one pixel that are added up
MOVING = (
    *VIEWS, *(name for name in SAME if not name.startswith("_")),
    "slice", "narrow", "select", "cat", "concat", "concatenate", "stack", "flip", "roll", "type_as", "to", "expand",
)  # fmt: skip
MIXING = (*MOVING, "neg", "mul", "multiply", "div", "add", "sub")


@dataclass(frozen=True)
class Mixture:
    """A tensor (of one example) whose numbers are sums over terms of weight x a number of a map, plus shift.

    base      shape and form of the map; None where there is only shift
    places    for each term the number of what it takes in the map, from 1 on, as float64, which holds them exactly; 0
              where the term takes nothing
    weights   for each term, of the tensor's shape, float64
    shift     of the tensor's shape, float64
    """

    base: tuple[MapShape, Form] | None
    places: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    shift: Tensor


@dataclass(frozen=True)
class Plan:
    """How a mixture is made on tiles.

    shape, form  of the map that is made
    movements    that bring numbers into their places first; None where they are there
    mixing       what is made of them then; None where nothing more is done
    channels     of the map between the two
    """

    shape: MapShape
    form: Form
    movements: tuple[Movement, ...] | None
    mixing: Mixing | None
    channels: int


class Mixtures:
    """The mixtures of a graph, each worked out once for all layers that are alike."""

    def __init__(self) -> None:
        self._maps: dict[tuple[MapShape, Form], Mixture] = {}
        self._found: dict[tuple[object, ...], tuple[Mixture, Plan | None] | None] = {}
        self._alive: list[Sequence[Mixture | None]] = []

    def of_map(self, shape: MapShape, form: Form) -> Mixture:
        """A map as a mixture of itself."""
        if (shape, form) not in self._maps:
            self._maps[shape, form] = _of_map(shape, form)
        return self._maps[shape, form]

    def of_node(self, node: Node, inputs: Sequence[Mixture | None]) -> tuple[Mixture, Plan | None] | None:
        """The node's value, and how to make it; None where tiles cannot. An input of None is a size."""
        written = _written(node)
        key = (node.op, node.shape, written, *map(id, inputs))
        if written is None or key not in self._found:
            made = _mixed_or_none(node, inputs)
            plan = None if made is None or made.base is None else _plan(made)
            fits = made is not None and (
                made.base is None or (plan is not None and plan.form.shape == node.shape)
            )
            found = (made, plan) if made is not None and fits else None
            if written is None:
                return found
            self._alive.append(inputs)  # whose addresses are in the key
            self._found[key] = found
        return self._found[key]


@cache
def movements_between(
    source: tuple[MapShape, Form], target: tuple[MapShape, Form]
) -> tuple[Movement, ...] | None:
    """What brings a tensor's numbers from a map of one shape and form to another; None where channels change places.

    >>> rows = Form((((Atom("h", 2, 1), Atom("w", 2, 1))), (Atom("c", 3, 1),)))
    >>> len(movements_between(((3, 2, 2), rows), ((3, 1, 4), Form(((Atom("w", 4, 1),), (Atom("c", 3, 1),))))))
    2
    """
    numbers = torch.arange(math.prod(source[0])).reshape(1, *source[0])
    moved = to_map(target[1], target[0], from_map(source[1], numbers))[0]
    pixels = source[0][1] * source[0][2]
    own = torch.arange(target[0][0])[:, None, None].expand(target[0])
    places = moved % pixels
    if not torch.equal(moved // pixels, own) or not torch.equal(places, places[:1].expand(target[0])):
        return None
    return _movements(tuple(range(target[0][0])), places[0], source[0][2])


def operations_of_plan(node: Node, base: str, plan: Plan) -> tuple[Operation, ...]:
    """The operations that make the node's value of the map of that name."""
    made = Operation(node.name, "rearrange", (base,), plan.shape, (node.name,), form=plan.form)
    if plan.mixing is None:
        return (replace(made, movements=plan.movements or ()),)
    last = replace(made, kind="mix", mixing=plan.mixing)
    if plan.movements is None:
        return (last,)
    name, shape = f"{node.name}.moved", (plan.channels, *plan.shape[1:])
    between = replace(made, name=name, shape=shape, form=None, movements=plan.movements)
    return between, replace(last, inputs=(name,))


def _written(node: Node) -> tuple[object, ...] | None:
    """The operation's arguments, to be compared with those of another; None where they cannot be."""
    bound = node.function
    if not isinstance(bound, Bound):
        return ("getitem", str(node.arguments)) if kind_of(node) == "getitem" else None
    return tuple(map(comparable, bound.arguments)), tuple((k, comparable(v)) for k, v in bound.named.items())


def _of_map(shape: MapShape, form: Form) -> Mixture:
    numbers = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    places = from_map(form, numbers.reshape(1, *shape))[0]
    return Mixture((shape, form), (places,), (torch.ones_like(places),), torch.zeros_like(places))


def _mixed_or_none(node: Node, inputs: Sequence[Mixture | None]) -> Mixture | None:
    try:
        return _mixed(node, inputs)
    except (
        Exception
    ):  # of an operation that a damaged file describes; PyTorch says what is wrong when it runs
        return None


def _mixed(node: Node, inputs: Sequence[Mixture | None]) -> Mixture | None:
    kind, known = kind_of(node), [each for each in inputs if each is not None]
    shape = node.shape
    if kind not in MIXING or shape is None or math.prod(shape) > LARGEST or "_." in node.op:
        return None
    if not known:
        given = node.function(*(1 for _ in inputs)) if kind == "expand" else None
        return None if given is None or given.shape[1:] != shape else Mixture(None, (), (), given[0].double())
    if kind == "expand" and any(each.shift.shape != shape for each in known):
        return None  # copies are not made on tiles
    base = next((each.base for each in known if each.base is not None), None)
    if kind in ("neg", "mul", "multiply", "div"):
        made = _scaled(node, kind, known)
    elif kind in ("add", "sub"):
        made = _summed(node, kind, known)
    else:
        made = _moved(node, inputs)
    if made is None or len(made.places) > 2 * MOST:
        return None
    whole = all(each.shape == shape for each in (*made.places, *made.weights, made.shift))
    return replace(made, base=base) if whole else None


def _scaled(node: Node, kind: str, known: Sequence[Mixture]) -> Mixture | None:
    factor = -1.0 if kind == "neg" else _constant(node)
    first = "other" not in node.arguments
    if (
        factor is None
        or len(known) != 1
        or (kind == "div" and (first or node.arguments.get("rounding_mode")))
    ):
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
        made = cast(Tensor, node.function(*values))
        if made.shape[1:] != node.shape:  # a file may say what it likes
            raise ValueError(made.shape)
        return made[0]

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
    return (
        not isinstance(value, Tensor)
        or value.ndim <= len(shape)
        or (value.ndim == len(shape) + 1 and len(value) == 1)
    )


def _plan(mixture: Mixture) -> Plan | None:
    """How the mixture is made on tiles; None where it cannot be."""
    base = mixture.base
    if base is None or not mixture.places or not mixture.places[0].numel():
        return None
    places = torch.stack(mixture.places).round().long()  # (terms, *shape)
    (count, height, width), number = base[0], (places - 1).clamp(min=0)
    where = _pixels(number % (height * width), places > 0)
    found = None if where is None else _own(where, base) or _target(where)
    if found is None or where is None:
        return None
    shape, form = found

    def as_maps(values: Tensor) -> Tensor:
        return to_map(form, shape, values)  # (terms, channels, height, width)

    source = as_maps(where[None])[0, 0]  # (height, width): the pixel that each comes from; -1: from none
    weights, shift = as_maps(torch.stack(mixture.weights)), as_maps(mixture.shift[None])[0]
    parts = _sources(as_maps(number // (height * width)), weights)
    if parts is None:
        return None
    if len(parts) == 1 and not bool(shift.any()) and bool((parts[0][1] == (source >= 0)).all()):
        channels = tuple(parts[0][0].tolist())
        return Plan(shape, form, _movements(channels, source, width), None, len(channels))
    moved = None
    if shape[1:] != (height, width) or not _is_in_place(source):
        moved = _movements(tuple(range(count)), source, width)
    mixing = Mixing(
        tuple(tuple(each.tolist()) for each, _ in parts), tuple(each.float() for _, each in parts),
        shift.float() if bool(shift.any()) else None,
    )  # fmt: skip
    return Plan(shape, form, moved, mixing, count)


def _pixels(pixel: Tensor, taken: Tensor) -> Tensor | None:
    """The pixel of the map from which each number of the tensor comes, -1: none; None where it comes from several."""
    least = torch.where(taken, pixel, pixel.max() + 1).amin(0)
    most = torch.where(taken, pixel, -1).amax(0)
    return torch.where(most >= 0, least, -1) if bool(((least == most) | (most < 0)).all()) else None


def _own(where: Tensor, base: tuple[MapShape, Form]) -> tuple[MapShape, Form] | None:
    """Shape and form of the base, where the tensor has its axes and all numbers stay at their pixels."""
    (_, height, width), form = base
    if form.shape != where.shape:
        return None
    pixels = torch.arange(height * width).reshape(1, 1, height, width)
    own = from_map(form, pixels.expand(1, *base[0]))[0]
    return base if bool(((where == own) | (where < 0)).all()) else None


def _target(where: Tensor) -> tuple[MapShape, Form] | None:
    """The map that the tensor holds: axes along which the pixel changes are its places, the others its channels."""
    axes = range(where.ndim)
    first = [where.amax(dim=axis, keepdim=True) for axis in axes]
    varies = [
        bool(((where != most) & (where >= 0)).any()) or not _is_even(where, axis)
        for axis, most in enumerate(first)
    ]
    rows = [axis for axis in axes if varies[axis]]
    if len(rows) > 2:
        return None
    sizes = [where.shape[axis] for axis in axes]
    height, width = [1, 1, *(sizes[axis] for axis in rows)][-2:]
    channels = math.prod(sizes[axis] for axis in axes if axis not in rows)
    left, form = channels, list[tuple[Atom, ...]]()
    for axis in axes:
        if axis in rows:
            name = "h" if len(rows) == 2 and axis == rows[0] else "w"
            form.append((Atom(name, sizes[axis], 1),))
            continue
        left //= sizes[axis]
        form.append((Atom("c", sizes[axis], left),) if sizes[axis] > 1 else ())
    whole = (
        where.amax(dim=[axis for axis in axes if axis not in rows], keepdim=True) if channels > 1 else where
    )
    fits = bool(((where == whole) | (where < 0)).all())
    return ((channels, height, width), Form(tuple(form))) if fits else None


def _is_even(where: Tensor, axis: int) -> bool:
    """Whether the numbers along an axis come from a pixel all, or none of them."""
    taken = where >= 0
    return bool((taken.any(axis) == taken.all(axis)).all())


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


def _movements(channels: tuple[int, ...], source: Tensor, width: int) -> tuple[Movement, ...]:
    """What brings pixels into their places; source (height, width): the numbers of those that they come from."""
    targets = tuple(range(len(channels)))
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
