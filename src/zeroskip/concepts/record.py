"""All that one run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zeroskip.concepts.engine import Choice, Timing
from zeroskip.concepts.network import Profile
from zeroskip.concepts.recipe import Point


@dataclass(frozen=True)
class Record:
    """All that one run of the journey leaves behind, as `runs.load` reads it and `report` shows it.

    dense_weights, sparse_weights  layer name -> weight, before pruning and at the end
    """

    folder: str
    summary: dict[str, Any]
    profile: Profile
    history: tuple[Point, ...]
    choices: tuple[Choice, ...]
    timings: tuple[Timing, ...]
    ledger: dict[str, dict[str, int]]
    dense_weights: dict[str, Tensor]
    sparse_weights: dict[str, Tensor]
