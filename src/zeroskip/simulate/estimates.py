"""What an estimate says: a layer, a network, and its energy under every DRAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

from zeroskip.simulate.accelerator import Bytes
from zeroskip.simulate.energy import DRAM

KeyT = TypeVar("KeyT")
NumberT = TypeVar("NumberT", int, float)


@dataclass(frozen=True)
class LayerEstimate:
    """One layer on one chip. done + gated + skipped == macs; done + gated + all of idle == slots.

    slots  cycles x lanes x width;  idle: kind -> slots, see slot_audit.py;  roof: "compute" or the memory that binds
    bytes  (memory, operand) -> bytes that pass;  picojoules: event -> energy;  note: what the chip could not do

    >>> from zeroskip.simulate import estimate_trace
    >>> layer = estimate_trace(recorded, chips.EIE).layers[0]
    >>> layer.done + layer.skipped == layer.macs == 3 * 6 * 8
    True
    """

    name: str
    op: str
    macs: int
    done: int
    gated: int
    skipped: int
    cycles: int
    slots: int
    idle: Mapping[str, int]
    bytes: Bytes
    picojoules: Mapping[str, float]
    roof: str
    note: str = ""

    @property
    def utilisation(self) -> float:
        """Share of the slots in which a MAC is done."""
        return self.done / self.slots if self.slots else 0.0

    @property
    def joules(self) -> float:
        """Energy of all events."""
        return sum(self.picojoules.values()) * 1e-12

    def moved(self, memory: str) -> int:
        """Bytes through one memory, "DRAM" or the name of one on the chip."""
        return sum(count for (name, _), count in self.bytes.items() if name == memory)


@dataclass(frozen=True)
class Estimate:
    """A network on one chip, by one table of energies and one DRAM.

    refused         layer -> why the chip cannot run it; such layers are in no sum
    examples        how many examples the figures are for
    standard_error  of the cycles, as a share of them, where these examples are a sample of more

    >>> from zeroskip.simulate import estimate_trace
    >>> network = estimate_trace(recorded, chips.EIE)
    >>> network.chip, network.examples, [layer.name for layer in network.layers]
    ('EIE', 3, ['fc1', 'fc2'])
    """

    chip: str
    hertz: float
    energy: str
    dram: str
    layers: tuple[LayerEstimate, ...]
    refused: Mapping[str, str]
    examples: int
    standard_error: float = 0.0

    @property
    def total(self) -> LayerEstimate:
        """The sum of all layers; its roof is that of most cycles."""
        roofs = _summed({layer.roof: layer.cycles} for layer in self.layers)
        counts = {name: sum(getattr(layer, name) for layer in self.layers) for name in _COUNTS}
        return LayerEstimate(
            name="total",
            op="",
            **counts,
            idle=_summed(layer.idle for layer in self.layers),
            bytes=_summed(layer.bytes for layer in self.layers),
            picojoules=_summed(layer.picojoules for layer in self.layers),
            roof=max(roofs, key=roofs.__getitem__),
        )

    @property
    def cycles(self) -> int:
        """Cycles of all layers."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Time of all layers at the chip's clock."""
        return self.cycles / self.hertz

    @property
    def joules(self) -> float:
        """Energy of all layers."""
        return sum(layer.joules for layer in self.layers)

    def joules_with(self, dram: str) -> float:
        """Energy of all layers with another DRAM of the table."""
        ours = sum(layer.picojoules["DRAM"] for layer in self.layers) * 1e-12
        return self.joules + ours * (DRAM[dram] / DRAM[self.dram] - 1)

    def to_json(self) -> dict[str, object]:
        """Plain dicts, lists and numbers, the total among them; bytes are named "memory operand"."""
        fields = asdict(self)
        named = {"machine": fields.pop("chip")} | fields  # as files have it
        layers, total = (_layer_json(layer) for layer in self.layers), _layer_json(self.total)
        return named | {"layers": [*layers], "total": total, "seconds": self.seconds, "joules": self.joules}


def _layer_json(layer: LayerEstimate) -> dict[str, object]:
    return asdict(layer) | {"bytes": {" ".join(key): count for key, count in layer.bytes.items()}}


_COUNTS = ("macs", "done", "gated", "skipped", "cycles", "slots")


def less_energy(first: Estimate, second: Estimate) -> dict[str, str]:
    """DRAM -> the chip of the two that needs less energy with it: a claim is one only where all agree.

    >>> from zeroskip.simulate import estimate_trace
    >>> less_energy(estimate_trace(recorded, chips.EIE), estimate_trace(recorded, chips.DENSE))["hbm2"]
    'dense array'
    """
    return {name: min(first, second, key=lambda either: either.joules_with(name)).chip for name in DRAM}


class Undecided(NamedTuple):
    """Two chips whose order in energy depends on the DRAM: `less` needs less here, and more with `drams`."""

    less: str
    more: str
    drams: tuple[str, ...]


def undecided(estimates: Iterable[Estimate]) -> list[Undecided]:
    """Which neighbours, ordered by energy, change places with another DRAM: their order is no result.

    >>> from zeroskip.simulate import estimate_trace
    >>> undecided([estimate_trace(recorded, chip) for chip in (chips.EIE, chips.MINERVA)])
    []
    """
    pairs = []
    for less, more in pairwise(sorted(estimates, key=lambda estimate: estimate.joules)):
        drams = tuple(dram for dram, chip in less_energy(less, more).items() if chip != less.chip)
        if 0 < len(drams) < len(DRAM):
            pairs.append(Undecided(less.chip, more.chip, drams))
    return pairs


def _summed(parts: Iterable[Mapping[KeyT, NumberT]]) -> dict[KeyT, NumberT]:
    sums: dict[KeyT, NumberT] = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums[key] + value if key in sums else value
    return sums
