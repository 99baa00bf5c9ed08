"""Which output of which layer arrives at each input column of the layers that read it.

Every output channel or feature of a layer that may be cut is a *unit* with a number from 1 up. The network runs
once, and each value has a tensor of its shape with the unit that every entry comes from, 0 for none. Operations that
keep the units apart are listed below. Any other reader of a unit (a residual sum, a softmax) fixes the layer that
computes it: such a layer keeps all its outputs, and `Flow.fixed` has the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zeroskip.concepts import Layer
from zeroskip.graph.capture import capture
from zeroskip.graph.inputs import Given, Inputs, of
from zeroskip.graph.nodes import Graph, Node
from zeroskip.graph.torch_operations import Argument

# One number in, one number out, by the same rule everywhere.
POINTWISE = frozenset(
    [
        "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardtanh",
        "hardsigmoid", "hardswish", "softplus", "log_sigmoid", "threshold", "clamp", "clamp_min", "clamp_max",
        "hardshrink", "abs", "neg", "exp", "sqrt", "square", "alias", "detach"
    ]
)  # fmt: skip
# Each channel of (batch, channels, ...) by itself.
PER_CHANNEL = frozenset(["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "amax"])
# Entries move, none is computed.
SIZED = frozenset(["view", "reshape", "_unsafe_view"])
MOVES = SIZED | {"flatten", "contiguous", "clone", "squeeze", "unsqueeze", "permute", "transpose", "cat"}

Keywords: TypeAlias = Mapping[str, object] | None


@dataclass(frozen=True)
class Stage:
    """A layer or a batch norm whose input columns, and its own outputs with them, may be cut.

    layer    None for a batch norm
    outputs  (out,) the numbers of its units; none for a batch norm, which passes its inputs' on
    sources  (in,) the unit whose value arrives at each input column (feature or channel); 0: no unit
    arrived  (in,) float64: the value that arrived there, NaN where it was not the same at all positions
    """

    name: str
    layer: Layer | None
    outputs: Tensor
    sources: Tensor
    arrived: Tensor


@dataclass(frozen=True)
class Flow:
    """The stages of a network in the order in which they run.

    units     how many there are, numbered 1..units
    fixed     layer -> why it has to keep all its outputs
    bordered  units that an average pool mixed with the zeros around a map: at its border they are smaller
    """

    stages: tuple[Stage, ...]
    units: int
    fixed: dict[str, str]
    bordered: frozenset[int]


def follow(model: nn.Module, example: Given | Inputs) -> Flow:
    """Which units arrive where when `model`, without masks, runs on the first of `example`.

    Left out of the stages, and in `fixed` with what feeds them, are layers that run twice, share a parameter, have
    groups, or are not exactly an nn.Linear or nn.Conv2d. Raises EngineError where torch.export cannot follow.

    >>> follow(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(1, 4)).stages[1].sources
    tensor([1, 2, 3])
    """
    graph = capture(model, example, fold=False)
    walk = _Walk(*_cuttable(model, graph))
    values = first_example(graph, of(example))
    units: dict[str, Tensor] = {}
    with torch.no_grad():
        for node in graph.nodes:
            inputs = [values[name] for name in node.inputs]
            seen = [units.get(name) for name in node.inputs]
            after, values[node.name] = _pass(walk, node, inputs, seen)
            if after is not None and (0 in _axes(after) or len(_axes(after)) > 1):
                _fix_(walk, [after], f"{node.op} mixes them with places or examples")
            elif after is not None:
                units[node.name] = after
    for stage in walk.stages:
        if [other.name for other in walk.stages].count(stage.name) > 1:  # layers that run twice are no stages
            _fix_(walk, [stage.sources], f"{stage.name}, which runs more than once, reads them")
    _fix_(walk, [units.get(name) for name in graph.outputs], "they are the outputs of the network")
    return Flow(tuple(walk.stages), len(walk.owner) - 1, walk.fixed, frozenset(walk.bordered))


def first_example(graph: Graph, example: Inputs) -> dict[str, Argument]:
    """The network's inputs, of the first example where any number of them is possible."""
    assert graph.signature is not None
    tensors = graph.signature.tensors(example.args, example.kwargs)
    pairs = zip(graph.inputs, tensors, strict=True)
    return {
        each.name: (tensor[:1] if each.has_batch and graph.batch is None else tensor).clone()
        for each, tensor in pairs
    }


