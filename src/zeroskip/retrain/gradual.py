"""Prune while training: the sparsity grows along a cubic schedule, and the masks follow the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zeroskip import prune
from zeroskip.concepts import Round
from zeroskip.errors import RecipeError
from zeroskip.patterns import parse
from zeroskip.task_api import OnStep

EVERY = 50
"""Steps between two looks at the masks (Zhu and Gupta 2017 find 100 to 1000 equally good; MNIST runs are short)."""


def growing(model: nn.Module, round_: Round) -> OnStep:
    """The `on_step` that prunes a masked `model` during the first `round_.gradual` of a training.

    At step s of n the sparsity is that of the round x (1 - (1 - s / (gradual x n))^3) (Zhu and Gupta 2017,
    equation 1). What is pruned never returns: its score is zero. A training that continues after a stop takes
    its masks from the weights that are zero.

    >>> masked = prune.hold_(dense, prune.choose(dense, Round(sparsity={})))
    >>> task.train(masked, on_step=growing(masked, Round(sparsity=0.75, gradual=0.7)))
    >>> sum(int(weight.count_nonzero()) for weight in prune.weights(masked).values())  # of 80
    20
    """
    restored, own = False, Moments(model)

    def on_step(step: int, steps: int, optimizer: Optimizer) -> None:
        nonlocal restored
        if not restored:
            prune.update_(model, {name: weight != 0 for name, weight in prune.weights(model).items()})
            restored = True
        own.update_(optimizer)
        last = max(1, min(int(round_.gradual * steps), steps - 1))
        # Before the first update there are no moments.
        if 0 < step <= last and (step == last or step % EVERY == 0):
            grown = 1 - (1 - step / last) ** 3
            prune.update_(model, prune.choose(model, _scaled(round_, grown), own.of(optimizer)))

    return on_step


def check_gradual(round_: Round) -> None:
    """RecipeError where the round's sparsity cannot grow from nothing to its value."""
    if not 0 <= round_.gradual <= 1:
        raise RecipeError(f"gradual {round_.gradual} is no share of a training. Give a number from 0 to 1.")
    if round_.gradual and round_.frozen and round_.score == "saliency":
        frozen = round_.frozen[0]
        raise RecipeError(f'"{frozen}" is frozen and has no gradients for "saliency". Use "magnitude".')
    patterns = [round_.pattern] if isinstance(round_.pattern, str) else list(round_.pattern.values())
    fixed = [text for text in patterns if parse(text).fixed_sparsity is not None]
    if round_.gradual and (fixed or round_.quality is not None):
        what = f'the pattern "{fixed[0]}"' if fixed else "a quality"
        raise RecipeError(f"{what} has no sparsity that could grow. Prune at once, with gradual=0.")


class Moments:
    """Mean squares of the gradients of each layer's weight: the optimizer's where it keeps them, as Adam does, or
    else ours, with Adam's rate. Ours start again after a stop. A bias in the first steps is the same for all."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = prune.parameters(model)
        self.own: dict[str, Tensor] = {}

    def update_(self, optimizer: Optimizer) -> None:
        """Take in the gradients of one step."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and "exp_avg_sq" not in optimizer.state.get(parameter, {}):
                square = parameter.grad.detach().square()
                self.own[name] = torch.lerp(self.own.get(name, torch.zeros_like(square)), square, 1e-3)

    def of(self, optimizer: Optimizer) -> dict[str, Tensor]:
        """Layer name -> a tensor like its weight; without layers that have had no gradient."""
        kept = {name: optimizer.state.get(p, {}).get("exp_avg_sq") for name, p in self.parameters.items()}
        return self.own | {name: moment for name, moment in kept.items() if moment is not None}


def _scaled(round_: Round, grown: float) -> Round:
    if isinstance(round_.sparsity, Mapping):
        return replace(round_, sparsity={name: share * grown for name, share in round_.sparsity.items()})
    return replace(round_, sparsity=(round_.sparsity or 0.0) * grown)
