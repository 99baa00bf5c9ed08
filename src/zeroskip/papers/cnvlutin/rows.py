"""Cnvlutin: how much faster than DaDianNao, from published shares of zeros at random places."""

from __future__ import annotations

import statistics
from functools import cache

from zeroskip.papers.cnvlutin import published
from zeroskip.papers.common.masked_layers import READINGS, faster, network
from zeroskip.papers.common.network_sizes import title
from zeroskip.papers.common.row import Row, Table, within
from zeroskip.simulate.chips import CNVLUTIN, DADIANNAO

PAPER = "cnvlutin"
NEAR = within(0.12, "0.12")
INPUTS = "the paper's own zeros are not published layer by layer; its mean is over six networks"


def analytic() -> list[Row]:
    """AlexNet and VGG-16, and their mean, with both readings of their inputs.

    >>> [row.holds for row in analytic() if row.row == "mean"]
    [False, True]
    """
    return list(_rows())


@cache
def _rows() -> tuple[Row, ...]:
    rows: list[Row] = []
    claim = f"{published.LEAST} to {published.MOST}x, six networks"
    for reading in READINGS:
        found = {name: faster(network(name, reading), CNVLUTIN, DADIANNAO) for name in ("alexnet", "vgg16")}
        for name, ours in found.items():
            table = Table(PAPER, "Speed-up over DaDianNao", name)
            told = f"{ours:.2f}x", published.LEAST <= ours <= published.MOST
            rows.append(table.fact(title(name), reading, claim, told, "within the paper's range", INPUTS))
        table, mean = Table(PAPER, "Speed-up over DaDianNao"), statistics.fmean(found.values())
        rows.append(table.judge("mean", reading, published.MEAN, mean, NEAR, unit="x", reason=INPUTS))
    return tuple(rows)
