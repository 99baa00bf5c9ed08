"""A task that trains in milliseconds, with and without the optional parts: what many tests run on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip import task_api
from zeroskip.data import Split
from zeroskip.tasks import training

torch.manual_seed(0)
TEACHER = torch.randn(8, 3)


def _split(seed: int, count: int) -> Split:
    inputs = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return Split(inputs, (inputs @ TEACHER).argmax(1))


TRAIN, VALIDATION, TEST = _split(1, 200), _split(2, 100), _split(3, 100)


@dataclass
class Tiny:
    """8 -> 16 -> 3 on points labelled by a random linear teacher; remembers with what it was trained."""

    name: str = "tiny"
    learning_rate: float = 0.01
    calls: list[dict[str, Any]] = field(default_factory=list)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def train(self, model: nn.Module, *, epochs: int = 4, **keywords: Any) -> None:
        self.calls.append({"epochs": epochs, **keywords})
        recipe = training.TrainingRecipe(epochs=epochs, batch_size=50, learning_rate=0.01, loss=self.loss)
        training.fit_changed(model, training.in_memory(TRAIN), recipe, keywords)

    @property
    def loss(self) -> task_api.Loss:
        return training.cross_entropy()

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        return training.classification_error(model, TEST if split == "test" else VALIDATION)

    def batch(self) -> Tensor:
        return VALIDATION.inputs[:4]

    def split_sizes(self) -> dict[str, int]:
        return {"train": 200, "validation": 100, "test": 100}


class Bare:
    """The four functions and nothing else."""

    def model(self) -> nn.Module:
        return Tiny().model()

    def train(self, model: nn.Module) -> None:
        Tiny().train(model)

    def evaluate(self, model: nn.Module) -> float:
        return Tiny().evaluate(model)

    def batch(self) -> Tensor:
        return Tiny().batch()
