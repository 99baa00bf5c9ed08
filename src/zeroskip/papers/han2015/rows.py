"""Han et al. 2015: what follows from the networks' exact sizes, and what needs training.

Findings of one network, a plain JSON object; every part may be absent. Shares and errors are 0..1, errors
are those of the test split where nothing else is said. Up to "total" they are means over the seeds, the
others are those of seed 0.

    error_dense, error_pruned    of the network before and after; top5_dense, top5_pruned likewise
    weights_kept                 weights left, a count
    layers                       our layer name -> {"kept", "output", "work"}: shares of weights left, of
                                 activations that are not zero after pooling, of FLOP left; and
    total                        the same three of the whole network
    figure4                      {"kept_by_pixel": 784 counts of the first layer's connections}
    figure5                      curve -> [[share of weights kept, error], ...]; curves: "L1", "L2" (no
                                 retraining), "L1 retrained", "L2 retrained", "L2 iterative"
    figure5_dense                {"L1": error, "L2": error} of the two dense networks that the curves start from
    figure6                      layer -> {sparsity: validation error with this layer alone pruned}
    figure7                      {"before": histogram, "after": histogram} of fc1's non-zero weights, each
                                 {"edges": n + 1 numbers, "counts": n numbers}
    figure7_survivors            histogram of those weights before that are left after
    dropout                      {"rule": error, "unchanged": error} with dropout by the rule, and as it was
    dead_neurons                 {"removed": count, "largest_difference": of the network's outputs}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroskip.codecs import gaps
from zeroskip.papers.common import figure_checks, frontier_rows
from zeroskip.papers.common.network_sizes import IMAGENET, NETWORKS, Size, missing, parameters, sizes, title
from zeroskip.papers.common.row import (
    EQUAL,
    LAST_DIGIT,
    RECOMPUTED,
    ROUNDS,
    Row,
    Table,
    at_least,
    at_most,
    error_rows,
    figure,
    within,
    within_share,
)
from zeroskip.papers.han2015 import figures, published

PAPER = "han2015"
POINT = within(1, "1 point")
TEN_POINTS = within(10, "10 points; it depends on the training")
# Every published share is rounded to a point, so what is summed from them may be off by half a point.
HALF_POINT = 0.5


def analytic() -> list[Row]:
    """Every row that follows from layer sizes and published shares, in the order of the paper.

    >>> sum(row.holds is False for row in analytic())
    1
    """
    rows = [*_energy(), *_rates()]
    for network in NETWORKS:
        rows += [*_layers(network), *_totals(network)]
    return [*rows, *_zeros(), *_caption(), *_others(), *_index()]


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Every row of `network` that needs training, from its findings (see the top of this file).

    network  one of NETWORKS, or "digits", "digits-conv", which have the rows of the figures only

    >>> measured_rows("lenet-5", {"error_pruned": 0.0074})[1].holds
    True
    """
    tables = [*_table1(network, findings), *_shares(network, findings)] if network in NETWORKS else []
    beyond = frontier_rows.weights_rows(PAPER, network, findings) if network in NETWORKS else []
    return [*tables, *figures.rows(network, findings), *beyond]


def shares(network: str) -> list[tuple[Size, published.Layer]]:
    """The exact size of each layer beside its published row.

    >>> [size.weights for size, _ in shares("lenet-300-100")]
    [235200, 30000, 1000]
    """
    return list(zip(sizes(network), published.LAYERS[network], strict=True))


def kept_weights(network: str) -> float:
    """Weights left by the published share of each layer and its exact size.

    >>> round(kept_weights("alexnet"))
    6796192
    """
    return sum(size.weights * figure(layer.kept).value / 100 for size, layer in shares(network))


