"""Reagen et al.: Minerva: Enabling Low-Power, Highly-Accurate Deep Neural Network Accelerators, ISCA 2016."""

from __future__ import annotations

from functools import partial

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.minerva.published import MEAN, NAME, TABLE1, TITLE


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.minerva import rows

    return rows.analytic()


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.minerva import rows

    return rows.measured_rows(network, findings)


def _unmeasurable() -> list[PaperRow]:
    from zeroskip.papers.minerva import rows

    return rows.unmeasurable()


def _measure(network: str, setup: Setup) -> Findings:
    from zeroskip.papers.minerva import train

    return train.measure_mean(setup) if network == MEAN else train.measure_network(network, setup)


PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(*TABLE1, MEAN),
    analytic=_analytic,
    measured_rows=_measured_rows,
    unmeasurable=_unmeasurable,
    measure={network: partial(_measure, network) for network in (*TABLE1, MEAN)},
)
