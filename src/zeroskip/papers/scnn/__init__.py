"""Parashar et al.: SCNN: An Accelerator for Compressed-sparse Convolutional Neural Networks, ISCA 2017."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.paper import Paper
from zeroskip.papers.scnn.published import NAME, TITLE


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.scnn import rows

    return rows.analytic()


def _unmeasurable() -> list[PaperRow]:
    from zeroskip.papers.scnn import rows

    return rows.unmeasurable()


PAPER = Paper(
    name=NAME, title=TITLE, networks=("alexnet", "vgg16"), analytic=_analytic, unmeasurable=_unmeasurable
)