def _energy() -> list[Row]:
    table, unit = Table(PAPER, "Energy table, 45 nm CMOS"), "x"
    cost = {name: figure(picojoules).value for name, picojoules, _ in published.ENERGY}
    rows = [
        table.judge(name, "relative to int ADD", times, cost[name] / cost["int ADD"], ROUNDS, unit=unit)
        for name, _, times in published.ENERGY
    ]
    watts = 1e9 * 20 * cost["DRAM"] * 1e-12  # connections x per second x joules
    return [*rows, table.judge("1 G connections at 20 Hz", "DRAM power", "12.8", watts, ROUNDS, unit="W")]


def _rates() -> list[Row]:
    table = {network: Table(PAPER, "Table 1", network) for network in NETWORKS}
    rows = []
    for network, told in published.TABLE1.items():
        name, judge = title(network), table[network].judge
        whole, left = sum(size.weights for size in sizes(network)), kept_weights(network)
        rule = within(HALF_POINT / 100 * whole, "half a point of all weights: shares are printed in points")
        total = parameters(network)
        rows += [
            judge(f"{name} ref", "parameters", told.parameters, total, LAST_DIGIT, unit="weights"),
            judge(f"{name} pruned", "parameters", told.parameters_pruned, left, rule, unit="weights"),
            judge(f"{name} pruned", "rate", told.rate, whole / left, ROUNDS, unit="x"),
        ]
    return rows


def _layers(network: str) -> list[Row]:
    table, rows, fed = _table(network), [], 100.0
    for size, told in shares(network):
        work = figure(told.kept).value * fed / 100
        rows += [
            table.judge(told.name, "weights", told.weights, size.weights, LAST_DIGIT, unit="weights"),
            table.judge(told.name, "FLOP", told.flop, 2 * size.macs, LAST_DIGIT, unit="FLOP"),
            table.judge(told.name, "FLOP%", told.work, work, POINT, unit="%"),
        ]
        fed = figure(told.output).value  # a multiplication by a zero input need not be done either
    return rows


def _totals(network: str) -> list[Row]:
    judge, told, rows = _table(network).judge, published.TOTALS[network], shares(network)
    weights, macs = (sum(getattr(size, key) for size, _ in rows) for key in ("weights", "macs"))
    outputs = sum(size.outputs for size, _ in rows)
    fed = [100.0, *(figure(layer.output).value for _, layer in rows[:-1])]
    left = sum(size.outputs * figure(layer.output).value for size, layer in rows) / outputs
    work = sum(
        size.macs * figure(layer.kept).value * share / 100
        for (size, layer), share in zip(rows, fed, strict=True)
    )
    kept = within(HALF_POINT, "half a point: the layers' shares are printed in points")
    return [
        judge("total", "weights", told.weights, weights, LAST_DIGIT, unit="weights"),
        judge("total", "FLOP", told.flop, 2 * macs, LAST_DIGIT, unit="FLOP"),
        judge("total", "Act%", told.output, left, ROUNDS, unit="%"),
        judge("total", "Weights%", told.kept, 100 * kept_weights(network) / weights, kept, unit="%"),
        judge("total", "FLOP%", told.work, work / macs, POINT, unit="%"),
    ]


def _zeros() -> list[Row]:
    rows = []
    for network, zeros in published.ZEROS.items():
        table, left = _table(network), round(kept_weights(network))
        whole = sum(size.weights for size in sizes(network))
        share = 100 * (1 - left / whole)
        printed, trust = (published.SIZES[network], published.KEPT[network]), RECOMPUTED
        rows += [
            table.judge("total", "weights, exact", printed[0], whole, EQUAL, unit="weights", trust=trust),
            table.judge(
                "total", "weights left, exact", printed[1], left, LAST_DIGIT, unit="weights", trust=trust
            ),
            table.judge("total", "zeros, by exact sizes", zeros, share, ROUNDS, unit="%", trust=trust),
        ]
    return rows


def _caption() -> list[Row]:
    rate = sum(size.weights for size in sizes("vgg16")) / kept_weights("vgg16")
    reason = "the paper contradicts itself: Table 1 and the text say 13x, and so does the sum of the layers"
    return [_table("vgg16").judge("caption", "rate", "12", rate, ROUNDS, unit="x", reason=reason)]


