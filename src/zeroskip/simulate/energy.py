"""Energy of each event, as named tables. Only ratios between chips under one table are claims.

A table's numbers are picojoules. DRAM has a table of its own, since conclusions turn with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

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

    >>> Energy("mine", mac=1.0, sram=0.1).gated
    0.0
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

TABLES = {table.name: table for table in (HAN_2015, SPARSELOOP, EYERISS_2016, EIE_2016)}


class Prices(NamedTuple):
    """A table of energies, and a DRAM of the table `DRAM`."""

    table: Energy
    dram: str


def prices(energy: str | Energy, dram: str) -> Prices:
    """The table called `energy`, or one of your own, and that DRAM; AcceleratorError for a wrong name or number."""
    if isinstance(energy, str) and energy not in TABLES:
        raise AcceleratorError(f'there is no energy table "{energy}". There are {", ".join(TABLES)}')
    table = TABLES[energy] if isinstance(energy, str) else energy
    numbers = {name: getattr(table, name) for name in ("mac", "gated", "sram", "register", "lane_cycle")}
    for key, value in (numbers | dict(table.memories)).items():
        if not 0 <= value < math.inf:
            raise AcceleratorError(f"energy table {table.name!r}: {key} = {value} pJ must be 0 or more")
    if dram not in DRAM:
        raise AcceleratorError(f'there is no DRAM "{dram}". There are {", ".join(DRAM)}')
    return Prices(table, dram)


def events(
    chip: Accelerator, prices: Prices, kinds: Kinds, *, useless: int, cycles: int, moved: Bytes
) -> dict[str, float]:
    """Picojoules of each event: "MAC", useless ones among them, "gated MAC", "clock", and each memory by its name.

    >>> events(chips.EIE, prices("eie2016", "lpddr4"), Kinds(0, 0, 0), useless=0, cycles=100, moved={})["clock"]
    73256.0
    """
    width = max(chip.bits["A"], chip.bits["W"])  # what is stored shorter is made as wide as the other
    table = prices.table
    picojoules = {
        "MAC": (kinds.done + useless) * table.mac * (width / 16) ** 2,
        "gated MAC": kinds.gated * table.gated,
        "clock": chip.lanes * cycles * table.lane_cycle,
    }
    bits = {"DRAM": DRAM[prices.dram]} | {memory.name: per_bit(memory, table) for memory in chip.memories}
    for (memory, _), count in moved.items():
        picojoules[memory] = picojoules.get(memory, 0.0) + 8 * count * bits[memory]
    return picojoules


def per_bit(memory: Memory, table: Energy) -> float:
    """Picojoules for one bit of a memory on the chip.

    >>> round(64 * per_bit(Memory("weights", 32 * 1024, {"W": 1}), HAN_2015), 9)
    20.0
    """
    rule = table.sram * math.sqrt(memory.capacity / memory.instances / 8192)
    return table.memories.get(memory.name, max(rule, table.register))
