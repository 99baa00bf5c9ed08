"""EIE: microseconds of its nine layers from published shares of zeros, and of its authors' own fc8."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings
from zeroskip.papers.common.rules import OURS, at_most, figure, within_share
from zeroskip.papers.common.tables import Table
from zeroskip.papers.eie import published
from zeroskip.simulate import Workload, chips, dataflows, of_masks, random_masks
from zeroskip.simulate.workload import count_macs

DATA = "needs the authors' layer (--out with --data, or --results)"
MEDIAN = "10"  # percent of the published time
# Standard deviation / mean of the filters' shares with which random places give Alex-8, at the shares of the authors'
# file, the 9.83 microseconds that its own places take. Chosen once, in steps of 0.1.
FITTED = 0.2
COLUMNS = {0.0: "random places", FITTED: f"filters' shares spread by {FITTED}, fitted on fc8's own"}
NEAR = within_share(0.15)
KNOWN = {
    "Alex-8": "the authors' file has 25.7 % of the weights and 42.9 % of the inputs, with which ours is right; see "
    + published.FC8,
    "VGG-6": "the rounding of the shares explains a third of the entries that are missing; for the rest, inputs that "
    "are not zero would have to meet more weights than others do. And elements wait for each other more than at "
    "random places, so real filters differ more",
}
ACTUAL = "Table IV: actual time from shares of zeros"
THEORETICAL = "Table IV: entries / elements / clock from shares of zeros"
TOP = "random places, the highest shares that round to those published"


@dataclass(frozen=True)
class Fc8Findings:
    """AlexNet's fc8 at its authors' own places: cycles with queues of 8, entries of the columns that are worked on."""

    cycles: int
    entries: int


def analytic() -> list[PaperRow]:
    """The nine layers from their shares of zeros, at random places and less evenly."""
    rows: list[PaperRow] = []
    for variation, column in COLUMNS.items():
        times = [_layer(layer, column, workload(layer, variation)) for layer in published.LAYERS]
        for actual, even in times:
            rows += [actual] if variation else [actual, even]  # entries do not depend on who has them
        errors = [100 * abs((actual.difference or 0) / float(actual.published)) for actual, _ in times]
        bound, median = figure(MEDIAN, "%", OURS), statistics.median(errors)
        table = Table(published.NAME, ACTUAL)
        rows.append(table.judge("median of nine", f"error, {column}", bound, median, at_most()))
    for layer in published.LAYERS:
        if layer.name in KNOWN:
            rows += _layer(layer, TOP, workload(layer, 0.0, most=True))
    return rows


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """The fc8 of AlexNet as the authors pruned it, with the activations that they recorded.

    >>> [row.holds for row in measured_rows("eie-fc8", {"cycles": 7865, "entries": 452_800})]
    [True, True]
    """
    if network != published.FC8:
        return []
    table = Table(published.NAME, "Table IV: AlexNet's fc8, the authors' own places", network, DATA)
    layer = next(layer for layer in published.LAYERS if layer.name == "Alex-8")
    fc8, rule = read(Fc8Findings, findings) if findings else None, within_share(0.02)
    actual = _microseconds(fc8.cycles) if fc8 else None
    even = _microseconds(fc8.entries / chips.EIE.lanes) if fc8 else None
    column = "entries / elements / clock"
    return [
        table.judge(layer.name, "actual time", figure(layer.actual, "us"), actual, rule),
        table.judge(layer.name, column, figure(layer.theoretical, "us"), even, rule),
    ]


def _layer(layer: published.EieLayer, column: str, work: Workload) -> tuple[PaperRow, PaperRow]:
    """The time with waiting, and that of all entries, padding among them, shared out evenly."""
    schedule, reason = dataflows.columns(work, chips.EIE), KNOWN.get(layer.name, "")
    even = (schedule.useless + count_macs(work).both) / chips.EIE.lanes
    judges = [Table(published.NAME, title, layer.network).judge for title in (ACTUAL, THEORETICAL)]
    printed = [figure(time, "us") for time in (layer.actual, layer.theoretical)]
    times = [_microseconds(cycles) for cycles in (schedule.cycles, even)]
    return (
        judges[0](layer.name, column, printed[0], times[0], NEAR, reason),
        judges[1](layer.name, column, printed[1], times[1], NEAR, reason),
    )


def workload(layer: published.EieLayer, variation: float, *, most: bool = False) -> Workload:
    """The layer at its printed shares, or at the highest that are printed so; weights differ over filters.

    >>> round(float(workload(published.LAYERS[6], 0.0).weight.float().mean()), 2)  # NT-We
    0.1
    """
    shares = figure(layer.weights), figure(layer.seen)
    weights, inputs = (round(1 - (share.value + 0.499 * share.digit * most) / 100, 9) for share in shares)
    shape = layer.outputs, layer.inputs
    weight = random_masks.over_dispersed(shape, weights, variation=variation, seed=3)
    return of_masks(layer.name, weight, random_masks.random((1, layer.inputs), inputs, seed=12))


def _microseconds(cycles: float) -> float:
    return 1e6 * cycles / chips.EIE.hertz
