"""The training loop of the built-in tasks, and what it is made of: losses, augmentation, learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from zeroskip.concepts import TrainState
from zeroskip.data import Split
from zeroskip.task_api import Loss, OnEpoch, OnStep

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TrainingPrecision = Literal["32-true", "bf16-mixed"]
Rate = Callable[[int], float]
"""Step -> learning rate."""


def cross_entropy(*, label_smoothing: float = 0.0) -> Loss:
    """Mean cross entropy of the class scores, against softened targets.

    Smoothing (Szegedy et al. 2016, section 7) keeps gradients alive once every training example is right: that
    is what retraining a pruned network lives on.

    >>> cross_entropy()(nn.Identity(), torch.zeros(1, 4), torch.tensor([0]))  # log 4
    tensor(1.3863)
    """

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(inputs), targets, label_smoothing=label_smoothing)

    return loss


def regularized(loss: Loss, *, l1: float = 0.0, l2: float = 0.0) -> Loss:
    """`loss` + l1 x sum |w| + l2 x sum w^2 of the weights; biases are left out. What Keras calls L1 and L2.

    Unlike `weight_decay` it is part of the gradient, whose size Adam levels out: weights without use reach 0.
    """
    if not (l1 or l2):
        return loss

    def added(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        total = loss(model, inputs, targets)
        for weight in model.parameters():
            if weight.ndim > 1:
                total = total + l1 * weight.abs().sum() + l2 * weight.square().sum()
        return total

    return added


def jittered(
    inputs: Tensor, *, noise: float = 0, shift: int = 0, mirror: bool = False, drop: float = 0
) -> Tensor:
    """Images (batch, channels, h, w), each moved by up to `shift` pixels both ways, half of them left to right where
    `mirror` says so, plus Gaussian noise of this standard deviation. What moves in is 0.

    drop  share of the values that become 0, of inputs of any shape; the others grow by 1 / (1 - drop)

    >>> image = torch.ones(1, 1, 2, 2)
    >>> jittered(image, shift=1).sum() in (1, 2, 4)  # nothing, a row or column, or both moved out
    True
    """
    if shift:
        height, width = inputs.shape[2:]
        padded = F.pad(inputs, (shift,) * 4)
        moved = torch.empty_like(inputs)
        which = torch.randint((2 * shift + 1) ** 2, (len(inputs),), device=inputs.device)
        for index in range((2 * shift + 1) ** 2):  # all images that move alike are moved together
            down, right = divmod(index, 2 * shift + 1)
            alike = which == index
            moved[alike] = padded[alike][:, :, down : down + height, right : right + width]
        inputs = moved
    if mirror:
        turned = torch.rand(len(inputs), 1, 1, 1, device=inputs.device) < 0.5
        inputs = torch.where(turned, inputs.flip(3), inputs)
    inputs = F.dropout(inputs, drop) if drop else inputs
    return inputs + noise * torch.randn_like(inputs) if noise else inputs


def cosine(peak: float, steps: int) -> Rate:
    """Learning rate that falls from `peak` to 0 along half a cosine.

    >>> cosine(0.1, 100)(50)
    0.05
    """
    return lambda step: peak * (1 + math.cos(math.pi * step / steps)) / 2


def adamw(parameters: list[nn.Parameter], weight_decay: float) -> Optimizer:
    """Adam with decoupled decay: weight *= 1 - learning rate x decay at each step."""
    return AdamW(parameters, weight_decay=weight_decay, fused=True)


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained.

    learning_rate  a number: the peak of `schedule`; a function: step -> rate
    schedule       (peak, steps) -> step -> rate
    optimizer      (parameters, weight decay) -> optimizer
    precision      "bf16-mixed": products in bfloat16, weights and sums in float32
    layout         of the network in memory: convolutions train 1.4x faster channels last, linear layers do not mind
    """

    epochs: int
    batch_size: int
    learning_rate: Rate | float
    loss: Loss
    weight_decay: float = 0.0
    schedule: Callable[[float, int], Rate] = cosine
    optimizer: Callable[[list[nn.Parameter], float], Optimizer] = adamw
    precision: TrainingPrecision = "32-true"
    layout: torch.memory_format = torch.channels_last


@dataclass(frozen=True)
class TrainingData:
    """Examples to learn from.

    batches  (batch size, device) -> the (inputs, targets) of one epoch, in a new random order at each call
    """

    count: int
    batches: Callable[[int, torch.device], Iterator[tuple[Tensor | dict[str, Tensor], Tensor]]]