def _others() -> list[Row]:
    table, whole = Table(PAPER, "Table 6", "alexnet"), sum(size.weights for size in sizes("alexnet"))
    rows = [
        table.judge(name, "rate", rate, whole / figure(left).value, ROUNDS, unit="x")
        for name, left, rate, *_ in published.TABLE6
    ]
    return [
        table.judge("baseline", "parameters", "61.0M", parameters("alexnet"), ROUNDS, unit="weights"),
        *rows,
    ]


def _index() -> list[Row]:
    layers = [(size, figure(told.kept).value / 100) for size, told in shares("alexnet")[5:]]
    index = sum(gaps.expected_bits(size.weights, 1 - kept, 5) for size, kept in layers)
    values = sum(32 * size.weights * kept for size, kept in layers)
    rule = within(1, "1 point: ours counts the bridges of gaps longer than 5 bits can tell")
    table = Table(PAPER, "Sparse storage", "alexnet")
    return [table.judge("FC layers, 5-bit gaps", "overhead", "15.6", 100 * index / values, rule, unit="%")]


def _table1(network: str, findings: Mapping[str, Any]) -> list[Row]:
    told, name = published.TABLE1[network], title(network)
    table, kept = Table(PAPER, "Table 1", network, missing(network)), findings.get("weights_kept")
    judge = table.judge
    before = (told.error, findings.get("error_dense")), (told.top5, findings.get("top5_dense"))
    after = (told.error_pruned, findings.get("error_pruned")), (told.top5_pruned, findings.get("top5_pruned"))
    whole = sum(size.weights for size in sizes(network))
    rows = error_rows(table, name, "pruned", before, after, what=" pruning")
    rate = None if kept is None else whole / kept
    fewer, times = (figure(printed).digit / 2 for printed in (told.parameters_pruned, told.rate))
    rounded = at_most(words="the published figure, and half a step of its last digit", slack=fewer)
    reached = at_least("the published figure, less half a step of its last digit", slack=times)
    return [
        *rows,
        frontier_rows.rise(
            judge, f"{name} pruned", findings.get("error_pruned"), findings.get("error_dense")
        ),
        judge(f"{name} pruned", "weights left", told.parameters_pruned, kept, rounded, unit="weights"),
        judge(f"{name} pruned", "rate, measured", told.rate, rate, reached, unit="x"),
    ]


def _shares(network: str, findings: Mapping[str, Any]) -> list[Row]:
    table, rows = _table(network, missing(network)), []
    rule = at_most(words="the published figure, and half a point for its rounding", slack=HALF_POINT)
    found = [findings.get("layers", {}).get(size.name, {}) for size in sizes(network)]
    layers = [*zip(published.LAYERS[network], found, strict=True)]
    for told, ours in [*layers, (published.TOTALS[network], findings.get("total", {}))]:
        for column, printed, key, judged in (
            ("Act%, measured", told.output, "output", TEN_POINTS),
            ("Weights%, measured", told.kept, "kept", rule),
            ("FLOP%, measured", told.work, "work", rule),
        ):
            ours_percent = figure_checks.percent(ours.get(key))
            rows.append(table.judge(told.name, column, printed, ours_percent, judged, unit="%"))
    return rows


def _table(network: str, why: str = "") -> Table:
    return Table(PAPER, f"{published.TABLES[network]}: {title(network)}", network, why)


def unmeasurable() -> list[Row]:
    """Rows of table 6 that would need other people's methods on ImageNet: present, never measured.

    >>> unmeasurable()[0].holds is None
    True
    """
    table = Table(PAPER, "Table 6", "alexnet", IMAGENET)
    return [
        table.judge(name, f"{top} error", error, None, within_share(0), unit="%")
        for name, _, _, *errors in published.TABLE6
        for top, error in zip(("top-1", "top-5"), errors, strict=True)
        if error
    ]
