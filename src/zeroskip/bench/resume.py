"""A race that goes on: finished cases are taken from the store, the others raced."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from zeroskip.bench.cases import Case
from zeroskip.bench.results import RaceResult, Store
from zeroskip.bench.rounds import RaceSetup, race
from zeroskip.concepts import Progress, silent


def race_rest(
    cases: Sequence[Case],
    setup: RaceSetup,
    store: Store,
    *,
    fresh: bool = False,
    progress: Progress = silent,
) -> list[RaceResult]:
    """The results of the cases in their order; what is raced is stored after each network. `fresh`: race all again.

    >>> from zeroskip.bench import SHORT, Environments
    >>> race_rest([], RaceSetup(machine, Environments(Path(".bench")), SHORT), Store(None, machine.title))
    []
    """
    kept = {} if fresh else {result.case: result for result in store.load() if result.seconds}
    results = {case: kept[case] for case in cases if case in kept}
    left = [case for case in cases if case not in results]
    # Nothing is kept of a quick run before its end, so that all its cases can share their processes.
    together = _threads if store.path is None else _company
    for _, group in groupby(left, together):
        raced = race(list(group), setup, progress=progress)
        store.add(raced)
        results |= {result.case: result for result in raced}
        progress("cases", len(results), len(cases))
    return [results[case] for case in cases]


def _threads(case: Case) -> tuple[str, int]:
    return "", case.threads


def _company(case: Case) -> tuple[str, int]:
    """Cases alike in this share their processes: layers whose inputs are sparse are too many to start anew for each."""
    layer_of = case.network.split("/")[0] if "/" in case.network else "layers"
    return layer_of if case.input_sparsity else case.network, case.threads
