"""Which channels of a network can change places, and which parameters have to follow.

Every output channel or feature of a layer is a *unit* with a number from 1 up. The network runs once, and each value
has a tensor of its shape with the unit that every entry comes from: CONSTANT where it is the same number in every
place of its kind (padding), OTHER where it is anything else. A sum or product of two maps couples their units, place by
place; so do depthwise convolutions, and parameters that are used twice. Two units can change places where the same
values and the same parameters hold both. What an operation that is not listed below reads is fixed, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from zeroskip.concepts import Layer
from zeroskip.graph.capture import capture
from zeroskip.graph.channel_flow import MOVES, PER_CHANNEL, POINTWISE, first_example
from zeroskip.graph.inputs import Given, Inputs, of
from zeroskip.graph.nodes import Node, kind_of, last_uses
from zeroskip.graph.torch_operations import Argument
from zeroskip.graph.weights import weight_name

CONSTANT, OTHER = 0, -1
# Two maps in, number by number.
PAIRWISE = frozenset(["add", "sub", "mul", "div", "maximum", "minimum"])
REDUCTIONS = frozenset(["mean", "amax", "amin"])
MAPS = PER_CHANNEL - REDUCTIONS | {"upsample_nearest2d", "upsample_bilinear2d"}
PARTS = frozenset(["slice", "select", "split", "split_with_sizes", "chunk", "unbind", "stack", "expand"])

Units: TypeAlias = "Tensor | Sequence[Tensor] | None"
"""Of a value: of a tensor, of a list of them, or unknown: all OTHER."""


@dataclass(frozen=True)
class Carrier:
    """An axis of a parameter or buffer along which units lie.

    name   in a state dict
    units  (size of the axis,) the unit at each place
    reads  whether they are the inputs of a layer: the columns of its weight
    """

    name: str
    axis: int
    units: Tensor
    reads: bool = False


@dataclass(frozen=True)
class Coupling:
    """Units that are coupled have one number.

    movable  sets of units that can change places among themselves
    fixed    other units -> why they stay where they are
    """

    carriers: tuple[Carrier, ...]
    movable: tuple[Tensor, ...]
    fixed: dict[int, str]


def coupling(model: nn.Module, example: Given | Inputs) -> Coupling:
    """Which units of `model`, without masks, can change places, as seen when it runs on the first of `example`.

    Raises EngineError where torch.export cannot follow.

    >>> found = coupling(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(1, 4))
    >>> found.movable
    (tensor([1, 2, 3]),)
    >>> [(each.name, each.axis) for each in found.carriers if each.units.tolist() == [1, 2, 3]]
    [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)]
    """
    graph = capture(model, example, fold=False)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.numel()}
    walk = _Walk({tensor.data_ptr(): name for name, tensor in tensors.items()}, tensors)
    values = first_example(graph, of(example))
    units: dict[str, Units] = {}
    with torch.no_grad():
        for node, ending in zip(graph.nodes, last_uses(graph), strict=True):
            inputs = [values[name] for name in node.inputs]
            values[node.name] = node.function(*inputs)
            step = _Step(node, inputs, [units.get(name) for name in node.inputs], values[node.name])
            units[node.name] = _after(walk, step)
            walk.held += [_seen_in(part) for part in _parts(units[node.name])]
            for name in set(ending) - set(graph.outputs):
                values.pop(name, None)
                units.pop(name, None)
    for name in graph.outputs:
        _fix_(walk, units.get(name), "they are outputs of the network")
    return _result(walk)


@dataclass(frozen=True)
class _Step:
    """A node at work: `inputs` with the units `seen` in them, and its value."""

    node: Node
    inputs: Sequence[Argument]
    seen: Sequence[Units]
    value: Argument


@dataclass
class _Walk:
    """The state of `coupling`.

    names    address of a parameter or buffer -> its name among `tensors`
    parent   unit -> one that it is coupled to, or itself
    reasons  unit -> why it is fixed
    held     for each value so far the units in it
    """

    names: dict[int, str]
    tensors: Mapping[str, Tensor]
    carriers: dict[tuple[str, int], Carrier] = field(default_factory=dict)
    parent: list[int] = field(default_factory=lambda: [0])
    reasons: dict[int, str] = field(default_factory=dict)
    held: list[Tensor] = field(default_factory=list)


def _after(walk: _Walk, step: _Step) -> Units:
    """The units in the node's value. Couples, and fixes, what the node demands."""
    node, kind, value = step.node, kind_of(step.node), step.value
    first = step.seen[0] if step.seen else None
    if node.layer is not None and isinstance(value, Tensor):
        return _layer(walk, node.layer, step)
    if kind == "embedding" and isinstance(value, Tensor):
        return _table(walk, node.arguments["weight"], value)
    if kind.startswith("sym_size") or all(units is None for units in step.seen):
        return None
    if kind == "getitem":
        return cast(Units, node.function(first))
    if kind in PAIRWISE and isinstance(value, Tensor):
        return _pair(walk, step, value)
    if kind in MOVES | PARTS or _pads_zeros(node):
        return cast(
            Units, node.function(*(_known(*pair) for pair in zip(step.inputs, step.seen, strict=True)))
        )
    if isinstance(first, Tensor) and isinstance(value, Tensor):
        if kind in POINTWISE and node.op.endswith(".default"):
            return first
        if kind in REDUCTIONS and (reduced := _reduced(walk, node, first)) is not None:
            return reduced
        if kind in MAPS and first.ndim == 4 and (along := _along(first, 1)) is not None:
            return _spread(along, 1, value)
        if kind in NORMS and (normed := _norm(walk, node, first)) is not None:
            return normed
    return _stop(walk, step)


