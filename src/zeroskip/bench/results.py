"""What was measured: as a noun, as rows, and on disk, one entry for each finished case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from zeroskip.bench.cases import Case
from zeroskip.bench.engines import ENGINES, OURS
from zeroskip.errors import FileError
from zeroskip.files import read_json, write_json

# Which of our precisions a peer's is compared with: the first that was measured.
AGAINST = {
    "fp32": ("fp32",),
    "bf16": ("bf16", "fp16", "bf16 weights", "fp32"),
    "bf16 weights": ("bf16 weights",),
    "int8": ("fp32",),
}


@dataclass(frozen=True)
class Result:
    """One case. Engines are named by their labels, such as "torch eager bf16".

    seconds     engine -> for each run, the median over its rounds of the median call
    difference  engine -> largest difference of its answer from torch eager's in fp32, as share of the largest value
    missing     engine -> why it has no figure
    """

    case: Case
    seconds: dict[str, tuple[float, ...]]
    difference: dict[str, float]
    missing: dict[str, str]
    versions: dict[str, str]
    runs: int
    rounds: int
    date: str

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists; `from_json` turns them back."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Result:
        """The result that `to_json` wrote."""
        seconds = {label: tuple(values) for label, values in value["seconds"].items()}
        case = {name: what for name, what in value["case"].items() if name != "needs"}  # of an older zeroskip
        return Result(**{**value, "case": Case(**case), "seconds": seconds})


def rows(result: Result) -> list[dict[str, Any]]:
    """One row for each engine that was measured.

    speedup  its seconds over ours: above 1 we are faster. Ours is our fp32 for an fp32 engine, our 16-bit program
             for one of fewer bits if there is any, and with 8-bit weights where the case asks for them; None
             where we have no figure. `against` names the precision of ours

    >>> rows(result)[0]["speedup"]
    2.1
    """
    return [_row(result, label) for label in result.seconds]


def _row(result: Result, label: str) -> dict[str, Any]:
    engine = next(one for one in ENGINES if one.label == label)
    case, runs = result.case, result.seconds[label]
    against = engine.precision if engine.name == OURS else _against(result, engine.precision)
    ours = result.seconds.get(f"{OURS} {against}")
    seconds = median(runs)
    return {
        "case": case.network,
        "sparsity": case.sparsity,
        "batch": case.batch,
        "threads": case.threads,
        "precision": engine.precision,
        "engine": engine.name,
        "seconds": seconds,
        "speedup": seconds / median(ours) if ours else None,
        "against": against if ours else None,
        "seconds_low": min(runs),
        "seconds_high": max(runs),
        "difference": result.difference[label],
        "weights": case.weights,
        "cold": case.cold,
        "pattern": case.pattern,
        "input_sparsity": case.input_sparsity,
    }


def _against(result: Result, precision: str) -> str:
    wanted = ("int8 weights",) if result.case.weights == "int8" else AGAINST[precision]
    return next((one for one in wanted if f"{OURS} {one}" in result.seconds), wanted[-1])


@dataclass(frozen=True)
class Store:
    """Finished cases in one JSON file, which belongs to one machine. Without a path nothing is kept."""

    path: Path | None
    machine: str

    def load(self) -> list[Result]:
        """What is there; FileError where it is another machine's."""
        if self.path is None or not self.path.exists():
            return []
        found = read_json(self.path)
        try:
            machine, results = found["machine"], [Result.from_json(one) for one in found["cases"]]
        except (KeyError, TypeError, AttributeError):
            raise FileError(
                f"{self.path} holds no results of a bench. Name another file, or delete it."
            ) from None
        if machine != self.machine:
            raise FileError(
                f"{self.path} was measured on {machine}, and this is {self.machine}: their seconds cannot stand "
                "in one table. Name another folder with --out."
            )
        return results

    def add(self, results: Sequence[Result]) -> None:
        """Write these besides the others; a case that was there is replaced."""
        if self.path is not None:
            kept = {result.case: result for result in [*self.load(), *results]}
            cases = [result.to_json() for result in kept.values()]
            write_json(self.path, {"machine": self.machine, "cases": cases})
