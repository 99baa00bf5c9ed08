"""What is measured for EIE."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fc8Findings:
    """AlexNet's fc8 at its authors' own places: cycles with queues of 8, entries of the columns that are worked on."""

    cycles: int
    entries: int
