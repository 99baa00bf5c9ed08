"""What was measured: as a noun, as rows, and on disk, one entry for each finished case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from zeroskip.bench.cases import Case
from zeroskip.bench.engines import ENTRANTS, OURS, Entrant
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
class RaceResult:
    """One case. Engines are named by their labels, such as "torch eager bf16".

    seconds     engine -> for each run, the median over its rounds of the median call
    difference  engine -> largest difference of its answer from torch eager's in fp32, as share of the largest value
    missing     engine -> why it has no figure

    >>> seconds = {"torch eager fp32": (3.0, 2.0, 4.0), "zeroskip fp32": (1.0, 1.0, 1.0)}
    >>> result = RaceResult(Case("vgg16", 0.9), seconds, dict.fromkeys(seconds, 0.0), {}, {}, 3, 9, "2026-01-31")
    >>> [row.speedup for row in rows(result)]
    [3.0, 1.0]
    """

    case: Case
    seconds: dict[str, tuple[float, ...]]
    difference: dict[str, float]
    missing: dict[str, str]
    versions: dict[str, str]
    runs: int
    rounds: int
    date: str

    def to_json(self) -> dict[str, object]:
        """Plain dicts and lists; `from_json` turns them back."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, object]) -> RaceResult:
        """The result that `to_json` wrote; KeyError, TypeError or AttributeError for something else."""
        case: Mapping[str, object] = value["case"]  # type: ignore[assignment]
        seconds: Mapping[str, Sequence[float]] = value["seconds"]  # type: ignore[assignment]
        runs = {label: tuple(values) for label, values in seconds.items()}
        return RaceResult(**{**value, "case": Case.from_json(case), "seconds": runs})  # type: ignore[arg-type]


@dataclass(frozen=True)
class RaceRow:
    """One engine in one case, for tables.

    seconds  median over runs; seconds_low and seconds_high: the fastest and the slowest
    speedup  its seconds over ours: above 1 we are faster; None where we have no figure. Ours is our fp32 for an fp32
             engine, our 16-bit program for one of fewer bits if there is any, and with 8-bit weights where the case
             asks for them; `against` is the precision of ours

    >>> seconds = {"zeroskip fp32": (2.0, 1.0, 3.0)}
    >>> result = RaceResult(Case("vgg16", 0.9), seconds, {"zeroskip fp32": 0.0}, {}, {}, 3, 9, "2026-01-31")
    >>> (rows(result)[0].seconds_low, rows(result)[0].seconds)
    (1.0, 2.0)
    """

    case: str
    sparsity: float
    batch: int
    threads: int
    precision: str
    engine: str
    seconds: float
    speedup: float | None
    against: str | None
    seconds_low: float
    seconds_high: float
    difference: float
    weights: str
    cold: bool
    pattern: str
    input_sparsity: float

    def to_json(self) -> dict[str, object]:
        """As a dict, in this order."""
        return asdict(self)


def rows(result: RaceResult) -> list[RaceRow]:
    """One row for each engine that was measured; FileError for a label that no engine has.

    >>> seconds = {"torch eager fp32": (2.1,), "zeroskip fp32": (1.0,)}
    >>> result = RaceResult(Case("vgg16", 0.9), seconds, dict.fromkeys(seconds, 0.0), {}, {}, 1, 9, "2026-01-31")
    >>> rows(result)[0].speedup
    2.1
    """
    return [_row(result, label) for label in result.seconds]


def _row(result: RaceResult, label: str) -> RaceRow:
    engine, case, runs = _entrant(label), result.case, result.seconds[label]
    against = engine.precision if engine.name == OURS else _against(result, engine.precision)
    ours = result.seconds.get(f"{OURS} {against}")
    seconds = median(runs)
    return RaceRow(
        case=case.network,
        sparsity=case.sparsity,
        batch=case.batch,
        threads=case.threads,
        precision=engine.precision,
        engine=engine.name,
        seconds=seconds,
        speedup=seconds / median(ours) if ours else None,
        against=against if ours else None,
        seconds_low=min(runs),
        seconds_high=max(runs),
        difference=result.difference[label],
        weights=case.weights,
        cold=case.cold,
        pattern=case.pattern,
        input_sparsity=case.input_sparsity,
    )


def _entrant(label: str) -> Entrant:
    known = {entrant.label: entrant for entrant in ENTRANTS}
    if label not in known:
        raise FileError(
            f'a result is of the engine "{label}", which this zeroskip does not race: {", ".join(known)}. Race the '
            f"case again with --fresh, or name another folder with --out."
        )
    return known[label]


def _against(result: RaceResult, precision: str) -> str:
    wanted = ("int8 weights",) if result.case.weights == "int8" else AGAINST[precision]
    return next((ours for ours in wanted if f"{OURS} {ours}" in result.seconds), wanted[-1])


@dataclass(frozen=True)
class Store:
    """Finished cases in one JSON file, which belongs to one machine. Without a path nothing is kept.

    >>> Store(None, machine.title).load()
    []
    """

    path: Path | None
    machine: str

    def load(self) -> list[RaceResult]:
        """What is there; FileError where it is another machine's."""
        if self.path is None or not self.path.exists():
            return []
        content = read_json(self.path)
        try:
            machine, results = content["machine"], [RaceResult.from_json(case) for case in content["cases"]]
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

    def add(self, results: Sequence[RaceResult]) -> None:
        """Write these besides the others; a case that was there is replaced."""
        if self.path is not None:
            kept = {result.case: result for result in [*self.load(), *results]}
            cases = [result.to_json() for result in kept.values()]
            write_json(self.path, {"machine": self.machine, "cases": cases})
