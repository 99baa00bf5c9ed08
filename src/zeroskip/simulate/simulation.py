"""A network through a described accelerator, layer by layer."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from typing import TypeVar

import numpy as np
from torch import Tensor

from zeroskip.concepts import Trace
from zeroskip.errors import AcceleratorError, ModelError
from zeroskip.simulate import slot_audit, traffic
from zeroskip.simulate.accelerator import Accelerator, check
from zeroskip.simulate.dataflows.dense import perfect
from zeroskip.simulate.energy import Energy, Prices, events, prices
from zeroskip.simulate.estimates import Estimate, LayerEstimate, LeftOut, together
from zeroskip.simulate.recorded import in_network, of_trace
from zeroskip.simulate.workload import Workload, count_macs

NamedT = TypeVar("NamedT", LayerEstimate, LeftOut)


def estimate(
    network: Sequence[Workload],
    chip: Accelerator,
    *,
    energy: str | Energy = "han2015",
    dram: str = "lpddr4",
    sample: int | None = None,
    left_out: Sequence[LeftOut] = (),
) -> Estimate:
    """Cycles, bytes and joules of layers known by their masks (`of_masks`, `of_trace`), exact for their own zeros.

    Layers of one name are runs of one weight: their figures are sums, and the weights are fetched for each run.
    sample    so many of the examples, evenly spread, instead of all; figures are theirs, with a standard error
    left_out  what else the network computes, in all examples: part of its MACs, and in no other figure

    AcceleratorError for a chip that contradicts itself, or that runs none of the layers; ModelError for a network
    without layers, with one that is no Workload, whose inputs are zero everywhere, or of fewer examples than `sample`.

    >>> estimate([of_masks("fc", torch.ones(64, 8) != 0, torch.ones(1, 8) != 0)], chips.EIE).cycles
    8
    """
    check(chip)
    priced, works, error = prices(energy, dram), in_network(_checked(network)), 0.0
    if sample is not None:
        left_out = [replace(each, macs=each.macs * sample // works[0].examples) for each in left_out]
        works, error = _sampled(works, chip, sample)
    refused = refusals(works, chip)
    runs = [work for work in works if chip.fallback or not reason(work, chip)]
    if not runs:
        raise AcceleratorError(f"{chip.name} runs none of the layers: {reason(works[0], chip)}")
    layers = [layer(work, chip, priced).times(count) for work, count in distinct(runs)]
    by_name = tuple(together(same) for same in _by_name(layers))
    others, table = (*refused, *left_out), priced.table.name
    return Estimate(chip.name, chip.hertz, table, dram, by_name, others, works[0].examples, error)


def estimate_trace(
    trace: Trace,
    chip: Accelerator,
    *,
    energy: str | Energy = "han2015",
    dram: str = "lpddr4",
    sample: int | None = None,
    left_out: Sequence[LeftOut] = (),
) -> Estimate:
    """`estimate` of the network that `measure.trace` recorded, on the inputs that its layers saw.

    >>> [layer.done for layer in estimate_trace(recorded, chips.EIE).layers]
    [36, 56]
    """
    return estimate(of_trace(trace), chip, energy=energy, dram=dram, sample=sample, left_out=left_out)


def layer(work: Workload, chip: Accelerator, prices: Prices) -> LayerEstimate:
    """One layer in its place in a network, on a checked chip. What the chip has no way to run is counted as dense."""
    refusal = reason(work, chip)
    if refusal:  # the multipliers are there, what knows of zeros is of no use
        chip = replace(chip, dataflow=perfect, skips="", gates="", stored=None, traffic=None)
    schedule = chip.dataflow(work, chip)
    taken = replace(work, weight=chip.stored(work, chip)) if chip.stored else work
    skips = chip.skips if schedule.skips is None else schedule.skips
    kinds = slot_audit.kinds(count_macs(taken), skips, chip.gates)
    sizes = traffic.stored(work, chip)
    if chip.traffic:
        moved = chip.traffic(work, chip, sizes)
    else:
        moved = schedule.moved or traffic.moved(work, chip, sizes, kinds, schedule.useless)
    computing = math.ceil(schedule.cycles * Fraction(str(chip.ramp)))
    cycles, roof = slot_audit.roof(chip, computing, moved)
    return LayerEstimate(
        work.name,
        work.op,
        work.macs,
        *kinds,
        cycles=cycles,
        slots=cycles * chip.lanes * chip.width,
        idle=slot_audit.slots(chip, kinds, schedule, computing, cycles),
        bytes=moved,
        picojoules=events(chip, prices, kinds, useless=schedule.useless, cycles=cycles, moved=moved),
        roof=roof,
        note=f"{refusal}; counted as dense on the same multipliers" if refusal else work.note,
    )


def reason(work: Workload, chip: Accelerator) -> str:
    """Why the chip has no way to run the layer; "" where it has."""
    return "" if work.runs_as in chip.ops else f'{chip.name} has no way to run "{work.name}", a {work.op}'


def refusals(works: Sequence[Workload], chip: Accelerator) -> list[LeftOut]:
    """The layers that the chip has no way to run, each with the MACs of all its runs.

    >>> conv = of_masks("conv", torch.ones(4, 2, 1, 1) != 0, torch.ones(1, 2, 8, 8) != 0)
    >>> [(layer.name, layer.macs) for layer in refusals([conv, conv], chips.EIE)]
    [('conv', 1024)]
    """
    runs = [
        LeftOut(work.name, work.macs, why, refused=True)
        for work in works
        if not chip.fallback and (why := reason(work, chip))
    ]
    return [replace(same[0], macs=sum(run.macs for run in same)) for same in _by_name(runs)]


def distinct(works: Sequence[Workload]) -> list[tuple[Workload, int]]:
    """The layers, and how often each runs with the very same zeros, in the order of the first such runs.

    A step of a recurrent layer whose state has no zero is as any other.

    >>> fc = of_masks("fc", torch.ones(4, 4) != 0, torch.ones(1, 4) != 0)
    >>> [(work.name, count) for work, count in distinct([fc, fc, replace(fc, name="fc2")])]
    [('fc', 2), ('fc2', 1)]
    """
    often = Counter(work.name for work in works)
    runs: dict[tuple[object, ...], list[Workload]] = {}
    for place, work in enumerate(works):
        key = (work.name, *_zeros(work)) if often[work.name] > 1 else (place,)
        runs.setdefault(key, []).append(work)
    return [(same[0], len(same)) for same in runs.values()]


def _zeros(work: Workload) -> Iterator[object]:
    """All that decides a layer's figures but its name, as values that can be compared."""
    for field in fields(work):
        value = getattr(work, field.name)
        if isinstance(value, Tensor):
            yield value.shape
            yield np.packbits(value.numpy()).tobytes()
        else:
            yield value


