"""SparTen: how much faster than dense, one-sided and SCNN's, and what its balance gains.

From published shares of zeros at random places, and on pruned networks with what they really read. Findings of a
network of REAL, a plain JSON object:

    inputs   what the network read
    pruned   how its weights became zero
    layers   layer -> {"filters", "kept": share of weights left, "spread": of the filters' shares, standard deviation /
             mean, "cycles": {machine: cycles}}
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch

from zeroskip.papers.common.masked_layers import HAN, OURS, READINGS, cycles, network
from zeroskip.papers.common.network_sizes import title
from zeroskip.papers.common.row import Row, Table, at_least, figure, within, within_share
from zeroskip.papers.scnn import published as published_scnn
from zeroskip.papers.scnn import rows as scnn
from zeroskip.papers.sparten import published
from zeroskip.simulate import Workload, dataflows
from zeroskip.simulate.chips import SCNN, SPARTEN, SPARTEN_GB_H, SPARTEN_GB_S

PAPER = "sparten"
NETWORKS = ("alexnet", "vgg16")
REAL = {"squeezenet": "SqueezeNet", "mobilenet-element": "MobileNet", "resnet20": "ResNet-20"}
DATA = "needs trained networks and real pictures (--out with --data, or --results)"
# As many multipliers in the same 32 x 32, with neither operand's zeros skipped.
TWIN = replace(
    SPARTEN, name="dense twin", dataflow=dataflows.array, tile={"outputs": 32}, skips="", formats={}
)
NEAR, WIDE = within_share(0.15), within(0.7, "0.7")
ZEROS = "the paper's shares of zeros are not published as a table"
THEIRS = (
    f"by the paper, SCNN is {figure(published.DENSE).value / figure(published.SCNN).value:.2f}x faster than dense; "
    f"by SCNN's own, {published_scnn.GOOGLENET}x to {published_scnn.SPEEDUPS['vgg16']}x"
)
SPREAD = 0.4
GAIN = "1.2"
UNITS = SPARTEN.tile["filters"]
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
    "one-sided": lambda work: SPARTEN.dataflow(one_sided(work), SPARTEN).cycles,
    "dense": lambda work: TWIN.dataflow(work, TWIN).cycles,
    "SCNN": lambda work: SCNN.dataflow(work, SCNN).cycles,
}
"""Cycles of a layer: SparTen by its balance; of one-sided machines, the zeros of inputs alone are skipped."""


def analytic() -> list[Row]:
    """Speed-ups with both readings of the inputs, and the gain of balance where filters differ.

    >>> analytic()[-1].table
    'Balance'
    """
    return [*_speedups(), *_balance()]


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """On pruned weights and real inputs: what balance gains, and the order of the machines.

    >>> [row.holds for row in measured_rows("squeezenet", {})][:1]
    [None]
    """
    if network not in REAL:
        return []
    layers = findings.get("layers", {})
    told = f": {findings['pruned']}; {findings['inputs']}" if findings else ""
    table = Table(PAPER, f"On real zeros: {REAL[network]}{told}", network, DATA)
    fit = {name: one for name, one in layers.items() if one["kept"] < PRUNED and one["filters"] > UNITS}
    rows = _gains(table, "all layers", layers, FEW if fit != layers else EVEN)
    return rows if fit == layers else rows + _gains(table, f"pruned, over {UNITS} filters", fit, EVEN)


def one_sided(work: Workload) -> Workload:
    """The layer as a machine meets it that skips the zeros of inputs alone.

    >>> bool(one_sided(work).weight.all())
    True
    """
    return replace(work, weight=torch.ones_like(work.weight))


@cache  # products of masks of all of VGG-16
def _speedups() -> tuple[Row, ...]:
    rows = []
    rules = {"dense": WIDE, "one-sided": NEAR, "SCNN": NEAR}
    share = scnn.googlenet()
    last = "GoogLeNet's modules"
    derived = f"at {share:.2f}, the share derived from SCNN's published {published_scnn.GOOGLENET}x on them"
    judge = Table(PAPER, f"Speed-up, mean of AlexNet, VGG-16 and {last} {derived}").judge
    for reading in READINGS:
        works = {title(name): network(name, reading) for name in NETWORKS}
        works[last] = scnn.modules(share, share)
        ours = {name: cycles(one, SPARTEN_GB_H) for name, one in works.items()}
        for way, rule in rules.items():
            found = {name: sum(map(WAYS[way], one)) / ours[name] for name, one in works.items()}
            each = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in found.items())
            row, mean = f"over {way}", statistics.fmean(found.values())
            reason = f"{each}; {THEIRS if way == 'SCNN' else ZEROS}"
            rows.append(judge(row, reading, CLAIMS[way], mean, rule, unit="x", reason=reason))
    return tuple(rows)


@cache
def _balance() -> tuple[Row, ...]:
    """GB-S and GB-H against none on AlexNet."""
    table, rule = Table(PAPER, "Balance", "alexnet"), at_least()
    works = network("alexnet", HAN, variation=SPREAD)
    column = f"times faster than without, filters' shares spread by {SPREAD}"
    total = {way: sum(map(WAYS[way], works)) for way in ("none", *BALANCED)}
    return tuple(
        table.judge(way, column, GAIN, total["none"] / total[way], rule, unit="x", trust=OURS)
        for way in BALANCED
    )


def _gains(table: Table, part: str, layers: Mapping[str, Mapping[str, Any]], reason: str) -> list[Row]:
    """Rows of some layers together; without findings they have no figures."""
    row = f"{part} ({len(layers)})" if layers else part
    counts = [one["cycles"] for one in layers.values()]
    total = {
        way: sum(one[way] for one in counts) for way in WAYS if counts and all(way in one for one in counts)
    }
    reason = reason.format(_mean_spread(layers))
    rows = []
    for way in BALANCED:
        ours = total["none"] / total[way] if total else None
        column = f"{way}: times faster than without balance"
        rows.append(table.judge(row, column, GAIN, ours, at_least(), unit="x", trust=OURS, reason=reason))
    found = None
    if total:
        ordered = all(total[less] <= total[more] for less, more in pairwise(ORDER))
        found = ", ".join(f"{way} {total[way] / total['GB-H']:.2f}" for way in ORDER), ordered
    rows.append(table.fact(row, "cycles", " <= ".join(ORDER), found, "in this order"))
    for way, told in CLAIMS.items():
        if way in total or not total:
            times = total[way] / total["GB-H"] if total else 0.0
            claim, over = f"faster ({told}x on its networks)", (f"{times:.2f}x", times > 1) if total else None
            rows.append(table.fact(row, f"GB-H over {way}", claim, over, "above 1x"))
    return rows


def _mean_spread(layers: Mapping[str, Mapping[str, Any]]) -> str:
    return f"{statistics.fmean(one['spread'] for one in layers.values()):.2f}" if layers else ""
