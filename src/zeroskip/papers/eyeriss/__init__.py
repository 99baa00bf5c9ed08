"""Chen, Krishna, Emer, Sze: Eyeriss, JSSC 52(1), 2017: its code, its traffic to DRAM, its latencies."""

from __future__ import annotations

from functools import partial

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.eyeriss.published import CODEC_TABLES, MEASURED, NAME, TITLE

__all__ = ["CODEC_TABLES", "PAPER"]


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.eyeriss import chip_rows, rows

    return [*rows.analytic(), *chip_rows.analytic()]


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.eyeriss import rows

    return rows.measured_rows(network, findings)


def _measure(network: str, setup: Setup) -> Findings:
    from zeroskip.papers.eyeriss import measure

    return measure.measure_network(network, setup)


PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=tuple(MEASURED),
    analytic=_analytic,
    measured_rows=_measured_rows,
    measure={network: partial(_measure, network) for network in MEASURED},
    default=("lenet-5",),
)