def _by_name(parts: Sequence[NamedT]) -> list[list[NamedT]]:
    """Those of one name together, in the order of the first."""
    names: dict[str, list[NamedT]] = {}
    for part in parts:
        names.setdefault(part.name, []).append(part)
    return list(names.values())


def _checked(network: Sequence[Workload]) -> list[Workload]:
    for place, work in enumerate(network):
        if not isinstance(work, Workload):
            raise ModelError(
                f"layer {place} is a {type(work).__name__}, no Workload. `estimate` takes layers as masks; for what "
                f"`measure.trace` recorded use `estimate_trace`, or `of_trace` to put both together"
            )
    if not any(work.macs for work in network):
        raise ModelError("there is no layer to simulate: give what `measure.trace` recorded of a network")
    if not any(bool(work.input.any()) for work in network):
        raise ModelError(
            f'the input of every layer, from "{network[0].name}" on, is zero everywhere, so nothing would be '
            f"computed. Record the network on real examples"
        )
    return list(network)


def _sampled(works: list[Workload], chip: Accelerator, count: int) -> tuple[list[Workload], float]:
    """The layers for `count` examples, and the standard error of the cycles of those that are not looked at."""
    examples = works[0].examples
    if not 1 < count <= examples:
        raise ModelError(f"sample = {count} is not from 2 to the {examples} examples that were recorded")
    for work in works:
        if len(work.input) % examples:
            raise ModelError(
                f'a sample takes whole examples, and layer "{work.name}" has {len(work.input)} inputs for {examples}. '
                "Leave `sample` out"
            )
    chosen = [place * examples // count for place in range(count)]
    single = [distinct([_examples(work, [place]) for work in works]) for place in chosen]
    cycles = [sum(times * _cycles(work, chip) for work, times in runs) for runs in single]
    spread = statistics.stdev(cycles) / max(statistics.mean(cycles), 1)
    error = spread / math.sqrt(count) * math.sqrt(1 - count / examples)  # nothing is left out of a whole
    return [_examples(work, chosen) for work in works], error


def _cycles(work: Workload, chip: Accelerator) -> int:
    dataflow = perfect if reason(work, chip) else chip.dataflow
    return dataflow(work, chip).cycles


def _examples(work: Workload, chosen: list[int]) -> Workload:
    """A layer for some of the examples; a sequence of vectors is several positions of one example."""
    maps = {name: getattr(work, name) for name in ("input", "output", "stored_input", "stored_output")}
    taken = {
        name: mask.unflatten(0, (work.examples, -1))[chosen].flatten(0, 1)
        for name, mask in maps.items()
        if mask is not None
    }
    return replace(work, **taken, examples=len(chosen))
