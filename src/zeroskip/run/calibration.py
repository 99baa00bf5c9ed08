"""Calibration: a network runs on batches, and the ranges of its values are chosen so that its answers change least."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from zeroskip.errors import EngineError, ZeroskipError
from zeroskip.graph import Given, Graph, Inputs, last_uses
from zeroskip.graph.exporting import first_line
from zeroskip.graph.inputs import of
from zeroskip.run import integer_reference as reference
from zeroskip.run.call_checks import refusal, shown
from zeroskip.run.captured import examples_in, run_once
from zeroskip.run.convolution.tiles.forms import to_map
from zeroskip.run.convolution.tiles.graph_operations import barrier
from zeroskip.run.dense import pytorch
from zeroskip.run.element import SUM_LIMIT, Scaling, weight_scales
from zeroskip.run.integer_network import (
    ByteOperation,
    byte_operations,
    byte_weight_of,
    computed,
    network_of,
    never_negative,
    same_scales,
)
from zeroskip.run.network_checks import captured_graph, checked, tensors_of
from zeroskip.run.quantisation import LIMIT, Quantisation, checksum, demand_sound
from zeroskip.run.runner import runner
from zeroskip.run.value_ranges import METHODS, ValueRange, scale_of

MEASURED = 16  # examples on which the network's error is measured
TOGETHER = 4  # of them are computed at a time, and the errors of layers are measured on so many
ALIKE = 1.05  # errors of two methods of which the larger one is no more than so many times the other
# By default. "percentile 99.9" changed the outputs of three trained networks two to four times as much as the others.
TRIED = ("least squares", "min-max", "percentile 99.999", "percentile 99.99")


def calibrate(
    model: nn.Module, batches: Iterable[Given | Inputs], *, method: str | None = None
) -> Quantisation:
    """How the network computes in eight bits: ranges of its values on these batches, and what that costs.

    batches  each as the network takes it, in evaluation mode; 50 to 500 examples like those it will see
    method   "min-max", "percentile 99.9" (also 99.99, 99.999) or "least squares"; None: by which the network's
             outputs change least; of those within 5 % of it, the one that leaves fewest layers in fp32
    Errors are measured on the first 16 examples (those of layers on 4), and for each value a histogram is kept.
    Raises EngineError where there is no batch, a value is not finite, the inputs are one number over and over, or no
    layer can have eight bits.

    >>> run.calibrate(model, [x], method="min-max").method
    'min-max'
    """
    if not isinstance(model, nn.Module):
        raise EngineError(f"calibrate was given a {type(model).__name__}, and needs a torch.nn.Module.")
    if method is not None and method not in METHODS:
        raise EngineError(f'the method "{method}" is unknown. Give one of {", ".join(METHODS)}, or None.')
    seen = seen_on(model, batches)
    names = TRIED if method is None else [method]
    return best([_quantisation(seen, name) for name in names])


def best(found: Sequence[Quantisation]) -> Quantisation:
    """The one with the least error; of those within 5 % of it, the one that leaves fewest layers in fp32.

    >>> made = run.calibrate(model, [x])
    >>> best([replace(made, error=0.2), replace(made, error=0.1)]).error
    0.1
    """
    least = min(map(_error, found))
    near = [each for each in found if not _error(each) > ALIKE * least]
    return min(near, key=lambda each: (len(each.in_fp32()), _error(each)))


def _error(each: Quantisation) -> float:
    return math.inf if math.isnan(each.error) else each.error


@dataclass
class SeenNetwork:
    """A network, what its values were, and the examples on which errors are measured, with its outputs for them."""

    graph: Graph
    operations: list[ByteOperation]
    ranges: dict[str, ValueRange]
    kept: list[list[Tensor]] = field(default_factory=list)
    outputs: list[Sequence[Tensor]] = field(default_factory=list)
    examples: int = 0
    network: str = ""


def demand_several(batches: object) -> None:
    """EngineError unless these are batches, one after the other."""
    if isinstance(batches, (Tensor, str, Mapping)) or not isinstance(batches, Iterable):
        raise EngineError(
            f"calibrate was given a {type(batches).__name__}, and needs several batches. Give a list, [x], "
            "or a generator."
        )


@torch.no_grad()
def seen_on(model: nn.Module, batches: Iterable[Given | Inputs]) -> SeenNetwork:
    """What was seen of the network on these batches; the same errors as `calibrate`."""
    demand_several(batches)
    seen: SeenNetwork | None = None
    for number, batch in enumerate(batches):
        if seen is None:
            seen, tensors = _begun(model, batch)
        else:
            tensors = _tensors(seen.graph, batch, number)
        _see_(seen, tensors)
    if seen is None:
        raise EngineError("there is no batch to calibrate on. Give at least one, better 50 to 500 examples.")
    _demand_variety(seen)
    exact = runner(seen.graph, {})
    seen.outputs = [exact(*[tensor.clone() for tensor in tensors]) for tensors in seen.kept]
    seen.network = checksum(seen.graph)
    return seen


def _begun(model: nn.Module, batch: Given | Inputs) -> tuple[SeenNetwork, list[Tensor]]:
    inputs = checked(model, batch, 0)
    graph = captured_graph(model, inputs)
    operations = byte_operations(graph)
    layers = [each for each in operations if each.is_layer]
    if not layers:
        why = barrier(graph) or "none is a convolution or linear layer with float32 weights"
        raise EngineError(
            f"no layer of the network can compute in eight bits: {why}. Run it in fp32 or fp16."
        )
    values = dict.fromkeys(name for each in operations for name in (*each.reads, each.name))
    return SeenNetwork(graph, operations, {name: ValueRange() for name in values}), tensors_of(graph, inputs)


def _tensors(graph: Graph, batch: Given | Inputs, number: int) -> list[Tensor]:
    try:
        tensors = tensors_of(graph, of(batch).map(lambda tensor: tensor.detach().contiguous()))
    except ZeroskipError as error:
        raise EngineError(f"batch {number} is not like the first one: {error}") from error
    for wanted, x in zip(graph.inputs, tensors, strict=True):
        why = refusal(wanted, x)
        if why is None and not x.numel():
            why = "Leave it out: it is empty."
        if why is None and tuple(x.shape[wanted.has_batch :]) != wanted.shape:
            why = "Calibrate with examples of one size, and apart for each other size."
        if why is not None:
            given = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            first = f"{shown([wanted], (wanted.shape,))} of {wanted.dtype}"
            raise EngineError(
                f"batch {number} is not like the first one: {wanted.name} was {first}, and is {given}. {why}"
            )
    return tensors


def _see_(seen: SeenNetwork, tensors: Sequence[Tensor]) -> None:
    graph = seen.graph
    held: dict[str, object] = {name: x.clone() for name, x in zip(graph.names, tensors, strict=True)}
    for name, x in held.items():
        _take_(seen, name, x)
    for node, ended in zip(graph.nodes, last_uses(graph), strict=True):
        try:
            held[node.name] = node.function(*[held[name] for name in node.inputs])
        except Exception as fact:  # of an operation of torch that was captured for another number of examples
            raise EngineError(
                f"the network fails on a batch of {examples_in(graph, tensors)}: {first_line(fact)} Give batches that "
                "are all as large as the first."
            ) from fact
        _take_(seen, node.name, held[node.name])
        for name in ended:
            del held[name]
    count = examples_in(graph, tensors)
    kept = min(count, MEASURED - min(seen.examples, MEASURED))
    for part in range(0, kept, TOGETHER):
        places = slice(part, min(part + TOGETHER, kept))
        seen.kept.append(
            [x[places] if each.has_batch else x for each, x in zip(graph.inputs, tensors, strict=True)]
        )
    seen.examples += count


def _take_(seen: SeenNetwork, name: str, value: object) -> None:
    if name in seen.ranges and isinstance(value, Tensor) and value.dtype is torch.float32:
        seen.ranges[name].see_(name, value)


def _demand_variety(seen: SeenNetwork) -> None:
    """EngineError where every input that is read is one number over and over."""
    inputs = [seen.ranges[name] for name in seen.graph.names if name in seen.ranges]
    if inputs and all(each.least == each.most for each in inputs):
        raise EngineError(
            f"the batches hold nothing but the number {inputs[0].least + 0.0:g}, from which no range can be known. "
            "Give batches like those that the network will see."
        )


def _quantisation(seen: SeenNetwork, method: str) -> Quantisation:
    values = scales_of(seen.graph, seen.operations, seen.ranges, method)
    layers = [each for each in seen.operations if each.is_layer and {*each.reads} <= {*values}]
    layers = [
        each for each in layers if reference.largest_sum(reference.byte_weight(_weight(each))) < SUM_LIMIT
    ]
    return measured(seen, values, {each.name: weight_scales(_weight(each)) for each in layers}, method)


def measured(
    seen: SeenNetwork, values: Mapping[str, Scaling], weights: Mapping[str, Tensor], method: str
) -> Quantisation:
    """The quantisation of these scales of values and of layers' weights, with what it costs on what was seen."""
    layers = [each for each in seen.operations if each.name in weights]
    errors = _layer_errors(seen, layers, values, weights)
    made = Quantisation(values, weights, errors, 0.0, seen.network, seen.examples, method)
    demand_sound(made)
    return replace(made, error=_network_error(seen, made))


