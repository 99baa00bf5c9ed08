"""A built-in task: one network on one data set, with the training that suits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from zeroskip.data import Splits
from zeroskip.task_api import Loss
from zeroskip.tasks import training


@dataclass(frozen=True)
class Classification:
    """Model + data + train + evaluate: what a user's own task file provides as four functions.

    network        makes a fresh, untrained model
    splits         loads the data when first needed
    learning_rate  peak of the cosine of the first training; retraining divides it
    input_noise    standard deviation of the Gaussian noise on training inputs
    input_dropout  share of the values of a training input that become 0
    shift          training images move by up to this many pixels;  mirror  half of them are turned left to right
    l1, l2         of the weights, added to the loss as in `training.regularized`
    precision      of the training's products, as in `training.TrainingRecipe`; evaluation is always float32
    """

    name: str
    network: Callable[[], nn.Module]
    splits: Callable[[], Splits]
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float = 0.0
    input_noise: float = 0.0
    input_dropout: float = 0.0
    shift: int = 0
    mirror: bool = False
    l1: float = 0.0
    l2: float = 0.0
    precision: training.TrainingPrecision = "32-true"

    def model(self) -> nn.Module:
        """A fresh, untrained network; its initial weights follow torch's seed."""
        return self.network()

    def train(self, model: nn.Module, **changes: Any) -> None:
        """Train in place by the task's own `training.TrainingRecipe`, changed: epochs=5; and with hooks of `fit`.

        >>> steps = []
        >>> from zeroskip.tasks import digits
        >>> digits.train(digits.model(), epochs=1, on_step=lambda step, count, optimizer: steps.append(step))
        >>> len(steps)  # 1,077 examples in batches of 32
        34
        """
        own = training.TrainingRecipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            loss=self.loss,
            weight_decay=self.weight_decay,
            precision=self.precision,
        )
        data = training.in_memory(self.splits().train, self._augmented)
        training.fit_changed(model, data, own, changes)

    def _augmented(self, inputs: Tensor) -> Tensor:
        return training.jittered(
            inputs, noise=self.input_noise, drop=self.input_dropout, shift=self.shift, mirror=self.mirror
        )

    @property
    def loss(self) -> Loss:
        """What `train` minimises: (model, inputs, targets) -> a number."""
        loss = training.cross_entropy(label_smoothing=self.label_smoothing)
        return training.regularized(loss, l1=self.l1, l2=self.l2)

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        """Share of wrong answers on "validation" (for decisions) or "test" (once, at the end)."""
        return training.classification_error(model, getattr(self.splits(), split))

    def batch(self) -> Tensor:
        """64 examples of the validation split, for tracing and timing."""
        return self.splits().validation.inputs[:64]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation split as (inputs, targets), for statistics over a data set."""
        return training.batches(self.splits().validation)

    def split_sizes(self) -> dict[str, int]:
        """Examples in each split."""
        return self.splits().counts
