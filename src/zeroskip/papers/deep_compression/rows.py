"""Deep Compression: what its storage format makes of the published shares and bits, and what needs training.

Findings of one network, a plain JSON object; every part may be absent. Shares and errors are 0..1, errors
are those of the test split. Up to "total" they are means over the seeds, the others are those of seed 0.

    error_dense, error           of the network before, and of the one that is stored; top5_dense, top5 likewise
    stored_bytes_dense           4 x parameters, and
    stored_bytes                 the file after pruning, sharing and Huffman, everything counted
    layers                       our layer name -> {"kept": share of weights left, "bits", "bits_huffman",
                                 "index", "index_huffman": mean bits of a code and of a position, before and
                                 after Huffman, "stored", "stored_huffman": share of the layer's 32-bit
                                 weights}; and
    total                        the same of the whole network
    figures_dense                error of the dense network that the figures start from
    figure6                      {"pruned", "shared", "both"}: [[share of the dense size, error], ...]
    figure7                      {"conv", "fc"}: bits -> error with only these layers' codes that narrow
    figure8                      {"linear", "density", "random"}: bits -> error after training the centroids
    table8 (of "fc-layers")      "AlexNet fc6" ... "VGG-16 fc8" -> {"1": [dense, sparse] seconds, "64": ...,
                                 "kernel": {"1": the one of zeroskip's that ran, "64": ...}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from zeroskip import codebooks
from zeroskip.codecs import relative
from zeroskip.papers.common import figure_checks, frontier_rows
from zeroskip.papers.common.network_sizes import IMAGENET, NETWORKS, Size, missing, parameters, sizes, title
from zeroskip.papers.common.row import (
    EQUAL,
    LAST_DIGIT,
    ROUNDS,
    Row,
    Rule,
    Table,
    at_least,
    at_most,
    error_rows,
    figure,
    within,
    within_share,
)
from zeroskip.papers.deep_compression import fc_layer_rows, published

PAPER = "deep-compression"
INDEX = "ours is per weight that is left, so the bridges of gaps too long for their bits are in it"
STORED = within(0.5, "0.5 points, for weights at random positions and shares printed in points")
STORED_TOTAL = within(0.25, "0.25 points, for weights at random positions and shares printed in points")
TENTH = within_share(0.1)
SHARED, HUFFMAN, RELATIVE = "P+Q %", "P+Q+H %", "P+Q %, relative"
# Half a point is a sixth of a layer stored in 3 %, and fillers are no more: such layers are judged by shares too.
RELATIVE_SHARE = within_share(0.15)
FEW_LEFT = 10  # % of the weights; with more left hardly a gap needs a filler
COLUMNS = (
    ("Weights%, measured", "kept", "%"),
    ("weight bits P+Q, measured", "bits", "bits"),
    ("weight bits P+Q+H, measured", "bits_huffman", "bits"),
    ("index bits P+Q, measured", "index", "bits"),
    ("index bits P+Q+H, measured", "index_huffman", "bits"),
    ("P+Q %, measured", "stored", "%"),
    ("P+Q+H %, measured", "stored_huffman", "%"),
)
UNEXPLAINED = {
    (
        "vgg16",
        "conv1_1",
        SHARED,
    ): "not explained: 58 % of 1,728 weights at 8 + 5 bits and 256 centroids are less",
    (
        "lenet-5",
        "conv1",
        HUFFMAN,
    ): "not explained: 66 % of 500 weights at 7.2 + 1.5 bits and 256 centroids are more",
}


def analytic() -> list[Row]:
    """Every row that follows from layer sizes and published shares and bits, in the order of the paper.

    >>> [row.row for row in analytic() if row.holds is False and row.column == "P+Q %"]
    ['conv1_1']
    """
    rows = [*_worked_example(), *_text_index(), *_table1()]
    for network in NETWORKS:
        rows += [*_layers(network), *_totals(network)]
    return [*rows, *_table7(), *fc_layer_rows.analytic()]


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Every row of `network` that needs training or timing, from its findings (see the top of this file).

    network  one of NETWORKS, "digits" or "digits-conv" (rows of the figures only), or "fc-layers" (table 8)

    >>> measured_rows("lenet-5", {"error": 0.0074})[1].holds
    True
    """
    if network == fc_layer_rows.NETWORK:
        return fc_layer_rows.measured_rows(findings)
    rows = [*_errors(network, findings), *_shares(network, findings)] if network in NETWORKS else []
    beyond = frontier_rows.bytes_rows(PAPER, network, findings) if network in NETWORKS else []
    return [*rows, *_figures(network, findings), *beyond]


