"""Hegde et al.: ExTensor: An Accelerator for Sparse Tensor Algebra, MICRO 2019."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.extensor.published import NAME, NETWORK, TITLE


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.extensor import rows

    return rows.analytic()


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.extensor import rows

    return rows.measured_rows(network, findings)


def _unmeasurable() -> list[PaperRow]:
    from zeroskip.papers.extensor import rows

    return rows.unmeasurable()


def _measure(setup: Setup) -> Findings:
    from zeroskip.papers.extensor import measure

    return measure.measure_matrices()


PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=("alexnet", NETWORK),
    analytic=_analytic,
    measured_rows=_measured_rows,
    unmeasurable=_unmeasurable,
    measure={NETWORK: _measure},
)
