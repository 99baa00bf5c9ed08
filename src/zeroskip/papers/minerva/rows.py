"""Minerva: its five networks, what zero inputs, ReLU and thresholds on small activations remove, and at what error.

Findings of one network, a plain JSON object. Shares and errors are 0..1.

    errors              test errors of the trainings, which differ in their seed alone;  validation  those there
    thresholds          layer -> theta, found on the validation split for the network of the median error
    validation_pruned   its validation error with them;  test, test_pruned  its test error before and after
    macs                of one test example: "all", "zero_inputs" (those of the first layer whose input is zero),
                        "zero_activations" (those of the other layers), "nonzero" (the rest), "kept" (with thresholds)
    layers              layer -> {"macs", "nonzero", "kept"}, of the same examples
    removed_validation  share of the MACs with a non-zero input that the search removed on its own split
    retrained           thresholds that cost several sigma at first ("ahead": how many), and a second training with
                        them in place that won the error back, then a search for more: the keys from "thresholds" to
                        "layers", where "nonzero" is what the first training left; where all that removes no more,
                        the thresholds above

Findings of "minerva-mean" are the means over the five: {"removed": of the MACs with a non-zero input, "skipped": of
all, "retrained": both again, "power": what minerva_power.py makes of "layers"}. All counts are of the test split, which
the search has not seen.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from zeroskip import measure
from zeroskip.models import MLP
from zeroskip.papers.common.figure_checks import Found, percent
from zeroskip.papers.common.network_sizes import TRAINING
from zeroskip.papers.common.row import (
    AT_LEAST,
    EQUAL,
    LAST_DIGIT,
    RECOMPUTED,
    Row,
    Table,
    at_most,
    figure,
    within_share,
)
from zeroskip.papers.minerva import power, published

PAPER = "minerva"
NETWORKS = tuple(published.TABLE1)
MEAN = "minerva-mean"
STAGE = "Stage 4: pruning of small activations"
BEYOND = "Beyond the paper: trained again with the thresholds in place"
POWER = "Stage 4: power that pruning of small activations saves"
SAVED = "times less power than with {}; {}"
*_, CLOCKED = power.PRICES
OURS = "our own bound; the paper has no such figure"
LEAST = "30"  # percent of the MACs with a non-zero input: what thresholds should remove at no loss
SIGMA = at_most(words="one standard deviation of the trainings")
NEAR = within_share(0.15)
SIDE = "above the published mean where a larger share of MACs is skipped than there, else below it"
NO_CLOCK = "neither clock nor leakage is in this table of energies, and both stay whatever is gated"
ZEROS_TOO = "the published figure is against a chip that does every MAC"
WORDS = "the paper's words are not published; ours are those found in most training documents"


def analytic() -> list[Row]:
    """Rows that follow from the widths of the layers, and from the published share of MACs that are pruned.

    >>> all(row.holds for row in analytic() if row.table == "Table 1")
    True
    """
    rows = []
    for network, told in published.TABLE1.items():
        judge, (weights, macs) = Table(PAPER, "Table 1", network).judge, sizes(network)
        exact = {"unit": "weights", "trust": RECOMPUTED}
        rows += [
            judge(network, "parameters", told.parameters, weights, LAST_DIGIT, unit="weights"),
            judge(network, "weights, exact", told.weights, weights, EQUAL, **exact),
            judge(network, "MACs, exact", told.weights, macs, EQUAL, unit="MACs", trust=RECOMPUTED),
        ]
    return [*rows, *_at_published_share("minerva-mnist")]


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Rows that need training, from the findings described at the top of this file.

    >>> [row.column for row in measured_rows("minerva-mean", {})][:2]
    ['MACs with a non-zero input removed', 'MACs skipped, of all']
    """
    if network == MEAN:
        return _means(findings)
    parts = _errors, _work, _power, _beyond
    return [row for part in parts for row in part(network, findings)]


def unmeasurable() -> list[Row]:
    """The power with memories at a lower voltage, which nothing here can tell.

    >>> unmeasurable()[0].holds is None
    True
    """
    table = Table(PAPER, "All stages", MEAN, "needs memories of their 40 nm process at lower voltages")
    return [
        table.judge("mean of the five", "times less power", published.POWER_ALL, None, AT_LEAST, unit="x")
    ]


def removed(findings: Mapping[str, Any]) -> float | None:
    """Share of the MACs with a non-zero input that thresholds remove.

    >>> removed({"macs": {"nonzero": 200, "kept": 80}})
    0.6
    """
    macs = findings.get("macs")
    return None if macs is None else 1 - macs["kept"] / macs["nonzero"]


def skipped(findings: Mapping[str, Any]) -> float | None:
    """Share of all MACs that need not be done.

    >>> skipped({"macs": {"all": 1000, "kept": 80}})
    0.92
    """
    macs = findings.get("macs")
    return None if macs is None else 1 - macs["kept"] / macs["all"]


@cache
def sizes(network: str) -> tuple[int, int]:
    """Weights and multiply-accumulates of one example.

    >>> sizes("minerva-mnist")
    (334336, 334336)
    """
    told = published.TABLE1[network]
    with torch.device("meta"):
        costs = measure.cost(MLP(told.inputs, told.widths), torch.zeros(1, told.inputs)).values()
    return sum(one.weights for one in costs), sum(one.macs for one in costs)


def _errors(network: str, findings: Mapping[str, Any]) -> list[Row]:
    told, judge = published.TABLE1[network], Table(PAPER, "Table 1", network, TRAINING).judge
    errors, known = findings.get("errors"), WORDS if told.inputs > 784 else ""
    mean, sigma = (None, None) if errors is None else (statistics.fmean(errors), statistics.stdev(errors))
    words = f"the published error and its sigma of {told.sigma} points"
    near = at_most(words=words, slack=figure(told.sigma).value)
    return [
        judge(network, "test error, mean", told.error, percent(mean), near, unit="%", reason=known),
        judge(network, "sigma of the test error", told.sigma, percent(sigma), at_most(), unit="points"),
    ]


