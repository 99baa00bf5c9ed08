"""Table 8 of Deep Compression: the time of the fc layers, dense over sparse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zeroskip.papers.common.row import AT_LEAST, EQUAL, RECOMPUTED, ROUNDS, Row, Table
from zeroskip.papers.deep_compression import published

PAPER = "deep-compression"
NETWORK = "fc-layers"
CPU = "i7-5930K"
TIMING = "needs timing on this machine (--out or --results)"
CARD = "needs that graphics card; zeroskip runs on CPUs"


def analytic() -> list[Row]:
    """Ratios of the published times, their means, and what the text makes of them.

    >>> sum(row.holds is False for row in analytic())  # the text's mean for the mobile GPU
    1
    """
    table, rows = Table(PAPER, "Table 8", NETWORK), []
    for batch, printed in published.TABLE8_CPU.items():
        for layer, told, ours in zip(published.TABLE8_LAYERS, printed, _ratios(CPU, batch), strict=True):
            column = f"{CPU}, batch {batch}: dense / sparse time"
            rows.append(table.judge(layer, column, told, ours, ROUNDS, unit="x", trust=RECOMPUTED))
    for machine, told in published.TABLE8_MEANS.items():
        column, ours = f"{machine}, batch 1: dense / sparse time", _mean(_ratios(machine, 1))
        rows.append(table.judge("geometric mean", column, told, ours, ROUNDS, unit="x", trust=RECOMPUTED))
    slower = sum(ratio < 1 for ratio in _ratios(CPU, 64))
    rows.append(table.judge("all six", f"{CPU}, batch 64: sparse slower", "6", slower, EQUAL, unit="layers"))
    reason = "the paper does not say how it took its mean; the geometric one over its six layers is another"
    for machine, told in published.TABLE8_TEXT.items():
        column, ours = f"{machine}, batch 1: times faster, as in the text", _mean(_ratios(machine, 1))
        rows.append(table.judge("geometric mean", column, told, ours, ROUNDS, unit="x", reason=reason))
    return rows


def measured_rows(findings: Mapping[str, Any]) -> list[Row]:
    """The same ratios as timed here, from {"table8": {layer: {batch: [dense, sparse] seconds, "kernel": {...}}}}.

    Where zeroskip's fastest kernel was a dense one, the column says so: that ratio tells nothing about sparsity.

    >>> measured_rows({"table8": {"AlexNet fc6": {"1": [0.004, 0.001]}}})[0].holds
    True
    """
    rows, found = [], findings.get("table8", {})
    for machine, batch in published.TABLE8:
        why = TIMING if machine == CPU else CARD
        table = Table(PAPER, "Table 8", NETWORK, why)
        for layer, told in zip(published.TABLE8_LAYERS, _ratios(machine, batch), strict=True):
            one = found.get(layer, {}) if machine == CPU else {}
            pair, kernel = one.get(str(batch)), one.get("kernel", {}).get(str(batch))
            ours = None if pair is None else pair[0] / pair[1]
            remark = " (a dense kernel ran)" if kernel == "dense" else ""
            column = f"{machine}, batch {batch}: dense / sparse time, measured{remark}"
            rows.append(table.judge(layer, column, f"{told:.2f}", ours, AT_LEAST, unit="x", trust=RECOMPUTED))
    pairs = [found.get(layer, {}).get("1") for layer in published.TABLE8_LAYERS]
    mean = None if None in pairs else _mean([dense / sparse for dense, sparse in pairs])
    table, column = Table(PAPER, "Table 8", NETWORK, TIMING), f"{CPU}, batch 1: times faster, measured"
    text = published.TABLE8_TEXT[CPU]
    return [*rows, table.judge("geometric mean", column, text, mean, AT_LEAST, unit="x")]


def _ratios(machine: str, batch: int) -> list[float]:
    dense, sparse = published.TABLE8[machine, batch]
    return [one / other for one, other in zip(dense, sparse, strict=True)]


def _mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))
