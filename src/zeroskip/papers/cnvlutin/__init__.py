"""Albericio et al.: Cnvlutin: Ineffectual-Neuron-Free Deep Neural Network Computing, ISCA 2016."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.cnvlutin.published import NAME, TITLE
from zeroskip.papers.common.paper import Paper


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.cnvlutin import rows

    return rows.analytic()


PAPER = Paper(name=NAME, title=TITLE, networks=("alexnet", "vgg16"), analytic=_analytic)
