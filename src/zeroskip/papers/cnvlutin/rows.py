"""Cnvlutin: how much faster than DaDianNao, from published shares of zeros at random places."""

from __future__ import annotations

import statistics

from zeroskip.concepts import PaperRow
from zeroskip.papers.cnvlutin import published
from zeroskip.papers.common.masked_layers import faster
from zeroskip.papers.common.paper import title
from zeroskip.papers.common.rules import figure, within
from zeroskip.papers.common.tables import Table
from zeroskip.papers.published_shares import READINGS, workloads
from zeroskip.simulate.chips import CNVLUTIN, DADIANNAO

TABLE = "Speed-up over DaDianNao"
NEAR = within(0.12, "0.12")
INPUTS = "the paper's own zeros are not published layer by layer; its mean is over six networks"


def analytic() -> list[PaperRow]:
    """AlexNet and VGG-16, and their mean, with both readings of their inputs."""
    rows: list[PaperRow] = []
    claim, rule = f"{published.LEAST} to {published.MOST}x, six networks", "within the paper's range"
    for reading in READINGS:
        speedups = {
            name: faster(workloads(name, reading), CNVLUTIN, DADIANNAO) for name in ("alexnet", "vgg16")
        }
        for name, speedup in speedups.items():
            verdict = f"{speedup:.2f}x", published.LEAST <= speedup <= published.MOST
            table = Table(published.NAME, TABLE, name)
            rows.append(table.fact(title(name), reading, claim, verdict, rule, INPUTS))
        mean, printed = statistics.fmean(speedups.values()), figure(published.MEAN, "x")
        rows.append(Table(published.NAME, TABLE).judge("mean", reading, printed, mean, NEAR, INPUTS))
    return rows
