"""Combining the fastest kernels of the layers into several whole networks, of which the fastest is selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from zeroskip.concepts import Choice, Kernel, Layer, Machine, Precision
from zeroskip.concepts.engine import Computed
from zeroskip.graph import Graph, Node
from zeroskip.graph.recurrent import Recurrent, StepOutputs, function_of
from zeroskip.run.captured import Captured, kernel_nodes, layer_nodes
from zeroskip.run.convolution.tiles.graph_operations import without_layers
from zeroskip.run.convolution.tiles.half_precision import beyond
from zeroskip.run.convolution.tiles.kernels import (
    computes_in,
    depthwise_in,
    element_of,
    works_on_tiles,
)
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.tiling import NetworkOnTiles, alone, as_maps, fastest_on_tiles
from zeroskip.run.dense import pytorch
from zeroskip.run.element import FP16, FP32, INT8, Element
from zeroskip.run.integer_network import integer_network, with_bytes
from zeroskip.run.layer_scales import NO_SCALES, needs_scales, stays_in_fp32
from zeroskip.run.output_difference import relative_error
from zeroskip.run.program import CompiledNetwork, Origin
from zeroskip.run.quantisation import Quantisation
from zeroskip.run.runner import Runner, runner
from zeroskip.run.select.layer_timing import LayerTiming
from zeroskip.run.select.recurrent_timing import by_matrix
from zeroskip.run.timing import preferred, raced, stop_watch

Combination = dict[str, str]
"""Node of a layer -> name of the kernel that computes it."""

Timings = Mapping[str, LayerTiming]
"""Node of a layer -> how long each kernel takes for it."""

TOGETHER = 4  # images worked on at a time, where that is tried: code and weights then serve four


@dataclass(frozen=True)
class Target:
    """What a program is made for; `quantisation` where it may compute in eight bits."""

    machine: Machine
    precision: Precision
    threads: int
    quantisation: Quantisation | None = None


@dataclass(frozen=True)
class Selection:
    """The fastest way to run a network, measured in turns with others.

    rounded        the same in PyTorch, with weights and inputs rounded where the selected kernels round them
    seconds, dense_seconds  of one call on the example; the latter with every layer dense
    lost           seconds on tiles, where another way was faster
    """

    compiled: CompiledNetwork
    rounded: Runner
    choices: tuple[Choice, ...]
    seconds: float
    dense_seconds: float
    lost: float | None = None


def select_network(
    captured: Captured, operations: Sequence[Operation], timings: Timings, target: Target
) -> Selection:
    """The fastest of several ways to run the network, measured in turns on the example.

    `operations` are those that may work on tiles.
    """
    graph, example = captured.graph, [tensor.clone() for tensor in captured.tensors]
    timings = _without_unfit_fp16(captured, operations, timings)
    bytewise = _in_bytes(graph, operations, target)
    timings = _without_unfit_int8(bytewise, timings, target)
    combinations = _combinations(timings)
    runs = {name: _runner(graph, timings, kernels) for name, kernels in combinations.items()}
    rest = off_tiles(combinations)
    tiled = _ways_on_tiles(captured, operations, timings, target)
    tiled |= _ways_in_int8(captured, bytewise, timings, target)
    runs |= {name: _runner(way.graph, timings, rest) for name, way in tiled.items()}
    seconds = _timed(runs, example)
    best = preferred(seconds)
    combination, way = combinations.get(best, rest), tiled.get(best)
    choices = {node: _chosen(timing, combination[node]) for node, timing in timings.items()}
    if way is not None:
        # Kernels that lost were timed image by image only.
        ways = [*(each for each in tiled.values() if each.images == 1 and each is not way), way]
        choices |= _choices_on_tiles(captured, choices, timings, ways, target)
    beaten = sorted((each for each in tiled if way is None and each in seconds), key=seconds.__getitem__)
    if beaten:
        choices |= _choices_off_tiles(captured, choices, tiled[beaten[0]], target)
    final = graph if way is None else way.graph
    untiled = [node.name for node, _ in kernel_nodes(final)]
    origin = Origin(
        graph,
        target.precision,
        kernels={name: timings[name].kernels[combination[name]] for name in untiled},
        tiles={} if way is None else way.kernels,
        images=1 if way is None else way.images,
    )
    if computes_in(origin.tiles, INT8) or any(
        needs_scales(kernel, target.precision) for kernel in origin.kernels.values()
    ):
        origin = replace(origin, quantisation=target.quantisation)
    functions = {name: timings[name].built[combination[name]] for name in untiled}
    compiled = CompiledNetwork(runs[best], origin, target.machine, final, functions)
    references: dict[str, Callable[..., Computed]] = {
        node.name: partial(_reference, timings[node.name], choices[node.name].kernel, computed, node.relu)
        for node, computed in kernel_nodes(graph)
        if node.recurrent or len(node.inputs) == 1
    }
    rounded = _rounded(origin, references)
    lost = seconds[beaten[0]] if beaten else None
    of_layers = tuple(
        each for node, _ in kernel_nodes(graph) for each in _choices_of(node, choices[node.name])
    )
    return Selection(compiled, rounded, of_layers, seconds[best], seconds["dense"], lost)


def _rounded(origin: Origin, references: Mapping[str, Callable[..., Computed]]) -> Runner:
    """The network in PyTorch, rounded as its kernels round; `references` by node."""
    if origin.quantisation is None or not computes_in(origin.tiles, INT8):
        return runner(origin.graph, references)
    off_tiles = {name: references[name] for name in origin.kernels if name in references}
    return integer_network(origin.graph, origin.quantisation, off_tiles)


def _runner(graph: Graph, timings: Timings, combination: Combination) -> Runner:
    """The network by these kernels; what is on tiles needs none."""
    names = [node.name for node, _ in kernel_nodes(graph)]
    return runner(graph, {name: timings[name].built[combination[name]] for name in names})


def _choices_of(node: Node, choice: Choice) -> list[Choice]:
    """The choice of a layer, or those of the matrices of a recurrent operation."""
    return [choice] if node.recurrent is None else by_matrix(choice, node.recurrent)


def _reference(
    timing: LayerTiming, name: str, computed: Layer | Recurrent, relu: bool, *values: Tensor
) -> StepOutputs:
    """The layer or recurrent operation in PyTorch, rounded as the kernel of that name rounds."""
    kernel = timing.kernels.get(name, pytorch.KERNEL)
    if isinstance(computed, Recurrent):
        exact = kernel is pytorch.KERNEL
        return function_of(computed)(*values) if exact else kernel.reference(computed, *values)
    return kernel.reference(computed, *values, relu)


def _timed(runs: Mapping[str, Runner], example: Sequence[Tensor]) -> dict[str, float]:
    """Seconds of each way that works."""
    calls = {
        name: partial(run, *example) for name, run in runs.items() if name == "dense" or _works(run, example)
    }
    return raced(calls, stop_watch())


def _works(run: Runner, example: Sequence[Tensor]) -> bool:
    """Whether it runs at all: an operation between the layers may insist on the layout it was exported with."""
    try:
        run(*example)
    except RuntimeError:
        return False
    return True


def _without_unfit_fp16(captured: Captured, operations: Sequence[Operation], timings: Timings) -> Timings:
    """The timings, without kernels in fp16 where an operation on tiles cannot use it.

    Operations on tiles hand their numbers on as they are, so that one keeps all others from it.
    """
    if not operations or not any(timing.on_tiles(FP16) for timing in timings.values()):
        return timings
    why = _without_kernel(operations, timings) or beyond(operations, as_maps(captured, operations))
    return timings if why is None else {node: _without(timing, FP16, why) for node, timing in timings.items()}


def _without_kernel(operations: Sequence[Operation], timings: Timings) -> str | None:
    """Which convolution on tiles has no kernel in fp16, and why."""
    for operation in operations:
        if operation.layer is None or operation.kind != "conv":
            continue
        timing = timings[_layer_node(operation, timings)]
        if not timing.on_tiles(FP16):
            refused = timing.choice.refused
            able = (each.name for each in timing.candidates if works_on_tiles(each, FP16))
            why = next((refused[name] for name in able if name in refused), "")
            return f"{timing.choice.layer} has no kernel in fp16, which all layers on tiles need: {why}"
    return None


def _layer_node(operation: Operation, timings: Timings) -> str:
    """The node of the operation's layer."""
    return next(name for name in operation.names if name in timings)


