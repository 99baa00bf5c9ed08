"""Which values of a graph are maps, in which form, as its nodes are read one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zeroskip.graph import Node
from zeroskip.graph.torch_operations import Argument
from zeroskip.run.convolution.tiles.forms import Form, MapShape, channels_first, rows_of, sequence

SAME = (
    "contiguous", "clone", "alias", "detach", "lift_fresh_copy",
    "_assert_tensor_metadata",
)  # fmt: skip
SWAPS = {
    "transpose": ("dim0", "dim1"),
    "swapdims": ("dim0", "dim1"),
    "swapaxes": ("axis0", "axis1"),
    "mT": (),
}
MOVES = ("movedim", "moveaxis")
VIEWS = (
    *("permute", "flatten", "reshape", "view", "unflatten", "unsqueeze", "squeeze"), *SWAPS, *MOVES,
)  # fmt: skip

Shapes = Mapping[str, tuple[int, ...] | None]


@dataclass(frozen=True)
class MapValue:
    """A tensor that holds a map: the value `base`, made by an operation or elsewhere, in a form."""

    base: str
    shape: MapShape
    form: Form

    @property
    def is_pixel(self) -> bool:
        """Whether the map has one pixel."""
        return self.shape[1:] == (1, 1)


@dataclass
class Values:
    """What is known of the graph's values so far.

    shapes   of all values, as tensors of one example
    maps     by name of the value
    wanted   is called with the name of a value before it is taken for a map from elsewhere, and may make it known
    entered  maps that are made elsewhere -> the form of their tensors
    attends  whether the graph has attention
    """

    shapes: Shapes
    maps: dict[str, MapValue] = field(default_factory=dict)
    wanted: Callable[[str], None] = lambda name: None
    entered: dict[str, Form] = field(default_factory=dict)
    attends: bool = False

    def images(self, name: str) -> MapValue | None:
        """The value as (channels, height, width); a tensor of that many axes from elsewhere is taken for one."""
        value = self._claimed(name, "chw")
        return value if value is not None and value.form == channels_first(value.shape) else None

    def sequences(self, name: str) -> MapValue | None:
        """The value as (channels, steps), a map of one row."""
        value = self._claimed(name, "cw")
        if value is None or value.shape[1] != 1:
            return None
        return value if value.form == sequence(value.shape[0], value.shape[2]) else None

    def rows(self, name: str) -> MapValue | None:
        """The value as (..., channels), places in any order."""
        value = self._claimed(name, "rows")
        return value if value is not None and value.form.holds(len(value.form.axes) - 1, "c") else None

    def heads(self, name: str) -> MapValue | None:
        """The value as (heads, places, features), or (places, features), whose channels are features of all heads."""
        value = self._claimed(name, "heads")
        if value is None or len(value.form.axes) not in (2, 3):
            return None
        form = value.form
        *heads, places, features = form.axes
        whole = Form((tuple(atom for axis in (*heads, features) for atom in axis), places))
        if whole.shape != (value.shape[0], value.shape[1] * value.shape[2]):
            return None
        fits = whole.permuted([1, 0]).reshaped([value.shape[1] * value.shape[2], value.shape[0]])
        return value if fits is not None and fits.holds(0, "hw") and fits.holds(1, "c") else None

    def any(self, name: str) -> MapValue | None:
        """The value in whatever form it has; a tensor from elsewhere is taken for (channels, height, width).

        Where there is attention, one of (1, 1, keys) is what masks are made of, which have a channel for each key.
        """
        row = self.attends and (self.shapes.get(name) or ())[:-1] == (1, 1)
        return self._claimed(name, "heads" if row else "chw")

    def _claimed(self, name: str, wanted: str) -> MapValue | None:
        shape = self.shapes.get(name)
        if name not in self.maps:
            self.wanted(name)
        if name in self.maps or shape is None or 0 in shape:
            return self.maps.get(name)
        value = _taken_for(name, shape, wanted)
        if value is not None:
            self.maps[name] = value
            self.entered[name] = value.form
        return value


def _taken_for(name: str, shape: tuple[int, ...], wanted: str) -> MapValue | None:
    if wanted == "chw" and len(shape) == 3:
        whole = shape[0], shape[1], shape[2]
        return MapValue(name, whole, channels_first(whole))
    if wanted == "cw" and len(shape) == 2:
        row = shape[0], 1, shape[1]
        return MapValue(name, row, sequence(shape[0], shape[1]))
    if wanted == "heads" and len(shape) == 3:
        heads, count, features = shape
        split = rows_of(heads * features, [count])
        made = None if split is None else split.reshaped([count, heads, features])
        return (
            None if made is None else MapValue(name, (heads * features, 1, count), made.permuted([1, 0, 2]))
        )
    form = rows_of(shape[-1], shape[:-1]) if wanted == "rows" and len(shape) in (2, 3) else None
    if form is None:
        return None
    height, width = [1, *shape[:-1]][-2:]
    return MapValue(name, (shape[-1], height, width), form)


def viewed(node: Node, kind: str, value: MapValue, shape: Sequence[int]) -> MapValue | None:
    """The value after a node that moves no numbers; `shape` is the node's. None where its form cannot be said."""
    if kind in SAME or kind in ("slice", "narrow"):
        return value
    form = value.form
    if kind == "permute" or kind in SWAPS or kind in MOVES:
        order = _order(kind, node.arguments, len(form.axes) + 1)
        return None if order is None else replace(value, form=form.permuted([axis - 1 for axis in order[1:]]))
    made = form.reshaped(shape)
    return None if made is None else replace(value, form=made)


def _order(kind: str, arguments: Mapping[str, Argument], axes: int) -> list[int] | None:
    """The axes in their new order, the batch among them; None where that does not stay the first."""
    order = list(range(axes))
    if kind == "permute":
        order = [axis % axes for axis in integers(arguments["dims"])]
    elif kind in SWAPS:
        names = SWAPS[kind]
        first, second = [integers(arguments[name])[0] % axes for name in names] or [axes - 2, axes - 1]
        order[first], order[second] = second, first
    else:
        sources, targets = (integers(arguments[name]) for name in ("source", "destination"))
        rest = [axis for axis in order if axis not in {each % axes for each in sources}]
        for target, source in sorted((t % axes, s % axes) for s, t in zip(sources, targets, strict=True)):
            rest.insert(target, source)
        order = rest
    return order if order[0] == 0 else None


def integers(argument: Argument) -> list[int]:
    """An argument that is one whole number, or several."""
    given = argument if isinstance(argument, (list, tuple)) else [argument]
    return [each for each in given if isinstance(each, int)]
