"""One chip with other numbers: an estimate of the same network at every point."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import cast

from zeroskip.concepts import Progress, silent
from zeroskip.errors import AcceleratorError
from zeroskip.exploration.chip_lookup import identity, one_chip
from zeroskip.simulate import LeftOut, Workload, estimate, vary
from zeroskip.simulate.accelerator import check_parameters
from zeroskip.simulate.simulation import refusals
from zeroskip.sweep import SweepPoint, sweep


@dataclass(frozen=True)
class ChipSweep:
    """What is estimated.

    chip    the word of one chip, or a Python file that makes one: see `find_chips`
    values  parameter (`simulate.parameters`) -> the numbers that it takes; every combination is a point
    energy, dram  as for `simulate.estimate`

    >>> ChipSweep("eie", {"lanes": [32, 64], "tile.queue": [1, 8]}).points
    [{'lanes': 32, 'tile.queue': 1}, {'lanes': 32, 'tile.queue': 8}, ...]
    """

    chip: str
    values: Mapping[str, Sequence[float]]
    energy: str = "han2015"
    dram: str = "lpddr4"

    @property
    def points(self) -> list[dict[str, float]]:
        """Every combination of the numbers, the last parameter fastest."""
        return [dict(zip(self.values, numbers, strict=True)) for numbers in product(*self.values.values())]


@dataclass(frozen=True)
class SweepRow:
    """The estimate of one point; roof: "compute" or the memory that binds most cycles.

    >>> SweepRow({"lanes": 32}, 1000, 1e-6, 2e-6, "compute", 0.5, 4096).numbers
    {'lanes': 32}
    """

    numbers: Mapping[str, float]
    cycles: int
    seconds: float
    joules: float
    roof: str
    utilisation: float
    dram_bytes: int


@dataclass(frozen=True)
class SweepOutcome:
    """The rows of a sweep, and a sentence for each point at which the chip would contradict itself.

    left_out      what of the network is in no row;  network_macs: those of the whole network

    >>> SweepOutcome("EIE", (), ("lanes=0: EIE: lanes = 0 must be above 0",)).to_json()["points"]
    []
    """

    chip: str
    rows: tuple[SweepRow, ...]
    refused: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    network_macs: int = 0

    def to_json(self) -> dict[str, object]:
        """What `zeroskip simulate --sweep --json` prints."""
        points = [asdict(row) for row in self.rows]
        left_out = [asdict(each) for each in self.left_out]
        about = {"network_macs": self.network_macs, "left_out": left_out}
        return {"machine": self.chip, "points": points, "refused": list(self.refused)} | about


def sweep_chip(
    workloads: Sequence[Workload],
    asked: ChipSweep,
    *,
    left_out: Sequence[LeftOut] = (),
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> SweepOutcome:
    """The network on the chip at every point; with `folder` and `jobs` as for `sweep.sweep`.

    left_out  what else the network computes, see `simulate.whole_network`

    AcceleratorError for words that name no chip or several, for a parameter that the chip does not have, and where no
    point can be estimated.

    >>> from zeroskip.simulate import of_trace
    >>> [row.cycles for row in sweep_chip(of_trace(recorded), ChipSweep("eie", {"lanes": [1, 2, 4]})).rows]
    [101, 64, 38]
    """
    chip = one_chip(asked.chip)
    check_parameters(chip, asked.values)
    # All that decides an estimate: the words, the zeros, the chip as it is described, the version.
    words: SweepPoint = {"on": asked.chip, "energy": asked.energy, "dram": asked.dram}
    common = {**words, "network": _digest(workloads), **identity(chip, asked.chip)}
    points = [common | {"numbers": numbers} for numbers in asked.points]
    function = partial(_estimated, workloads, asked)
    results = sweep(points, function, folder=folder, jobs=jobs, progress=progress)
    rows = tuple(SweepRow(**result) for result in results if "refused" not in result)  # type: ignore[arg-type]
    refused = tuple(str(result["refused"]) for result in results if "refused" in result)
    if not rows:
        raise AcceleratorError(refused[0])
    macs = sum(work.macs for work in workloads) + sum(each.macs for each in left_out)
    return SweepOutcome(chip.name, rows, refused, (*refusals(workloads, chip), *left_out), macs)


def _estimated(workloads: Sequence[Workload], asked: ChipSweep, point: SweepPoint) -> dict[str, object]:
    """One point; the chip is looked up by its word, since its functions cannot be sent to another process."""
    numbers = cast(Mapping[str, float], point["numbers"])
    try:
        network = estimate(
            workloads, vary(one_chip(asked.chip), numbers), energy=asked.energy, dram=asked.dram
        )
    except AcceleratorError as fact:
        words = " ".join(f"{name}={number:.15g}" for name, number in numbers.items())
        return {"numbers": numbers, "refused": f"{words}: {fact}"}
    total = network.total
    row = SweepRow(
        numbers,
        cycles=network.cycles,
        seconds=network.seconds,
        joules=network.joules,
        roof=total.roof,
        utilisation=total.utilisation,
        dram_bytes=total.moved("DRAM"),
    )
    return asdict(row)


def _digest(workloads: Sequence[Workload]) -> str:
    """SHA-256 of the layers' shapes and zeros."""
    digest = hashlib.sha256()
    for place, work in enumerate(workloads):
        shapes = work.name, work.op, work.weight.shape, work.input.shape
        digest.update(repr((*shapes, work.stride, work.padding, work.dilation)).encode())
        for mask in (work.weight, work.input, work.output, work.stored_input, work.stored_output):
            digest.update(b"" if mask is None else mask.numpy().tobytes())
        digest.update(work.outside.encode() if place else b"")  # the first always reads the network's input
    return digest.hexdigest()