def unmeasurable() -> list[Row]:
    """Rows that belong to no network of ours or need a power meter: present, never measured.

    >>> unmeasurable()[0].holds is None
    True
    """
    table = Table(PAPER, "Table 7", "alexnet", "another method, which is no part of zeroskip")
    rows = [
        table.judge(name, "size", size, None, within_share(0.1), unit="MB")
        for name, size in published.TABLE7_OTHERS
    ]
    table = Table(PAPER, "Table 6", "alexnet", IMAGENET)
    for bits, *rises in published.TABLE6:
        for top, rise in zip(("top-1", "top-5"), rises, strict=True):
            column = f"{top} error, rise"
            rows.append(table.judge(f"conv/fc bits {bits}", column, rise, None, at_most(), unit="points"))
    table = Table(PAPER, "Text", fc_layer_rows.NETWORK, "needs a power meter on that machine")
    for machine, times in (("CPU", "7"), ("GPU", "3.3"), ("mobile GPU", "4.2")):
        rows.append(
            table.judge("fc layers, batch 1", f"less energy, {machine}", times, None, at_least(), unit="x")
        )
    return rows


def stored(size: Size, told: published.Layer) -> tuple[float, float]:
    """Bits of a layer after P+Q and P+Q+H: entries (fillers too) x bits each, and a codebook of floats.

    Positions are taken as random; after Huffman with the published average bits of a code and a position.

    >>> [round(bits) for bits in stored(sizes("lenet-5")[0], published.LAYERS["lenet-5"][0])]
    [12482, 11063]
    """
    kept, code, index = (figure(text).value for text in (told.kept, told.bits, told.index))
    bits = relative.expected_bits(size.weights, 1 - kept / 100, int(index), int(code))
    entries = bits / (code + index)
    after = figure(told.bits_huffman).value + figure(told.index_huffman).value
    codebook = 32 * 2 ** int(code)
    return bits + codebook, entries * after + codebook


def _worked_example() -> list[Row]:
    weights = torch.linspace(-1, 1, 16)  # the example's 4 x 4 weights in 4 clusters
    centroids = codebooks.codebook(weights, 2)
    bits = 32 * len(centroids) + len(weights) * math.log2(len(centroids))
    table = Table(PAPER, "Section 3, worked example")
    return [table.judge("16 weights, 4 clusters", "rate", "3.2", 32 * len(weights) / bits, ROUNDS, unit="x")]


def _text_index() -> list[Row]:
    reason = "the paper contradicts itself: its tables say 4 bits (AlexNet) and 5 bits, and their sizes agree"
    rows = []
    for network in ("lenet-5", "alexnet", "vgg16"):
        judge, ours = Table(PAPER, "Text", network).judge, _fitted_index(network)
        name, told = f"{title(network)} conv", published.TEXT_INDEX
        column = "index bits that give the P+Q sizes"
        rows.append(judge(name, column, told, ours, EQUAL, unit="bits", reason=reason))
    return rows


def _fitted_index(network: str) -> int:
    """The width of a position with which the model comes nearest to the P+Q column of the conv layers."""
    conv = [(size, told) for size, told in _both(network) if told.name.startswith("conv")]

    def distance(width: int) -> float:
        return sum(abs(_percent(size, told, width) - figure(told.stored).value) for size, told in conv)

    return min(range(2, 11), key=distance)


def _percent(size: Size, told: published.Layer, width: int) -> float:
    code = int(figure(told.bits).value)
    bits = relative.expected_bits(size.weights, 1 - figure(told.kept).value / 100, width, code)
    return 100 * (bits + 32 * 2**code) / (32 * size.weights)


