"""Zhou et al.: Cambricon-S: Addressing Irregularity in Sparse Neural Networks, MICRO 2018."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.cambricon_s.published import NAME, TITLE
from zeroskip.papers.common.paper import Paper


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.cambricon_s import rows

    return rows.analytic()


def _unmeasurable() -> list[PaperRow]:
    from zeroskip.papers.cambricon_s import rows

    return rows.unmeasurable()


PAPER = Paper(name=NAME, title=TITLE, networks=("alexnet",), analytic=_analytic, unmeasurable=_unmeasurable)
