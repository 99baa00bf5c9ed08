"""What a race comes to: its rows, worst first, what is missing, and how often each engine is faster than ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import geometric_mean

from zeroskip.bench.engines import OURS
from zeroskip.bench.results import RaceResult, RaceRow, rows


@dataclass(frozen=True)
class Missing:
    """An engine without a figure in a case, and why.

    >>> Missing("vgg16 90 %, batch 1, 1 thread", "OpenVINO bf16", "this CPU lacks it").engine
    'OpenVINO bf16'
    """

    case: str
    engine: str
    reason: str


@dataclass(frozen=True)
class RaceReport:
    """All rows of a race, of one machine.

    date      of the last case;  seconds: that the race took
    versions  library -> version;  runs, rounds: of the case that has fewest

    >>> race_report([], "a machine", 1.0).rows
    ()
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

    >>> race_report([], "a machine", 1.0).machine
    'a machine'
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

    >>> worst_first(())
    []
    """
    return sorted(table, key=lambda row: (row.speedup is None, row.speedup or 0))


@dataclass(frozen=True)
class Ratios:
    """Its time over ours, of one engine in all cases that both were measured in; below 1 we lose.

    >>> Ratios("DeepSparse fp32", (0.5, 8.0)).losses
    1
    """

    engine: str
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
    """Of each engine that is not ours, the one that is fastest beside us first.

    >>> ratios([])
    []
    """
    values: dict[str, list[float]] = {}
    for row in table:
        if row.engine != OURS and row.speedup:
            values.setdefault(f"{row.engine} {row.precision}", []).append(row.speedup)
    return sorted((Ratios(name, tuple(found)) for name, found in values.items()), key=lambda each: each.mean)
