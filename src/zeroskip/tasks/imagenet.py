"""The networks of the papers on ImageNet, read from the user's folder while it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from zeroskip.concepts import TrainState
from zeroskip.data import imagenet
from zeroskip.data.imagenet import Pictures, Preprocess
from zeroskip.tasks import training

Rate = Callable[[int], float]
MOMENTUM = 0.9
EXAMPLES = 16  # in batch(): enough to see zeros at work, few enough to time VGG-16 on a small machine


def staircase(peak: float, steps: int) -> Rate:
    """Learning rate divided by ten after each quarter of the steps, as AlexNet and VGG were trained.

    >>> staircase(0.01, 100)(99)
    1e-05
    """
    return lambda step: peak * 0.1 ** (4 * step // steps)


def linear(peak: float, steps: int) -> Rate:
    """Learning rate that falls to 0 along a straight line, as SqueezeNet was trained.

    >>> linear(0.04, 100)(50)
    0.02
    """
    return lambda step: peak * (1 - step / steps)


@dataclass(frozen=True)
class ImageNet:
    """Model + pictures + train + evaluate, as `Classification` has it for data sets that fit into memory.

    learning_rate  the rate that the first training starts from; retraining divides it
    schedule       that rate and the number of steps -> step -> rate
    """

    name: str
    network: Callable[[], nn.Module]
    preprocess: Preprocess
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: Callable[[float, int], Rate] = staircase

    def model(self) -> nn.Module:
        """A fresh, untrained network; its initial weights follow torch's seed."""
        return self.network()

    def train(self, model: nn.Module, **keywords: Any) -> None:
        """Train in place; `keywords` are those of `fit`, by default the task's own.

        >>> alexnet.train(model, epochs=5)
        """
        names = ("epochs", "batch_size", "learning_rate", "weight_decay", "schedule", "loss")
        own: dict[str, Any] = {name: getattr(self, name) for name in names}
        fit(model, imagenet.load()["train"], self.preprocess, **{**own, **keywords})

    @property
    def loss(self) -> training.Loss:
        """What `train` minimises: (model, inputs, targets) -> a number."""
        return training.cross_entropy()

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        """Share of wrong first guesses on "validation" (for decisions) or "test" (once, at the end).

        >>> alexnet.evaluate(model, "test")
        0.435
        """
        return self.errors(model, split, tops=(1,))[0]

    def errors(
        self, model: nn.Module, split: str = "validation", *, tops: tuple[int, ...] = (1, 5)
    ) -> tuple[float, ...]:
        """Shares of pictures whose class is not among the best 1 and the best 5 guesses.

        >>> squeezenet.errors(model)
        (0.35, 0.16)
        """
        return top_errors(model, imagenet.batches(imagenet.load()[split], self.preprocess), tops=tops)

    def batch(self) -> Tensor:
        """A few pictures, spread over the validation split, for tracing and timing."""
        pictures = imagenet.load()["validation"]
        spread = pictures.take(torch.arange(0, len(pictures), max(1, len(pictures) // EXAMPLES))[:EXAMPLES])
        return next(imagenet.batches(spread, self.preprocess))[0]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation split as (inputs, targets), for statistics over a data set."""
        return imagenet.batches(imagenet.load()["validation"], self.preprocess)

    def split_sizes(self) -> dict[str, int]:
        """Pictures in each split."""
        return {name: len(pictures) for name, pictures in imagenet.load().items()}


def fit(
    model: nn.Module,
    pictures: Pictures,
    preprocess: Preprocess,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: Rate | float,
    schedule: Callable[[float, int], Rate] = staircase,
    weight_decay: float = 0.0,
    loss: training.Loss,
    on_step: Callable[[int, int, Optimizer], None] | None = None,
    resume: TrainState | None = None,
    on_epoch: Callable[[int, int, TrainState], None] | None = None,
) -> None:
    """Train `model` in place by stochastic gradient descent with momentum, on pictures read as they are needed.

    Keywords as for `training.fit`, but `weight_decay` is part of the gradient, as the papers have it.

    >>> fit(model, pictures, CAFFE, epochs=90, batch_size=256, learning_rate=0.01, loss=cross_entropy())
    """
    fabric = Fabric(accelerator="auto", devices=1)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = SGD(learning, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    wrapped, optimizer = fabric.setup(model, optimizer)
    start = training._restore(model, optimizer, resume) if resume else 0
    batches_per_epoch = math.ceil(len(pictures) / batch_size)
    steps = epochs * batches_per_epoch
    rate = learning_rate if callable(learning_rate) else schedule(learning_rate, steps)
    model.train()
    for epoch in range(start, epochs):
        batches = imagenet.batches(pictures, preprocess, size=batch_size, training=True)
        for step, (inputs, targets) in enumerate(batches, epoch * batches_per_epoch):
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
            fabric.backward(loss(wrapped, inputs.to(fabric.device), targets.to(fabric.device)))
            if on_step is not None:
                on_step(step, steps, optimizer)
            optimizer.step()
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs, training._state(model, optimizer, epoch + 1))
    model.eval().cpu()


@torch.inference_mode()
def top_errors(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, tops: tuple[int, ...] = (1, 5)
) -> tuple[float, ...]:
    """For each k in `tops`, the share of examples whose class is not among the k highest scores, 0..1.

    >>> top_errors(model, task.batches())
    (0.4278, 0.1973)
    """
    model.eval()
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    wrong, count = torch.zeros(len(tops), dtype=torch.long), 0
    for inputs, targets in batches:
        best = model(inputs.to(device)).cpu().topk(max(tops), dim=1).indices  # (batch, k)
        hits = best == targets[:, None]
        wrong += torch.stack([~hits[:, :k].any(dim=1) for k in tops]).sum(dim=1)
        count += len(targets)
    return tuple((wrong.double() / count).tolist())
