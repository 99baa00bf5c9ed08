"""Gondimalla et al.: SparTen: A Sparse Tensor Accelerator for Convolutional Neural Networks, MICRO 2019."""

from __future__ import annotations

from functools import partial

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.sparten.published import NAME, REAL, TITLE


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.sparten import rows

    return rows.analytic()


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.sparten import rows

    return rows.measured_rows(network, findings)


def _measure(network: str, setup: Setup) -> Findings:
    from zeroskip.papers.sparten import measure

    return measure.measure_network(network, setup)


PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=("alexnet", "vgg16", *REAL),
    analytic=_analytic,
    measured_rows=_measured_rows,
    measure={network: partial(_measure, network) for network in REAL},
)
