"""Han et al.: EIE: Efficient Inference Engine on Compressed Deep Neural Network, ISCA 2016."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.eie.published import FC8, NAME, TITLE


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.eie import rows

    return rows.analytic()


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.eie import rows

    return rows.measured_rows(network, findings)


def _measure(setup: Setup) -> Findings:
    from zeroskip.papers.eie import measure

    return measure.measure_fc8()


PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(FC8, "alexnet", "vgg16"),
    analytic=_analytic,
    measured_rows=_measured_rows,
    measure={FC8: _measure},
)