def _table1() -> list[Row]:
    rows = []
    for network, told in published.TABLE1.items():
        judge, name = Table(PAPER, "Table 1", network).judge, title(network)
        unit = "KB" if told.unit == 1e3 else "MB"
        dense, after = 4 * parameters(network) / told.unit, _total(network)[1] / 8 / told.unit
        own = figure(told.size).value / figure(told.size_after).value
        rows += [
            judge(f"{name} ref", "size", told.size, dense, within_share(0.02), unit=unit),
            judge(
                f"{name} compressed", "size, from published bits", told.size_after, after, TENTH, unit=unit
            ),
            judge(
                f"{name} compressed", "rate, from published bits", told.rate, dense / after, TENTH, unit="x"
            ),
            judge(f"{name} compressed", "rate, from published sizes", told.rate, own, ROUNDS, unit="x"),
        ]
    return rows


def _layers(network: str) -> list[Row]:
    table, rows = _table(network), []
    for size, told in _both(network):
        rows.append(table.judge(told.name, "#W", told.weights, size.weights, LAST_DIGIT, unit="weights"))
        printed = told.stored, told.stored_huffman
        for column, text, bits in zip((SHARED, HUFFMAN), printed, stored(size, told), strict=True):
            share = 100 * bits / (32 * size.weights)
            reason = UNEXPLAINED.get((network, told.name, column), "")
            rows.append(table.judge(told.name, column, text, share, STORED, unit="%", reason=reason))
            if column == SHARED and figure(told.kept).value < FEW_LEFT:
                rows.append(table.judge(told.name, RELATIVE, text, share, RELATIVE_SHARE, unit="%"))
    return rows


def _totals(network: str) -> list[Row]:
    judge, told, both = _table(network).judge, published.TOTALS[network], _both(network)
    whole = sum(size.weights for size in sizes(network))
    left = [size.weights * figure(layer.kept).value / 100 for size, layer in both]
    # Huffman is reckoned per entry, but a mean over weights is what can be compared with the bits of a weight.
    bits, bits_huffman, index_huffman = (
        sum(part * figure(getattr(layer, key)).value for part, (_, layer) in zip(left, both, strict=True))
        / sum(left)
        for key in ("bits", "bits_huffman", "index_huffman")
    )
    shared, huffman = _total(network)
    rates = published.RATES[network]
    reason = "the paper contradicts itself: the mean of its layers is another"
    half = within(0.5, "half a point: the layers' shares are printed in points")
    return [
        judge("total", "#W", told.weights, whole, LAST_DIGIT, unit="weights"),
        judge("total", "Weights%", told.kept, 100 * sum(left) / whole, half, unit="%"),
        judge("total", "weight bits P+Q", told.bits, bits, LAST_DIGIT, unit="bits"),
        judge(
            "total", "weight bits P+Q+H", told.bits_huffman, bits_huffman, TENTH, unit="bits", reason=reason
        ),
        judge(
            "total", "index bits P+Q+H", told.index_huffman, index_huffman, TENTH, unit="bits", reason=reason
        ),
        judge("total", SHARED, told.stored, 100 * shared / (32 * whole), STORED_TOTAL, unit="%"),
        judge("total", HUFFMAN, told.stored_huffman, 100 * huffman / (32 * whole), STORED_TOTAL, unit="%"),
        judge("total", "rate P+Q", rates[0], 32 * whole / shared, TENTH, unit="x"),
        judge("total", "rate P+Q+H", rates[1], 32 * whole / huffman, TENTH, unit="x"),
    ]


def _table7() -> list[Row]:
    table, dense = Table(PAPER, "Table 7", "alexnet"), 4e-6 * parameters("alexnet")
    kept = sum(size.weights * figure(told.kept).value / 100 for size, told in _both("alexnet"))
    models = (32 * kept, *_total("alexnet"))
    rows = [table.judge("baseline", "size", "240", dense, within_share(0.02), unit="MB")]
    for (name, size, rate), bits in zip(published.TABLE7, models, strict=True):
        own = 240 / figure(size).value
        rows += [
            table.judge(name, "size, from published bits", size, bits / 8e6, TENTH, unit="MB"),
            table.judge(name, "rate, from published sizes", rate, own, ROUNDS, unit="x"),
        ]
    return rows


