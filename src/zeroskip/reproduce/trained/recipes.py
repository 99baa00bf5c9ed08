"""How the networks are trained. Everything here was chosen on the validation split, before any test error was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from zeroskip import tasks
from zeroskip.concepts import Recipe, Round
from zeroskip.models import LeNet5, LeNet300100
from zeroskip.tasks import Classification


@dataclass(frozen=True)
class Plan:
    """What is trained on one network.

    retraining  keywords of the training that prunes, and of the same length of training for the dense network
    frontier    times fewer weights -> bits of its shared values
    published   times fewer weights in the papers, and the bits of their shared values by layer
    rounds      epochs of each round of the iterative method, and of each point of a trade-off curve
    curve       shares of the weights kept, for trade-off curves
    dropout     makes the network with dropout, for the rule about it
    shifted     the frontier of the network trained on images that move by one pixel; a table of its own
    """

    task: Classification
    retraining: Mapping[str, Any]
    frontier: Mapping[int, int]
    published: float
    bits: Mapping[str, int]
    rounds: int
    curve: tuple[float, ...]
    dropout: Callable[[], nn.Module]
    shifted: Mapping[int, int]

    def augmented(self) -> Plan:
        """The same with moved images: the dense network is trained alike."""
        task = replace(self.task, name=f"{self.task.name}-shifts", shift=1)
        return replace(self, task=task, frontier=self.shifted)


RECIPES = {
    "lenet-300-100": Plan(
        task=tasks.mnist,
        retraining={"epochs": 100, "batch_size": 256, "learning_rate": 3e-3, "weight_decay": 0.03},
        frontier={30: 4, 60: 4},
        published=12.0,
        bits={"fc1": 6, "fc2": 6, "fc3": 6},
        rounds=6,
        curve=(1 / 2, 1 / 3, 1 / 5, 1 / 8, 1 / 12, 1 / 20, 1 / 30),
        dropout=partial(LeNet300100, dropout=0.5),
        shifted={60: 4},
    ),
    "lenet-5": Plan(
        task=tasks.mnist_conv,
        retraining={"epochs": 15, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 0.03},
        frontier={40: 4, 150: 4},
        published=12.0,
        bits={"conv1": 8, "conv2": 8, "fc1": 5, "fc2": 5},
        rounds=2,
        curve=(1 / 3, 1 / 8, 1 / 12, 1 / 20, 1 / 40),
        dropout=partial(LeNet5, dropout=0.5),
        shifted={150: 4},
    ),
    "digits": Plan(
        task=tasks.digits,
        retraining={"epochs": 30, "weight_decay": 0.03},
        frontier={8: 5},
        published=6.0,
        bits={"fc1": 6, "fc2": 6, "fc3": 6},
        rounds=5,
        curve=(1 / 2, 1 / 4, 1 / 8),
        dropout=partial(LeNet300100, 64, dropout=0.5),
        shifted={},
    ),
}


def gradual(plan: Plan, times_fewer: float) -> Recipe:
    """One training that prunes by saliency until 1 weight in `times_fewer` is left; 1 prunes nothing.

    >>> gradual(RECIPES["lenet-5"], 40).rounds[0].sparsity
    0.975
    """
    if times_fewer == 1:
        return Recipe((Round(sparsity=0.0, train=plan.retraining),))
    sparsity = 1 - 1 / times_fewer
    return Recipe((Round(sparsity=sparsity, score="saliency", gradual=0.7, train=plan.retraining),))
