"""What is measured for SparTen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BalancedLayer:
    """One layer: its filters, the share of weights left, and cycles by way to run it (`WAYS` in rows.py).

    spread  of the filters' shares, standard deviation / mean
    """

    filters: int
    kept: float
    spread: float
    cycles: Mapping[str, int]


@dataclass(frozen=True)
class SparTenFindings:
    """One pruned network: what it read, and how its weights became zero."""

    inputs: str
    pruned: str
    layers: Mapping[str, BalancedLayer]