def _without(timing: LayerTiming, element: Element, why: str) -> LayerTiming:
    refused = timing.choice.refused | {kernel.name: why for kernel in timing.on_tiles(element)}
    return replace(timing, choice=replace(timing.choice, refused=refused))


def _in_bytes(graph: Graph, operations: Sequence[Operation], target: Target) -> list[Operation]:
    """The operations of which some compute in eight bits, where that is asked for; else none."""
    if target.quantisation is None or not operations:
        return []
    return with_bytes(graph, operations, target.quantisation)


def _without_unfit_int8(operations: Sequence[Operation], timings: Timings, target: Target) -> Timings:
    """The timings, without kernels in eight bits of layers that stay in fp32."""
    if target.quantisation is None:
        return timings
    errors, unfit = target.quantisation.errors, dict[str, LayerTiming]()
    for operation in (each for each in operations if each.layer is not None and each.in_bytes is None):
        timing, error = timings[_layer_node(operation, timings)], errors.get(operation.name)
        why = NO_SCALES if error is None else stays_in_fp32(error)
        unfit[_layer_node(operation, timings)] = _without(timing, INT8, why)
    return {**timings, **unfit}


def _ways_in_int8(
    captured: Captured, operations: Sequence[Operation], timings: Timings, target: Target
) -> dict[str, NetworkOnTiles]:
    """The network on tiles in int8, beside what stays in fp32: image by image and, for batches, several at a time."""
    if not any(each.in_bytes is not None and each.layer is not None for each in operations):
        return {}
    measure = partial(fastest_on_tiles, captured, machine=target.machine, threads=target.threads)
    single = measure(operations, _candidates(operations, timings, FP32), images=1)
    if single is None:
        return {}
    ways = {"tiles in int8": single}
    if captured.count >= TOGETHER * target.threads:
        several = measure(
            operations, {name: [kernel] for name, kernel in single.kernels.items()}, images=TOGETHER
        )
        ways |= {} if several is None else {f"tiles in int8 of {TOGETHER} images": several}
    return ways


