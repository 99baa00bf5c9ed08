"""Minerva: its five networks, what zero inputs, ReLU and thresholds on small activations remove, and at what error."""

from __future__ import annotations

import statistics
from functools import cache

from zeroskip import measure
from zeroskip.concepts import PaperRow
from zeroskip.models import MLP
from zeroskip.papers.common.figure_checks import Verdict, percent
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.network_sizes import without_memory
from zeroskip.papers.common.paper import TRAINING, Findings
from zeroskip.papers.common.rules import (
    AT_LEAST,
    EQUAL,
    LAST_DIGIT,
    OURS,
    RECOMPUTED,
    at_most,
    figure,
    within_share,
)
from zeroskip.papers.common.tables import Table
from zeroskip.papers.minerva import power, published
from zeroskip.papers.minerva.findings import MinervaFindings, MinervaMeans, Thresholds
from zeroskip.papers.minerva.published import MEAN

STAGE = "Stage 4: pruning of small activations"
BEYOND = "Beyond the paper: trained again with the thresholds in place"
POWER = "Stage 4: power that pruning of small activations saves"
SAVED = "times less power than with {}; {}"
*_, CLOCKED = power.PRICES
LEAST = "30"  # percent of the MACs with a non-zero input: what thresholds should remove at no loss
SIGMA = at_most(words="one standard deviation of the trainings")
NEAR = within_share(0.15)
SIDE = "above the published mean where a larger share of MACs is skipped than there, else below it"
NO_CLOCK = "neither clock nor leakage is in this table of energies, and both stay whatever is gated"
ZEROS_TOO = "the published figure is against a chip that does every MAC"
SEE_MEAN = "the published figure is the mean of the five; see minerva-mean"
CHOSEN = "{:.2f} to {:.2f} %; the thresholds were chosen on the validation split, not on this one"
TOGETHER = "together at least the published mean"
MEMORIES = "needs memories of their 40 nm process at lower voltages"
WORDS = "the paper's words are not published; ours are those found in most training documents"


def analytic() -> list[PaperRow]:
    """Rows that follow from the widths of the layers, and from the published share of MACs that are pruned."""
    rows = []
    for network, printed in published.TABLE1.items():
        table, (weights, macs) = Table(published.NAME, "Table 1", network), sizes(network)
        exact, exact_macs = (figure(printed.weights, unit, RECOMPUTED) for unit in ("weights", "MACs"))
        rows += [
            table.judge(network, "parameters", figure(printed.parameters, "weights"), weights, LAST_DIGIT),
            table.judge(network, "weights, exact", exact, weights, EQUAL),
            table.judge(network, "MACs, exact", exact_macs, macs, EQUAL),
        ]
    return [*rows, *_at_published_share("minerva-mnist")]


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """Rows that need training.

    >>> [row.column for row in measured_rows("minerva-mean", {})][:2]
    ['MACs with a non-zero input removed', 'MACs skipped, of all']
    """
    if network == MEAN:
        return _means(read(MinervaMeans, findings) if findings else None)
    measured = read(MinervaFindings, findings) if findings else None
    parts = (_errors, _work, _power, _beyond)
    return [row for part in parts for row in part(network, measured)]


def unmeasurable() -> list[PaperRow]:
    """The power with memories at a lower voltage, which nothing here can show."""
    table, printed = Table(published.NAME, "All stages", MEAN, MEMORIES), figure(published.POWER_ALL, "x")
    return [table.judge("mean of the five", "times less power", printed, None, AT_LEAST)]


@cache
def sizes(network: str) -> tuple[int, int]:
    """Weights and multiply-accumulates of one example.

    >>> sizes("minerva-mnist")
    (334336, 334336)
    """
    shape = published.TABLE1[network]
    model, example = without_memory(lambda: MLP(shape.inputs, shape.widths), (shape.inputs,))
    cost = measure.cost(model, example)
    return cost.weights, cost.macs


def _errors(network: str, measured: MinervaFindings | None) -> list[PaperRow]:
    printed, table = published.TABLE1[network], Table(published.NAME, "Table 1", network, TRAINING)
    known, mean, sigma = WORDS if printed.inputs > 784 else "", None, None
    if measured:
        mean, sigma = statistics.fmean(measured.errors), statistics.stdev(measured.errors)
    words = f"the published error and its sigma of {printed.sigma} points"
    near = at_most(words=words, slack=figure(printed.sigma).value)
    spread = figure(printed.sigma, "points")
    return [
        table.judge(network, "test error, mean", figure(printed.error, "%"), percent(mean), near, known),
        table.judge(network, "sigma of the test error", spread, percent(sigma), at_most()),
    ]


def _work(network: str, measured: MinervaFindings | None) -> list[PaperRow]:
    table = Table(published.NAME, STAGE, network, TRAINING)
    column = "MACs skipped: zero inputs + zeros of ReLU + thresholds"
    claim = f"{published.PRUNED} % together, mean of the five"
    return [
        table.fact(network, column, claim, _parts(measured), TOGETHER, SEE_MEAN),
        *_pruning(table, measured, measured.thresholds if measured else None),
    ]