def _weight(each: ByteOperation) -> Tensor:
    assert each.operation.layer is not None
    return each.operation.layer.weight


def scales_of(
    graph: Graph, operations: Sequence[ByteOperation], ranges: Mapping[str, ValueRange], method: str
) -> dict[str, Scaling]:
    """Value -> its scale and zero point by that method, where anything was seen of it.

    What the graph is called with is taken to be never negative if it never was; other values where operations say so.
    """
    same, positive = same_scales(graph, operations), never_negative(graph)
    positive |= {name for name in graph.names if name in ranges and ranges[name].least >= 0}
    scales: dict[str, Scaling] = {}
    for name in ranges:
        source = name
        while same.get(source) in ranges and ranges[same[source]].counts.any():
            source = same[source]
        if not ranges[source].counts.any():
            continue
        scales[name] = scale_of(ranges[source], negative=source not in positive, method=method)
    return scales


@torch.no_grad()
def _layer_errors(
    seen: SeenNetwork,
    layers: Sequence[ByteOperation],
    values: Mapping[str, Scaling],
    weights: Mapping[str, Tensor],
) -> dict[str, float]:
    stored = {each.name: byte_weight_of(each, weights) for each in layers}
    kept = {name for each in layers for name in (*each.reads, each.name)}
    sums = {each.name: [0.0, 0.0] for each in layers}
    for tensors in _first(seen, TOGETHER):
        exact = run_once(seen.graph, tensors, kept).values
        for each in layers:
            maps = [reference.byte_map(exact[name], values[name]) for name in each.reads]
            y = computed(each, stored[each.name], values, maps)
            assert isinstance(y, Tensor)
            _add_(sums[each.name], y, exact[each.name] if each.name in exact else _phases(each, exact))
    return {name: _root(*pair) for name, pair in sums.items()}


