"""What an accelerator is: lanes of multipliers, memories, formats, which zeros it skips or gates; how its numbers vary.

A chip is one literal of about a dozen lines (chips.py). A chip of your own is `dataclasses.replace` on one of
them, or a literal in a file of yours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from zeroskip.errors import AcceleratorError
from zeroskip.simulate.formats import Format, Stored, dense
from zeroskip.simulate.lane_counts import Schedule
from zeroskip.simulate.workload import Workload

Bytes = Mapping[tuple[str, str], int]
"""(memory, operand) -> bytes that pass; operands are "A" inputs, "W" weights, "O" outputs and partial sums."""


@dataclass(frozen=True)
class Memory:
    """One memory on the chip; `operands` are those that pass here.

    capacity         bytes, those of all `instances` together
    reuse            operand -> MACs that share one access; operands that are not named do not pass here
    bytes_per_cycle  what the ports of all instances take
    held             operand -> the size in `tile` that says how many filters share one passing of all of it, as it is
                     stored; "": all filters do
    """

    name: str
    capacity: int
    reuse: Mapping[str, float]
    bytes_per_cycle: float = math.inf
    instances: int = 1
    held: Mapping[str, str] = field(default_factory=dict)

    @property
    def operands(self) -> set[str]:
        """Operands that pass here.

        >>> sorted(Memory("buffer", 1024, {"A": 16, "O": 16}).operands)
        ['A', 'O']
        """
        return {*self.reuse, *self.held}


@dataclass(frozen=True)
class Accelerator:
    """A described chip. Energies are not here: they belong to a technology (energy.py), not to an idea.

    dataflow  (workload, chip) -> Schedule, one of dataflows/ or a function of your own
    lanes     units that can wait for each other; each has `width` multipliers
    tile      the sizes that the dataflow cuts a layer into
    skips     "", "A", "W" or "AW": zeros that take no slot;  gates: those that take one, but hardly any energy
    formats   "W", or "A" for all maps -> how they lie in DRAM; what is not named lies there as it is
    shaped    the same -> (chip) -> how, where it depends on the chip's lanes or tile
    stored    (workload, chip) -> weights that the chip works on, where they are not just those that are not zero
    keeps     maps that stay on the chip from layer to layer where their memories hold them: "A" inputs, "O" outputs
              of one example, since such a chip takes them one by one
    traffic   (workload, chip, stored sizes) -> Bytes, where the rule of traffic.py does not fit
    ops       layers that it runs, "conv2d" for every convolution (operations.py); others are refused, or where
              `fallback` go densely through the same multipliers
    ramp      cycles / cycles with every pipeline full

    >>> from dataclasses import replace
    >>> replace(chips.EIE, name="half an EIE", lanes=32).lanes
    32
    """

    name: str
    dataflow: Callable[[Workload, Accelerator], Schedule]
    lanes: int
    width: int = 1
    tile: Mapping[str, int] = field(default_factory=dict)
    skips: str = ""
    gates: str = ""
    memories: tuple[Memory, ...] = ()
    formats: Mapping[str, Format] = field(default_factory=dict)
    shaped: Mapping[str, Callable[[Accelerator], Format]] = field(default_factory=dict)
    bits: Mapping[str, int] = field(default_factory=lambda: {"A": 16, "W": 16, "O": 16})
    dram_bytes_per_cycle: float = math.inf
    hertz: float = 1e9
    ramp: float = 1.0
    stored: Callable[[Workload, Accelerator], Tensor] | None = None
    keeps: str = ""
    traffic: Callable[[Workload, Accelerator, Mapping[str, Stored]], Bytes] | None = None
    ops: tuple[str, ...] = ("conv2d", "linear")
    fallback: bool = False

    def format(self, operand: str) -> Format:
        """How an operand lies in DRAM."""
        if operand in self.shaped:
            return self.shaped[operand](self)
        return self.formats.get(operand, dense)


def narrowed(chip: Accelerator, bits: int) -> Accelerator:
    """The chip with inputs and weights of at most so many bits; what leaves it is as wide as before.

    >>> narrowed(chips.EIE, 8).bits
    {'A': 8, 'W': 4, 'O': 16}
    """
    widths = {name: width if name == "O" else min(width, bits) for name, width in chip.bits.items()}
    return replace(chip, bits=widths)


MANY = 1 << 20  # of lanes, or of what a tile has: no array of a lane each is too large for a computer
LARGE = 1e15  # of bytes, of cycles a second
_FRACTIONS = ("hertz", "dram_bytes_per_cycle", "ramp")
FIELDS = ("lanes", "width", *_FRACTIONS)
_ZEROS = ("", "A", "W", "AW")
_KINDS = {"skips": _ZEROS, "gates": _ZEROS, "keeps": ("", "A", "O", "AO")}


def check(chip: Accelerator) -> None:
    """AcceleratorError, with the field, where a description contradicts itself.

    >>> from dataclasses import replace
    >>> check(replace(chips.EIE, lanes=0))
    Traceback (most recent call last):
    zeroskip.errors.AcceleratorError: EIE: lanes = 0 must be above 0
    """
    for fault in _faults(chip):
        raise AcceleratorError(f"{chip.name}: {fault}")


def _faults(chip: Accelerator) -> Iterator[str]:
    for name, (value, most, whole) in _numbers(chip).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{name} = {value!r} must be a number"
        elif not value > 0:  # also catches NaN
            yield f"{name} = {value} must be above 0"
        elif value > most:
            yield f"{name} = {value:.15g} must be at most {most:,.0f}"
        elif whole and value % 1:
            yield f"{name} = {value} must be a whole number"
    if not isinstance(chip.ramp, int | float) or not 1 <= chip.ramp <= MANY:
        yield f"ramp = {chip.ramp!r} must be a number from 1 to {MANY:,}"
    for name, known in _KINDS.items():
        given = getattr(chip, name)
        if given not in known:
            listed = ", ".join(f'"{kind}"' for kind in known)
            yield f"{name} = {given!r} is none of {listed}"
    if not set(chip.bits) >= {"A", "W", "O"}:
        yield f"bits = {dict(chip.bits)} must have all of A, W and O"
    yield from _format_faults(chip)
    for operand in chip.keeps:
        if not any(operand in memory.operands for memory in chip.memories):
            yield (
                f"keeps = {chip.keeps!r}, and no memory holds {operand}. Name {operand} in `held` or `reuse` of one, "
                "or keep less"
            )
    for memory in chip.memories:
        for fault in _memory_faults(chip, memory):
            yield f"memory {memory.name!r}{fault}"


def _numbers(chip: Accelerator) -> dict[str, tuple[float, float, bool]]:
    """All that must be above 0, by the words of the description: the most that it may be, whether it is whole."""
    numbers: dict[str, tuple[float, float, bool]] = {
        "lanes": (chip.lanes, MANY, True),
        "width": (chip.width, MANY, True),
        "hertz": (chip.hertz, LARGE, False),
    }
    numbers |= {f"tile[{name!r}]": (number, MANY, True) for name, number in chip.tile.items()}
    numbers |= {f"bits[{name!r}]": (number, MANY, True) for name, number in chip.bits.items()}
    numbers["dram_bytes_per_cycle"] = (chip.dram_bytes_per_cycle, math.inf, False)
    for memory in chip.memories:
        about = {
            "capacity": (memory.capacity, LARGE, True),
            "bytes_per_cycle": (memory.bytes_per_cycle, math.inf, False),
            "instances": (memory.instances, MANY, True),
        }
        about |= {f"reuse[{name!r}]": (macs, LARGE, False) for name, macs in memory.reuse.items()}
        numbers |= {f"memory {memory.name!r}, {name}": number for name, number in about.items()}
    return numbers


def _format_faults(chip: Accelerator) -> Iterator[str]:
    for name in ("formats", "shaped"):
        for operand, form in getattr(chip, name).items():
            if operand not in ("A", "W"):
                yield (
                    f"{name} has {operand!r}, and only A and W have a format; outputs lie as inputs do, which they "
                    "become"
                )
            if not callable(form):
                yield f"{name}[{operand!r}] = {form!r} is no function"
    for operand in {*chip.formats} & {*chip.shaped}:
        yield (
            f"{operand} is in formats and in shaped. Give one of the two: for another format of a chip that has a "
            "shaped one, give shaped={} too"
        )


def _memory_faults(chip: Accelerator, memory: Memory) -> Iterator[str]:
    """Operands that there are, each once, and room for what all multipliers take in one cycle."""
    for name in ("reuse", "held"):
        given = dict(getattr(memory, name))
        for operand in given:
            if operand not in chip.bits:
                yield f", {name} = {given}: {operand!r} is none of A, W, O"
    for operand in {*memory.reuse} & {*memory.held}:
        yield (
            f" has {operand} in reuse and in held. An operand passes for each so many MACs, or as a whole: give one "
            "of the two"
        )
    for operand, filters in memory.held.items():
        if filters not in ("", *chip.tile):
            yield f", held[{operand!r}] = {filters!r} is no size in tile = {dict(chip.tile)}"
    for operand, macs in memory.reuse.items():
        tile = chip.lanes * chip.width / macs * chip.bits[operand] / 8
        if memory.capacity < tile:
            yield (
                f", capacity = {memory.capacity} bytes, is too small for one tile: {chip.lanes} lanes x {chip.width} "
                f"take {tile:g} bytes of {operand} at a time. Give it more bytes or a higher reuse[{operand!r}]"
            )


def size(chip: Accelerator, name: str) -> int:
    """`tile[name]`, or an AcceleratorError that says that the dataflow needs it."""
    if name not in chip.tile:
        raise AcceleratorError(
            f"{chip.name}: its dataflow {chip.dataflow.__name__} needs tile[{name!r}], and tile = "
            f"{dict(chip.tile)}"
        )
    return chip.tile[name]


def divided(chip: Accelerator, *names: str) -> int:
    """Lanes divided by those tile sizes; AcceleratorError where that is no whole number.

    >>> divided(chips.SPARTEN, "filters")  # 1,024 lanes in clusters of 32
    32
    """
    product = math.prod(size(chip, name) for name in names)
    if chip.lanes % product:
        sizes = " x ".join(f"tile[{name!r}] = {size(chip, name)}" for name in names)
        raise AcceleratorError(f"{chip.name}: lanes = {chip.lanes} do not divide by {sizes}")
    return chip.lanes // product


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