def _layer(walk: _Walk, layer: Layer, step: _Step) -> Units:
    """The units of a linear layer's or convolution's outputs; its inputs' are those of the columns of its weight."""
    x, value, units = cast(Tensor, step.inputs[0]), cast(Tensor, step.value), step.seen[0]
    is_conv = layer.op.startswith("conv") and not layer.transposed and x.ndim == layer.weight.ndim
    axis, outs = 1 if is_conv else x.ndim - 1, layer.weight.shape[0]
    along = _along(cast(Tensor, _known(x, units)), axis)
    is_depthwise = layer.groups == outs == x.shape[axis]
    if along is None or (layer.op != "linear" and not is_conv) or (layer.groups > 1 and not is_depthwise):
        return _stop(walk, step)
    if layer.groups > 1:
        made = along
    else:
        _carry_(walk, layer.weight, Carrier("", 1, along, reads=True))
        made = _outputs(walk, layer.weight, 0)
    for tensor in (layer.weight, layer.bias):
        _carry_(walk, tensor, Carrier("", 0, made))
    return _spread(made, axis, value)


def _table(walk: _Walk, table: Argument, value: Tensor) -> Units:
    """The units of an embedding: the columns of its table."""
    if not isinstance(table, Tensor):
        return None
    made = _outputs(walk, table, 1)
    _carry_(walk, table, Carrier("", 1, made))
    return _spread(made, value.ndim - 1, value)


def _outputs(walk: _Walk, weight: Tensor, axis: int) -> Tensor:
    """The units along an axis of a weight: new ones where it is seen for the first time."""
    name = walk.names.get(weight.data_ptr(), "")
    if (name, axis) in walk.carriers:
        return walk.carriers[name, axis].units
    start, count = len(walk.parent), weight.shape[axis]
    walk.parent += range(start, start + count)
    return torch.arange(start, start + count)


# Of the parameters of each, the axis of `units` that they lie along.
NORMS = {
    "batch_norm": (1, ("weight", "bias", "running_mean", "running_var")),
    "layer_norm": (-1, ("weight", "bias")),
    "rms_norm": (-1, ("weight",)),
}


def _norm(walk: _Walk, node: Node, units: Tensor) -> Tensor | None:
    """The units after a norm, which has numbers for each: where all were CONSTANT they differ now."""
    axis, names = NORMS[kind_of(node)]
    along = _along(units, axis)
    if along is None or (axis == -1 and len(cast("list[int]", node.arguments["normalized_shape"])) != 1):
        return None
    made = torch.where(along == CONSTANT, OTHER, along)
    for name in names:
        _carry_(walk, cast("Tensor | None", node.arguments.get(name)), Carrier("", 0, made))
    return _spread(made, axis % units.ndim, units)


def _pair(walk: _Walk, step: _Step, value: Tensor) -> Units:
    """The units of a sum, a product or the like of two maps, or of a map and a parameter."""
    known = [_known(*pair) for pair in zip(step.inputs, step.seen, strict=True)]
    tensors = [each for each in known if isinstance(each, Tensor)]
    if len(tensors) == 2:
        for one, other in (tensors, tensors[::-1]):
            if one.shape == value.shape and _is_same_for_all(other, one):
                return one
        left, right = torch.broadcast_tensors(*tensors)
        return _couple_(walk, left, right, f"{step.node.op} joins them with other numbers")
    units = tensors[0]
    constants = [step.node.arguments.get(name) for name in ("self", "other")]
    constant = next((each for each in constants if isinstance(each, Tensor) and each.numel() > 1), None)
    if constant is None:
        return units
    axes = [axis for axis in range(-constant.ndim, 0) if constant.shape[axis] > 1]
    held = [(axis, along) for axis in axes if (along := _along(units, axis)) is not None]
    if units.shape != value.shape or len(held) != 1 or (units == CONSTANT).any():
        return _stop(walk, step)
    ((axis, along),) = held
    _carry_(walk, constant, Carrier("", axis + constant.ndim, along))
    return units


def _is_same_for_all(numbers: Tensor, units: Tensor) -> bool:
    """Whether a map has one number for all units of another, as a weight for each pixel has."""
    axes = [axis for axis in range(-units.ndim, 0) if _along(units, axis) is not None]
    return len(axes) == 1 and (numbers.ndim < -axes[0] or numbers.shape[axes[0]] == 1)