def _phases(each: ByteOperation, exact: Mapping[str, Tensor]) -> Tensor:
    """What a transposed convolution makes before its pixels are interleaved, which is no value of the graph."""
    layer, (shape, form) = each.operation.layer, each.maps[0]
    assert layer is not None
    return pytorch.reference(
        layer, to_map(form, shape, exact[each.reads[0]]), each.operation.activation is not None
    )


def _first(seen: SeenNetwork, wanted: int) -> list[list[Tensor]]:
    """As many of the batches that were kept as have so many examples."""
    counts = [examples_in(seen.graph, tensors) for tensors in seen.kept]
    before = accumulate(counts, initial=0)
    return [tensors for tensors, already in zip(seen.kept, before, strict=False) if already < wanted]


@torch.no_grad()
def _network_error(seen: SeenNetwork, made: Quantisation) -> float:
    layers = {*made.errors} - {*made.in_fp32(LIMIT)}
    run, sums = network_of(seen.graph, seen.operations, made.values, made.weights, layers), [0.0, 0.0]
    for tensors, expected in zip(seen.kept, seen.outputs, strict=True):
        for y, wanted in zip(run(*tensors), expected, strict=True):
            if isinstance(wanted, Tensor) and wanted.is_floating_point():
                _add_(sums, y, wanted)
    return _root(*sums)


def _add_(sums: list[float], y: Tensor, exact: Tensor) -> None:
    sums[0] += float((y.double() - exact.double()).square().sum())
    sums[1] += float(exact.double().square().sum())


def _root(gap: float, whole: float) -> float:
    """The root of the quotient; 0 where both are 0."""
    return math.sqrt(gap / whole) if whole else (0.0 if not gap else math.inf)
