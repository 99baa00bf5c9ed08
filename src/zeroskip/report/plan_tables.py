"""Plans by what a chip gains beside plans by the number of weights: a table, and docs/PLANNING.md.

A wider budget may end at the networks of a smaller one. Such a pair is listed and counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import geometric_mean

from zeroskip.concepts import PlanComparison, PlannedNetwork, PlanPair
from zeroskip.report.grid import Grid, markdown_table
from zeroskip.report.number_format import show_count, show_error, show_share, show_times

HEAD = """# Plans by cost and plans by weights

`prune.plan` spends a budget of error on layers. By default it removes as many weights as the budget allows; given
`cost=simulate.cost_on(chip, trace)` it removes those whose absence saves the chip most. Each seed is a training of its
own; both plans start from its network, have the same budget, and are carried out alike: prune and retrain until a
round exceeds the budget. What they are compared by was estimated afterwards, of the pruned networks on the same inputs.
Every pair that was run is listed, also those in which the plan by cost is worse (below 1x). Generated; change nothing
by hand:

"""
COLUMNS = (
    *("machine", "budget", "seed", "plan by", "zeros", "error", "test error", "cycles", "µJ"),
    *("than dense", "than weights"),
)
LESS = {"cycles": "fewer cycles", "joules": "less energy"}


def plans_table(comparison: PlanComparison) -> Grid:
    """Two lines for each chip, budget and seed, and the geometric mean of each chip's different pairs.

    >>> from zeroskip.concepts import ChipLayers
    >>> dense, sparse = PlannedNetwork(0, 0.02, 0.03, 9000, 9e-6), PlannedNetwork(0.9, 0.02, 0.03, 2000, 4e-6)
    >>> pair = PlanPair("EIE", 0.01, 0, dense, sparse, PlannedNetwork(0.9, 0.02, 0.03, 1000, 2e-6))
    >>> plans_table(PlanComparison("digits", "cycles", "free", {"EIE": ChipLayers(("fc1",), ())}, (pair,))).rows[-1]
    ('EIE, geometric mean', '-', '-', '-', '-', '-', '-', '-', '-', '-', '2x')
    """
    rows: list[tuple[str, ...]] = []
    marks, cost = {}, comparison.cost
    for chip, pairs in _by_chip(comparison).items():
        different = _different(pairs)
        for pair in pairs:
            gain = _gain(pair, cost)
            rows.append(_row(pair, pair.by_weights, cost, "weights", "-"))
            cell = show_times(gain) if pair in different else f"({show_times(gain)})"
            rows.append(_row(pair, pair.by_cost, cost, cost, cell))
            marks[len(rows) - 1] = "win" if gain > 1 else "loss" if gain < 1 else ""
        marks[len(rows)] = "total"
        mean = show_times(geometric_mean(_gain(pair, cost) for pair in different))
        rows.append((f"{chip}, geometric mean", *["-"] * (len(COLUMNS) - 2), mean))
    title = f"{comparison.task}: plans by weights and by {cost}"
    note = (
        f"Pattern {comparison.pattern}. Budget: points that the validation error may rise; error: on validation. "
        f"Than dense, than weights: times {LESS[cost]} than the dense network, than by the plan by weights. "
        "In brackets: both networks are those of a smaller budget, and are not counted again."
    )
    return Grid(title, COLUMNS, tuple(rows), " ".join([note, *_refused(comparison)]), marks=marks)


def plans_markdown(comparison: PlanComparison, origin: str) -> str:
    """The page: how it was made, what came out, and every pair.

    origin  date, machine and command

    >>> nothing = PlanComparison("digits", "cycles", "free", {}, ())
    >>> plans_markdown(nothing, "2026-01-31, a machine, `zeroskip compare-plans ...`").splitlines()[0]
    '# Plans by cost and plans by weights'
    """
    grid = plans_table(comparison)
    verdicts = "".join(f"- {line}\n" for line in _verdicts(comparison))
    pairs = markdown_table(grid.columns, grid.rows)
    return f"{HEAD}    {origin}\n\n## {grid.title}\n\n{verdicts}\n{pairs}\n{grid.note}\n"


def _by_chip(comparison: PlanComparison) -> dict[str, list[PlanPair]]:
    return {chip: list(pairs) for chip, pairs in groupby(comparison.pairs, key=lambda pair: pair.chip)}


def _verdicts(comparison: PlanComparison) -> list[str]:
    lines, cost = [], comparison.cost
    for chip, all_pairs in _by_chip(comparison).items():
        pairs = _different(all_pairs)
        gains = [_gain(pair, cost) for pair in pairs]
        won, lost = sum(gain > 1 for gain in gains), sum(gain < 1 for gain in gains)
        spread = f"from {show_times(min(gains))} to {show_times(max(gains))}"
        mean = f"{show_times(geometric_mean(gains))} in the geometric mean"
        words = f"the plan by {cost} needs {LESS[cost]} in {won} of {len(gains)} different pairs"
        shared = sum(_shares(pair, pairs) for pair in pairs)
        also = f" {shared} of these pairs share one network with another budget of their seed."
        lines.append(f"{chip}: {words}, more in {lost}: {mean}, {spread}.{also if shared else ''}")
    return [*lines, *_refused(comparison)]


def _refused(comparison: PlanComparison) -> list[str]:
    """What each chip's figures leave out."""
    lines = []
    for chip, layers in comparison.layers.items():
        share = f"{show_share(layers.simulated)} of the network's multiplications"
        if layers.refused:
            also = f", {share}" if layers.simulated < 1 else ""
            refused, run = (", ".join(names) for names in (layers.refused, layers.run))
            lines.append(f"{chip} cannot run {refused}: its figures are of {run} alone{also}.")
        elif layers.simulated < 1:
            lines.append(f"{chip}: its figures are of {share}; the others are products of activations.")
    return lines


def _different(pairs: Sequence[PlanPair]) -> list[PlanPair]:
    """The pairs but those that repeat another budget's: of the same seed, with the same figures of both networks."""
    different: list[PlanPair] = []
    for pair in pairs:
        repeats = (
            pair.seed == other.seed and pair.by_weights == other.by_weights and pair.by_cost == other.by_cost
            for other in different
        )
        if not any(repeats):
            different.append(pair)
    return different


def _shares(pair: PlanPair, pairs: Sequence[PlanPair]) -> bool:
    """Whether another budget of the seed ended at one of the two networks."""
    others = [other for other in pairs if other is not pair and other.seed == pair.seed]
    return any(pair.by_weights == other.by_weights or pair.by_cost == other.by_cost for other in others)


def _row(pair: PlanPair, network: PlannedNetwork, cost: str, planned_by: str, gain: str) -> tuple[str, ...]:
    return (
        pair.chip,
        f"{100 * pair.max_error_rise:.3g}",
        str(pair.seed),
        planned_by,
        show_share(network.sparsity),
        show_error(network.validation_error),
        show_error(network.test_error),
        show_count(network.cycles),
        f"{1e6 * network.joules:.3g}",
        show_times(_cost(pair.dense, cost) / _cost(network, cost)),
        gain,
    )


def _gain(pair: PlanPair, cost: str) -> float:
    return _cost(pair.by_weights, cost) / _cost(pair.by_cost, cost)


def _cost(network: PlannedNetwork, cost: str) -> float:
    return network.cycles if cost == "cycles" else network.joules
