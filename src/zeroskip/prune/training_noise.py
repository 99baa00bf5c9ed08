"""The spread of a network's error over trainings with other seeds: a rise within it is no loss by pruning."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from torch import nn

from zeroskip import task_api
from zeroskip.concepts import Progress, silent
from zeroskip.errors import RecipeError


@dataclass(frozen=True)
class Noise:
    """Trainings that differ in their random seed alone: their validation errors and the networks.

    >>> Noise((0.01, 0.03, 0.02), ("a", "b", "c")).middle
    'c'
    """

    errors: tuple[float, ...]
    models: tuple[nn.Module, ...]

    @property
    def mean(self) -> float:
        """The mean error."""
        return statistics.fmean(self.errors)

    @property
    def sigma(self) -> float:
        """Its standard deviation from training to training, of a sample: with n - 1."""
        return statistics.stdev(self.errors)

    @property
    def middle(self) -> nn.Module:
        """The network whose error is the median, of an even number the lower one: the one to go on with."""
        return self.models[self.errors.index(statistics.median_low(self.errors))]

    @property
    def rise(self) -> float:
        """By how much the error of `middle` may rise to be mean + sigma. A median is never further than that."""
        return self.mean + self.sigma - statistics.median_low(self.errors)


def noise(task: task_api.Task, *, seeds: int = 5, first: int = 0, progress: Progress = silent) -> Noise:
    """Train the task's network `seeds` times from random starts, as Minerva (Reagen et al. 2016) bounds its errors.

    Training number n has the seed first + n. Raises RecipeError for fewer than two.

    >>> measured = noise(task, seeds=2)
    >>> len(measured.errors), len(measured.models)
    (2, 2)
    """
    if seeds < 2:
        raise RecipeError(f"{seeds} trainings have no standard deviation. Give 2 seeds or more.")
    models = []
    for seed in range(seeds):
        progress("training for the noise", seed, seeds)
        task_api.seed_all(first + seed)
        models.append(task_api.model(task))
        task_api.train(task, models[-1])
        task_api.check_finite(models[-1].eval())
    progress("training for the noise", seeds, seeds)
    return Noise(tuple(task_api.evaluate(task, model, "validation") for model in models), tuple(models))
