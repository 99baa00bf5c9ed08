"""Prune while training: the sparsity grows along a cubic schedule, and the masks follow the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zeroskip import graph, prune
from zeroskip.concepts import Masks, Round
from zeroskip.errors import RecipeError
from zeroskip.patterns import parse

EVERY = 50
"""Steps between two looks at the masks (Zhu and Gupta 2017 find 100 to 1000 equally good; MNIST runs are short)."""


class Growing:
    """The `on_step` that prunes a masked `model` during the first `round_.gradual` of a training.

    At step s of n the sparsity is that of the round x (1 - (1 - s / (gradual x n))^3) (Zhu and Gupta 2017,
    equation 1). What is pruned never returns: its score is zero. A training that continues after a stop takes
    its masks from the weights that are zero. Weights without the gradients that the score needs stay as they are.

    >>> masked = prune.hold_(dense, prune.choose(dense, Round(sparsity={})))
    >>> task.train(masked, on_step=Growing(masked, Round(sparsity=0.75, gradual=0.7)))
    >>> sum(int(weight.count_nonzero()) for weight in prune.weights(masked).values())  # of 80
    20
    """

    def __init__(self, model: nn.Module, round_: Round, *, also: Collection[str] = ()) -> None:
        self.model, self.round_, self.also = model, round_, also
        self.own = Moments(model)
        self.moments: dict[str, Tensor] | None = None
        self.calls = self.steps = self.last = 0

    def __call__(self, step: int, steps: int, optimizer: Optimizer) -> None:
        """Prune as far as this step of the schedule asks."""
        if not self.calls:
            held = prune.masked(self.model).items()
            prune.update_(self.model, {name: weight.tensor.detach() != 0 for name, weight in held})
        self.calls, self.steps = self.calls + 1, steps
        self.last = max(1, min(int(self.round_.gradual * steps), steps - 1))
        self.own.update_(optimizer)
        if step > self.last and self.moments is None:  # it continues after the schedule
            self.moments = self.own.of(optimizer)
        # Before the first update there are no moments.
        if 0 < step <= self.last and (step == self.last or step % EVERY == 0):
            self.moments = self.own.of(optimizer)
            if self.left_dense and len(self.left_dense) == len(self._asked()):
                raise RecipeError(
                    f'no weight had a gradient, which the score "{self.round_.score}" needs. Let train() call on_step '
                    f'after backward, or give the round score="magnitude".'
                )
            grown = _scaled(self.round_, 1 - (1 - step / self.last) ** 3)
            prune.update_(self.model, prune.choose(self.model, grown, self.moments, also=self.also))

    def wanted(self) -> Masks:
        """The masks of the whole round for the weights as they are."""
        moments = self.moments or dict.fromkeys(_learning(self.model), torch.ones(()))
        return prune.choose(self.model, self.round_, moments, also=self.also)

    @property
    def left_dense(self) -> dict[str, str]:
        """Weights of the round -> why the score left them alone."""
        if self.round_.score not in prune.scores.OF_GRADIENTS or self.moments is None:
            return {}
        reasons = {True: "it is in no path to the loss", False: "it is frozen"}
        learning = _learning(self.model)
        return {name: reasons[name in learning] for name in self._asked() if name not in self.moments}

    def _asked(self) -> list[str]:
        shares = self.round_.sparsity
        return list(shares) if isinstance(shares, Mapping) else list(prune.parameters(self.model))

    @property
    def progress(self) -> str:
        """How far the schedule came, for an error."""
        if not self.calls:
            return "did not call on_step(step, steps, optimizer)"
        return f"called on_step for {self.calls} of {self.steps} steps, and the schedule ends at step {self.last}"


def check_gradual(round_: Round, model: nn.Module) -> None:
    """RecipeError where the round's sparsity cannot grow from nothing to its value."""
    if not 0 <= round_.gradual <= 1:
        raise RecipeError(f"gradual {round_.gradual} is no share of a training. Give a number from 0 to 1.")
    if round_.gradual and round_.score in prune.scores.OF_GRADIENTS:
        _check_learning(round_, model)
    patterns = [round_.pattern] if isinstance(round_.pattern, str) else list(round_.pattern.values())
    fixed = [text for text in patterns if parse(text).fixed_sparsity]  # of 0 there is nothing to grow
    if round_.gradual and (fixed or round_.quality is not None):
        what = f'the pattern "{fixed[0]}"' if fixed else "a quality"
        raise RecipeError(f"{what} has no sparsity that could grow. Prune at once, with gradual=0.")


def _check_learning(round_: Round, model: nn.Module) -> None:
    """RecipeError where the round names a weight for a score of gradients that will have none."""
    learning, asked = _learning(model), round_.sparsity if isinstance(round_.sparsity, Mapping) else {}
    frozen = [name for name in round_.frozen if name in asked or not asked]
    frozen += [name for name in asked if name not in learning and name in graph.weights(model)]
    if frozen:
        raise RecipeError(
            f'"{frozen[0]}" is frozen and has no gradients for "{round_.score}". Use "magnitude", leave it out of the '
            f"round's sparsity, or let it learn."
        )


def _learning(model: nn.Module) -> list[str]:
    return [name for name, weight in graph.weights(model).items() if weight.parameter.requires_grad]


class Moments:
    """Mean squares of the gradients of each weight: the optimizer's where it keeps them, as Adam does, or
    else ours, with Adam's rate. Ours start again after a stop. A bias in the first steps is the same for all."""

    def __init__(self, model: nn.Module) -> None:
        every = graph.weights(model).items()
        self.parameters = {name: weight.parameter for name, weight in every if not weight.computed}
        self.own: dict[str, Tensor] = {}

    def update_(self, optimizer: Optimizer) -> None:
        """Take in the gradients of one step."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and "exp_avg_sq" not in optimizer.state.get(parameter, {}):
                square = parameter.grad.detach().square()
                self.own[name] = torch.lerp(self.own.get(name, torch.zeros_like(square)), square, 1e-3)

    def of(self, optimizer: Optimizer) -> dict[str, Tensor]:
        """Name -> a tensor like the weight; without weights that have had no gradient."""
        kept = {name: optimizer.state.get(p, {}).get("exp_avg_sq") for name, p in self.parameters.items()}
        return self.own | {name: moment for name, moment in kept.items() if moment is not None}


def _scaled(round_: Round, grown: float) -> Round:
    if isinstance(round_.sparsity, Mapping):
        return replace(round_, sparsity={name: share * grown for name, share in round_.sparsity.items()})
    return replace(round_, sparsity=(round_.sparsity or 0.0) * grown)
