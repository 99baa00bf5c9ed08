"""Shi, Chu: speeding up convolution by the zeros that rectifiers leave, 2017."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.shi2017.published import NAME, NETWORK, TITLE


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.shi2017 import rows

    return rows.measured_rows(network, findings)


def _measure(setup: Setup) -> Findings:
    from zeroskip.papers.shi2017 import measure

    return measure.measure_layers(setup)


# Without a clock there is nothing to say, so no row is analytic.
PAPER = Paper(
    name=NAME, title=TITLE, networks=(NETWORK,), measured_rows=_measured_rows, measure={NETWORK: _measure}
)