def _work(network: str, findings: Mapping[str, Any]) -> list[Row]:
    table = Table(PAPER, STAGE, network, TRAINING)
    return [
        table.fact(
            network,
            "MACs skipped: zero inputs + zeros of ReLU + thresholds",
            f"{published.PRUNED} % together, mean of the five",
            _parts(findings),
            "together at least the published mean",
            reason="the published figure is the mean of the five; see minerva-mean",
        ),
        _removed(table, network, removed(findings)),
        *_rises(table, network, findings),
    ]


def _power(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """A network by itself, with the clock alone: without it, any network exceeds the published mean."""
    table, layers, share = Table(PAPER, POWER, network, TRAINING), findings.get("layers"), skipped(findings)
    told: Found = None
    if layers and share is not None:
        dense, zeros = power.saved(network, layers)[CLOCKED].values()
        more = 100 * share > figure(published.PRUNED).value
        told = (
            f"{dense:.2f}x at {100 * share:.0f} %; {zeros:.2f}x where exact zeros are gated already",
            (dense > figure(published.POWER).value) is more,
        )
    column = f"times less power at a share of MACs skipped; {CLOCKED}"
    mean = f"{published.POWER}x at {published.PRUNED} %, mean of the five"
    known = f"at {published.PRUNED} % of the MACs of every layer the simulator is not at the published mean either"
    return [table.fact(network, column, mean, told, SIDE, known)]


def _at_published_share(network: str) -> list[Row]:
    """What the simulator alone makes of the published share, apart from what our networks have."""
    table = Table(PAPER, POWER, network)
    layers = power.evenly(network, 1 - figure(published.PRUNED).value / 100)
    rows = []
    for prices, each in power.saved(network, layers).items():
        column, reason = SAVED.format("no gating", prices), _no_clock(prices)
        row = f"{published.PRUNED} % of the MACs of every layer"
        rows.append(
            table.judge(row, column, published.POWER, each["no gating"], NEAR, unit="x", reason=reason)
        )
    return rows


def _mean_power(findings: Mapping[str, Any]) -> list[Row]:
    table, found, rows = Table(PAPER, POWER, MEAN, TRAINING), findings.get("power", {}), []
    row = "mean of the five"
    if findings:
        row += f", where we skip {100 * findings['skipped']:.0f} % of the MACs, not {published.PRUNED} %"
    for gated in power.MACHINES:
        for prices in power.PRICES:
            ours = found.get(prices, {}).get(gated)
            column = SAVED.format(gated, prices)
            reason = _no_clock(prices) if gated == "no gating" else ZEROS_TOO
            rows.append(table.judge(row, column, published.POWER, ours, NEAR, unit="x", reason=reason))
    return rows


def _no_clock(prices: str) -> str:
    return "" if power.PRICES[prices].lane_cycle else NO_CLOCK


def _beyond(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """The same for a network trained again with its thresholds in place."""
    both = {**findings, **findings.get("retrained", {})}
    table = Table(PAPER, BEYOND, network, TRAINING)
    return [_removed(table, network, removed(both)), *_rises(table, network, both)]


def _removed(table: Table, name: str, share: float | None) -> Row:
    column = "MACs with a non-zero input removed"
    return table.judge(name, column, LEAST, percent(share), AT_LEAST, unit="%", trust=OURS)


def _rises(table: Table, network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Errors with thresholds against one standard deviation: over the mean of the trainings on the validation split,
    where the thresholds were chosen, and over the same network without them on the test split."""
    over: dict[str, float | None] = {"validation": None, "test": None}
    if findings:
        before = {"validation": statistics.fmean(findings["validation"]), "test": findings["test"]}
        spread = {"validation": findings["validation"], "test": findings["errors"]}
        for split in over:
            over[split] = (findings[f"{split}_pruned"] - before[split]) / statistics.stdev(spread[split])
    columns = {"validation": "rise of the validation error over the mean", "test": "rise of its test error"}
    return [
        table.judge(network, columns[split], "1", ours, SIGMA, unit="sigma", reason=_told(split, findings))
        for split, ours in over.items()
    ]


def _told(split: str, findings: Mapping[str, Any]) -> str:
    if split == "validation" or not findings:
        return ""
    before, after = (100 * findings[name] for name in ("test", "test_pruned"))
    return (
        f"{before:.2f} to {after:.2f} %; the thresholds were chosen on the validation split, not on this one"
    )


def _parts(findings: Mapping[str, Any]) -> Found:
    macs = findings.get("macs")
    if macs is None:
        return None
    parts = macs["zero_inputs"], macs["zero_activations"], macs["nonzero"] - macs["kept"]
    shares = [100 * part / macs["all"] for part in parts]
    told = " + ".join(f"{share:.1f}" for share in shares)
    return f"{told} = {sum(shares):.1f} %", sum(shares) >= figure(published.PRUNED).value


def _means(findings: Mapping[str, Any]) -> list[Row]:
    table, beyond = (Table(PAPER, title, MEAN, TRAINING) for title in (STAGE, BEYOND))
    name, ours = "mean of the five", percent(findings.get("skipped"))
    return [
        _removed(table, name, findings.get("removed")),
        table.judge(name, "MACs skipped, of all", published.PRUNED, ours, AT_LEAST, unit="%"),
        *_mean_power(findings),
        _removed(beyond, name, findings.get("retrained", {}).get("removed")),
    ]
