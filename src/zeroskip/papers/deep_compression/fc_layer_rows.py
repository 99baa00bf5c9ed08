"""Table 8 of Deep Compression: the time of the fc layers, dense over sparse."""

from __future__ import annotations

import math

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings
from zeroskip.papers.common.rules import AT_LEAST, EQUAL, RECOMPUTED, ROUNDS, figure
from zeroskip.papers.common.tables import Table
from zeroskip.papers.deep_compression import published
from zeroskip.papers.deep_compression.findings import FcLayerTimes, fc_layer_times

CPU = "i7-5930K"
TIMING = "needs timing on this machine (--out or --results)"
CARD = "needs that graphics card; zeroskip runs on CPUs"


def analytic() -> list[PaperRow]:
    """Ratios of the published times, their means, and what the text makes of them.

    >>> sum(row.holds is False for row in analytic())  # the text's mean for the mobile GPU
    1
    """
    table, rows = Table(published.NAME, "Table 8", published.FC_LAYERS), []
    for batch, row in published.TABLE8_CPU.items():
        for layer, printed, ours in zip(published.TABLE8_LAYERS, row, _ratios(CPU, batch), strict=True):
            column = f"{CPU}, batch {batch}: dense / sparse time"
            rows.append(table.judge(layer, column, figure(printed, "x", RECOMPUTED), ours, ROUNDS))
    for machine, printed in published.TABLE8_MEANS.items():
        column, ours = f"{machine}, batch 1: dense / sparse time", _mean(_ratios(machine, 1))
        rows.append(table.judge("geometric mean", column, figure(printed, "x", RECOMPUTED), ours, ROUNDS))
    slower = sum(ratio < 1 for ratio in _ratios(CPU, 64))
    rows.append(
        table.judge("all six", f"{CPU}, batch 64: sparse slower", figure("6", "layers"), slower, EQUAL)
    )
    reason = "the paper does not say how it took its mean; the geometric one over its six layers is another"
    for machine, printed in published.TABLE8_TEXT.items():
        column, ours = f"{machine}, batch 1: times faster, as in the text", _mean(_ratios(machine, 1))
        rows.append(table.judge("geometric mean", column, figure(printed, "x"), ours, ROUNDS, reason=reason))
    return rows


def measured_rows(findings: Findings) -> list[PaperRow]:
    """The same ratios as timed here.

    Where zeroskip's fastest kernel was a dense one, the column says so: that ratio says nothing about sparsity.

    >>> measured_rows({"table8": {"AlexNet fc6": {"1": [0.004, 0.001]}}})[0].holds
    True
    """
    rows, timed = [], fc_layer_times(findings)
    for machine, batch in published.TABLE8:
        table = Table(published.NAME, "Table 8", published.FC_LAYERS, TIMING if machine == CPU else CARD)
        for layer, ratio in zip(published.TABLE8_LAYERS, _ratios(machine, batch), strict=True):
            times = timed.get(layer, FcLayerTimes()) if machine == CPU else FcLayerTimes()
            pair, kernel = times.seconds.get(batch), times.kernels.get(batch)
            ours = None if pair is None else pair[0] / pair[1]
            remark = " (a dense kernel ran)" if kernel == "dense" else ""
            column = f"{machine}, batch {batch}: dense / sparse time, measured{remark}"
            rows.append(table.judge(layer, column, figure(f"{ratio:.2f}", "x", RECOMPUTED), ours, AT_LEAST))
    pairs = [timed.get(layer, FcLayerTimes()).seconds.get(1) for layer in published.TABLE8_LAYERS]
    ratios = [pair[0] / pair[1] for pair in pairs if pair is not None]
    mean = _mean(ratios) if len(ratios) == len(pairs) else None
    table = Table(published.NAME, "Table 8", published.FC_LAYERS, TIMING)
    column, text = f"{CPU}, batch 1: times faster, measured", figure(published.TABLE8_TEXT[CPU], "x")
    return [*rows, table.judge("geometric mean", column, text, mean, AT_LEAST)]


def _ratios(machine: str, batch: int) -> list[float]:
    dense, sparse = published.TABLE8[machine, batch]
    return [before / after for before, after in zip(dense, sparse, strict=True)]


def _mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))
