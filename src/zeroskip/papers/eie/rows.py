"""EIE: microseconds of its nine layers from published shares of zeros, and of its authors' own fc8.

Findings of "eie-fc8", a plain JSON object: {"cycles": with queues of 8, "entries": of the columns that are worked on}.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import cache
from typing import Any

from zeroskip.papers.common.masked_layers import OURS
from zeroskip.papers.common.row import Row, Table, at_most, figure, within_share
from zeroskip.papers.eie import published
from zeroskip.simulate import Workload, chips, dataflows, of_masks, random_masks
from zeroskip.simulate.workload import count_macs

PAPER = "eie"
FC8 = "eie-fc8"
DATA = "needs the authors' layer (--out with --data, or --results)"
MEDIAN = "10"  # percent of the published time
# Standard deviation / mean of the filters' shares with which random places give Alex-8, at the shares of the authors'
# file, the 9.83 microseconds that its own places take. Chosen once, in steps of 0.1.
FITTED = 0.2
COLUMNS = {0.0: "random places", FITTED: f"filters' shares spread by {FITTED}, fitted on fc8's own"}
NEAR = within_share(0.15)
KNOWN = {
    "Alex-8": "the authors' file has 25.7 % of the weights and 42.9 % of the inputs, with which ours is right; see "
    + FC8,
    "VGG-6": "the rounding of the shares explains a third of the entries that are missing; for the rest, inputs that "
    "are not zero would have to meet more weights than others do. And elements wait for each other more than at "
    "random places, so real filters differ more",
}
ACTUAL = "Table IV: actual time from shares of zeros"
THEORETICAL = "Table IV: entries / elements / clock from shares of zeros"
TOP = "random places, the highest shares that round to those published"


def analytic() -> list[Row]:
    """The nine layers from their shares of zeros, at random places and less evenly.

    >>> [row.row for row in analytic() if row.holds is False and "actual" in row.table]
    ['Alex-8', 'VGG-6', 'VGG-6']
    """
    return list(_layers())


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """The fc8 of AlexNet as the authors pruned it, with the activations that they recorded.

    >>> [row.holds for row in measured_rows("eie-fc8", {"cycles": 7865, "entries": 452_800})]
    [True, True]
    """
    if network != FC8:
        return []
    table = Table(PAPER, "Table IV: AlexNet's fc8, the authors' own places", network, DATA)
    told = next(one for one in published.LAYERS if one.name == "Alex-8")
    actual, even, rule = None, None, within_share(0.02)
    if findings:
        actual = _microseconds(findings["cycles"])
        even = _microseconds(findings["entries"] / chips.EIE.lanes)
    column = "entries / elements / clock"
    return [
        table.judge(told.name, "actual time", told.actual, actual, rule, unit="us"),
        table.judge(told.name, column, told.theoretical, even, rule, unit="us"),
    ]


@cache  # masks of 170 million weights
def _layers() -> tuple[Row, ...]:
    rows: list[Row] = []
    for variation, column in COLUMNS.items():
        some = [_layer(layer, column, _work(layer, variation)) for layer in published.LAYERS]
        for actual, even in some:
            rows += [actual] if variation else [actual, even]  # entries do not depend on who has them
        errors = [100 * abs((one.difference or 0) / float(one.published)) for one, _ in some]
        median = statistics.median(errors)
        judge = Table(PAPER, ACTUAL).judge
        rows.append(
            judge("median of nine", f"error, {column}", MEDIAN, median, at_most(), unit="%", trust=OURS)
        )
    for layer in published.LAYERS:
        if layer.name in KNOWN:
            rows += _layer(layer, TOP, _work(layer, 0.0, most=True))
    return tuple(rows)


def _layer(layer: published.Layer, column: str, work: Workload) -> tuple[Row, Row]:
    """The time with waiting, and that of all entries, padding among them, shared out evenly."""
    schedule, reason = dataflows.columns(work, chips.EIE), KNOWN.get(layer.name, "")
    even = (schedule.useless + count_macs(work).both) / chips.EIE.lanes
    told = (ACTUAL, layer.actual, schedule.cycles), (THEORETICAL, layer.theoretical, even)
    one, two = (
        Table(PAPER, title, layer.network).judge(
            layer.name, column, printed, _microseconds(cycles), NEAR, unit="us", reason=reason
        )
        for title, printed, cycles in told
    )
    return one, two


def _work(layer: published.Layer, variation: float, *, most: bool = False) -> Workload:
    """The layer at its printed shares, or at the highest that are printed so."""
    printed = figure(layer.weights), figure(layer.seen)
    zeros, unseen = (round(1 - (one.value + 0.499 * one.digit * most) / 100, 9) for one in printed)
    shape = layer.outputs, layer.inputs
    weight = random_masks.over_dispersed(shape, zeros, variation=variation, seed=3)
    return of_masks(layer.name, weight, random_masks.random((1, layer.inputs), unseen, seed=12))


def _microseconds(cycles: float) -> float:
    return 1e6 * cycles / chips.EIE.hertz