def _ways_on_tiles(
    captured: Captured, operations: Sequence[Operation], timings: Timings, target: Target
) -> dict[str, NetworkOnTiles]:
    """The network on tiles in fp32 and in fp16, image by image and, for batches, several at a time."""
    ways: dict[str, NetworkOnTiles] = {}
    measure = partial(fastest_on_tiles, captured, machine=target.machine, threads=target.threads)
    for title, element in (("tiles", FP32), ("tiles in fp16", FP16)):
        single = measure(operations, _candidates(operations, timings, element), images=1)
        if single is None:
            continue
        ways[title] = single
        selected = {name: [kernel] for name, kernel in single.kernels.items()}
        rest = without_layers(operations, _faster_alone(captured, operations, timings, single, target))
        if len(rest) < len(operations):
            fewer = measure(rest, selected, images=1)
            ways |= {} if fewer is None else {f"{title} without linear layers": fewer}
        if captured.count >= TOGETHER * target.threads:
            several = measure(operations, selected, images=TOGETHER)
            ways |= {} if several is None else {f"{title} of {TOGETHER} images": several}
    return ways


def _faster_alone(
    captured: Captured, operations: Sequence[Operation], timings: Timings, way: NetworkOnTiles, target: Target
) -> set[str]:
    """The nodes of linear layers that are faster by another kernel than on tiles."""
    faster = set()
    for operation in operations:
        choice = None if operation.layer is None else timings[_layer_node(operation, timings)].choice
        if choice is not None and choice.op == "linear":
            on_tiles = _batch_seconds(captured, way, operation.name, target)
            slower = choice.seconds[choice.kernel] < min(on_tiles.values())
            faster |= {_layer_node(operation, timings)} if slower else set()
    return faster


def _candidates(
    operations: Sequence[Operation], timings: Timings, element: Element
) -> dict[str, Sequence[Kernel]]:
    """Operation -> the kernels that can compute it: in int8 where it computes in bytes, else in `element`."""
    found: dict[str, Sequence[Kernel]] = {}
    for operation in operations:
        if operation.layer is None:
            continue
        own = element_of(operation, element)
        several = timings[_layer_node(operation, timings)].on_tiles(own)
        found[operation.name] = [depthwise_in(own)] if operation.kind == "depthwise" else several
    return found


