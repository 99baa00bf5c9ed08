"""Chen, Yang, Emer, Sze: Eyeriss v2, JETCAS 2019: cycles of one element, as counted by Sparseloop's baseline."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.eyeriss_v2.published import ELEMENT, NAME, TITLE


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.eyeriss_v2 import rows

    return rows.measured_rows(network, findings)


def _measure(setup: Setup) -> Findings:
    from zeroskip.papers.eyeriss_v2 import measure

    return measure.measure_element()


# Its shares of zeros alone would not give its cycles, so no row is analytic.
PAPER = Paper(
    name=NAME, title=TITLE, networks=(ELEMENT,), measured_rows=_measured_rows, measure={ELEMENT: _measure}
)