@dataclass
class _Walk:
    """The state of `follow`. `norms`: address of a running mean -> name; `owner`: unit -> its layer."""

    layers: frozenset[str]
    norms: dict[int, str]
    fixed: dict[str, str]
    stages: list[Stage] = field(default_factory=list)
    owner: list[str] = field(default_factory=lambda: [""])
    bordered: set[int] = field(default_factory=set)


def _cuttable(model: nn.Module, graph: Graph) -> tuple[frozenset[str], dict[int, str], dict[str, str]]:
    """Layers and batch norms that run once on parameters of their own, and why the other layers do not count."""
    modules = dict(model.named_modules())
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    shared = Counter(id(tensor) for _, tensor in named)
    runs = Counter(node.layer.name for node in graph.nodes if node.layer is not None)
    fixed: dict[str, str] = {}
    for layer in [node.layer for node in graph.nodes if node.layer is not None]:
        module = modules.get(layer.name)
        if not isinstance(module, (nn.Linear, nn.Conv2d)) or type(module) not in (nn.Linear, nn.Conv2d):
            fixed[layer.name] = "it is not a plain nn.Linear or nn.Conv2d"
        elif runs[layer.name] > 1 or any(shared[id(parameter)] > 1 for parameter in module.parameters()):
            fixed[layer.name] = "it runs more than once, or shares its parameters"
        elif not _same(module.weight, layer.weight) or not _same(module.bias, layer.bias):
            fixed[layer.name] = "it is not a plain nn.Linear or nn.Conv2d"
        elif layer.groups > 1:
            fixed[layer.name] = f"its {layer.groups} groups have to stay equal"
    norms = {
        module.running_mean.data_ptr(): name
        for name, module in modules.items()
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is not None
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d)
        if all(shared[id(tensor)] == 1 for tensor in module.state_dict(keep_vars=True).values())
    }
    return frozenset(runs) - set(fixed), norms, fixed


def _same(parameter: Tensor | None, captured: Tensor | None) -> bool:
    if parameter is None or captured is None:
        return parameter is captured
    return parameter.data_ptr() == captured.data_ptr() and torch.equal(parameter.detach(), captured)


def _pass(
    walk: _Walk, node: Node, inputs: Sequence[Argument], seen: Sequence[Tensor | None]
) -> tuple[Tensor | None, Argument]:
    """The units in the node's value (None: it has none) and the value itself. Fixes what cannot be followed."""
    kind = node.op.removeprefix("aten.").split(".")[0].rstrip("_")
    layer, x = node.layer, cast(Tensor, inputs[0] if inputs else None)
    if layer is not None and layer.name in walk.layers and (kind == "linear" or x.ndim == 4):
        stage = _read(walk, layer.name, layer, x, seen[0])
        value = node.function(*inputs)
        return _spread(stage.outputs, value, layer.op), value
    if kind == "batch_norm" and seen[0] is not None:
        with _RunningMean() as mean:
            value = node.function(*inputs)
        if (name := walk.norms.get(mean.address)) is not None:
            _read(walk, name, None, x, seen[0])
            return seen[0], value
    else:
        value = node.function(*inputs)
    after = _carried(node, kind, inputs, seen, value)
    if kind == "avg_pool2d" and after is not None and seen[0] is not None:
        walk.bordered |= _at_border(node.function, x, seen[0])
    if after is None and kind != "sym_size":  # which reads the size of the batch, and no entry
        reader = (
            node.op if layer is None else f"{layer.name} ({walk.fixed.get(layer.name, 'without a batch')})"
        )
        _fix_(walk, seen, f"{reader} reads them")
    return after, value


def _read(walk: _Walk, name: str, layer: Layer | None, x: Tensor, seen: Tensor | None) -> Stage:
    """Add the stage that reads `x`, whose entries come from the units `seen`."""
    axis = x.ndim - 1 if layer is not None and layer.op == "linear" else 1
    if seen is None or _axes(seen) - {axis}:
        _fix_(walk, [seen], f"{name} reads them along another axis")
        seen = torch.zeros(x.shape, dtype=torch.long)
    columns = x.movedim(axis, 0).flatten(1).double()  # (in, positions)
    # Pooling a constant may leave it different in its last digits from place to place.
    allowed = 64 * torch.finfo(x.dtype).eps * columns.abs().amax(1, keepdim=True)
    same = ((columns - columns[:, :1]).abs() <= allowed).all(1)
    arrived = torch.where(same, columns[:, 0], torch.nan).cpu()
    count = 0 if layer is None else layer.weight.shape[0]
    outputs = torch.arange(len(walk.owner), len(walk.owner) + count)
    walk.owner.extend([name] * count)
    walk.stages.append(Stage(name, layer, outputs, _profile(seen, axis), arrived))
    return walk.stages[-1]