def _reduced(walk: _Walk, node: Node, units: Tensor) -> Tensor | None:
    """The units after a mean or maximum over places only: other numbers in place of the units show whether it is."""
    after = node.function(units.double()).round().long()
    seeded = torch.Generator().manual_seed(0)
    marks = torch.rand(len(walk.parent) + 1, dtype=torch.double, generator=seeded)  # of OTHER first
    if not OTHER <= int(after.min()) <= int(after.max()) < len(walk.parent):
        return None
    same = torch.allclose(node.function(marks[units - OTHER]), marks[after - OTHER])
    return after if same else None


def _pads_zeros(node: Node) -> bool:
    is_pad = kind_of(node) in ("pad", "constant_pad_nd")
    return is_pad and node.arguments.get("mode", "constant") == "constant" and not node.arguments.get("value")


def _known(x: Argument, units: Units) -> Argument:
    """The units of an input: all OTHER where they are unknown; a number as it is."""
    if units is None and isinstance(x, Tensor):
        return torch.full(x.shape, OTHER)
    return x if units is None else units


def _along(units: Tensor, axis: int) -> Tensor | None:
    """(size of the axis,) the units along it, constants aside; None where they differ along another axis."""
    flat = units.movedim(axis, 0).flatten(1) if units.ndim > 1 else units[:, None]
    highest, lowest = flat.amax(1), flat.amin(1)
    along = torch.where(highest == CONSTANT, lowest, highest)  # OTHER is below CONSTANT
    return along if bool(((flat == along[:, None]) | (flat == CONSTANT)).all()) else None


def _spread(along: Tensor, axis: int, value: Tensor) -> Tensor:
    """The units along an axis, at all places of a value."""
    shape = [-1 if each == axis else 1 for each in range(value.ndim)]
    return along.reshape(shape).expand(value.shape).contiguous()


def _carry_(walk: _Walk, tensor: Tensor | None, carrier: Carrier) -> None:
    """The axis of a parameter holds these units: those that it held before are coupled to them."""
    if tensor is None:
        return
    name = walk.names.get(tensor.data_ptr(), "")
    stored = walk.tensors.get(name)
    if stored is None or stored.shape != tensor.shape or stored.stride() != tensor.stride():
        reason = "a tensor of theirs is no plain parameter"
        _fix_(walk, carrier.units, reason)
        return
    before = walk.carriers.setdefault((name, carrier.axis), replace(carrier, name=name))
    _couple_(walk, before.units, carrier.units, f"{weight_name(name)} is used twice")


def _couple_(walk: _Walk, a: Tensor, b: Tensor, reason: str) -> Tensor:
    """Units a and b are one, place by place; one that meets OTHER is fixed."""
    span = len(walk.parent) + 1
    pairs = ((a - OTHER) * span + b - OTHER).unique()  # as one number each, which sorts fast
    for one, other in torch.stack([pairs // span + OTHER, pairs % span + OTHER], 1).tolist():
        if one > 0 and other > 0:
            walk.parent[_root(walk, one)] = _root(walk, other)
        elif OTHER in (one, other):
            _fix_(walk, torch.tensor([one, other]), reason)
    return torch.where(a == CONSTANT, b, a)


def _root(walk: _Walk, unit: int) -> int:
    while walk.parent[unit] != unit:
        walk.parent[unit] = unit = walk.parent[walk.parent[unit]]
    return unit


def _stop(walk: _Walk, step: _Step) -> Units:
    """What the node reads is fixed, and its own units are unknown."""
    layer = step.node.layer
    for units in step.seen:
        _fix_(walk, units, f"{step.node.op if layer is None else layer.name} reads them too")
    return None


def _fix_(walk: _Walk, units: Units, reason: str) -> None:
    for part in _parts(units):
        for unit in _seen_in(part).tolist():
            if unit > 0:
                walk.reasons.setdefault(unit, reason)


def _seen_in(units: Tensor) -> Tensor:
    """The units of a value, each once; counted, since sorting a large map takes long."""
    return (units - OTHER).flatten().bincount().nonzero()[:, 0] + OTHER


def _parts(units: Units) -> list[Tensor]:
    return [] if units is None else [units] if isinstance(units, Tensor) else list(units)


def _result(walk: _Walk) -> Coupling:
    roots = torch.tensor([_root(walk, unit) for unit in range(len(walk.parent))])

    def coupled(units: Tensor) -> Tensor:
        return torch.where(units > 0, roots[units.clamp(min=0)], units)

    carriers = tuple(replace(each, units=coupled(each.units)) for each in walk.carriers.values())
    fixed: dict[int, str] = {}
    for unit, reason in walk.reasons.items():
        fixed.setdefault(int(roots[unit]), reason)
    holders: dict[int, list[int]] = {unit: [] for unit in roots.unique().tolist() if unit not in fixed}
    for number, units in enumerate([*walk.held, *(each.units for each in carriers)]):
        for unit in set(coupled(units).tolist()) & holders.keys():
            holders[unit].append(number)
    sets: dict[tuple[int, ...], list[int]] = {}
    for unit, numbers in holders.items():
        sets.setdefault(tuple(numbers), []).append(unit)
    movable = (torch.tensor(units) for numbers, units in sets.items() if numbers and len(units) > 1)
    return Coupling(carriers, tuple(movable), fixed)
