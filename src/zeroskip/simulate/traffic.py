"""Bytes through each memory: of a layer's operands as they are stored, fetched as often as what is on the chip asks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from zeroskip.simulate.accelerator import Accelerator, Bytes
from zeroskip.simulate.formats import Stored
from zeroskip.simulate.lane_counts import tiles
from zeroskip.simulate.slot_audit import Kinds
from zeroskip.simulate.workload import Workload


def stored(work: Workload, chip: Accelerator) -> dict[str, Stored]:
    """Bits of weights, inputs and outputs as they lie in DRAM."""
    # Outputs are the inputs of a later layer, so they are stored alike.
    forms = {"W": chip.format("W"), "A": chip.format("A"), "O": chip.format("A")}
    return {name: forms[name](mask.numpy(), chip.bits[name]) for name, mask in work.operands.items()}


def moved(
    work: Workload, chip: Accelerator, sizes: Mapping[str, Stored], kinds: Kinds, useless: int
) -> Bytes:
    """Bytes by memory and operand.

    On the chip: each MAC takes its operands from every memory that names them, `reuse` MACs together; partial sums
    are read and written. Of a gated MAC, only the input is read, which tells that it is zero. Where an operand is
    compressed, its index passes as well. An operand that is held passes whole for each so many filters. DRAM: see
    `fetches`.

    >>> fc = of_masks("fc", torch.ones(40, 40) != 0, torch.ones(1, 40) != 0)
    >>> moved(fc, chips.DENSE, stored(fc, chips.DENSE), Kinds(1600, 0, 0), 0)[("buffer", "A")]  # 16 MACs share 2 bytes
    200
    """
    often = fetches(work, chip, sizes)
    whole = {name: tiles(size.bits, 8) for name, size in sizes.items()}
    passing = {("DRAM", name): whole[name] * often[name] for name in sizes}
    taken = kinds.done + useless
    issued = taken + kinds.gated
    uses = {"A": issued, "W": taken if "A" in chip.gates else issued, "O": 2 * taken}
    for memory in chip.memories:
        for name, filters in memory.held.items():
            passes = tiles(work.weight.shape[1], chip.tile[filters]) if filters else 1
            passing[memory.name, name] = whole[name] * passes
        for name, shared in memory.reuse.items():
            index = sizes[name].bits / sizes[name].value_bits if name != "O" and sizes[name].value_bits else 1
            passing[memory.name, name] = math.ceil(uses[name] / shared * chip.bits[name] / 8 * index)
    return passing


def fetches(work: Workload, chip: Accelerator, sizes: Mapping[str, Stored]) -> dict[str, int]:
    """How often each operand comes from DRAM: once, where the weights or the inputs fit the memory that holds them.

    Else one of the two stays in parts, and the other comes again for each; the cheaper way. All examples go through a
    layer together, unless the chip keeps maps: then each goes through all layers before the next, and weights come
    for each. A map that is kept and fits does not come at all, but for what the network is given and what it gives.

    >>> fc = of_masks("fc", torch.ones(40, 40) != 0, torch.ones(1, 40) != 0)
    >>> fetches(fc, chips.DENSE, {"A": Stored(10**9, 0), "W": Stored(10**8, 0), "O": Stored(10**6, 0)})
    {'W': 1, 'A': 6, 'O': 1}
    """
    turns = work.examples if chip.keeps else 1
    bits = {name: size.bits / (1 if name == "W" else turns) for name, size in sizes.items()}  # of one turn
    parts = {name: _parts(work, chip, name, bits[name]) for name in sizes}
    again = {"W": bits["W"] * (parts["A"] - 1), "A": bits["A"] * (parts["W"] - 1)}
    often = {"W": turns * parts["A"], "A": 1} if again["W"] <= again["A"] else {"W": turns, "A": parts["W"]}
    stay = [name for name in chip.keeps if parts[name] == 1 and name not in work.outside]
    return often | {"O": 1} | dict.fromkeys(stay, 0)


def _parts(work: Workload, chip: Accelerator, operand: str, bits: float) -> int:
    """Parts in which an operand passes through the largest memory that holds it."""
    capacity = max((m.capacity for m in chip.memories if operand in m.operands), default=math.inf)
    plane = {"W": (1, 1), "A": work.input.shape[3:], "O": work.output.shape[3:]}[operand]
    lanes = [chip.tile.get(name, 1) for name in ("rows", "columns")]
    fuller = 1.0  # how much more the fullest lane has to hold than the mean, where lanes own tiles of a plane
    if math.prod(plane) > 1 and math.prod(lanes) == chip.lanes:
        fuller = math.prod(tiles(size, many) * many / size for size, many in zip(plane, lanes, strict=True))
    return max(1, math.ceil(fuller * bits / 8 / capacity))
