"""One element of Eyeriss v2 on the real zeros of a pruned MobileNet: its cycles against those of a baseline, exactly.

Findings of "mobilenet-element", a plain JSON object: {"cycles": layer -> cycles}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroskip.papers.common.row import EQUAL, Row, Table
from zeroskip.papers.eyeriss_v2 import published

PAPER = "eyeriss-v2"
ELEMENT = "mobilenet-element"
DATA = "needs the zeros that the baseline counted (--out with --data, or --results)"
ARTIFACT = "comes with Sparseloop's artifact"


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """A row for each layer whose zeros are there.

    >>> measured_rows("mobilenet-element", {"cycles": {"L07": 1_702_140}})[0].holds
    True
    """
    table, found = Table(PAPER, "Cycles of one element", network, DATA), findings.get("cycles", {})
    return [
        table.judge(layer, "cycles", told, found.get(layer), EQUAL, trust=ARTIFACT)
        for layer, told in published.CYCLES.items()
    ]