def _power(network: str, measured: MinervaFindings | None) -> list[PaperRow]:
    """A network by itself, with the clock alone: without it, any network exceeds the published mean."""
    table, verdict = Table(published.NAME, POWER, network, TRAINING), None
    if measured and measured.layers:
        share = 100 * measured.macs.skipped
        dense, zeros = power.saved(network, measured.layers)[CLOCKED].values()
        agrees = (dense > figure(published.POWER).value) is (share > figure(published.PRUNED).value)
        verdict = f"{dense:.2f}x at {share:.0f} %; {zeros:.2f}x where exact zeros are gated already", agrees
    column = f"times less power at a share of MACs skipped; {CLOCKED}"
    mean = f"{published.POWER}x at {published.PRUNED} %, mean of the five"
    known = f"at {published.PRUNED} % of the MACs of every layer the simulator is not at the published mean either"
    return [table.fact(network, column, mean, verdict, SIDE, known)]


def _at_published_share(network: str) -> list[PaperRow]:
    """What the simulator alone makes of the published share, apart from what our networks have."""
    table, rows = Table(published.NAME, POWER, network), []
    layers = power.evenly(network, 1 - figure(published.PRUNED).value / 100)
    row, printed = f"{published.PRUNED} % of the MACs of every layer", figure(published.POWER, "x")
    for prices, saved in power.saved(network, layers).items():
        column, reason = SAVED.format("no gating", prices), _no_clock(prices)
        rows.append(table.judge(row, column, printed, saved["no gating"], NEAR, reason))
    return rows


def _mean_power(means: MinervaMeans | None) -> list[PaperRow]:
    table, rows, row = Table(published.NAME, POWER, MEAN, TRAINING), [], "mean of the five"
    if means:
        row += f", where we skip {100 * means.skipped:.0f} % of the MACs, not {published.PRUNED} %"
    for gated in power.GATING:
        for prices in power.PRICES:
            ours = means.power.get(prices, {}).get(gated) if means else None
            reason = _no_clock(prices) if gated == "no gating" else ZEROS_TOO
            printed = figure(published.POWER, "x")
            rows.append(table.judge(row, SAVED.format(gated, prices), printed, ours, NEAR, reason))
    return rows


def _no_clock(prices: str) -> str:
    return "" if power.PRICES[prices].lane_cycle else NO_CLOCK


def _beyond(network: str, measured: MinervaFindings | None) -> list[PaperRow]:
    """The same for a network trained again with its thresholds in place."""
    table = Table(published.NAME, BEYOND, network, TRAINING)
    return _pruning(table, measured, (measured.retrained or measured.thresholds) if measured else None)


def _removed(table: Table, name: str, share: float | None) -> PaperRow:
    column = "MACs with a non-zero input removed"
    return table.judge(name, column, figure(LEAST, "%", OURS), percent(share), AT_LEAST)


def _pruning(table: Table, measured: MinervaFindings | None, pruned: Thresholds | None) -> list[PaperRow]:
    """MACs that thresholds remove; errors with them against one standard deviation: over the mean of the trainings on
    the validation split, where they were chosen, and over the same network without them on the test split."""
    validation: float | None = None
    test: float | None = None
    name, reason, sigma = table.network, "", figure("1", "sigma")
    if measured and pruned:
        over_mean = pruned.validation_pruned - statistics.fmean(measured.validation)
        validation = over_mean / statistics.stdev(measured.validation)
        test = (pruned.test_pruned - pruned.test) / statistics.stdev(measured.errors)
        reason = CHOSEN.format(100 * pruned.test, 100 * pruned.test_pruned)
    return [
        _removed(table, name, pruned.macs.removed if pruned else None),
        table.judge(name, "rise of the validation error over the mean", sigma, validation, SIGMA),
        table.judge(name, "rise of its test error", sigma, test, SIGMA, reason),
    ]


def _parts(measured: MinervaFindings | None) -> Verdict:
    if measured is None:
        return None
    macs = measured.macs
    parts = macs.zero_inputs, macs.zero_activations, macs.nonzero - macs.kept
    shares = [100 * part / macs.all for part in parts]
    listed = " + ".join(f"{share:.1f}" for share in shares)
    return f"{listed} = {sum(shares):.1f} %", sum(shares) >= figure(published.PRUNED).value


def _means(means: MinervaMeans | None) -> list[PaperRow]:
    table, beyond = (Table(published.NAME, title, MEAN, TRAINING) for title in (STAGE, BEYOND))
    name, ours = "mean of the five", percent(means.skipped if means else None)
    return [
        _removed(table, name, means.removed if means else None),
        table.judge(name, "MACs skipped, of all", figure(published.PRUNED, "%"), ours, AT_LEAST),
        *_mean_power(means),
        _removed(beyond, name, means.retrained.removed if means else None),
    ]
