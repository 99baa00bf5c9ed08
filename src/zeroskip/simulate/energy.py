"""Energy of each event, as named tables. Only ratios between machines under one table are claims.

A table's numbers are picojoules. DRAM has a table of its own, since conclusions turn with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from zeroskip.errors import AcceleratorError
from zeroskip.simulate.accelerator import Accelerator, Bytes, Memory
from zeroskip.simulate.slot_audit import Kinds

# Picojoules per bit. han2015: 640 pJ for 32 bits (Han et al. 2015, table 1, after Horowitz 2014); lpddr4: 512 pJ for
# 64 bits (Sparseloop, MICRO 2022, its table for Eyeriss); the others are rounded values of data sheets and surveys
# (hbm2: O'Connor et al., MICRO 2017), good for an order, not for a claim.
DRAM = {"hbm2": 3.9, "lpddr4": 8.0, "gddr5": 14.0, "ddr4": 18.0, "han2015": 20.0, "ddr3": 70.0}


@dataclass(frozen=True)
class Energy:
    """A table of energies.

    mac         of 16 x 16 bits with its addition; other widths by their square
    gated       of a MAC that is gated
    sram        per bit of a memory of 8 KB; other sizes by their square root, never below `register`
    memories    name -> per bit, where the table knows that very memory
    lane_cycle  of each lane in each cycle, whatever it does: clock and control
    """

    name: str
    mac: float
    gated: float = 0.0
    sram: float = 0.0
    register: float = 0.0
    memories: Mapping[str, float] = field(default_factory=dict)
    lane_cycle: float = 0.0


# Horowitz, ISSCC 2014, as used by Han et al. 2015: 8-bit multiplication 0.2 pJ, x 4 at twice the width; 32-bit
# addition 0.1 pJ; 64 bits of an 8 KB SRAM 10 pJ, of 32 KB 20 pJ, of 1 MB 100 pJ, which a square root fits.
HAN_2015 = Energy("han2015", mac=0.9, gated=0.0, sram=10 / 64, register=0.03)

# Sparseloop's public table for Eyeriss at 45 nm, per 16-bit access (MICRO 2022, artifact).
_PADS = {"input pad": 0.197 / 16, "weight pad": 0.710 / 16, "sum pad": 0.253 / 16}
SPARSELOOP = Energy("sparseloop", mac=2.20, gated=0.006, sram=10 / 64, register=0.03, memories=_PADS)

# Relative to one MAC = 1, at 65 nm: register file 1, buffer of 100 KB 6 (Chen et al., ISCA 2016, table IV).
_RELATIVE = {"input pad": 1 / 16, "weight pad": 1 / 16, "sum pad": 1 / 16, "global buffer": 6 / 16}
EYERISS_2016 = Energy(
    "eyeriss2016", mac=1.0, sram=6 / 16 / math.sqrt(100 / 8), register=1 / 16, memories=_RELATIVE
)

# EIE's own figure: 9.157 mW of one element at 800 MHz, memories and clock included (Han et al. 2016, table II).
EIE_2016 = Energy("eie2016", mac=0.0, lane_cycle=9.157 / 0.8)

TABLES = {one.name: one for one in (HAN_2015, SPARSELOOP, EYERISS_2016, EIE_2016)}


def table(name: str | Energy) -> Energy:
    """The table called `name`, or one of your own, checked; AcceleratorError otherwise.

    >>> table("han2015").mac
    0.9
    """
    if isinstance(name, str) and name not in TABLES:
        raise AcceleratorError(f'there is no energy table "{name}". There are {", ".join(TABLES)}')
    found = TABLES[name] if isinstance(name, str) else name
    numbers = {one: getattr(found, one) for one in ("mac", "gated", "sram", "register", "lane_cycle")}
    for key, value in (numbers | dict(found.memories)).items():
        if not 0 <= value < math.inf:
            raise AcceleratorError(f"energy table {found.name!r}: {key} = {value} pJ must be 0 or more")
    return found


def dram_per_bit(name: str) -> float:
    """Picojoules per bit of that DRAM; AcceleratorError for a name that is not in the table.

    >>> dram_per_bit("lpddr4")
    8.0
    """
    if name not in DRAM:
        raise AcceleratorError(f'there is no DRAM "{name}". There are {", ".join(DRAM)}')
    return DRAM[name]


def events(
    machine: Accelerator,
    prices: Energy,
    dram_bit: float,
    work: Kinds,
    useless: int,
    cycles: int,
    moved: Bytes,
) -> dict[str, float]:
    """Picojoules of each event: "MAC", useless ones among them, "gated MAC", "clock", and each memory by its name.

    >>> events(chips.EIE, EIE_2016, 0.0, Kinds(0, 0, 0), 0, 100, {})["clock"]
    73256.0
    """
    width = max(machine.bits["A"], machine.bits["W"])  # what is stored shorter is made as wide as the other
    found = {
        "MAC": (work.done + useless) * prices.mac * (width / 16) ** 2,
        "gated MAC": work.gated * prices.gated,
        "clock": machine.lanes * cycles * prices.lane_cycle,
    }
    each = {"DRAM": dram_bit} | {one.name: per_bit(one, prices) for one in machine.memories}
    for (memory, _), count in moved.items():
        found[memory] = found.get(memory, 0.0) + 8 * count * each[memory]
    return found


def per_bit(memory: Memory, prices: Energy) -> float:
    """Picojoules for one bit of a memory on the chip.

    >>> round(64 * per_bit(Memory("weights", 32 * 1024, {"W": 1}), HAN_2015), 9)
    20.0
    """
    rule = prices.sram * math.sqrt(memory.capacity / memory.instances / 8192)
    return prices.memories.get(memory.name, max(rule, prices.register))