def _spread(outputs: Tensor, value: Tensor, op: str) -> Tensor:
    """(out,) as the units of a layer's output: (..., out) for linear, (batch, out, h, w) for conv2d."""
    along = outputs if op == "linear" else outputs[:, None, None]
    return along.expand(value.shape).contiguous()


def _carried(
    node: Node, kind: str, inputs: Sequence[Argument], seen: Sequence[Tensor | None], value: Argument
) -> Tensor | None:
    """The units after an operation that keeps them apart; None for any other, and where no unit goes in."""
    if not isinstance(value, Tensor) or all(units is None for units in seen):
        return None
    first = seen[0]
    # clamp.Tensor and the like take tensors, which have channels of their own.
    if kind in POINTWISE and node.op.endswith(".default"):
        return first
    if kind in PER_CHANNEL and first is not None and not _axes(first) - {1}:
        # A pool takes the last three of three axes for channels and places, which no batch precedes then.
        maps = first.ndim == 4 if kind.endswith("pool2d") else first.ndim > 2
        return _per_channel(kind, node.function, first, value) if maps else None
    if kind in MOVES:
        moved = [_units_of(x, units) for x, units in zip(inputs, seen, strict=True)]
        after: Tensor = node.function(*moved)
        works = kind not in SIZED or _survives_cut(node.function, moved, after)
        return after if works and after.dtype == torch.long else None
    return None


def _units_of(x: Argument, units: Tensor | None) -> Argument:
    """The units in `x`: zeros for a tensor without, and a size (of the batch) as it is."""
    if units is None and isinstance(x, Tensor):
        return torch.zeros(x.shape, dtype=torch.long)
    return x if units is None else units


def _per_channel(kind: str, function: Callable[..., Tensor], units: Tensor, value: Tensor) -> Tensor | None:
    """The units of (batch, channels, ...) after a pool, or after a mean or maximum over places only."""
    if value.shape[:2] != units.shape[:2]:
        return None

    def spread(channels: Tensor) -> Tensor:
        return channels.reshape(-1, *[1] * (value.ndim - 2)).expand(value.shape).contiguous()

    if kind in ("mean", "amax"):  # the operation on channel numbers shows over which axes
        numbers = torch.arange(units.shape[1]).double()
        probe = function(numbers.reshape(-1, *[1] * (units.ndim - 2)).expand(units.shape).contiguous())
        if not torch.allclose(probe, spread(numbers)):
            return None
    return spread(_profile(units, 1))


def _at_border(function: Callable[..., Tensor], x: Tensor, units: Tensor) -> set[int]:
    """The units in x that are not zero, if this average pool counts the zeros of its padding."""
    averages = function(torch.ones_like(x))
    return set() if (averages - 1).abs().max() < 1e-3 else set(units[x.ne(0).cpu()].tolist())


def _survives_cut(function: Callable[..., Tensor], inputs: Sequence[Argument], after: Tensor) -> bool:
    """Whether a reshape still does the same once a unit is gone; with a size written out it does not."""
    units = cast(Tensor, inputs[0])
    axes = _axes(units)
    if len(axes) != 1:
        return not axes  # a single unit, which is never cut
    profile = _profile(units, min(axes))
    gone = profile[profile > 0][0]
    try:
        cut = function(units.index_select(min(axes), (profile != gone).nonzero()[:, 0]), *inputs[1:])
    except RuntimeError:
        return False
    return len(cut) == len(after) and torch.equal(cut.flatten(), after[after != gone])


def _axes(units: Tensor) -> set[int]:
    """The axes along which the units differ."""
    return {axis for axis in range(units.ndim) if bool((units != units.narrow(axis, 0, 1)).any())}


def _profile(units: Tensor, axis: int) -> Tensor:
    """(size of the axis,) the units along `axis`, where they differ along no other."""
    return units.movedim(axis, 0).flatten(1)[:, 0] if units.ndim > 1 else units


def _fix_(walk: _Walk, seen: Sequence[Tensor | None], reason: str) -> None:
    for units in seen:
        for unit in [] if units is None else units.unique().tolist():
            if unit:
                walk.fixed.setdefault(walk.owner[unit], reason)


class _RunningMean(TorchFunctionMode):
    """Records the address of the running mean with which a batch norm is called: that identifies the module."""

    address = 0

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: Sequence[object] = (), kwargs: Keywords = None
    ) -> object:
        mean = args[3] if len(args) > 3 else None
        self.address = mean.data_ptr() if isinstance(mean, Tensor) else 0
        return func(*args, **(kwargs or {}))
