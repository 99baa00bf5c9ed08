"""Combining the fastest kernels of the layers into several whole networks, of which the fastest is taken."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from zeroskip.concepts import Choice, Machine
from zeroskip.graph import Graph
from zeroskip.run.convolution.tiles.half_precision import beyond, is_half
from zeroskip.run.convolution.tiles.operations import Operation, operations
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.tiling import Tiled, alone, tiled, values_of
from zeroskip.run.dense.pytorch import reference
from zeroskip.run.machine_code import Compiled
from zeroskip.run.output_difference import share
from zeroskip.run.schedule import Runner, schedule
from zeroskip.run.select.layers import Race
from zeroskip.run.timing import interleaved, medians

Plan = dict[str, str]
"""Node name -> name of the kernel that computes that layer."""

LONG = 0.5  # seconds of one round of all ways to run a network
TOGETHER = 4  # images worked on at a time, where that is tried: code and weights then serve four


@dataclass(frozen=True)
class Whole:
    """The network as one function, and what it was chosen from.

    rounded  the same in PyTorch, with weights and inputs rounded where the chosen kernels round them
    scratch  bytes of working memory of one call, for layers on tiles
    through  what PyTorch computes between the layers
    kernels, tiles, images  as in Origin
    """

    run: Runner
    rounded: Runner
    choices: tuple[Choice, ...]
    seconds: float
    dense_seconds: float
    scratch: int
    through: tuple[str, ...]
    kernels: Plan
    tiles: Plan
    images: int


def assemble(
    graph: Graph, example: Tensor, races: Mapping[str, Race], machine: Machine, threads: int
) -> Whole:
    """The fastest of several ways to run the network, measured in turns on the example.

    >>> assemble(graph, x, races, detect(), 1).seconds
    0.0061
    """
    races = _trusted(graph, example, races)
    plans = _plans(races)
    runs = {
        name: schedule(graph, {node: races[node].built[kernel] for node, kernel in plan.items()})
        for name, plan in plans.items()
    }
    parts = _tiled(graph, example, races, machine, threads)
    rest = beside_tiles(plans)
    for name, part in parts.items():
        runs[name] = _partly(part, rest, races)
    start = time.perf_counter()
    calls = {
        name: partial(run, example) for name, run in runs.items() if name == "dense" or _works(run, example)
    }
    # Nine rounds of a network that takes a second would make compiling a matter of minutes.
    rounds = 9 if time.perf_counter() - start < LONG else 3
    seconds = medians(interleaved(calls, rounds=rounds, seconds=1e-3))
    best = min(seconds, key=seconds.__getitem__)
    plan = plans.get(best, rest)
    choices = {node: _settled(each, plan[node]) for node, each in races.items()}
    # Kernels that lost were timed image by image only.
    singles = [name for name, part in parts.items() if _images(part.graph) == 1 and name != best]
    for name in [*singles, best] if best in parts else ():
        choices |= _on_tiles(parts[name], choices, races, len(example), threads)
    if best in parts and is_half(parts[best].kernels.values()):
        choices |= _with_errors(graph, example, choices, machine)
    final = parts[best].graph if best in parts else graph
    chosen = {
        node: each.references.get(choices[node].kernel, each.references["dense"])
        for node, each in races.items()
    }
    return Whole(
        runs[best],
        schedule(graph, chosen),
        tuple(choices.values()),
        seconds[best],
        seconds["dense"],
        scratch(final, threads),
        through(final),
        {node.name: plan[node.name] for node in final.nodes if node.layer is not None},
        parts[best].kernels if best in parts else {},
        _images(final),
    )


def _trusted(graph: Graph, example: Tensor, races: Mapping[str, Race]) -> dict[str, Race]:
    """The races, without kernels in fp16 where an operation on tiles cannot use it.

    Operations on tiles hand their numbers on as they are, so that one keeps all others from it.
    """
    some = any(is_half(each.on_tiles) for each in races.values())
    chain = operations(graph) if some else []
    why = _without_kernel(chain, races) or (beyond(chain, values_of(graph, example)) if chain else None)
    return dict(races) if why is None else {node: _without_half(each, why) for node, each in races.items()}


def _without_kernel(chain: Sequence[Operation], races: Mapping[str, Race]) -> str | None:
    """Which convolution on tiles has no kernel in fp16, and why."""
    by_layer = {race.choice.layer: race for race in races.values()}
    for one in chain:
        race = None if one.layer is None or one.kind != "conv" else by_layer[one.layer.name]
        if race is not None and not is_half(race.on_tiles):
            why = next((why for name, why in race.choice.refused.items() if is_half([name])), "")
            return f"{race.choice.layer} has no kernel in fp16, which all layers on tiles need: {why}"
    return None


def _without_half(race: Race, why: str) -> Race:
    without = {name: why for name in race.on_tiles if is_half([name])}
    choice = replace(race.choice, refused=race.choice.refused | without)
    return replace(race, choice=choice, on_tiles=tuple(name for name in race.on_tiles if name not in without))


def _tiled(
    graph: Graph, example: Tensor, races: Mapping[str, Race], machine: Machine, threads: int
) -> dict[str, Tiled]:
    """The network on tiles in fp32 and in fp16, image by image and, for batches, several at a time."""
    found: dict[str, Tiled] = {}
    for title, half in (("tiles", False), ("tiles in fp16", True)):
        kernels = {
            race.choice.layer: [name for name in race.on_tiles if is_half([name]) is half]
            for race in races.values()
        }
        found |= _singly_and_together(title, graph, example, races, machine, threads, kernels)
    return found


def _singly_and_together(
    title: str, graph: Graph, example: Tensor, races: Mapping[str, Race], machine: Machine, threads: int,
    kernels: Mapping[str, Sequence[str]],
) -> dict[str, Tiled]:  # fmt: skip
    single = tiled(graph, example, machine, kernels, images=1, threads=threads)
    if single is None:
        return {}
    if len(example) < TOGETHER * threads:
        return {title: single}
    layer = {node: race.choice.layer for node, race in races.items()}
    settled = {
        layer[node]: [single.kernels[one]]
        for one, nodes in single.nodes.items()
        for node in nodes
        if node in layer
    }
    several = tiled(graph, example, machine, settled, images=TOGETHER, threads=threads)
    return {title: single} if several is None else {title: single, f"{title} of {TOGETHER} images": several}


def _partly(part: Tiled, rest: Plan, races: Mapping[str, Race]) -> Runner:
    """The network on tiles, and what is not on tiles by another plan."""
    there = {node.name for node in part.graph.nodes if node.layer is not None}
    functions = {node: races[node].built[kernel] for node, kernel in rest.items() if node in there}
    return schedule(part.graph, functions)


def scratch(graph: Graph, threads: int) -> int:
    """Bytes of working memory that one call of a network on tiles needs.

    >>> scratch(graph, 1)
    7602176
    """
    return threads * sum(segment.lowered.bytes for segment in _segments(graph))


def _segments(graph: Graph) -> list[Segment]:
    return [node.function for node in graph.nodes if isinstance(node.function, Segment)]


def _images(graph: Graph) -> int:
    return next((segment.lowered.images for segment in _segments(graph)), 1)


def through(graph: Graph) -> tuple[str, ...]:
    """The operations that are neither layers nor on tiles, by torch's names.

    >>> through(graph)
    ('flatten', 'softmax')
    """
    others = [
        node.op for node in graph.nodes if node.layer is None and not isinstance(node.function, Segment)
    ]
    names = [op.removeprefix("aten.").split(".")[0] for op in others]
    return tuple(dict.fromkeys(name for name in names if name != "getitem"))


def _on_tiles(
    part: Tiled, choices: Mapping[str, Choice], races: Mapping[str, Race], batch: int, threads: int
) -> dict[str, Choice]:
    """What is to be said of the layers on tiles; their seconds are for the whole batch, as those of the others."""
    turns = -(-batch // (_images(part.graph) * threads))
    found = {}
    for one, nodes in part.nodes.items():
        for node in (each for each in nodes if each in choices and one in part.kernels):
            tiles = {kernel: turns * seconds for kernel, seconds in part.seconds[one].items()}
            took = choices[node].seconds | tiles
            found[node] = replace(
                choices[node],
                kernel=part.kernels[one],
                seconds=took,
                error=races[node].errors.get(part.kernels[one], 0.0),
                reason="on tiles",
            )
    return found


def _with_errors(
    graph: Graph, example: Tensor, choices: Mapping[str, Choice], machine: Machine
) -> dict[str, Choice]:
    """The choices of layers in fp16, with errors that come from sums as much as from weights and inputs."""
    values, found = values_of(graph, example), {}
    for node in graph.nodes:
        choice = choices.get(node.name)
        if choice is None or node.layer is None or not is_half([choice.kernel]):
            continue
        x = values[node.inputs[0]]
        y = alone(node.layer, node.relu, choice.kernel, machine)(x)
        found[node.name] = replace(choice, error=share(y, reference(node.layer, x, node.relu)))
    return found


def _plans(races: Mapping[str, Race]) -> dict[str, Plan]:
    """Ways to choose for the whole network that differ.

    Layers that win alone may lose together, by what they leave in the caches, and a layer that loses alone may
    win by joining its neighbours in one call.
    """
    fastest = {node: each.choice.kernel for node, each in races.items()}
    joined = {
        node: min(
            (name for name, function in each.built.items() if isinstance(function, Compiled)),
            key=each.choice.seconds.__getitem__,
            default="dense",
        )
        for node, each in races.items()
    }
    # Alone, a layer pays for changing the layout; together only the first one does.
    pixelwise = {
        node: "channels_last" if "channels_last" in each.built else fastest[node]
        for node, each in races.items()
    }
    plans = {"dense": dict.fromkeys(races, "dense")}
    for name, plan in (("fastest", fastest), ("joined", joined), ("pixelwise", pixelwise)):
        if plan not in plans.values():
            plans[name] = plan
    return plans


def beside_tiles(plans: Mapping[str, Plan]) -> Plan:
    """Of the plans that differ, the one for layers that are not on tiles: there is no other layout to pay for.

    >>> beside_tiles({"dense": {"fc": "dense"}, "fastest": {"fc": "sell"}})
    {'fc': 'sell'}
    """
    return plans.get("joined", plans.get("fastest", plans["dense"]))


def _works(run: Runner, example: Tensor) -> bool:
    """Whether it runs at all: an operation between the layers may insist on the layout it was exported with."""
    try:
        run(example)
    except RuntimeError:
        return False
    return True


def _settled(race: Race, kernel: str) -> Choice:
    choice = race.choice
    if kernel == choice.kernel:
        return choice
    reason = f"the whole network was faster with it; alone {choice.kernel} was fastest"
    return replace(choice, kernel=kernel, reason=reason, error=race.errors[kernel])
