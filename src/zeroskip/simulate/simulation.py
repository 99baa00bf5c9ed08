"""A network through a described accelerator, layer by layer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from zeroskip.concepts import Trace
from zeroskip.errors import AcceleratorError, ModelError
from zeroskip.simulate import slot_audit, traffic
from zeroskip.simulate.accelerator import Accelerator, check
from zeroskip.simulate.dataflows.dense import perfect
from zeroskip.simulate.energy import Energy, Prices, events, prices
from zeroskip.simulate.estimates import Estimate, LayerEstimate
from zeroskip.simulate.workload import Workload, count_macs, in_network, of_trace


def estimate(
    network: Sequence[Workload],
    chip: Accelerator,
    *,
    energy: str | Energy = "han2015",
    dram: str = "lpddr4",
    sample: int | None = None,
) -> Estimate:
    """Cycles, bytes and joules of layers known by their masks (`of_masks`, `of_trace`), exact for their own zeros.

    sample   so many of the examples, evenly spread, instead of all; figures are theirs, with a standard error

    AcceleratorError for a chip that contradicts itself, or that runs none of the layers; ModelError for a network
    without layers, with one that is no Workload, whose inputs are zero everywhere, or of fewer examples than `sample`.

    >>> estimate([of_masks("fc", torch.ones(64, 8) != 0, torch.ones(1, 8) != 0)], chips.EIE).cycles
    8
    """
    check(chip)
    priced, works, error = prices(energy, dram), in_network(_checked(network)), 0.0
    if sample is not None:
        works, error = _sampled(works, chip, sample)
    reasons = [(work, _reason(work, chip)) for work in works]
    runs = [work for work, reason in reasons if chip.fallback or not reason]
    if not runs:
        raise AcceleratorError(f"{chip.name} runs none of the layers: {reasons[0][1]}")
    layers = tuple(layer(work, chip, priced) for work in runs)
    refused = {} if chip.fallback else {work.name: reason for work, reason in reasons if reason}
    table = priced.table.name
    return Estimate(chip.name, chip.hertz, table, dram, layers, refused, works[0].examples, error)


def estimate_trace(
    trace: Trace,
    chip: Accelerator,
    *,
    energy: str | Energy = "han2015",
    dram: str = "lpddr4",
    sample: int | None = None,
) -> Estimate:
    """`estimate` of the network that `measure.trace` recorded, on the inputs that its layers saw.

    >>> [layer.done for layer in estimate_trace(recorded, chips.EIE).layers]
    [36, 56]
    """
    return estimate(of_trace(trace), chip, energy=energy, dram=dram, sample=sample)


def layer(work: Workload, chip: Accelerator, prices: Prices) -> LayerEstimate:
    """One layer in its place in a network, on a checked chip. What the chip has no way to run is counted as dense."""
    reason = _reason(work, chip)
    if reason:  # the multipliers are there, what knows of zeros is of no use
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
        note=reason and f"{reason}; counted as dense on the same multipliers",
    )


def _reason(work: Workload, chip: Accelerator) -> str:
    return "" if work.op in chip.ops else f'{chip.name} has no way to run "{work.name}", a {work.op}'


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
    chosen = [place * examples // count for place in range(count)]
    cycles = [sum(_cycles(_examples(work, [place]), chip) for work in works) for place in chosen]
    spread = statistics.stdev(cycles) / max(statistics.mean(cycles), 1)
    error = spread / math.sqrt(count) * math.sqrt(1 - count / examples)  # nothing is left out of a whole
    return [_examples(work, chosen) for work in works], error


def _cycles(work: Workload, chip: Accelerator) -> int:
    dataflow = perfect if _reason(work, chip) else chip.dataflow
    return dataflow(work, chip).cycles


def _examples(work: Workload, chosen: list[int]) -> Workload:
    """A layer for some of the examples; a sequence of vectors is several positions of one example."""
    masks = work.input, work.output
    x, y = (mask.unflatten(0, (work.examples, -1))[chosen].flatten(0, 1) for mask in masks)
    return replace(work, input=x, output=y, examples=len(chosen))
