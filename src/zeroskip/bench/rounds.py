"""The race: engines in processes of their own take turns, answers are compared, medians kept; and it goes on later."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np

from zeroskip.bench.cases import LAYERS, Case
from zeroskip.bench.engines import ENTRANTS, Entrant, Environments, entrants, refusal
from zeroskip.bench.results import RaceResult, Store
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
    """What is gathered of a case, by the labels of its engines."""

    case: Case
    entrants: list[Entrant]
    missing: dict[str, str]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    slowest: dict[str, list[float]] = field(default_factory=dict)
    first_call: dict[str, list[float]] = field(default_factory=dict)

    @property
    def racing(self) -> list[Entrant]:
        """The engines that nothing has kept from the race so far."""
        return [engine for engine in self.entrants if engine.label not in self.missing]

    def drop_(self, engine: Entrant, reason: object) -> None:
        self.missing[engine.label] = str(reason)
        for times in (self.seconds, self.slowest, self.first_call):
            times.pop(engine.label, None)


@dataclass
class _Run:
    """The processes of one run: started when first needed, or when the last one died; `stack` ends them."""

    setup: RaceSetup
    threads: int
    folder: Path
    stack: ExitStack
    versions: dict[str, str] = field(default_factory=dict)
    workers: dict[str, WorkerProcess] = field(default_factory=dict)

    def worker(self, word: str) -> WorkerProcess:
        """A living process of this engine, its libraries loaded. EngineError where they cannot be."""
        if word not in self.workers or not self.workers[word].alive:
            number = str(self.threads)
            self.workers[word] = started = WorkerProcess(
                self.setup.environments.command(word, self.threads),
                self.folder / f"{word}.log",
                environment={
                    **{f"{name}_NUM_THREADS": number for name in ("OMP", "MKL", "OPENBLAS")},
                    "PYTHONSAFEPATH": "1",  # the folder of worker.py is no place to import from
                    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no processes besides this one
                    "NM_DISABLE_ANALYTICS": "1",
                },
                limit=self.setup.effort.limit,
            )
            self.stack.callback(started.close)
            self.versions.update(started.ready())
        return self.workers[word]

    def answer(self, word: str, case: Case, folder: Path) -> tuple[np.ndarray, float | None]:
        """What an engine computes of a case, which it builds first, and the seconds of its first call, if any.

        EngineError where it cannot.
        """
        worker = self.worker(word)
        first = worker.build(folder, case.to_json())
        return worker.answer(), first


def race(cases: Sequence[Case], setup: RaceSetup, *, progress: Progress = silent) -> list[RaceResult]:
    """The engines on the cases, which must have the same number of threads; one result for each case.

    A run starts every engine anew. In a round each has its turn, and the order rotates, while the others are
    stopped. An engine that fails, dies, is late or answers wrongly is `missing` with the reason.

    >>> race([], RaceSetup(machine, Environments(Path(".bench")), Effort(runs=0, rounds=0, slot=0.0)))
    []
    """
    runs, notes, versions = setup.effort.runs, [_notes(case, setup) for case in cases], dict[str, str]()
    names, steps = ", ".join(dict.fromkeys(case.network for case in cases)), runs * len(cases)
    with tempfile.TemporaryDirectory(prefix="zeroskip-bench-") as folder:
        for number in range(runs):
            with ExitStack() as stack:
                run = _Run(setup, cases[0].threads, Path(folder), stack)
                for place, of_case in enumerate(notes):
                    progress(names, number * len(cases) + place, steps)
                    _measure_(of_case, run, Path(folder) / str(place))
                versions.update(run.versions)
    progress(names, steps, steps)
    return [_result(of_case, versions, setup.effort) for of_case in notes]


def _notes(case: Case, setup: RaceSetup) -> _Notes:
    """Nothing but who cannot take part."""
    engines = entrants(case, setup.entrants)
    reasons = {engine.label: refusal(engine, case, setup.machine, setup.environments) for engine in engines}
    return _Notes(case, engines, {label: reason for label, reason in reasons.items() if reason is not None})


def _result(notes: _Notes, versions: Mapping[str, str], effort: Effort) -> RaceResult:
    _drop_beaten_(notes)
    return RaceResult(
        case=notes.case,
        seconds=_tuples(notes.seconds),
        slowest=_tuples(notes.slowest),
        first_call=_tuples(notes.first_call),
        difference={label: notes.difference[label] for label in notes.seconds},
        missing=notes.missing,
        versions=dict(sorted(versions.items())),
        runs=effort.runs,
        rounds=effort.rounds,
        date=date.today().isoformat(),
    )


def _tuples(times: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    return {label: tuple(runs) for label, runs in times.items()}


def _drop_beaten_(notes: _Notes) -> None:
    """Drop engines that are slower than what they replace."""
    for engine in notes.racing:
        ours, other = (median(notes.seconds.get(name, [0.0])) for name in (engine.label, engine.must_beat))
        if 0 < other < ours:
            notes.drop_(engine, f"it takes {ours / other:.2f} times as long as {engine.must_beat}")


def _measure_(notes: _Notes, run: _Run, folder: Path) -> None:
    """One run of one case: every engine built, compared, timed in turns; what comes of it goes to `notes`.

    What is quantised serves all runs.
    """
    folder.mkdir(exist_ok=True)
    try:
        _compare_(notes, run, folder)
        measured: dict[str, list[list[float]]] = {engine.label: [] for engine in notes.racing}
        engines = notes.racing
        for number in range(run.setup.effort.rounds):
            first = number % max(1, len(engines))
            for engine in engines[first:] + engines[:first]:
                if engine.label not in notes.missing:
                    _turn_(engine, measured[engine.label], notes, run)
        for engine in notes.racing:
            turns = measured[engine.label]
            notes.seconds.setdefault(engine.label, []).append(median(map(median, turns)))
            slowest = float(np.percentile(np.concatenate(turns), 99))
            notes.slowest.setdefault(engine.label, []).append(slowest)
    finally:
        if not notes.case.in_int8:
            shutil.rmtree(folder)


def _compare_(notes: _Notes, run: _Run, folder: Path) -> None:
    """Drop the engines that do not compute the network of the case."""
    if not notes.racing:
        return
    try:
        expected, _ = run.answer("reference", notes.case, folder)
    except EngineError as fact:
        for engine in notes.racing:
            notes.drop_(engine, f"the network itself cannot be made: {fact}")
        return
    for engine in notes.racing:
        try:
            answer, first = run.answer(engine.word, notes.case, folder)
        except EngineError as fact:
            notes.drop_(engine, fact)
            continue
        if first is not None:
            notes.first_call.setdefault(engine.label, []).append(first)
        far = difference(answer, expected)
        notes.difference[engine.label] = max(far, notes.difference.get(engine.label, 0.0))
        if not far <= engine.tolerance:
            notes.drop_(
                engine,
                f"its answer differs from torch eager's by {far:.2g} of the largest output, and "
                f"{engine.precision} explains {engine.tolerance:g}",
            )


def _turn_(engine: Entrant, measured: list[list[float]], notes: _Notes, run: _Run) -> None:
    case, slot = notes.case, run.setup.effort.slot
    try:
        measured.append(run.worker(engine.word).time(slot, cold=case.cold, clock=case.clock))
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


def race_rest(
    cases: Sequence[Case], setup: RaceSetup, store: Store, *, fresh: bool = False, progress: Progress = silent
) -> list[RaceResult]:
    """The results of the cases in their order; what is raced is stored after each network. `fresh`: race all again.

    >>> race_rest([], RaceSetup(machine, Environments(Path(".bench")), SHORT), Store(None, machine.title))
    []
    """
    kept = {} if fresh else {result.case: result for result in store.load() if result.seconds}
    results = {case: kept[case] for case in cases if case in kept}
    left = [case for case in cases if case not in results]
    # Nothing is kept of a quick run before its end, so that all its cases can share their processes.
    for _, group in groupby(left, _company if store.path else lambda case: ("", case.threads)):
        raced = race(list(group), setup, progress=progress)
        store.add(raced)
        results |= {result.case: result for result in raced}
        progress("cases", len(results), len(cases))
    return [results[case] for case in cases]


def _company(case: Case) -> tuple[str, int]:
    """Cases alike in this share their processes: some layers are too many to start anew for each.

    A network in eight bits shares none: what is quantised fills the folder. Nor does a transformer, so that each case
    is kept when it is finished: compiling takes most of an hour for all.
    """
    layer_of = case.network.split("/")[0] if case.is_recorded else "layers"
    if case.is_transformer:
        return case.key, case.threads
    if case.in_int8:
        return "layers in int8" if case.network in LAYERS else case.key, case.threads
    return layer_of if case.input_sparsity else case.network, case.threads
