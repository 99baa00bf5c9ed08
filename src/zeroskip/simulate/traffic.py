"""Bytes through each memory: of a layer's operands as they are stored, fetched as often as what is on the chip asks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from zeroskip.simulate.accelerator import Accelerator, Bytes
from zeroskip.simulate.audit import Kinds
from zeroskip.simulate.formats import Stored
from zeroskip.simulate.workload import Workload


def stored(work: Workload, machine: Accelerator) -> dict[str, Stored]:
    """Bits of weights, inputs and outputs as they lie in DRAM.

    >>> stored(of_masks("fc", torch.ones(4, 6) != 0, torch.ones(1, 6) != 0), machines.DENSE)["W"].bits
    384
    """
    masks = {"W": work.weight, "A": work.input, "O": work.output}
    # Outputs are the inputs of a later layer, so they are stored alike.
    forms = {"W": machine.format("W"), "A": machine.format("A"), "O": machine.format("A")}
    return {name: forms[name](mask.numpy(), machine.bits[name]) for name, mask in masks.items()}


def moved(machine: Accelerator, sizes: Mapping[str, Stored], work: Kinds, useless: int) -> Bytes:
    """Bytes by memory and operand.

    On the chip: each MAC takes its operands from every memory that names them, `reuse` MACs together; partial sums
    are read and written. Of a gated MAC, only the input is read, which tells that it is zero. Where an operand is
    compressed, its index passes as well. DRAM: see `fetches`.

    >>> moved(machines.DENSE, sizes, Kinds(1600, 0, 0), 0)[("buffer", "A")]
    200
    """
    often = fetches(machine, sizes)
    found = {("DRAM", name): -(-sizes[name].bits // 8) * often[name] for name in sizes}
    taken = work.done + useless
    uses = {
        "A": taken + work.gated,
        "W": taken if "A" in machine.gates else taken + work.gated,
        "O": 2 * taken,
    }
    for memory in machine.memories:
        for name, shared in memory.reuse.items():
            index = sizes[name].bits / sizes[name].value_bits if name != "O" and sizes[name].value_bits else 1
            found[memory.name, name] = math.ceil(uses[name] / shared * machine.bits[name] / 8 * index)
    return found


def fetches(machine: Accelerator, sizes: Mapping[str, Stored]) -> dict[str, int]:
    """How often each operand comes from DRAM: once, where the weights or the inputs fit the memory that holds them.

    Else one of the two stays in parts, and the other comes again for each; the cheaper way.

    >>> fetches(machines.DENSE, {"A": Stored(10**9, 0), "W": Stored(10**8, 0), "O": Stored(10**6, 0)})
    {'W': 1, 'A': 6, 'O': 1}
    """
    parts = {name: _parts(machine, name, sizes[name]) for name in ("A", "W")}
    again = {"W": sizes["W"].bits * (parts["A"] - 1), "A": sizes["A"].bits * (parts["W"] - 1)}
    if again["W"] <= again["A"]:
        return {"W": parts["A"], "A": 1, "O": 1}
    return {"W": 1, "A": parts["W"], "O": 1}


def _parts(machine: Accelerator, operand: str, size: Stored) -> int:
    """Parts in which an operand passes through the largest memory that holds it."""
    capacity = max((m.capacity for m in machine.memories if operand in m.reuse), default=math.inf)
    return max(1, math.ceil(size.bits / 8 / capacity))
