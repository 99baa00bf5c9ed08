"""One element of Eyeriss v2 on the real zeros of a pruned MobileNet: its cycles are those of a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings
from zeroskip.papers.common.rules import EQUAL, figure
from zeroskip.papers.common.tables import Table
from zeroskip.papers.eyeriss_v2 import published

DATA = "needs the zeros that the baseline counted (--out with --data, or --results)"
ARTIFACT = "comes with Sparseloop's artifact"


@dataclass(frozen=True)
class ElementFindings:
    """Layer -> cycles of one element."""

    cycles: Mapping[str, int] = field(default_factory=dict)


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """A row for each layer whose zeros are there.

    >>> measured_rows("mobilenet-element", {"cycles": {"L07": 1_702_140}})[0].holds
    True
    """
    table = Table(published.NAME, "Cycles of one element", network, DATA)
    cycles = read(ElementFindings, findings).cycles
    return [
        table.judge(layer, "cycles", figure(printed, "", ARTIFACT), cycles.get(layer), EQUAL)
        for layer, printed in published.CYCLES.items()
    ]
