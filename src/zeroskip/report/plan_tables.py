"""Plans by what a machine gains beside plans by the number of weights: a table, and docs/PLANNING.md.

told  {"task", "of": "cycles" or "joules", "pattern", "layers": {machine: {"run": [...], "refused": [...]}},
       "pairs": [...]}, a pair for each machine, budget and seed:
      {"machine", "rise", "seed", and three networks "dense", "weights", "cost": each
       {"zeros", "validation", "test", "cycles", "joules"}}

A wider budget may end at the networks of a smaller one. Such a pair is listed and counted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import geometric_mean
from typing import Any

from zeroskip.report.activation_page import table
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count, show_error, show_share, show_times

Told = Mapping[str, Any]

HEAD = """# Plans by cost and plans by weights

`prune.plan` spends a budget of error on layers. By default it removes as many weights as the budget allows; given
`cost=simulate.cost_on(chip, trace)` it removes those whose absence saves the chip most. Each seed is a training of its
own; both plans start from its network, have the same budget, and are carried out alike: prune and retrain until a
round exceeds the budget. What they are compared by was estimated afterwards, of the pruned networks on the same inputs.
Every pair that was run is listed, also those in which the plan by cost is worse (below 1x). Generated; change nothing
by hand:

"""
COLUMNS = (
    "machine",
    "budget",
    "seed",
    "plan by",
    "zeros",
    "error",
    "test error",
    "cycles",
    "µJ",
    "than dense",
    "than weights",
)
LESS = {"cycles": "fewer cycles", "joules": "less energy"}


def plans_table(told: Told) -> Grid:
    """Two lines for each machine, budget and seed, and the geometric mean of each machine's different pairs.

    >>> Console().print(plans_table(told))
    """
    rows: list[tuple[str, ...]] = []
    marks = {}
    for machine, some in groupby(told["pairs"], key=lambda pair: pair["machine"]):
        pairs = list(some)
        different = _different(pairs)
        for pair in pairs:
            rows += [
                _row(pair, kind, told["of"], again=pair not in different) for kind in ("weights", "cost")
            ]
            gain = _gain(pair, told["of"])
            marks[len(rows) - 1] = "win" if gain > 1 else "loss" if gain < 1 else ""
        marks[len(rows)] = "total"
        mean = show_times(geometric_mean(_gain(pair, told["of"]) for pair in different))
        rows.append((f"{machine}, geometric mean", *["-"] * (len(COLUMNS) - 2), mean))
    title = f"{told['task']}: plans by weights and by {told['of']}"
    note = (
        f"Pattern {told['pattern']}. Budget: points that the validation error may rise; error: on validation. "
        f"Than dense, than weights: times {LESS[told['of']]} than the dense network, than by the plan by weights. "
        "In brackets: both networks are those of a smaller budget, and are not counted again."
    )
    return Grid(title, COLUMNS, tuple(rows), " ".join([note, *_refused(told)]), marks=marks)


def plans_markdown(told: Told, origin: str) -> str:
    """The page: how it was made, what came out, and every pair.

    origin  date, machine and command

    >>> plans_markdown(told, "2026-01-31, AMD EPYC, `zeroskip prune ...`").splitlines()[0]
    '# Plans by cost and plans by weights'
    """
    grid = plans_table(told)
    verdicts = "".join(f"- {line}\n" for line in _verdicts(told))
    return f"{HEAD}    {origin}\n\n## {grid.title}\n\n{verdicts}\n{table(grid.columns, grid.rows)}\n{grid.note}\n"


def _verdicts(told: Told) -> list[str]:
    lines = []
    for machine, some in groupby(told["pairs"], key=lambda pair: pair["machine"]):
        pairs = _different(list(some))
        gains = [_gain(pair, told["of"]) for pair in pairs]
        won, lost = sum(gain > 1 for gain in gains), sum(gain < 1 for gain in gains)
        spread = f"from {show_times(min(gains))} to {show_times(max(gains))}"
        mean = f"{show_times(geometric_mean(gains))} in the geometric mean"
        words = f"the plan by {told['of']} needs {LESS[told['of']]} in {won} of {len(gains)} different pairs"
        shared = sum(_shares(pair, pairs) for pair in pairs)
        also = (
            f" {shared} of these pairs share one network with another budget of their seed." if shared else ""
        )
        lines.append(f"{machine}: {words}, more in {lost}: {mean}, {spread}.{also}")
    return [*lines, *_refused(told)]


def _refused(told: Told) -> list[str]:
    """What each machine's figures leave out."""
    return [
        f"{machine} cannot run {', '.join(layers['refused'])}: its figures are of {', '.join(layers['run'])} alone."
        for machine, layers in told["layers"].items()
        if layers["refused"]
    ]


def _different(pairs: Sequence[Told]) -> list[Told]:
    """The pairs but those that repeat another budget's: of the same seed, with the same figures of both networks."""
    found: list[Told] = []
    for pair in pairs:
        if not any(_same(pair, one, "weights") and _same(pair, one, "cost") for one in found):
            found.append(pair)
    return found


def _shares(pair: Told, pairs: Sequence[Told]) -> bool:
    others = [one for one in pairs if one is not pair]
    return any(_same(pair, one, "weights") or _same(pair, one, "cost") for one in others)


def _same(pair: Told, other: Told, kind: str) -> bool:
    return bool(pair["seed"] == other["seed"] and pair[kind] == other[kind])


def _row(pair: Told, kind: str, of: str, *, again: bool) -> tuple[str, ...]:
    one, gain = pair[kind], show_times(_gain(pair, of))
    return (
        pair["machine"],
        f"{100 * pair['rise']:.3g}",
        str(pair["seed"]),
        kind if kind == "weights" else of,
        show_share(one["zeros"]),
        show_error(one["validation"]),
        show_error(one["test"]),
        show_count(one["cycles"]),
        f"{1e6 * one['joules']:.3g}",
        show_times(pair["dense"][of] / one[of]),
        "-" if kind == "weights" else f"({gain})" if again else gain,
    )


def _gain(pair: Told, of: str) -> float:
    return float(pair["weights"][of] / pair["cost"][of])
