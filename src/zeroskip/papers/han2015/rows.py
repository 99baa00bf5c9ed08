"""Han et al. 2015: what follows from the networks' exact sizes, and what needs training."""

from __future__ import annotations

from zeroskip.codecs import gaps
from zeroskip.concepts import PaperRow
from zeroskip.papers.common import frontier_rows
from zeroskip.papers.common.figure_checks import percent
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.network_sizes import LayerSize, parameters, sizes
from zeroskip.papers.common.paper import IMAGENET, TITLES, Findings, missing, title
from zeroskip.papers.common.rules import (
    EQUAL,
    LAST_DIGIT,
    RECOMPUTED,
    ROUNDS,
    at_least,
    at_most,
    figure,
    within,
    within_share,
)
from zeroskip.papers.common.tables import Table, error_rows, layer_table
from zeroskip.papers.han2015 import figures, published
from zeroskip.papers.han2015.findings import HanFindings, LayerShares

POINT = within(1, "1 point")
TEN_POINTS = within(10, "10 points; it depends on the training")
# Every published share is rounded to a point, so what is summed from them may be off by half a point.
HALF_POINT = 0.5


def analytic() -> list[PaperRow]:
    """Every row that follows from layer sizes and published shares, in the order of the paper.

    >>> sum(row.holds is False for row in analytic())
    1
    """
    rows = [*_energy(), *_rates()]
    for network in TITLES:
        rows += [*_layers(network), *_totals(network)]
    return [*rows, *_zeros(), *_caption(), *_others(), *_index()]


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """Every row of `network` that needs training.

    network  one of the four, or "digits", "digits-conv", which have the rows of the figures only

    >>> measured_rows("lenet-5", {"error_pruned": 0.0074})[1].holds
    True
    """
    measured = read(HanFindings, findings)
    if network not in TITLES:
        return figures.rows(network, measured)
    error, frontiers = published.TABLE1[network].error, frontier_rows.read_frontiers(findings)
    return [
        *_table1(network, measured),
        *_shares(network, measured),
        *figures.rows(network, measured),
        *frontier_rows.weights_rows(published.NAME, network, frontiers, error),
    ]


def shares(network: str) -> list[tuple[LayerSize, published.HanLayer]]:
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


def _energy() -> list[PaperRow]:
    table, unit = Table(published.NAME, "Energy table, 45 nm CMOS"), "x"
    cost = {name: figure(picojoules).value for name, picojoules, _ in published.ENERGY}
    rows = [
        table.judge(name, "relative to int ADD", figure(times, unit), cost[name] / cost["int ADD"], ROUNDS)
        for name, _, times in published.ENERGY
    ]
    watts = 1e9 * 20 * cost["DRAM"] * 1e-12  # connections x per second x joules
    return [*rows, table.judge("1 G connections at 20 Hz", "DRAM power", figure("12.8", "W"), watts, ROUNDS)]


def _rates() -> list[PaperRow]:
    table = {network: Table(published.NAME, "Table 1", network) for network in TITLES}
    rows = []
    for network, printed in published.TABLE1.items():
        name, judge = title(network), table[network].judge
        whole, left = sum(size.weights for size in sizes(network)), kept_weights(network)
        rule = within(HALF_POINT / 100 * whole, "half a point of all weights: shares are printed in points")
        total = parameters(network)
        rows += [
            judge(f"{name} ref", "parameters", figure(printed.parameters, "weights"), total, LAST_DIGIT),
            judge(f"{name} pruned", "parameters", figure(printed.parameters_pruned, "weights"), left, rule),
            judge(f"{name} pruned", "rate", figure(printed.rate, "x"), whole / left, ROUNDS),
        ]
    return rows


def _layers(network: str) -> list[PaperRow]:
    judge, rows, fed = layer_table(published.NAME, network).judge, [], 100.0
    for size, printed in shares(network):
        work = figure(printed.kept).value * fed / 100
        rows += [
            judge(printed.name, "weights", figure(printed.weights, "weights"), size.weights, LAST_DIGIT),
            judge(printed.name, "FLOP", figure(printed.flop, "FLOP"), 2 * size.macs, LAST_DIGIT),
            judge(printed.name, "FLOP%", figure(printed.work, "%"), work, POINT),
        ]
        fed = figure(printed.output).value  # a multiplication by a zero input need not be done either
    return rows


def _totals(network: str) -> list[PaperRow]:
    judge, printed = layer_table(published.NAME, network).judge, published.TOTALS[network]
    rows = shares(network)
    weights, macs = (sum(getattr(size, key) for size, _ in rows) for key in ("weights", "macs"))
    outputs = sum(size.outputs for size, _ in rows)
    fed = [100.0, *(figure(layer.output).value for _, layer in rows[:-1])]
    left = sum(size.outputs * figure(layer.output).value for size, layer in rows) / outputs
    pairs = zip(rows, fed, strict=True)
    work = sum(size.macs * figure(layer.kept).value * share / 100 for (size, layer), share in pairs)
    kept = within(HALF_POINT, "half a point: the layers' shares are printed in points")
    return [
        judge("total", "weights", figure(printed.weights, "weights"), weights, LAST_DIGIT),
        judge("total", "FLOP", figure(printed.flop, "FLOP"), 2 * macs, LAST_DIGIT),
        judge("total", "Act%", figure(printed.output, "%"), left, ROUNDS),
        judge("total", "Weights%", figure(printed.kept, "%"), 100 * kept_weights(network) / weights, kept),
        judge("total", "FLOP%", figure(printed.work, "%"), work / macs, POINT),
    ]