def in_memory(data: Split, augment: Callable[[Tensor], Tensor] | None = None) -> TrainingData:
    """The examples of `data`; `augment` is what happens to the inputs of each step.

    >>> data = in_memory(Split(torch.randn(10, 6), torch.zeros(10, dtype=torch.long)))
    >>> [len(inputs) for inputs, _ in data.batches(4, torch.device("cpu"))]
    [4, 4, 2]
    """

    def epoch(size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets = data.inputs.to(device), data.targets.to(device)
        for index in torch.randperm(len(data)).split(size):
            yield augment(inputs[index]) if augment else inputs[index], targets[index]

    return TrainingData(len(data), epoch)


def fit(
    model: nn.Module,
    data: TrainingData,
    recipe: TrainingRecipe,
    *,
    on_step: OnStep | None = None,
    resume: TrainState | None = None,
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train `model` in place on `data`; repeatable on one machine for a given torch seed.

    on_step   called as (step, steps, optimizer) after backward and before the update
    on_epoch  called as (epochs done, epochs, state); that state given as `resume` continues from there

    >>> data = in_memory(Split(torch.randn(10, 6), torch.zeros(10, dtype=torch.long)))
    >>> fit(model, data, TrainingRecipe(epochs=50, batch_size=5, learning_rate=0.1, loss=cross_entropy()))
    >>> model(x).argmax(1)
    tensor([0, 0, 0])
    """
    fabric = _fabric(recipe.precision)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = recipe.optimizer(learning, recipe.weight_decay)
    model.to(memory_format=recipe.layout)  # type: ignore[call-overload]
    wrapped, optimizer = fabric.setup(model, optimizer)
    start = _restore(model, optimizer, resume) if resume else 0
    per_epoch = math.ceil(data.count / recipe.batch_size)
    steps = recipe.epochs * per_epoch
    peak = recipe.learning_rate
    rate = peak if callable(peak) else recipe.schedule(peak, steps)
    model.train()
    for epoch in range(start, recipe.epochs):
        batches = data.batches(recipe.batch_size, fabric.device)
        for step, (inputs, targets) in enumerate(batches, epoch * per_epoch):
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
            fabric.backward(recipe.loss(wrapped, inputs, targets))
            if on_step is not None:
                on_step(step, steps, optimizer)
            optimizer.step()
        if on_epoch is not None:
            on_epoch(epoch + 1, recipe.epochs, _state(model, optimizer, epoch + 1))
    model.eval().cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def fit_changed(
    model: nn.Module, data: TrainingData, recipe: TrainingRecipe, changes: Mapping[str, Any]
) -> None:
    """`fit` with the keywords of a task's `train`: hooks of `fit`, and what is different in the recipe."""
    hooks = {name: changes.get(name) for name in ("on_step", "resume", "on_epoch")}
    recipe = replace(recipe, **{name: value for name, value in changes.items() if name not in hooks})
    fit(model, data, recipe, **hooks)


@torch.inference_mode()
def classification_error(model: nn.Module, data: Split) -> float:
    """Share of the examples whose highest score is not the target's, 0..1.

    >>> classification_error(nn.Identity(), Split(torch.eye(4), torch.tensor([0, 1, 2, 2])))
    0.25
    """
    model.eval()
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    wrong = 0
    for inputs, targets in zip(data.inputs.split(1024), data.targets.split(1024), strict=True):
        wrong += int((model(inputs.to(device)).argmax(1).cpu() != targets).sum())
    return wrong / len(data)


def batches(data: Split, size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
    """The data in order, as (inputs, targets) of at most `size` examples."""
    return zip(data.inputs.split(size), data.targets.split(size), strict=True)


def _fabric(precision: TrainingPrecision) -> Fabric:
    """One device; given as an object, the precision is not announced on the terminal at every training."""
    from lightning_fabric import Fabric  # a second to import
    from lightning_fabric.plugins import MixedPrecision

    if precision == "32-true":
        return Fabric(accelerator="auto", devices=1)
    device = Fabric(accelerator="auto", devices=1).device.type
    return Fabric(accelerator=device, devices=1, plugins=MixedPrecision(precision, device))


def _state(model: nn.Module, optimizer: Optimizer, epoch: int) -> TrainState:
    """Weights, optimizer moments, random state and the epoch, under flat names. No pickle is needed."""
    weights = model.state_dict().items()
    state = {f"model.{name}": tensor.detach().cpu().clone().contiguous() for name, tensor in weights}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            state[f"optimizer.{index}.{name}"] = torch.as_tensor(value).clone()
    return state | {"random": torch.get_rng_state(), "epoch": torch.tensor(epoch)}


def _restore(model: nn.Module, optimizer: Optimizer, state: TrainState) -> int:
    model.load_state_dict({n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    torch.set_rng_state(state["random"])
    return int(state["epoch"])