def _errors(network: str, findings: Mapping[str, Any]) -> list[Row]:
    told, name = published.TABLE1[network], title(network)
    table, unit = Table(PAPER, "Table 1", network, missing(network)), "KB" if told.unit == 1e3 else "MB"
    judge = table.judge
    dense, after = findings.get("stored_bytes_dense"), findings.get("stored_bytes")
    before = (told.error, findings.get("error_dense")), (told.top5, findings.get("top5_dense"))
    reached_errors = (told.error_after, findings.get("error")), (told.top5_after, findings.get("top5"))
    rows = error_rows(table, name, "compressed", before, reached_errors, what="")
    size = None if after is None else after / told.unit
    rate = None if after is None or dense is None else dense / after
    half = figure(told.rate).digit / 2
    reached = at_least("the published figure, less half a step of its last digit", half)
    return [
        *rows,
        frontier_rows.rise(judge, f"{name} compressed", findings.get("error"), findings.get("error_dense")),
        judge(f"{name} compressed", "size, measured", told.size_after, size, at_most(), unit=unit),
        judge(f"{name} compressed", "rate, measured", told.rate, rate, reached, unit="x"),
    ]


def _shares(network: str, findings: Mapping[str, Any]) -> list[Row]:
    table, rows = _table(network, missing(network)), []
    found = [findings.get("layers", {}).get(size.name, {}) for size in sizes(network)]
    layers = [*zip(published.LAYERS[network], found, strict=True)]
    for told, ours in [*layers, (published.TOTALS[network], findings.get("total", {}))]:
        for column, key, unit in COLUMNS:
            number = figure_checks.percent(ours.get(key)) if unit == "%" else ours.get(key)
            printed, reason = getattr(told, key), INDEX if key.startswith("index") else ""
            judged = table.judge(
                told.name, column, printed, number, _share_rule(key), unit=unit, reason=reason
            )
            rows.append(judged)
    return rows


def _share_rule(key: str) -> Rule:
    if key == "kept":
        return at_most(words="the published figure, and half a point for its rounding", slack=0.5)
    if key == "bits":
        return at_most(words="the published figure, and what fills up the last byte", slack=0.01)
    return at_most()


def _figures(network: str, findings: Mapping[str, Any]) -> list[Row]:
    why, curves = missing(network), findings.get("figure6", {})
    dense, bits = findings.get("figures_dense"), findings.get("figure7")
    sizes_table, bits_table = (
        Table(PAPER, f"Figure {number}: {title(network)}", network, why) for number in (6, 7)
    )
    if network == "vgg16":
        return []  # the figures are AlexNet's
    rows = [
        sizes_table.fact(
            "smallest size without loss",
            f"both against {alone} alone",
            "33x > 12x (3 % against 8 % of the size)",
            figure_checks.reach(curves, (alone, "both"), dense),
            "both together get further; no loss is an error at most 0.1 points above the dense network's",
        )
        for alone in ("pruned", "shared")
    ]
    if network not in ("lenet-300-100", "digits"):
        rows.append(
            bits_table.fact(
                "fewest bits without loss",
                "conv against fc",
                "conv 4, fc 2",
                figure_checks.fewest_bits(bits, dense),
                "conv layers need more bits than fc layers, at an error at most 0.1 points above the dense network's",
            )
        )
    return [*rows, *_starts(network, findings.get("figure8"))]


def _starts(network: str, errors: Mapping[str, Mapping[str, float]] | None) -> list[Row]:
    table = Table(PAPER, f"Figure 8: {title(network)}", network, missing(network))
    return [
        table.fact(
            f"{bits} bits",
            "best start of the centroids",
            "linear" if bits != 3 else "not linear",
            figure_checks.best_start(errors, bits, linear=bits != 3),
            "the same start, or one whose error is the same"
            if bits != 3
            else "another start, with a lower error than linear",
        )
        for bits in range(2, 9)
    ]


def _both(network: str) -> list[tuple[Size, published.Layer]]:
    return list(zip(sizes(network), published.LAYERS[network], strict=True))


def _total(network: str) -> tuple[float, float]:
    """Bits of the whole network after P+Q and P+Q+H."""
    pairs = [stored(size, told) for size, told in _both(network)]
    return sum(shared for shared, _ in pairs), sum(huffman for _, huffman in pairs)


def _table(network: str, why: str = "") -> Table:
    return Table(PAPER, f"{published.TABLES[network]}: {title(network)}", network, why)
