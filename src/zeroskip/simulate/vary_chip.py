"""One machine with other numbers: what a sweep over chip parameters changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zeroskip.errors import AcceleratorError
from zeroskip.simulate.accelerator import Accelerator, check

_FRACTIONS = ("hertz", "dram_bytes_per_cycle", "ramp")
FIELDS = ("lanes", "width", *_FRACTIONS)


def vary(machine: Accelerator, numbers: Mapping[str, float]) -> Accelerator:
    """The machine with those numbers: fields by name, sizes as "tile.queue", capacities in bytes as "memory.entries".

    Memories keep their bytes and their number when lanes change. AcceleratorError for a name that the machine does not
    have, with those that it has, and where the machine would contradict itself.

    >>> vary(chips.EIE, {"lanes": 32, "tile.queue": 4}).tile["queue"]
    4
    """
    known = parameters(machine)
    for name, number in numbers.items():
        if name not in known:
            raise AcceleratorError(f'{machine.name} has no "{name}". It has {", ".join(known)}')
        if name not in _FRACTIONS and number % 1:  # also catches NaN and infinity
            raise AcceleratorError(f"{machine.name}: {name} = {number} must be a whole number")
    given: dict[str, Any] = {
        name: number if name in _FRACTIONS else int(number) for name, number in numbers.items()
    }
    changed = {name: given[name] for name in FIELDS if name in given}
    changed["tile"] = {name: given.get(f"tile.{name}", size) for name, size in machine.tile.items()}
    changed["memories"] = tuple(
        replace(one, capacity=given.get(f"memory.{one.name}", one.capacity)) for one in machine.memories
    )
    found = replace(machine, **changed)
    check(found)
    return found


def parameters(machine: Accelerator) -> dict[str, float]:
    """What `vary` can change, and its numbers.

    >>> parameters(chips.EIE)["tile.queue"]
    8
    """
    found: dict[str, float] = {name: getattr(machine, name) for name in FIELDS}
    found |= {f"tile.{name}": size for name, size in machine.tile.items()}
    return found | {f"memory.{one.name}": one.capacity for one in machine.memories}