def _choices_on_tiles(
    captured: Captured, choices: Mapping[str, Choice], timings: Timings, ways: Sequence[NetworkOnTiles], target: Target
) -> dict[str, Choice]:  # fmt: skip
    """The choices of layers on tiles, the last of the `ways` being the selected one.

    Their seconds are for the whole batch, as those of other layers.
    """
    chosen, selected = {}, ways[-1]
    for name, node in _nodes_on_tiles(captured, selected).items():
        kernel, seconds = selected.kernels[name], dict(choices[node.name].seconds)
        for way in ways:
            seconds |= _batch_seconds(captured, way, name, target)
        error = timings[node.name].errors.get(kernel.name, 0.0)
        if kernel.element == FP16.name or (kernel.element == INT8.name and not error):
            error = _error_alone(node, captured.values[node.inputs[0]], kernel, target.machine)
        in_fp32 = selected.computes_in(INT8) and kernel.element == FP32.name
        chosen[node.name] = replace(
            choices[node.name],
            kernel=kernel.name,
            seconds=seconds,
            reason="on tiles, in fp32" if in_fp32 else "on tiles",
            error=error,
            skips=kernel.skips,
        )
    return chosen


def _choices_off_tiles(
    captured: Captured, choices: Mapping[str, Choice], way: NetworkOnTiles, target: Target
) -> dict[str, Choice]:
    """The choices of layers that would be on tiles, with what they took there; the network was faster without."""
    kept = {}
    for name, node in _nodes_on_tiles(captured, way).items():
        choice, on_tiles = choices[node.name], _batch_seconds(captured, way, name, target)
        slower = min(on_tiles.values()) < choice.seconds[choice.kernel]
        reason = "the whole network was not faster on tiles" if slower else choice.reason
        kept[node.name] = replace(choice, seconds=choice.seconds | on_tiles, reason=reason)
    return kept


def _nodes_on_tiles(captured: Captured, way: NetworkOnTiles) -> dict[str, Node]:
    """Operation -> the node of its layer."""
    node_of = {node.name: node for node, _ in layer_nodes(captured.graph)}
    return {name: node_of[next(each for each in way.nodes[name] if each in node_of)] for name in way.kernels}


def _batch_seconds(captured: Captured, way: NetworkOnTiles, name: str, target: Target) -> dict[str, float]:
    """Name of a kernel -> its seconds for the operation, on the whole batch."""
    turns = -(-captured.count // (way.images * target.threads))
    return {tried: turns * took for tried, took in way.seconds.get(name, {}).items()}


def _error_alone(node: Node, x: Tensor, kernel: Kernel, machine: Machine) -> float:
    """The error of a layer in fp16, which comes from sums as much as from weights and inputs, or in int8."""
    assert node.layer is not None
    if kernel.element == FP16.name:
        y = alone(node.layer, node.relu, kernel, machine)(x)
    else:  # sums of bytes are exact
        y = kernel.reference(node.layer, x, node.relu)
    return relative_error(y, pytorch.reference(node.layer, x, node.relu))


def _combinations(timings: Timings) -> dict[str, Combination]:
    """Ways to choose for the whole network that differ.

    Layers that win alone may lose together, by what they leave in the caches, and a layer that loses alone may
    win by joining its neighbours in one call.
    """
    fastest = {node: timing.choice.kernel for node, timing in timings.items()}
    joined = {node: timing.joinable for node, timing in timings.items()}
    # Alone, a layer pays for changing the layout; together only the first one does.
    pixelwise = {
        node: "channels_last" if "channels_last" in timing.built else fastest[node]
        for node, timing in timings.items()
    }
    ways = {"dense": dict.fromkeys(timings, "dense")}
    for name, way in (("fastest", fastest), ("joined", joined), ("pixelwise", pixelwise)):
        if way not in ways.values():
            ways[name] = way
    return ways


def off_tiles(combinations: Mapping[str, Combination]) -> Combination:
    """The combination for layers that are not on tiles: joined if there, else fastest, else dense."""
    return combinations.get("joined", combinations.get("fastest", combinations["dense"]))


def _chosen(timing: LayerTiming, name: str) -> Choice:
    """The layer's choice where the whole network decides for the kernel of that name."""
    choice = timing.choice
    if name == choice.kernel:
        return choice
    reason = f"the whole network was faster with it; alone {choice.kernel} was fastest"
    skips = timing.kernels[name].skips
    return replace(choice, kernel=name, reason=reason, error=timing.errors[name], skips=skips)
