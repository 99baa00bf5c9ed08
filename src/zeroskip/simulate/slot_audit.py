"""Where the MACs and the slots of a layer went, in whole numbers that sum exactly.

A slot is one multiplier in one cycle. Of all slots, cycles x lanes x width, each is of one kind:

    done, gated    a MAC that is worked on, or whose energy is saved since a factor is zero
    useless        an operation that is no MAC of the layer: padding entries, products outside the output
    fragmentation  multipliers of a lane at work that have nothing to take in this cycle
    imbalance      lanes that wait for others, or that the layer's shape leaves without work
    ramp           pipelines that fill and drain
    bandwidth      everything waits for a memory
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from zeroskip.simulate.accelerator import Accelerator, Bytes
from zeroskip.simulate.lane_counts import Schedule
from zeroskip.simulate.workload import Macs

COMPUTE = "compute"


class Kinds(NamedTuple):
    """MACs of each kind; they sum to those of the dense layer."""

    done: int
    gated: int
    skipped: int


def kinds(macs: Macs, skips: str, gates: str) -> Kinds:
    """What becomes of the MACs on a chip that skips and gates those zeros.

    >>> kinds(Macs(both=3, weight=5, input=6, total=10), "W", "A")
    Kinds(done=3, gated=2, skipped=5)
    """
    left = {"": macs.total, "A": macs.input, "W": macs.weight, "AW": macs.both}
    issued = left[skips]
    done = left["".join(sorted({*skips, *gates}))]
    return Kinds(done, issued - done, macs.total - issued)


def roof(chip: Accelerator, computing: int, moved: Bytes) -> tuple[int, str]:
    """Cycles of a layer, and what they are limited by: "compute" or the name of a memory.

    >>> roof(chips.DENSE, 1000, {("DRAM", "A"): 10**6})  # 32 bytes a cycle
    (31250, 'DRAM')
    """
    ports = {"DRAM": chip.dram_bytes_per_cycle} | {m.name: m.bytes_per_cycle for m in chip.memories}
    needed = {name: sum(count for (memory, _), count in moved.items() if memory == name) for name in ports}
    cycles = {COMPUTE: computing} | {name: math.ceil(needed[name] / ports[name]) for name in ports}
    binding = max(cycles, key=cycles.__getitem__)
    return cycles[binding], binding


def slots(
    chip: Accelerator, work: Kinds, schedule: Schedule, computing: int, cycles: int
) -> Mapping[str, int]:
    """Slots of each idle kind; with `done` and `gated` they sum to cycles x lanes x width."""
    a_cycle = chip.lanes * chip.width  # slots of it
    idle = {
        "useless": schedule.useless,
        "fragmentation": schedule.busy * chip.width - work.done - work.gated - schedule.useless,
        "imbalance": schedule.cycles * a_cycle - schedule.busy * chip.width,
        "ramp": (computing - schedule.cycles) * a_cycle,
        "bandwidth": (cycles - computing) * a_cycle,
    }
    assert min(idle.values()) >= 0, f"{chip.name}: {idle}"  # a dataflow that counted a slot twice
    assert work.done + work.gated + sum(idle.values()) == cycles * a_cycle
    return idle
