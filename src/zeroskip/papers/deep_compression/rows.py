"""Deep Compression: what its storage format makes of the published shares and bits, and what needs training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from zeroskip import codebooks
from zeroskip.codecs import relative
from zeroskip.concepts import PaperRow
from zeroskip.papers.common import figure_checks, frontier_rows
from zeroskip.papers.common.figure_checks import percent
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.network_sizes import LayerSize, parameters, sizes
from zeroskip.papers.common.paper import IMAGENET, TITLES, Findings, missing, title
from zeroskip.papers.common.rules import (
    EQUAL,
    LAST_DIGIT,
    ROUNDS,
    at_least,
    at_most,
    figure,
    within,
    within_share,
)
from zeroskip.papers.common.tables import Table, error_rows, layer_table
from zeroskip.papers.deep_compression import fc_layer_rows, published
from zeroskip.papers.deep_compression.findings import CodedFindings, CodedShares
from zeroskip.papers.deep_compression.published import CodedLayer

INDEX = "ours is per weight that is left, so the bridges of gaps too long for their bits are in it"
STORED = within(0.5, "0.5 points, for weights at random positions and shares printed in points")
STORED_TOTAL = within(0.25, "0.25 points, for weights at random positions and shares printed in points")
TENTH = within_share(0.1)
SHARED, HUFFMAN, RELATIVE = "P+Q %", "P+Q+H %", "P+Q %, relative"
# Half a point is a sixth of a layer stored in 3 %, and fillers are no more: such layers are judged by shares too.
RELATIVE_SHARE = within_share(0.15)
FEW_LEFT = 10  # % of the weights; with more left hardly a gap needs a filler
KEPT = at_most(words="the published figure, and half a point for its rounding", slack=0.5)
BITS = at_most(words="the published figure, and what fills up the last byte", slack=0.01)
COLUMNS = (
    ("Weights%, measured", "kept", "%", KEPT),
    ("weight bits P+Q, measured", "bits", "bits", BITS),
    ("weight bits P+Q+H, measured", "bits_huffman", "bits", at_most()),
    ("index bits P+Q, measured", "index", "bits", at_most()),
    ("index bits P+Q+H, measured", "index_huffman", "bits", at_most()),
    ("P+Q %, measured", "stored", "%", at_most()),
    ("P+Q+H %, measured", "stored_huffman", "%", at_most()),
)
LESS = "not explained: 58 % of 1,728 weights at 8 + 5 bits and 256 centroids are less"
MORE = "not explained: 66 % of 500 weights at 7.2 + 1.5 bits and 256 centroids are more"
UNEXPLAINED = {("vgg16", "conv1_1", SHARED): LESS, ("lenet-5", "conv1", HUFFMAN): MORE}
BOTH = "both together get further; no loss is an error at most 0.1 points above the dense network's"
MORE_BITS = (
    "conv layers need more bits than fc layers, at an error at most 0.1 points above the dense network's"
)
LINEAR = "the same start, or one whose error is the same"
NOT_LINEAR = "another start, with a lower error than linear"
UNITS = {1e3: "KB", 1e6: "MB"}


def analytic() -> list[PaperRow]:
    """Every row that follows from layer sizes and published shares and bits, in the order of the paper."""
    rows = [*_worked_example(), *_text_index(), *_table1()]
    for network in TITLES:
        rows += [*_layers(network), *_totals(network)]
    return [*rows, *_table7(), *fc_layer_rows.analytic()]


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """Every row of `network` that needs training or timing.

    network  one of the four, "digits" or "digits-conv" (rows of the figures only), or "fc-layers" (table 8)

    >>> measured_rows("lenet-5", {"error": 0.0074})[1].holds
    True
    """
    if network == published.FC_LAYERS:
        return fc_layer_rows.measured_rows(findings)
    measured = read(CodedFindings, findings)
    if network not in TITLES:
        return _figures(network, measured)
    sizes_of, frontiers = published.TABLE1[network], frontier_rows.read_frontiers(findings)
    return [
        *_errors(network, measured),
        *_shares(network, measured),
        *_figures(network, measured),
        *frontier_rows.bytes_rows(published.NAME, network, frontiers, sizes_of.error, sizes_of.rate),
    ]


def unmeasurable() -> list[PaperRow]:
    """Rows that belong to no network of ours or need a power meter: present, never measured."""
    table = Table(published.NAME, "Table 7", "alexnet", "another method, which is no part of zeroskip")
    others = published.TABLE7_OTHERS
    rows = [table.judge(name, "size", figure(size, "MB"), None, within_share(0.1)) for name, size in others]
    table = Table(published.NAME, "Table 6", "alexnet", IMAGENET)
    for bits, *rises in published.TABLE6:
        for top, rise in zip(("top-1", "top-5"), rises, strict=True):
            column = f"{top} error, rise"
            rows.append(table.judge(f"conv/fc bits {bits}", column, figure(rise, "points"), None, at_most()))
    table = Table(published.NAME, "Text", published.FC_LAYERS, "needs a power meter on that machine")
    for machine, times in (("CPU", "7"), ("GPU", "3.3"), ("mobile GPU", "4.2")):
        less = f"less energy, {machine}"
        rows.append(table.judge("fc layers, batch 1", less, figure(times, "x"), None, at_least()))
    return rows


def stored(size: LayerSize, printed: CodedLayer) -> tuple[float, float]:
    """Bits of a layer after P+Q and P+Q+H: entries (fillers too) x bits each, and a codebook of floats.

    Positions are taken as random; after Huffman with the published average bits of a code and a position.

    >>> [round(bits) for bits in stored(sizes("lenet-5")[0], published.LAYERS["lenet-5"][0])]
    [12482, 11063]
    """
    kept, code, index = (figure(text).value for text in (printed.kept, printed.bits, printed.index))
    bits = relative.expected_bits(size.weights, 1 - kept / 100, int(index), int(code))
    entries = bits / (code + index)
    after = figure(printed.bits_huffman).value + figure(printed.index_huffman).value
    codebook = 32 * 2 ** int(code)
    return bits + codebook, entries * after + codebook


def _worked_example() -> list[PaperRow]:
    weights = torch.linspace(-1, 1, 16)  # the example's 4 x 4 weights in 4 clusters
    centroids = codebooks.codebook(weights, 2)
    bits = 32 * len(centroids) + len(weights) * math.log2(len(centroids))
    table = Table(published.NAME, "Section 3, worked example")
    rate = 32 * len(weights) / bits
    return [table.judge("16 weights, 4 clusters", "rate", figure("3.2", "x"), rate, ROUNDS)]


def _text_index() -> list[PaperRow]:
    reason = "the paper contradicts itself: its tables say 4 bits (AlexNet) and 5 bits, and their sizes agree"
    rows = []
    for network in ("lenet-5", "alexnet", "vgg16"):
        judge, ours = Table(published.NAME, "Text", network).judge, _fitted_index(network)
        name, column = f"{title(network)} conv", "index bits that give the P+Q sizes"
        rows.append(judge(name, column, figure(published.TEXT_INDEX, "bits"), ours, EQUAL, reason))
    return rows


def _fitted_index(network: str) -> int:
    """The width of a position with which the model comes nearest to the P+Q column of the conv layers."""
    conv = [(size, printed) for size, printed in _both(network) if printed.name.startswith("conv")]
    shares = [figure(printed.stored).value for _, printed in conv]

    def distance(width: int) -> float:
        return sum(
            abs(100 * stored(size, replace(printed, index=str(width)))[0] / (32 * size.weights) - share)
            for (size, printed), share in zip(conv, shares, strict=True)
        )

    return min(range(2, 11), key=distance)


def _table1() -> list[PaperRow]:
    rows = []
    for network, printed in published.TABLE1.items():
        table, name, unit = Table(published.NAME, "Table 1", network), title(network), UNITS[printed.unit]
        dense, after = 4 * parameters(network) / printed.unit, _total(network)[1] / 8 / printed.unit
        size, size_after = (figure(text, unit) for text in (printed.size, printed.size_after))
        rate = figure(printed.rate, "x")
        compressed, own = f"{name} compressed", size.value / size_after.value
        rows += [
            table.judge(f"{name} ref", "size", size, dense, within_share(0.02)),
            table.judge(compressed, "size, from published bits", size_after, after, TENTH),
            table.judge(compressed, "rate, from published bits", rate, dense / after, TENTH),
            table.judge(compressed, "rate, from published sizes", rate, own, ROUNDS),
        ]
    return rows


def _layers(network: str) -> list[PaperRow]:
    table, rows = layer_table(published.NAME, network), []
    for size, layer in _both(network):
        rows.append(table.judge(layer.name, "#W", figure(layer.weights, "weights"), size.weights, LAST_DIGIT))
        pair = (SHARED, layer.stored), (HUFFMAN, layer.stored_huffman)
        for (column, printed), bits in zip(pair, stored(size, layer), strict=True):
            share, published_share = 100 * bits / (32 * size.weights), figure(printed, "%")
            reason = UNEXPLAINED.get((network, layer.name, column), "")
            rows.append(table.judge(layer.name, column, published_share, share, STORED, reason))
            if column == SHARED and figure(layer.kept).value < FEW_LEFT:
                rows.append(table.judge(layer.name, RELATIVE, published_share, share, RELATIVE_SHARE))
    return rows


def _totals(network: str) -> list[PaperRow]:
    judge, printed = layer_table(published.NAME, network).judge, published.TOTALS[network]
    both = _both(network)
    whole = sum(size.weights for size in sizes(network))
    left = [size.weights * figure(layer.kept).value / 100 for size, layer in both]
    # Huffman is reckoned per entry, but a mean over weights is what can be compared with the bits of a weight.
    bits, bits_huffman, index_huffman = (
        sum(part * figure(getattr(layer, key)).value for part, (_, layer) in zip(left, both, strict=True))
        / sum(left)
        for key in ("bits", "bits_huffman", "index_huffman")
    )
    shared, huffman = _total(network)
    rates = [figure(rate, "x") for rate in published.RATES[network]]
    reason = "the paper contradicts itself: the mean of its layers is another"
    half = within(0.5, "half a point: the layers' shares are printed in points")
    coded, position = figure(printed.bits_huffman, "bits"), figure(printed.index_huffman, "bits")
    return [
        judge("total", "#W", figure(printed.weights, "weights"), whole, LAST_DIGIT),
        judge("total", "Weights%", figure(printed.kept, "%"), 100 * sum(left) / whole, half),
        judge("total", "weight bits P+Q", figure(printed.bits, "bits"), bits, LAST_DIGIT),
        judge("total", "weight bits P+Q+H", coded, bits_huffman, TENTH, reason),
        judge("total", "index bits P+Q+H", position, index_huffman, TENTH, reason),
        judge("total", SHARED, figure(printed.stored, "%"), 100 * shared / (32 * whole), STORED_TOTAL),
        judge(
            "total", HUFFMAN, figure(printed.stored_huffman, "%"), 100 * huffman / (32 * whole), STORED_TOTAL
        ),
        judge("total", "rate P+Q", rates[0], 32 * whole / shared, TENTH),
        judge("total", "rate P+Q+H", rates[1], 32 * whole / huffman, TENTH),
    ]


def _table7() -> list[PaperRow]:
    table, dense = Table(published.NAME, "Table 7", "alexnet"), 4e-6 * parameters("alexnet")
    kept = sum(size.weights * figure(printed.kept).value / 100 for size, printed in _both("alexnet"))
    models = (32 * kept, *_total("alexnet"))
    rows = [table.judge("baseline", "size", figure("240", "MB"), dense, within_share(0.02))]
    for (name, size, rate), bits in zip(published.TABLE7, models, strict=True):
        own = 240 / figure(size).value
        rows += [
            table.judge(name, "size, from published bits", figure(size, "MB"), bits / 8e6, TENTH),
            table.judge(name, "rate, from published sizes", figure(rate, "x"), own, ROUNDS),
        ]
    return rows


def _errors(network: str, measured: CodedFindings) -> list[PaperRow]:
    printed, name = published.TABLE1[network], title(network)
    table, compressed = Table(published.NAME, "Table 1", network, missing(network)), f"{name} compressed"
    dense, after = measured.stored_bytes_dense, measured.stored_bytes
    before = (printed.error, measured.error_dense), (printed.top5, measured.top5_dense)
    coded = (printed.error_after, measured.error), (printed.top5_after, measured.top5)
    size = None if after is None else after / printed.unit
    rate = None if after is None or dense is None else dense / after
    times, published_size = figure(printed.rate, "x"), figure(printed.size_after, UNITS[printed.unit])
    reached = at_least("the published figure, less half a step of its last digit", times.digit / 2)
    return [
        *error_rows(table, name, before, coded, word="compressed", step=""),
        frontier_rows.rise_row(table, compressed, measured.error, measured.error_dense),
        table.judge(compressed, "size, measured", published_size, size, at_most()),
        table.judge(compressed, "rate, measured", times, rate, reached),
    ]


def _shares(network: str, measured: CodedFindings) -> list[PaperRow]:
    table, rows = layer_table(published.NAME, network, missing(network)), []
    layers = [measured.layers.get(size.name, CodedShares()) for size in sizes(network)]
    printed_rows = (*published.LAYERS[network], published.TOTALS[network])
    for layer, ours in zip(printed_rows, (*layers, measured.total), strict=True):
        for column, key, unit, rule in COLUMNS:
            share: float | None = getattr(ours, key)
            number, printed = percent(share) if unit == "%" else share, figure(getattr(layer, key), unit)
            reason = INDEX if key.startswith("index") else ""
            rows.append(table.judge(layer.name, column, printed, number, rule, reason))
    return rows


def _figures(network: str, measured: CodedFindings) -> list[PaperRow]:
    if network == "vgg16":
        return []  # the figures are AlexNet's
    dense, why = measured.figures_dense, missing(network)
    figures = [Table(published.NAME, f"Figure {number}: {title(network)}", network, why) for number in (6, 7)]
    rows, row, claim = [], "smallest size without loss", "33x > 12x (3 % against 8 % of the size)"
    for alone in ("pruned", "shared"):
        reach = figure_checks.reach(measured.figure6, (alone, "both"), dense)
        rows.append(figures[0].fact(row, f"both against {alone} alone", claim, reach, BOTH))
    if network not in ("lenet-300-100", "digits"):
        row, fewest = "fewest bits without loss", figure_checks.fewest_bits(measured.figure7, dense)
        rows.append(figures[1].fact(row, "conv against fc", "conv 4, fc 2", fewest, MORE_BITS))
    return [*rows, *_starts(network, measured.figure8)]


def _starts(network: str, errors: Mapping[str, Mapping[int, float]]) -> list[PaperRow]:
    table = Table(published.NAME, f"Figure 8: {title(network)}", network, missing(network))
    rows, column = [], "best start of the centroids"
    for bits in range(2, 9):
        is_linear = bits != 3
        verdict = figure_checks.best_start(errors, bits, linear=is_linear)
        claim, rule = ("linear", LINEAR) if is_linear else ("not linear", NOT_LINEAR)
        rows.append(table.fact(f"{bits} bits", column, claim, verdict, rule))
    return rows


def _both(network: str) -> list[tuple[LayerSize, CodedLayer]]:
    return list(zip(sizes(network), published.LAYERS[network], strict=True))


def _total(network: str) -> tuple[float, float]:
    """Bits of the whole network after P+Q and P+Q+H."""
    pairs = [stored(size, printed) for size, printed in _both(network)]
    return sum(shared for shared, _ in pairs), sum(huffman for _, huffman in pairs)
