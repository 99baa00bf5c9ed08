"""What a paper brings: its name and networks, its rows, and how its findings are measured; what networks are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroskip.concepts import PaperRow, Progress, silent

Findings = Mapping[str, object]
"""What was found on one network, a JSON object; the dataclasses of each paper say what is in it."""
TITLES = {"lenet-300-100": "LeNet-300-100", "lenet-5": "LeNet-5", "alexnet": "AlexNet", "vgg16": "VGG-16"}
"""The four networks of Han et al. 2015 and of Deep Compression."""

# Those that can be trained; the two first are unless others are named.
WITH_TRAINING = ("lenet-300-100", "lenet-5", "digits", "alexnet", "vgg16")
TRAINED_BY_DEFAULT = WITH_TRAINING[:2]
IMAGENET = "needs training on ImageNet"
TRAINING = "needs training (--out or --results)"


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
    """One paper. Its functions are imported when they are called (`later`), so that the others cost nothing.

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


def later(module: str, function: str) -> Callable[..., Any]:
    """A function of a module that is imported at its first call.

    >>> later("zeroskip.papers.minerva.rows", "sizes")("minerva-mnist")
    (334336, 334336)
    """

    return lambda *arguments: getattr(import_module(module), function)(*arguments)


def title(network: str) -> str:
    """What a table calls a network; its own word for those without published figures.

    >>> title("vgg16"), title("digits")
    ('VGG-16', 'digits')
    """
    return TITLES.get(network, network)


def missing(network: str) -> str:
    """Why a row of `network` that needs training has no figure.

    >>> missing("vgg16")
    'needs training on ImageNet'
    """
    return IMAGENET if network in ("alexnet", "vgg16") else TRAINING