def _zeros() -> list[PaperRow]:
    rows = []
    for network, zeros in published.ZEROS.items():
        table, left = layer_table(published.NAME, network), round(kept_weights(network))
        whole = sum(size.weights for size in sizes(network))
        share = 100 * (1 - left / whole)
        size = figure(published.SIZES[network], "weights", RECOMPUTED)
        kept = figure(published.KEPT[network], "weights", RECOMPUTED)
        rows += [
            table.judge("total", "weights, exact", size, whole, EQUAL),
            table.judge("total", "weights left, exact", kept, left, LAST_DIGIT),
            table.judge("total", "zeros, by exact sizes", figure(zeros, "%", RECOMPUTED), share, ROUNDS),
        ]
    return rows


def _caption() -> list[PaperRow]:
    rate = sum(size.weights for size in sizes("vgg16")) / kept_weights("vgg16")
    reason = "the paper contradicts itself: Table 1 and the text say 13x, and so does the sum of the layers"
    table = layer_table(published.NAME, "vgg16")
    return [table.judge("caption", "rate", figure("12", "x"), rate, ROUNDS, reason)]


def _others() -> list[PaperRow]:
    table, whole = Table(published.NAME, "Table 6", "alexnet"), sum(size.weights for size in sizes("alexnet"))
    total = parameters("alexnet")
    rows = [table.judge("baseline", "parameters", figure("61.0M", "weights"), total, ROUNDS)]
    for name, left, rate, *_ in published.TABLE6:
        rows.append(table.judge(name, "rate", figure(rate, "x"), whole / figure(left).value, ROUNDS))
    return rows


def _index() -> list[PaperRow]:
    layers = [(size, figure(printed.kept).value / 100) for size, printed in shares("alexnet")[5:]]
    index = sum(gaps.expected_bits(size.weights, 1 - kept, 5) for size, kept in layers)
    values = sum(32 * size.weights * kept for size, kept in layers)
    rule = within(1, "1 point: ours counts the bridges of gaps longer than 5 bits can tell")
    table = Table(published.NAME, "Sparse storage", "alexnet")
    return [table.judge("FC layers, 5-bit gaps", "overhead", figure("15.6", "%"), 100 * index / values, rule)]


def _table1(network: str, measured: HanFindings) -> list[PaperRow]:
    printed, name, kept = published.TABLE1[network], title(network), measured.weights_kept
    table = Table(published.NAME, "Table 1", network, missing(network))
    before = (printed.error, measured.error_dense), (printed.top5, measured.top5_dense)
    after = (printed.error_pruned, measured.error_pruned), (printed.top5_pruned, measured.top5_pruned)
    whole = sum(size.weights for size in sizes(network))
    left, rate = figure(printed.parameters_pruned, "weights"), figure(printed.rate, "x")
    rounded = at_most(words="the published figure, and half a step of its last digit", slack=left.digit / 2)
    reached = at_least("the published figure, less half a step of its last digit", slack=rate.digit / 2)
    pruned, ours = f"{name} pruned", None if kept is None else whole / kept
    return [
        *error_rows(table, name, before, after, word="pruned", step=" pruning"),
        frontier_rows.rise_row(table, pruned, measured.error_pruned, measured.error_dense),
        table.judge(pruned, "weights left", left, kept, rounded),
        table.judge(pruned, "rate, measured", rate, ours, reached),
    ]


def _shares(network: str, measured: HanFindings) -> list[PaperRow]:
    table, rows = layer_table(published.NAME, network, missing(network)), []
    rule = at_most(words="the published figure, and half a point for its rounding", slack=HALF_POINT)
    layers = [measured.layers.get(size.name, LayerShares()) for size in sizes(network)]
    printed_rows = (*published.LAYERS[network], published.TOTALS[network])
    for printed, ours in zip(printed_rows, (*layers, measured.total), strict=True):
        for column, share, share_ours, judged in (
            ("Act%, measured", printed.output, ours.output, TEN_POINTS),
            ("Weights%, measured", printed.kept, ours.kept, rule),
            ("FLOP%, measured", printed.work, ours.work, rule),
        ):
            rows.append(table.judge(printed.name, column, figure(share, "%"), percent(share_ours), judged))
    return rows


def unmeasurable() -> list[PaperRow]:
    """Rows of table 6 that would need other people's methods on ImageNet: present, never measured."""
    table = Table(published.NAME, "Table 6", "alexnet", IMAGENET)
    return [
        table.judge(name, f"{top} error", figure(error, "%"), None, within_share(0))
        for name, _, _, *errors in published.TABLE6
        for top, error in zip(("top-1", "top-5"), errors, strict=True)
        if error
    ]
