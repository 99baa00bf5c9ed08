"""What is measured for Eyeriss v2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ElementFindings:
    """Layer -> cycles of one element."""

    cycles: Mapping[str, int] = field(default_factory=dict)
