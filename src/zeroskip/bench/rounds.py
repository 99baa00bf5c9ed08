"""The race: engines in processes of their own take turns, answers are compared, medians are kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from zeroskip.bench.cases import Case
from zeroskip.bench.engines import ENTRANTS, Entrant, Environments, entrants, refusal
from zeroskip.bench.results import RaceResult
from zeroskip.bench.worker_process import WorkerProcess
from zeroskip.concepts import Machine, Progress, silent
from zeroskip.errors import EngineError


@dataclass(frozen=True)
class Effort:
    """How much is measured: `runs` of fresh processes, each `rounds` of `slot` seconds for every engine.

    limit  seconds that an engine may take for one order (the longest is to compile a network) before it is out

    >>> FULL.runs, FULL.rounds
    (3, 9)
    """

    runs: int
    rounds: int
    slot: float
    limit: float = 1200.0


FULL = Effort(runs=3, rounds=9, slot=0.05)
SHORT = Effort(runs=1, rounds=5, slot=0.02)


@dataclass(frozen=True)
class RaceSetup:
    """The machine that engines run on, where their interpreters are, how much is measured, and who takes part.

    >>> RaceSetup(machine, Environments(Path(".bench")), SHORT).effort.runs
    1
    """

    machine: Machine
    environments: Environments
    effort: Effort
    entrants: tuple[Entrant, ...] = ENTRANTS


@dataclass
class _Notes:
    """What is gathered of a case, engine by engine."""

    entrants: list[Entrant]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def drop_(self, engine: Entrant, reason: object) -> None:
        self.missing[engine.label] = str(reason)
        self.seconds.pop(engine.label, None)


def race(cases: Sequence[Case], setup: RaceSetup, *, progress: Progress = silent) -> list[RaceResult]:
    """The engines on the cases, which must have the same number of threads; one result for each case.

    A run starts every engine anew. In a round each has its turn, and the order rotates, while the others are
    stopped. An engine that fails, dies, is late or answers wrongly is `missing` with the reason.

    >>> race([], RaceSetup(machine, Environments(Path(".bench")), Effort(runs=0, rounds=0, slot=0.0)))
    []
    """
    environments, effort = setup.environments, setup.effort
    notes = {case: _Notes(entrants(case, setup.entrants)) for case in cases}
    versions: dict[str, str] = {}
    for case in cases:
        for engine in notes[case].entrants:
            reason = refusal(engine, case, setup.machine, environments)
            if reason is not None:
                notes[case].drop_(engine, reason)
    names = ", ".join(dict.fromkeys(case.network for case in cases))
    for number in range(effort.runs):
        with _Run(environments, effort, cases[0].threads) as run:
            for place, case in enumerate(cases):
                progress(names, number * len(cases) + place, effort.runs * len(cases))
                _measure_(case, notes[case], run)
            versions.update(run.versions)
    progress(names, effort.runs * len(cases), effort.runs * len(cases))
    return [_result(case, notes[case], versions, effort) for case in cases]


def _result(case: Case, notes: _Notes, versions: Mapping[str, str], effort: Effort) -> RaceResult:
    return RaceResult(
        case=case,
        seconds={label: tuple(values) for label, values in notes.seconds.items()},
        difference={label: notes.difference[label] for label in notes.seconds},
        missing=notes.missing,
        versions=dict(sorted(versions.items())),
        runs=effort.runs,
        rounds=effort.rounds,
        date=date.today().isoformat(),
    )


class _Run:
    """The processes of one run: started when first needed, or when the last one died, and ended with it."""

    def __init__(self, environments: Environments, effort: Effort, threads: int) -> None:
        self.effort, self.versions = effort, dict[str, str]()
        self._environments, self._threads = environments, threads
        self._workers: dict[str, WorkerProcess] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Run:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="zeroskip-bench-")))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def worker(self, word: str) -> WorkerProcess:
        """A living process of this engine, its libraries loaded. EngineError where they cannot be."""
        if word not in self._workers or not self._workers[word].alive:
            number = str(self._threads)
            self._workers[word] = started = WorkerProcess(
                self._environments.command(word, self._threads),
                self.folder / f"{word}.log",
                environment={
                    **{f"{name}_NUM_THREADS": number for name in ("OMP", "MKL", "OPENBLAS")},
                    "PYTHONSAFEPATH": "1",  # the folder of worker.py is no place to import from
                    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no processes besides this one
                    "NM_DISABLE_ANALYTICS": "1",
                },
                limit=self.effort.limit,
            )
            self._stack.callback(started.close)
            self.versions.update(started.ready())
        return self._workers[word]


def _measure_(case: Case, notes: _Notes, run: _Run) -> None:
    """One run of one case: every engine built, compared, timed in turns; what is found goes to `notes`."""
    folder = run.folder / "case"
    folder.mkdir()
    try:
        racing = _correct_engines_(case, notes, run)
        measured: dict[str, list[float]] = {engine.label: [] for engine in racing}
        for number in range(run.effort.rounds):
            first = number % max(1, len(racing))
            for engine in racing[first:] + racing[:first]:
                if engine.label not in notes.missing:
                    _turn_(engine, case, measured[engine.label], notes, run)
        for engine in racing:
            if engine.label not in notes.missing:
                notes.seconds.setdefault(engine.label, []).append(median(measured[engine.label]))
    finally:
        shutil.rmtree(folder)


def _correct_engines_(case: Case, notes: _Notes, run: _Run) -> list[Entrant]:
    """The engines that are ready and compute what they should."""
    entrants_left = [engine for engine in notes.entrants if engine.label not in notes.missing]
    if not entrants_left:
        return []
    try:
        expected = _answer(run, "reference", case, run.folder / "case")
    except EngineError as fact:
        for engine in entrants_left:
            notes.drop_(engine, f"the network itself cannot be made: {fact}")
        return []
    return [engine for engine in entrants_left if _is_correct_(engine, case, expected, notes, run)]


def _answer(run: _Run, word: str, case: Case, folder: Path) -> np.ndarray:
    worker = run.worker(word)
    worker.build(folder, case.to_json())
    return worker.answer()


def _is_correct_(engine: Entrant, case: Case, expected: np.ndarray, notes: _Notes, run: _Run) -> bool:
    """Whether the engine computes the network of the case; the reason goes to `notes` where it does not."""
    try:
        answer = _answer(run, engine.word, case, run.folder / "case")
    except EngineError as fact:
        notes.drop_(engine, fact)
        return False
    far = difference(answer, expected)
    notes.difference[engine.label] = max(far, notes.difference.get(engine.label, 0.0))
    if not far <= engine.tolerance:
        notes.drop_(
            engine,
            f"its answer differs from torch eager's by {far:.2g} of the largest output, and {engine.precision} "
            f"explains {engine.tolerance:g}",
        )
    return engine.label not in notes.missing


def _turn_(engine: Entrant, case: Case, measured: list[float], notes: _Notes, run: _Run) -> None:
    try:
        times = run.worker(engine.word).time(run.effort.slot, cold=case.cold, clock=case.clock)
        measured.append(median(times))
    except EngineError as fact:
        notes.drop_(engine, fact)


def difference(answer: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference as share of the largest expected value; infinite for another size or NaN.

    >>> difference(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    0.5
    """
    if answer.size != expected.size:
        return float("inf")
    gap = np.abs(answer.ravel().astype(np.float64) - expected.ravel()).max(initial=0.0)
    largest = np.abs(expected).max(initial=0.0)
    return float(gap / max(largest, 1e-30)) if np.isfinite(gap) else float("inf")
