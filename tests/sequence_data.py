"""Short sequences with two classes, and the training that the tasks beside this file share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COUNTS = {"train": 120, "validation": 40, "test": 40}
Split = tuple[Any, Tensor]


def sequences(steps: int, features: int) -> dict[str, Split]:
    """Split -> ((n, steps, features), which of the first two features has the larger sum)."""
    x = torch.randn(sum(COUNTS.values()), steps, features, generator=torch.Generator().manual_seed(5))
    parts = x.split(list(COUNTS.values()))
    return {name: (part, (part[..., :2].sum(1).argmax(1))) for name, part in zip(COUNTS, parts, strict=True)}


def training(splits: dict[str, Split]) -> Callable[..., None]:
    """A train(model) of a few steps on one batch, with Adam."""

    def train(model: nn.Module, *, epochs: int = 15, on_step: Callable[..., None] | None = None) -> None:
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for step in range(epochs):
            optimizer.zero_grad()
            F.cross_entropy(outputs(model.train(), splits["train"][0]), splits["train"][1]).backward()
            if on_step is not None:
                on_step(step, epochs, optimizer)
            optimizer.step()
        model.eval()

    return train


def outputs(model: nn.Module, inputs: Any) -> Tensor:
    """What the model says of a tensor, a tuple or a dict of tensors."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def evaluating(splits: dict[str, Split]) -> Callable[..., float]:
    """An evaluate(model, split)."""

    def evaluate(model: nn.Module, split: str = "validation") -> float:
        with torch.no_grad():
            return (
                (outputs(model.eval(), splits[split][0]).argmax(1) != splits[split][1]).float().mean().item()
            )

    return evaluate
