"""What an estimate says: a layer, a network, and its energy under every DRAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
    bytes  (memory, operand) -> bytes that pass;  picojoules: event -> energy
    note   what the chip could not do, or what was not recorded
    runs   how often it runs in the network; all figures are sums over these

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
    runs: int = 1

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

    def times(self, runs: int) -> LayerEstimate:
        """So many runs, each of which takes what this one does.

        >>> from zeroskip.simulate import estimate_trace
        >>> layer = estimate_trace(recorded, chips.EIE).layers[0]
        >>> layer.times(3).cycles == 3 * layer.cycles
        True
        """
        return replace(
            self,
            **{name: runs * getattr(self, name) for name in _COUNTS},
            idle=_times(self.idle, runs),
            bytes=_times(self.bytes, runs),
            picojoules=_times(self.picojoules, runs),
        )


@dataclass(frozen=True)
class LeftOut:
    """What of a network is in no figure: its MACs in all examples, and why.

    refused  whether the chip has no way to run it; otherwise no chip is asked

    >>> LeftOut("table", 0, "its rows are looked up, not multiplied").refused
    False
    """

    name: str
    macs: int
    reason: str
    refused: bool = False


@dataclass(frozen=True)
class Estimate:
    """A network on one chip, by one table of energies and one DRAM.

    layers          each layer that the chip runs once, all its runs together
    left_out        what is in no sum: layers that the chip refuses, and what no chip is asked
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
    left_out: tuple[LeftOut, ...]
    examples: int
    standard_error: float = 0.0

    @property
    def refused(self) -> dict[str, str]:
        """Layer -> why the chip cannot run it."""
        return {each.name: each.reason for each in self.left_out if each.refused}

    @property
    def total(self) -> LayerEstimate:
        """The sum of all layers; its roof is that of most cycles."""
        return replace(together(self.layers), name="total", op="", note="")

    @property
    def network_macs(self) -> int:
        """MACs of the whole network, those that are in no figure among them."""
        return sum(layer.macs for layer in self.layers) + sum(each.macs for each in self.left_out)

    def share(self, macs: int) -> float:
        """Those MACs as a share of the network's."""
        return macs / max(self.network_macs, 1)

    @property
    def simulated(self) -> float:
        """Share of the network's MACs that the figures are of."""
        return self.share(sum(layer.macs for layer in self.layers))

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
        shares = [asdict(each) | {"share": self.share(each.macs)} for each in self.left_out]
        whole = {"refused": self.refused, "left_out": shares, "network_macs": self.network_macs}
        sums = {"total": total, "seconds": self.seconds, "joules": self.joules}
        return named | {"layers": [*layers], "simulated": self.simulated} | whole | sums


def together(layers: Sequence[LayerEstimate]) -> LayerEstimate:
    """The sum of several, under the name of the first; its roof is that of most cycles.

    >>> from zeroskip.simulate import estimate_trace
    >>> together(estimate_trace(recorded, chips.EIE).layers).macs
    240
    """
    roofs = _summed({layer.roof: layer.cycles} for layer in layers)
    return LayerEstimate(
        name=layers[0].name,
        op=" and ".join(dict.fromkeys(layer.op for layer in layers)),
        **{name: sum(getattr(layer, name) for layer in layers) for name in _COUNTS},
        idle=_summed(layer.idle for layer in layers),
        bytes=_summed(layer.bytes for layer in layers),
        picojoules=_summed(layer.picojoules for layer in layers),
        roof=max(roofs, key=roofs.__getitem__),
        note="; ".join(dict.fromkeys(layer.note for layer in layers if layer.note)),
    )


def _layer_json(layer: LayerEstimate) -> dict[str, object]:
    return asdict(layer) | {"bytes": {" ".join(key): count for key, count in layer.bytes.items()}}


_COUNTS = ("macs", "done", "gated", "skipped", "cycles", "slots", "runs")


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


def _times(part: Mapping[KeyT, NumberT], count: int) -> dict[KeyT, NumberT]:
    return {key: value * count for key, value in part.items()}


def _summed(parts: Iterable[Mapping[KeyT, NumberT]]) -> dict[KeyT, NumberT]:
    sums: dict[KeyT, NumberT] = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums[key] + value if key in sums else value
    return sums
