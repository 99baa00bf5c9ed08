"""Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015."""

from __future__ import annotations

from functools import partial

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.network_names import TITLES, TRAINED_BY_DEFAULT, WITH_TRAINING
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.han2015.published import NAME, TITLE


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.han2015 import rows

    return rows.analytic()


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.han2015 import rows

    return rows.measured_rows(network, findings)


def _unmeasurable() -> list[PaperRow]:
    from zeroskip.papers.han2015 import rows

    return rows.unmeasurable()


def _measure(network: str, setup: Setup) -> Findings:
    from zeroskip.papers.han2015 import train

    return train.measure_network(network, setup)


PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=tuple(TITLES),
    on_request=("digits", "digits-conv"),
    analytic=_analytic,
    measured_rows=_measured_rows,
    unmeasurable=_unmeasurable,
    measure={network: partial(_measure, network) for network in WITH_TRAINING},
    default=TRAINED_BY_DEFAULT,
)
