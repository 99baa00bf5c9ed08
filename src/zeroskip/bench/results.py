"""What was measured: the result of a case, its rows, a race's report and ratios; on disk, the finished cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import geometric_mean, median

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
    slowest     engine -> for each run, the 99th percentile of its calls; results of an older zeroskip have none
    first_call  engine -> for each run, seconds from the network as the engine stores it to the first answer, with its
                libraries loaded

    >>> seconds = {"torch eager fp32": (3.0, 2.0, 4.0)}
    >>> RaceResult(Case("vgg16", 0.9), seconds, {"torch eager fp32": 0.0}, {}, {}, 3, 9, "2026-01-31").to_json()["case"]
    {'network': 'vgg16', 'sparsity': 0.9, 'batch': 1, ...}
    """

    case: Case
    seconds: dict[str, tuple[float, ...]]
    difference: dict[str, float]
    missing: dict[str, str]
    versions: dict[str, str]
    runs: int
    rounds: int
    date: str
    slowest: dict[str, tuple[float, ...]] = field(default_factory=dict)
    first_call: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """What `from_json` reads."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, object]) -> RaceResult:
        """The result that `to_json` wrote; KeyError, TypeError or AttributeError for something else."""
        case: Mapping[str, object] = value["case"]  # type: ignore[assignment]
        times = {name: _tuples(value[name]) for name in ("seconds", "slowest", "first_call") if name in value}
        return RaceResult(**{**value, "case": Case.from_json(case), **times})  # type: ignore[arg-type]


def _tuples(value: object) -> dict[str, tuple[float, ...]]:
    runs: Mapping[str, Sequence[float]] = value  # type: ignore[assignment]
    return {label: tuple(times) for label, times in runs.items()}


@dataclass(frozen=True)
class RaceRow:
    """One engine in one case, for tables.

    seconds  median over runs; seconds_low and seconds_high: the fastest and the slowest
    speedup  its seconds over ours: above 1 we are faster; None where we have no figure. Ours is our fp32 for an fp32
             engine, our 16-bit program for one of fewer bits if there is any, and with 8-bit weights where the case
             asks for them; in a case of eight bits it is our int8 for all, of a single layer that on tiles;
             `against` is the precision of ours
    seconds_99, first_call  medians over runs, as RaceResult says; None where they were not measured
    asked    the precision of the case: "int8" where engines in eight bits are raced;  tokens: of a transformer, else 0

    >>> seconds = {"zeroskip fp32": (2.0, 1.0, 3.0)}
    >>> (row,) = rows(RaceResult(Case("vgg16", 0.9), seconds, {"zeroskip fp32": 0.0}, {}, {}, 3, 9, "2026-01-31"))
    >>> row.seconds_low, row.seconds
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
    asked: str
    seconds_99: float | None
    first_call: float | None
    tokens: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether others are compared with it, so that it has nothing to be compared with."""
        return self.engine == OURS or f"{self.engine} {self.precision}" == f"{OURS} {self.against}"


def rows(result: RaceResult) -> list[RaceRow]:
    """A row for each engine that was measured; FileError for a label that no engine has.

    >>> seconds = {"torch eager fp32": (2.1,), "zeroskip fp32": (1.0,)}
    >>> result = RaceResult(Case("vgg16", 0.9), seconds, dict.fromkeys(seconds, 0.0), {}, {}, 1, 9, "2026-01-31")
    >>> rows(result)[0].speedup
    2.1
    """
    return [_row(result, label) for label in result.seconds]


def _row(result: RaceResult, label: str) -> RaceRow:
    engine, case, runs = _entrant(label), result.case, result.seconds[label]
    against = engine.precision if engine.name == OURS else _against(result, engine.precision)
    ours, seconds = result.seconds.get(f"{OURS} {against}"), median(runs)
    other_names = ("network", "clock", "precision")
    of_case = {name: value for name, value in asdict(case).items() if name not in other_names}
    return RaceRow(
        **of_case,
        case=case.network,
        asked=case.precision,
        seconds_99=_median(result.slowest.get(label)),
        first_call=_median(result.first_call.get(label)),
        precision=engine.precision,
        engine=engine.name,
        seconds=seconds,
        speedup=seconds / median(ours) if ours else None,
        against=against if ours else None,
        seconds_low=min(runs),
        seconds_high=max(runs),
        difference=result.difference[label],
    )


def _median(times: Sequence[float] | None) -> float | None:
    return median(times) if times else None


def _entrant(label: str) -> Entrant:
    known = {entrant.label: entrant for entrant in ENTRANTS}
    if label not in known:
        raise FileError(
            f'a result is of the engine "{label}", which this zeroskip does not race: {", ".join(known)}. Race the '
            f"case again with --fresh, or name another folder with --out."
        )
    return known[label]


def _against(result: RaceResult, precision: str) -> str:
    wanted = AGAINST[precision]
    if result.case.weights == "int8":
        wanted = ("int8 weights",)
    if result.case.in_int8:
        wanted = ("on tiles int8", "int8")
    return next((ours for ours in wanted if f"{OURS} {ours}" in result.seconds), wanted[-1])


@dataclass(frozen=True)
class Missing:
    """An engine without a figure in a case, and why."""

    case: str
    engine: str
    reason: str


@dataclass(frozen=True)
class RaceReport:
    """All rows of a race, of one machine.

    date      of the last case;  seconds: that the race took
    versions  library -> version;  runs, rounds: of the case that has fewest

    >>> race_report([], "a machine", 1.0).to_json()
    {'machine': 'a machine', 'versions': {}, 'date': '', 'seconds': 1.0, 'runs': 0, 'rounds': 0, ...}
    """

    machine: str
    versions: Mapping[str, str]
    date: str
    seconds: float
    runs: int
    rounds: int
    rows: tuple[RaceRow, ...]
    missing: tuple[Missing, ...]

    def to_json(self) -> dict[str, object]:
        """What `zeroskip bench --json` prints."""
        return asdict(self)


def race_report(results: Sequence[RaceResult], machine: str, seconds: float) -> RaceReport:
    """The rows of all results, in their order; FileError for an engine that is not known.

    >>> race_report([], "a machine", 1.0).rows
    ()
    """
    return RaceReport(
        machine=machine,
        versions={name: text for result in results for name, text in result.versions.items()},
        date=max((result.date for result in results), default=""),
        seconds=seconds,
        runs=min((result.runs for result in results), default=0),
        rounds=min((result.rounds for result in results), default=0),
        rows=tuple(row for result in results for row in rows(result)),
        missing=tuple(
            Missing(result.case.key, label, reason)
            for result in results
            for label, reason in result.missing.items()
        ),
    )


def worst_first(table: Sequence[RaceRow]) -> list[RaceRow]:
    """The rows by speedup, where we lose most first; those without one last.

    >>> seconds = {"torch eager fp32": (3.0,), "OpenVINO fp32": (0.5,), "zeroskip fp32": (1.0,)}
    >>> result = RaceResult(Case("vgg16", 0.9), seconds, dict.fromkeys(seconds, 0.0), {}, {}, 1, 9, "2026-01-31")
    >>> [row.engine for row in worst_first(rows(result))]
    ['OpenVINO', 'zeroskip', 'torch eager']
    """
    return sorted(table, key=lambda row: (row.speedup is None, row.speedup or 0))


@dataclass(frozen=True)
class Ratios:
    """Its time over ours, of one engine in all cases that both were measured in; below 1 we lose.

    group  "networks in int8", "transformers in int8", "layers in int8 on tiles", or "": all other cases
    """

    engine: str
    group: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Geometric mean."""
        return geometric_mean(self.values)

    @property
    def losses(self) -> int:
        """Cases in which the engine is faster."""
        return sum(value < 1 for value in self.values)


