"""What an estimate says: a layer, a network, and its energy under every DRAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zeroskip.simulate.accelerator import Bytes
from zeroskip.simulate.energy import DRAM


@dataclass(frozen=True)
class LayerEstimate:
    """One layer on one machine. done + gated + skipped == macs; done + gated + all of idle == slots.

    slots  cycles x lanes x width;  idle: kind -> slots, see audit.py;  roof: "compute" or the memory that binds
    bytes  (memory, operand) -> bytes that pass;  picojoules: event -> energy;  note: what the machine could not do
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
        """Bytes through one memory, "DRAM" or a name of the machine's."""
        return sum(count for (name, _), count in self.bytes.items() if name == memory)


@dataclass(frozen=True)
class Estimate:
    """A network on one machine, by one table of energies and one DRAM.

    refused         layer -> why the machine cannot run it; such layers are in no sum
    examples        how many examples the figures are for
    standard_error  of the cycles, as a share of them, where these examples are a sample of more
    """

    machine: str
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
        sums: dict[str, Any] = {name: sum(getattr(one, name) for one in self.layers) for name in _COUNTS}
        sums |= {name: _summed(getattr(one, name) for one in self.layers) for name in _MAPS}
        return LayerEstimate(name="total", op="", roof=max(roofs, key=roofs.__getitem__), **sums)

    @property
    def cycles(self) -> int:
        """Cycles of all layers."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Time of all layers at the machine's clock."""
        return self.cycles / self.hertz

    @property
    def joules(self) -> float:
        """Energy of all layers."""
        return sum(layer.joules for layer in self.layers)

    def joules_with(self, dram: str) -> float:
        """Energy of all layers with another DRAM of the table."""
        ours = sum(layer.picojoules["DRAM"] for layer in self.layers) * 1e-12
        return self.joules + ours * (DRAM[dram] / DRAM[self.dram] - 1)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, the total among them; bytes are named "memory operand"."""
        found = asdict(self) | {"total": asdict(self.total), "seconds": self.seconds, "joules": self.joules}
        for layer in (*found["layers"], found["total"]):
            layer["bytes"] = {" ".join(key): count for key, count in layer["bytes"].items()}
        return found


_COUNTS = ("macs", "done", "gated", "skipped", "cycles", "slots")
_MAPS = ("idle", "bytes", "picojoules")


def less_energy(one: Estimate, two: Estimate) -> dict[str, str]:
    """DRAM -> the machine of the two that needs less energy with it: a claim is one only where all agree.

    >>> less_energy(estimate(trace, chips.SCNN), estimate(trace, machines.DCNN))["hbm2"]
    'SCNN'
    """
    return {name: min((one, two), key=lambda found: found.joules_with(name)).machine for name in DRAM}


def _summed(parts: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for part in parts:
        for key, value in part.items():
            found[key] = found.get(key, 0) + value
    return found
