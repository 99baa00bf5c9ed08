"""A built-in task: one network on one data set, with the training that suits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from zeroskip.data import Splits
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
    precision      of the training's products, as in `training.fit`; evaluation is always float32
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
    precision: training.Precision = "32-true"

    def model(self) -> nn.Module:
        """A fresh, untrained network; its initial weights follow torch's seed."""
        return self.network()

    def train(self, model: nn.Module, **keywords: Any) -> None:
        """Train in place; `keywords` are those of `training.fit`, by default the task's own.

        >>> digits.train(model, epochs=5)
        """
        names = ("epochs", "batch_size", "learning_rate", "weight_decay", "loss", "precision")
        own: dict[str, Any] = {name: getattr(self, name) for name in names}
        own["augment"] = partial(
            training.jittered,
            noise=self.input_noise,
            drop=self.input_dropout,
            shift=self.shift,
            mirror=self.mirror,
        )
        training.fit(model, self.splits().train, **{**own, **keywords})

    @property
    def loss(self) -> training.Loss:
        """What `train` minimises: (model, inputs, targets) -> a number."""
        loss = training.cross_entropy(label_smoothing=self.label_smoothing)
        return training.regularized(loss, l1=self.l1, l2=self.l2)

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        """Share of wrong answers on "validation" (for decisions) or "test" (once, at the end).

        >>> digits.evaluate(model, "test")
        0.025
        """
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
