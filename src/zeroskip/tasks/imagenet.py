"""The networks of the papers on ImageNet, read from the user's folder while it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from zeroskip.data import imagenet
from zeroskip.data.imagenet import Pictures, Preprocess
from zeroskip.task_api import Loss
from zeroskip.tasks import training
from zeroskip.tasks.training import Rate

MOMENTUM = 0.9
EXAMPLES = 16  # in batch(): enough to see zeros at work, few enough to time VGG-16 on a small machine


def staircase(peak: float, steps: int) -> Rate:
    """Learning rate divided by ten after each quarter of the steps, as AlexNet and VGG were trained.

    >>> f"{staircase(0.01, 100)(99):g}"
    '1e-05'
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

    >>> from zeroskip.tasks import squeezenet
    >>> squeezenet.name, squeezenet.preprocess.crop, squeezenet.epochs
    ('squeezenet', 227, 68)
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

    def train(self, model: nn.Module, **changes: Any) -> None:
        """Train in place by the task's own `training.TrainingRecipe`, changed: epochs=5; and with hooks of `fit`."""
        own = training.TrainingRecipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            loss=self.loss,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            optimizer=sgd,
            layout=torch.preserve_format,
        )
        data = from_files(imagenet.load()["train"], self.preprocess)
        training.fit_changed(model, data, own, changes)

    @property
    def loss(self) -> Loss:
        """What `train` minimises: (model, inputs, targets) -> a number."""
        return training.cross_entropy()

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        """Share of wrong first guesses on "validation" (for decisions) or "test" (once, at the end)."""
        return self.errors(model, split, tops=(1,))[0]

    def errors(
        self, model: nn.Module, split: str = "validation", *, tops: tuple[int, ...] = (1, 5)
    ) -> tuple[float, ...]:
        """Shares of pictures whose class is not among the best 1 and the best 5 guesses."""
        return top_errors(model, imagenet.batches(imagenet.load()[split], self.preprocess), tops=tops)

    def batch(self) -> Tensor:
        """A few pictures, spread over the validation split, for tracing and timing."""
        pictures = imagenet.load()["validation"]
        step = max(1, len(pictures) // EXAMPLES)
        spread = pictures.take(torch.arange(0, len(pictures), step)[:EXAMPLES])
        return next(imagenet.batches(spread, self.preprocess))[0]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation split as (inputs, targets), for statistics over a data set."""
        return imagenet.batches(imagenet.load()["validation"], self.preprocess)

    def split_sizes(self) -> dict[str, int]:
        """Pictures in each split."""
        return {name: len(pictures) for name, pictures in imagenet.load().items()}


def sgd(parameters: list[nn.Parameter], weight_decay: float) -> Optimizer:
    """Stochastic gradient descent with momentum; the decay is part of the gradient, as the papers have it."""
    return SGD(parameters, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)


def from_files(pictures: Pictures, preprocess: Preprocess) -> training.TrainingData:
    """Pictures to learn from, read as they are needed."""

    def epoch(size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in imagenet.batches(pictures, preprocess, size=size, training=True):
            yield inputs.to(device), targets.to(device)

    return training.TrainingData(len(pictures), epoch)


@torch.inference_mode()
def top_errors(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, tops: tuple[int, ...] = (1, 5)
) -> tuple[float, ...]:
    """For each k in `tops`, the share of examples whose class is not among the k highest scores, 0..1.

    >>> scores = torch.tensor([[0.1, 0.9, 0.0], [0.3, 0.2, 0.1]])
    >>> top_errors(nn.Identity(), [(scores, torch.tensor([1, 1]))], tops=(1, 2))
    (0.5, 0.0)
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