def ratios(table: Sequence[RaceRow]) -> list[Ratios]:
    """Of each engine that is not ours, the fastest first.

    >>> seconds = {"torch eager fp32": (3.0,), "OpenVINO fp32": (0.5,), "zeroskip fp32": (1.0,)}
    >>> result = RaceResult(Case("vgg16", 0.9), seconds, dict.fromkeys(seconds, 0.0), {}, {}, 1, 9, "2026-01-31")
    >>> ratios(rows(result))
    [Ratios(engine='OpenVINO fp32', group='', values=(0.5,)), Ratios(engine='torch eager fp32', ...values=(3.0,))]
    """
    values: dict[tuple[str, str], list[float]] = {}
    for row in table:
        if not row.is_ours and row.speedup:
            values.setdefault((f"{row.engine} {row.precision}", _group(row)), []).append(row.speedup)
    engines = (Ratios(*names, tuple(speedups)) for names, speedups in values.items())
    return sorted(engines, key=lambda engine: (engine.group == "", engine.group, engine.mean))


def _group(row: RaceRow) -> str:
    """Which means a row belongs to: those of eight bits stand by themselves, networks, transformers and layers."""
    if row.asked != "int8":
        return ""
    if row.tokens:
        return "transformers in int8"
    return "layers in int8 on tiles" if row.against == "on tiles int8" else "networks in int8"


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
            sentence = f"{self.path} holds no results of a bench. Name another file, or delete it."
            raise FileError(sentence) from None
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
