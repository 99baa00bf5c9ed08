"""One chip with other numbers: what a sweep over chip parameters changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from zeroskip.errors import AcceleratorError
from zeroskip.simulate.accelerator import Accelerator, check

_FRACTIONS = ("hertz", "dram_bytes_per_cycle", "ramp")
FIELDS = ("lanes", "width", *_FRACTIONS)


def vary(chip: Accelerator, numbers: Mapping[str, float]) -> Accelerator:
    """The chip with those numbers: fields by name, sizes as "tile.queue", capacities in bytes as "memory.entries".

    Memories keep their bytes and their number when lanes change. AcceleratorError for a name that the chip does not
    have, with those that it has, and where the chip would contradict itself.

    >>> vary(chips.EIE, {"lanes": 32, "tile.queue": 4}).tile["queue"]
    4
    """
    check_parameters(chip, numbers)
    for name, number in numbers.items():
        if name not in _FRACTIONS and number % 1:  # also catches NaN and infinity
            raise AcceleratorError(f"{chip.name}: {name} = {number} must be a whole number")
    whole = {name: int(number) for name, number in numbers.items() if name not in _FRACTIONS}
    fields = {name: whole.get(name, number) for name, number in numbers.items() if name in FIELDS}
    tile = {name: whole.get(f"tile.{name}", size) for name, size in chip.tile.items()}
    memories = tuple(
        replace(memory, capacity=whole.get(f"memory.{memory.name}", memory.capacity))
        for memory in chip.memories
    )
    varied = replace(replace(chip, **fields), tile=tile, memories=memories)  # type: ignore[arg-type]
    check(varied)
    return varied


def check_parameters(chip: Accelerator, names: Iterable[str]) -> None:
    """AcceleratorError for a name that is no parameter of the chip, with those that are."""
    known = parameters(chip)
    for name in names:
        if name not in known:
            raise AcceleratorError(f'{chip.name} has no "{name}". It has {", ".join(known)}')


def parameters(chip: Accelerator) -> dict[str, float]:
    """What `vary` can change, and its numbers.

    >>> parameters(chips.EIE)["tile.queue"]
    8
    """
    numbers: dict[str, float] = {name: getattr(chip, name) for name in FIELDS}
    numbers |= {f"tile.{name}": size for name, size in chip.tile.items()}
    return numbers | {f"memory.{memory.name}": memory.capacity for memory in chip.memories}
