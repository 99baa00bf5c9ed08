"""A task of tiny images that trains in milliseconds: two convolutions, the first of one channel, and a linear layer."""

from __future__ import annotations

from tiny import VALIDATION, Tiny
from torch import Tensor, nn


class TinyImages(Tiny):
    """The points of `Tiny` as images of 2 x 4 pixels."""

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 2, 4)),
            nn.Conv2d(1, 10, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(10, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 3),
        )

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return [(VALIDATION.inputs, VALIDATION.targets)]


_TASK = TinyImages("tiny-images")
model, train, evaluate = _TASK.model, _TASK.train, _TASK.evaluate
batch, batches, split_sizes = _TASK.batch, _TASK.batches, _TASK.split_sizes
loss, learning_rate = _TASK.loss, _TASK.learning_rate
