"""The engine: a recorded network through a described accelerator, layer by layer."""

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
from zeroskip.simulate.energy import Energy, dram_per_bit, events, table
from zeroskip.simulate.estimates import Estimate, LayerEstimate
from zeroskip.simulate.workload import Workload, count_macs, in_network, of_trace, with_weight


def estimate(
    network: Trace | Sequence[Workload],
    machine: Accelerator,
    *,
    energy: str | Energy = "han2015",
    dram: str = "lpddr4",
    sample: int | None = None,
) -> Estimate:
    """Cycles, bytes and joules of a recorded network, exact for its own zeros.

    network  what `measure.trace` recorded, or layers as masks (`of_masks`)
    sample   so many of the examples, evenly spread, instead of all; figures are theirs, with a standard error

    AcceleratorError for a machine that contradicts itself, or that runs none of the layers; ModelError for a network
    without layers, whose recorded inputs are zero everywhere, or that has fewer examples than `sample`.

    >>> estimate([of_masks("fc", torch.ones(64, 8) != 0, torch.ones(1, 8) != 0)], chips.EIE).cycles
    8
    """
    check(machine)
    prices, per_bit = table(energy), dram_per_bit(dram)
    masks = [one for one in network if isinstance(one, Workload)]
    works = in_network(_checked(masks or of_trace([one for one in network if isinstance(one, tuple)])))
    error = 0.0
    if sample is not None:
        works, error = _sampled(works, machine, sample)
    reasons = [(work, _reason(work, machine)) for work in works]
    runs = [work for work, reason in reasons if machine.fallback or not reason]
    if not runs:
        raise AcceleratorError(f"{machine.name} runs none of the layers: {reasons[0][1]}")
    layers = tuple(layer(work, machine, prices, per_bit) for work in runs)
    refused = {} if machine.fallback else {work.name: reason for work, reason in reasons if reason}
    return Estimate(machine.name, machine.hertz, prices.name, dram, layers, refused, works[0].examples, error)


def layer(work: Workload, machine: Accelerator, prices: Energy, dram: float) -> LayerEstimate:
    """One layer in its place in a network, on a checked machine; `dram`: picojoules per bit.

    What the machine has no way to run is counted as dense.

    >>> layer(of_masks("fc", torch.ones(64, 8) != 0, torch.ones(1, 8) != 0), chips.EIE, HAN_2015, 8.0).cycles
    8
    """
    reason = _reason(work, machine)
    if reason:  # the multipliers are there, what knows of zeros is of no use
        machine = replace(machine, dataflow=perfect, skips="", gates="", stored=None, traffic=None)
    schedule = machine.dataflow(work, machine)
    taken = with_weight(work, machine.stored(work, machine)) if machine.stored else work
    skips = machine.skips if schedule.skips is None else schedule.skips
    kinds = slot_audit.kinds(count_macs(taken), skips, machine.gates)
    sizes = traffic.stored(work, machine)
    if machine.traffic:
        moved = machine.traffic(work, machine, sizes)
    else:
        moved = schedule.moved or traffic.moved(work, machine, sizes, kinds, schedule.useless)
    computing = math.ceil(schedule.cycles * Fraction(str(machine.ramp)))
    cycles, roof = slot_audit.roof(machine, computing, moved)
    return LayerEstimate(
        work.name,
        work.op,
        work.macs,
        *kinds,
        cycles=cycles,
        slots=cycles * machine.lanes * machine.width,
        idle=slot_audit.slots(machine, kinds, schedule, computing, cycles),
        bytes=moved,
        picojoules=events(machine, prices, dram, kinds, schedule.useless, cycles, moved),
        roof=roof,
        note=reason and f"{reason}; counted as dense on the same multipliers",
    )


def _reason(work: Workload, machine: Accelerator) -> str:
    return "" if work.op in machine.ops else f'{machine.name} has no way to run "{work.name}", a {work.op}'


def _checked(works: list[Workload]) -> list[Workload]:
    if not any(work.macs for work in works):
        raise ModelError("there is no layer to simulate: give what `measure.trace` recorded of a network")
    if not any(bool(work.input.any()) for work in works):
        raise ModelError(
            f'the input of every layer, from "{works[0].name}" on, is zero everywhere, so nothing would be '
            f"computed. Record the network on real examples"
        )
    return works


def _sampled(works: list[Workload], machine: Accelerator, count: int) -> tuple[list[Workload], float]:
    """The layers for `count` examples, and the standard error of the cycles of those that are not looked at."""
    examples = works[0].examples
    if not 1 < count <= examples:
        raise ModelError(f"sample = {count} is not from 2 to the {examples} examples that were recorded")
    chosen = [place * examples // count for place in range(count)]
    alone = [[_examples(work, [place]) for work in works] for place in chosen]
    cycles = [
        sum((perfect if _reason(work, machine) else machine.dataflow)(work, machine).cycles for work in one)
        for one in alone
    ]
    spread = statistics.stdev(cycles) / max(statistics.mean(cycles), 1)
    error = spread / math.sqrt(count) * math.sqrt(1 - count / examples)  # nothing is left out of a whole
    return [_examples(work, chosen) for work in works], error


def _examples(work: Workload, chosen: list[int]) -> Workload:
    """A layer for some of the examples; a sequence of vectors is several positions of one example."""
    rows = [
        mask.unflatten(0, (work.examples, -1))[chosen].flatten(0, 1) for mask in (work.input, work.output)
    ]
    return replace(work, input=rows[0], output=rows[1], examples=len(chosen))
