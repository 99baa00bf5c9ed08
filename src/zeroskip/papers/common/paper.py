"""What a paper brings: its name and networks, its rows, and how its findings are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from zeroskip.concepts import PaperRow, Progress, silent

Findings = Mapping[str, object]
"""What was found on one network, a JSON object; findings.py of each paper says what is in it, and reads it."""


@dataclass(frozen=True)
class Setup:
    """How a network is measured.

    folder   where trainings are kept, and continued
    weights  state dict of a trained network to start from, instead of training one

    >>> Setup(Path("runs/han"), seeds=1).weights is None
    True
    """

    folder: Path
    seeds: int
    progress: Progress = silent
    weights: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Paper:
    """One paper. Its functions import what they need when they are called, so that the others cost nothing.

    networks       those whose measured rows are listed always
    on_request     those that have measured rows too, listed when asked for
    analytic       rows that need neither training nor timing
    measured_rows  rows of a network from its findings; without findings they wait, with the reason
    unmeasurable   rows that are listed and never measured
    measure        network -> how to train or time it
    default        networks that are measured unless others are named; empty: all of `measure`

    >>> Paper(name="lecun1989", title="Optimal Brain Damage", networks=("lenet-5",)).analytic()
    []
    """

    name: str
    title: str
    networks: tuple[str, ...]
    on_request: tuple[str, ...] = ()
    analytic: Callable[[], list[PaperRow]] = list
    measured_rows: Callable[[str, Findings], list[PaperRow]] = lambda network, findings: []
    unmeasurable: Callable[[], list[PaperRow]] = list
    measure: Mapping[str, Callable[[Setup], Findings]] = field(default_factory=dict)
    default: tuple[str, ...] = ()
