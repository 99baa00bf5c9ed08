"""Losses of a retraining: the task's own, penalties on weights and activations, and a teacher's answers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip import prune
from zeroskip.errors import ModelError, RecipeError
from zeroskip.graph.inputs import of
from zeroskip.retrain.activation_penalties import ReluOutputs, activation_hoyer, activation_l1
from zeroskip.task_api import Loss

ACTIVATIONS = {"activation_l1": activation_l1, "activation_hoyer": activation_hoyer}
PENALTY = dict.fromkeys(("l1", "l2", *ACTIVATIONS), (0.0, math.inf))
TEACHER = {"weight": (0.0, 1.0), "temperature": (0.1, 100.0)}


def penalized(loss: Loss, penalty: Mapping[str, float]) -> Loss:
    """`loss` + l1 x sum |w| + l2 / 2 x sum w^2 over the weights that are pruned unless named, the regularisers
    of Han et al. 2015, section 3.1, + activation_l1 and activation_hoyer times the functions of these names in
    `retrain.activation_penalties`, summed over what all ReLUs give. Raises RecipeError for other names.

    >>> targets = torch.tensor([0, 1, 2])
    >>> bool(penalized(task.loss, {"l1": 1e-2})(model, x, targets) > task.loss(model, x, targets))
    True
    """
    check(penalty, PENALTY, "penalty")
    loss = _with_activations(loss, {name: a for name, a in penalty.items() if name in ACTIVATIONS and a})

    def added(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        total = loss(model, inputs, targets)
        for weight in prune.weights(model, attached=True).values():
            total = total + penalty.get("l1", 0.0) * weight.abs().sum()
            total = total + penalty.get("l2", 0.0) / 2 * weight.square().sum()
        return total

    return added


def taught(loss: Loss, teacher: nn.Module, how: Mapping[str, float]) -> Loss:
    """(1 - weight) x `loss` + weight x t^2 x cross entropy with the teacher's answers, both softened by t.

    Distillation as in Hinton et al. 2015, equation 4, for networks that return class scores (batch, classes).
    how  {"weight": 0..1, "temperature": t}, by default 0.5 and 2

    >>> taught(task.loss, dense, {"weight": 0.5, "temperature": 2.0})(model, x, torch.tensor([0, 1, 2])).shape
    torch.Size([])
    """
    check(how, TEACHER, "teacher")
    share, temperature = how.get("weight", 0.5), how.get("temperature", 2.0)

    def added(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        batch = of(inputs)
        answers = model(*batch.args, **batch.kwargs)  # (batch, classes), used for both parts
        if not isinstance(answers, Tensor):
            raise ModelError(
                f"the network answers a {type(answers).__name__}, and a teacher needs class scores, one tensor. Leave "
                f"the teacher out of the round, or let forward return the scores."
            )
        teacher.to(batch.tensors[0].device)  # the task decides on the device, when it trains
        with torch.no_grad():
            wanted = (teacher(*batch.args, **batch.kwargs) / temperature).softmax(1)
        distance = F.cross_entropy(answers / temperature, wanted) * temperature**2
        return (1 - share) * loss(_Answered(answers), inputs, targets) + share * distance

    return added


def check(given: Mapping[str, float], known: Mapping[str, tuple[float, float]], what: str) -> None:
    """RecipeError unless the names in `given` are known and their values lie between the least and the most."""
    for name, value in given.items():
        low, high = known.get(name, (math.inf, -math.inf))
        if not low <= value <= high:
            rules = [f"{name} from {least:g} to {most:g}" for name, (least, most) in known.items()]
            raise RecipeError(f'the {what} "{name}": {value} is out of range. Use {" and ".join(rules)}.')


def _with_activations(loss: Loss, penalty: Mapping[str, float]) -> Loss:
    def added(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        with ReluOutputs() as seen:
            total = loss(model, inputs, targets)
        if not seen.outputs:
            raise ModelError(
                f"no ReLU ran, so {', '.join(penalty)} can make nothing sparse. Train a network with ReLUs, "
                f"or make it one: retrain.relufied."
            )
        for output in seen.outputs:
            total = total + sum(a * ACTIVATIONS[name](output) for name, a in penalty.items())
        return total

    return added if penalty else loss


class _Answered(nn.Module):
    """Stands for a network whose answers are known, so that a loss need not compute them again."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, *_: object, **named: object) -> Tensor:
        return self.answers
