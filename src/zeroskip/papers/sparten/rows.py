"""SparTen: how much faster than dense, one-sided and SCNN's, and what its balance gains.

From published shares of zeros at random places, and on pruned networks with what they really read. GoogLeNet's share of
zeros is derived from SCNN's paper.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.figure_checks import Verdict
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings, title
from zeroskip.papers.common.rules import OURS, at_least, figure, within, within_share
from zeroskip.papers.common.tables import Table
from zeroskip.papers.published_shares import HAN, READINGS, workloads
from zeroskip.papers.scnn import published as scnn
from zeroskip.papers.scnn.inception import googlenet_share, modules
from zeroskip.papers.sparten import published
from zeroskip.simulate import Workload, dataflows
from zeroskip.simulate.chips import SCNN, SPARTEN, SPARTEN_GB_H, SPARTEN_GB_S

NETWORKS = ("alexnet", "vgg16")
DATA = "needs trained networks and real pictures (--out with --data, or --results)"
# As many multipliers in the same 32 x 32, with neither operand's zeros skipped.
TWIN = replace(
    SPARTEN, name="dense twin", dataflow=dataflows.array, tile={"outputs": 32}, skips="", formats={}
)
UNITS = SPARTEN.tile["filters"]
# To a chip that meets every weight all filters are alike: each cluster-load takes as long as one of them.
ONE_SIDED = replace(SPARTEN, lanes=SPARTEN.lanes // UNITS, tile={**SPARTEN.tile, "filters": 1})
NEAR, WIDE = within_share(0.15), within(0.7, "0.7")
ZEROS = "the paper's shares of zeros are not published as a table"
THEIRS = (
    f"by the paper, SCNN is {figure(published.DENSE).value / figure(published.SCNN).value:.2f}x faster than dense; "
    f"by SCNN's own, {scnn.GOOGLENET}x to {scnn.SPEEDUPS['vgg16']}x"
)
SPREAD = 0.4
GAIN = "1.2"
PRUNED = 0.9  # share of weights left in a layer, below which it counts as pruned
FEW = (
    f"a layer that is not pruned has filters alike, and one of at most {UNITS} filters, a cluster's units, has no "
    "second filter for a unit: nothing there can be balanced"
)
EVEN = "its layers' filters have shares of zeros spread by {}, standard deviation / mean, which leaves less to gain"
CLAIMS = {"dense": published.DENSE, "one-sided": published.ONE_SIDED, "SCNN": published.SCNN}
BALANCED = ("GB-S", "GB-H")
ORDER = ("GB-H", "GB-S", "none", "one-sided", "dense")
"""From fewest cycles to most, by the paper."""

WAYS: Mapping[str, Callable[[Workload], int]] = {
    "GB-H": lambda work: SPARTEN_GB_H.dataflow(work, SPARTEN_GB_H).cycles,
    "GB-S": lambda work: SPARTEN_GB_S.dataflow(work, SPARTEN_GB_S).cycles,
    "none": lambda work: SPARTEN.dataflow(work, SPARTEN).cycles,
    "one-sided": lambda work: SPARTEN.dataflow(one_sided(work), ONE_SIDED).cycles,
    "dense": lambda work: TWIN.dataflow(work, TWIN).cycles,
    "SCNN": lambda work: SCNN.dataflow(work, SCNN).cycles,
}
"""Cycles of a layer: SparTen by its balance; of one-sided chips, the zeros of inputs alone are skipped."""


@dataclass(frozen=True)
class BalancedLayer:
    """One layer: its filters, the share of weights left, and cycles by way to run it (`WAYS` in rows.py).

    spread  of the filters' shares, standard deviation / mean
    """

    filters: int
    kept: float
    spread: float
    cycles: Mapping[str, int]


@dataclass(frozen=True)
class SparTenFindings:
    """One pruned network: what it read, and how its weights became zero."""

    inputs: str
    pruned: str
    layers: Mapping[str, BalancedLayer]


def analytic() -> list[PaperRow]:
    """Speed-ups with both readings of the inputs, and the gain of balance where filters differ."""
    return [*_speedups(), *_balance()]


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """On pruned weights and real inputs: what balance gains, and the order of the chips."""
    if network not in published.REAL:
        return []
    measured = read(SparTenFindings, findings) if findings else SparTenFindings("", "", {})
    layers = measured.layers
    source = f": {measured.pruned}; {measured.inputs}" if findings else ""
    table = Table(published.NAME, f"On real zeros: {published.REAL[network]}{source}", network, DATA)
    fit = {name: layer for name, layer in layers.items() if layer.kept < PRUNED and layer.filters > UNITS}
    rows = _gains(table, "all layers", layers, FEW if fit != layers else EVEN)
    return rows if fit == layers else rows + _gains(table, f"pruned, over {UNITS} filters", fit, EVEN)


def one_sided(work: Workload) -> Workload:
    """The layer as a chip meets it that skips the zeros of inputs alone, with one filter of each cluster-load.

    >>> one_sided(of_masks("fc", torch.eye(40) != 0, torch.ones(1, 40) != 0)).weight.sum().item()
    80
    """
    return replace(work, weight=torch.ones_like(work.weight[:, ::UNITS]))


def _speedups() -> list[PaperRow]:
    rows = []
    rules = {"dense": WIDE, "one-sided": NEAR, "SCNN": NEAR}
    share, last = googlenet_share(), "GoogLeNet's modules"
    derived = f"at {share:.2f}, the share derived from SCNN's published {scnn.GOOGLENET}x on them"
    table = Table(published.NAME, f"Speed-up, mean of AlexNet, VGG-16 and {last} {derived}")
    counts = {last: _counts(modules(share, share))}  # in either reading
    for reading in READINGS:
        networks = {title(name): _counts(workloads(name, reading)) for name in NETWORKS} | counts
        for way, rule in rules.items():
            ratios = {name: own[way] / own["GB-H"] for name, own in networks.items()}
            listed = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items())
            mean, printed = statistics.fmean(ratios.values()), figure(CLAIMS[way], "x")
            reason = f"{listed}; {THEIRS if way == 'SCNN' else ZEROS}"
            rows.append(table.judge(f"over {way}", reading, printed, mean, rule, reason))
    return rows


def _counts(works: Sequence[Workload]) -> dict[str, int]:
    """Cycles of a network by the ways that the paper compares."""
    return {way: sum(map(WAYS[way], works)) for way in ("GB-H", *CLAIMS)}


def _balance() -> list[PaperRow]:
    """GB-S and GB-H against none on AlexNet."""
    table, works = Table(published.NAME, "Balance", "alexnet"), workloads("alexnet", HAN, variation=SPREAD)
    column = f"times faster than without, filters' shares spread by {SPREAD}"
    total = {way: sum(map(WAYS[way], works)) for way in ("none", *BALANCED)}
    gain = figure(GAIN, "x", OURS)
    return [table.judge(way, column, gain, total["none"] / total[way], at_least()) for way in BALANCED]


def _gains(table: Table, part: str, layers: Mapping[str, BalancedLayer], reason: str) -> list[PaperRow]:
    """Rows of layers together; without findings they have no figures."""
    row, rows = f"{part} ({len(layers)})" if layers else part, []
    counts = [layer.cycles for layer in layers.values()]
    common = [way for way in WAYS if counts and all(way in count for count in counts)]
    total = {way: sum(count[way] for count in counts) for way in common}
    if layers:
        reason = reason.format(f"{statistics.fmean(layer.spread for layer in layers.values()):.2f}")
    for way in BALANCED:
        column = f"{way}: times faster than without balance"
        ours = total["none"] / total[way] if total else None
        rows.append(table.judge(row, column, figure(GAIN, "x", OURS), ours, at_least(), reason))
    order: Verdict = None
    if total:
        ordered = all(total[less] <= total[more] for less, more in pairwise(ORDER))
        order = ", ".join(f"{way} {total[way] / total['GB-H']:.2f}" for way in ORDER), ordered
    rows.append(table.fact(row, "cycles", " <= ".join(ORDER), order, "in this order"))
    for way, printed in CLAIMS.items():
        if way in total or not total:
            times = total[way] / total["GB-H"] if total else 0.0
            claim, verdict = f"faster ({printed}x on its networks)", (f"{times:.2f}x", times > 1)
            rows.append(table.fact(row, f"GB-H over {way}", claim, verdict if total else None, "above 1x"))
    return rows
