"""How the networks are trained. Everything here was chosen on the validation split, before any test error was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip import prune, task_api, tasks
from zeroskip.concepts import Recipe, Round
from zeroskip.models import VGG16, AlexNetCaffe, LeNet5, LeNet300100


def _widths(network: Callable[[], nn.Module]) -> dict[str, int]:
    """8 bits for convolutions and 5 for linear layers, as in Deep Compression, tables 4 and 5."""
    with torch.device("meta"):
        return {name: 8 if weight.ndim == 4 else 5 for name, weight in prune.weights(network()).items()}


FIGURES = (
    *("figure4", "figure5", "figure6", "figure7", "dead_neurons", "dropout"),  # Han et al. 2015
    *("sizes", "fewest_bits", "starts"),  # Deep Compression, figures 6 to 8
)


@dataclass(frozen=True)
class FrontierPlan:
    """How zeroskip's own recipe is tried: dense and pruned networks are trained alike.

    points      times fewer weights -> bits of the shared values
    retraining  keywords of the training that prunes, and of the same length of training for the dense network
    changes     what is different in the task
    """

    points: Mapping[int, int]
    retraining: Mapping[str, object]
    changes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained on one network: the method of the papers, and zeroskip's own.

    published   times fewer weights in the papers, and
    bits        width of the shared values there, by layer
    rounds      epochs of each round of the iterative method (twice that), and of each point of a curve; without
                these three a network is only trained
    divisor     of the learning rate while retraining
    alternate   convolutions are frozen while the linear layers retrain, and the other way round
    figures     those that are made; the five trade-off curves need networks trained with other penalties
    curve       shares of the weights kept, for trade-off curves
    dropout     makes the network with dropout, for the rule about it
    frontiers   of zeroskip's own recipe, by what the training images go through (`IMAGES` in frontier_rows.py)
    weights     a trained network to start from, instead of training one
    """

    task: Any
    published: float = 1.0
    bits: Mapping[str, int] = field(default_factory=dict)
    rounds: int = 0
    divisor: float = 10
    alternate: bool = False
    figures: tuple[str, ...] = FIGURES
    curve: tuple[float, ...] = ()
    dropout: Callable[[], nn.Module] | None = None
    frontiers: Mapping[str, FrontierPlan] = field(default_factory=dict)
    weights: Mapping[str, Tensor] | None = None


def _imagenet(task: task_api.Task, published: float, network: Callable[[], nn.Module]) -> TrainingPlan:
    """ImageNet is the user's own; a round is 173 hours on the paper's card, so only what the tables need is made."""
    bits, figures = _widths(network), ("figure6", "figure7", "dead_neurons")
    return TrainingPlan(task, published, bits, rounds=5, divisor=100, alternate=True, figures=figures)


_MLP: dict[str, object] = {"epochs": 100, "batch_size": 256, "learning_rate": 3e-3, "weight_decay": 0.03}
_CONV: dict[str, object] = {"epochs": 25, "batch_size": 64, "learning_rate": 3e-3, "weight_decay": 0.03}
_PLAIN: dict[str, object] = {"input_noise": 0.0, "label_smoothing": 0.0}
_MOVED: dict[str, object] = {"shift": 1}
PLANS = {
    "lenet-300-100": TrainingPlan(
        task=tasks.mnist,
        published=12.0,
        bits={"fc1": 6, "fc2": 6, "fc3": 6},
        rounds=6,
        curve=(1 / 2, 1 / 3, 1 / 5, 1 / 8, 1 / 12, 1 / 20, 1 / 30),
        dropout=partial(LeNet300100, dropout=0.5),
        frontiers={
            "frontier": FrontierPlan({30: 4, 60: 4}, _MLP),
            "frontier_plain": FrontierPlan(
                {30: 6, 60: 4}, {**_MLP, "epochs": 40, "weight_decay": 0.1}, _PLAIN
            ),
            "frontier_shifts": FrontierPlan({60: 4}, _MLP, _MOVED),
        },
    ),
    "lenet-5": TrainingPlan(
        task=tasks.mnist_conv,
        published=12.0,
        bits={"conv1": 8, "conv2": 8, "fc1": 5, "fc2": 5},
        rounds=2,
        curve=(1 / 3, 1 / 8, 1 / 12, 1 / 20, 1 / 40),
        dropout=partial(LeNet5, dropout=0.5),
        frontiers={
            "frontier": FrontierPlan({40: 4, 150: 4}, _CONV),
            "frontier_plain": FrontierPlan(
                {40: 5}, {**_CONV, "epochs": 15, "learning_rate": 2e-3, "weight_decay": 0.1}, _PLAIN
            ),
        },
    ),
    "digits": TrainingPlan(
        task=tasks.digits,
        published=6.0,
        bits={"fc1": 6, "fc2": 6, "fc3": 6},
        rounds=5,
        curve=(1 / 2, 1 / 4, 1 / 8),
        dropout=partial(LeNet300100, 64, dropout=0.5),
        frontiers={"frontier": FrontierPlan({8: 5}, {"epochs": 30, "weight_decay": 0.03})},
    ),
    "alexnet": _imagenet(tasks.alexnet_caffe, 9.0, AlexNetCaffe),
    "vgg16": _imagenet(tasks.vgg16, 13.0, VGG16),
}

# Sigma and the network in the middle come of trainings alone.
MINERVA = {task.name: TrainingPlan(task) for task in tasks.MINERVA}


def gradual(frontier: FrontierPlan, times_fewer: float) -> Recipe:
    """One training that prunes by saliency until 1 weight in `times_fewer` is left; 1 prunes nothing.

    >>> gradual(PLANS["lenet-5"].frontiers["frontier"], 40).rounds[0].sparsity
    0.975
    """
    if times_fewer == 1:
        return Recipe((Round(sparsity=0.0, train=frontier.retraining),))
    return prune.while_training(1 - 1 / times_fewer, train=frontier.retraining)
