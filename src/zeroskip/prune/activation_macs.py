"""Multiply-accumulates that thresholds on the inputs of layers remove, and the error that they cost.

A multiplication whose input or weight is 0 can be skipped. `prune.thresholds` searches the thresholds that leave the
fewest others within a budget of error (stage 4 of Minerva, Reagen et al. 2016); `prune.judge` measures given ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from zeroskip import task_api
from zeroskip.concepts import Edits
from zeroskip.errors import RecipeError, TaskError
from zeroskip.graph import Inputs, weights
from zeroskip.prune.edits import threshold_edits
from zeroskip.task_api import Task
from zeroskip.thresholds import held, hold_, release_

CountedLayer = nn.Linear | nn.Conv2d
LayerInputs = tuple[Tensor, ...]
Seen = Callable[[str, Tensor], None]
"""Called as seen(layer name, its input)."""


@dataclass(frozen=True)
class LayerMacs:
    """Multiply-accumulates of one layer for one example, mean over a split; those of pruned weights do not count.

    macs     all of them, those with the zeros of a padding included
    nonzero  those whose input is not zero; NaN and Inf are not

    >>> judge(model, task).layers["fc1"]  # no input is exactly 0
    LayerMacs(macs=12.0, nonzero=12.0)
    """

    macs: float
    nonzero: float


@dataclass(frozen=True)
class Judged:
    """What a network with these thresholds (layer name -> theta) does on a split: its error, its work by layer.

    >>> Judged({}, 0.1, {"fc1": LayerMacs(12.0, 9.0), "fc2": LayerMacs(32.0, 16.0)}).nonzero
    25.0
    """

    thresholds: dict[str, float]
    error: float
    layers: dict[str, LayerMacs]

    @property
    def nonzero(self) -> float:
        """Multiply-accumulates of one example whose input and weight are not zero, in all layers."""
        return sum(layer.nonzero for layer in self.layers.values())


@dataclass(frozen=True)
class ActivationPruning:
    """The outcome of a search, on the validation split: `before` without thresholds, `after` with those found.

    max_error  what the error was allowed to be
    history    all that was tried, in order
    note       what a reader should know of this network, or ""

    >>> before = Judged({}, 0.1, {"fc1": LayerMacs(10.0, 8.0)})
    >>> after = Judged({"fc1": 0.5}, 0.1, {"fc1": LayerMacs(10.0, 2.0)})
    >>> ActivationPruning(before, after, max_error=0.1, history=(after,)).removed
    0.75
    """

    before: Judged
    after: Judged
    max_error: float
    history: tuple[Judged, ...]
    note: str = ""

    @property
    def thresholds(self) -> dict[str, float]:
        """Layer name -> theta, as `zeroskip.thresholds.hold_` takes them."""
        return self.after.thresholds

    @property
    def removed(self) -> float:
        """Share of the multiply-accumulates with a non-zero input that the thresholds remove."""
        return 1 - self.after.nonzero / self.before.nonzero if self.before.nonzero else 0.0

    @property
    def edits(self) -> Edits:
        """The thresholds as edits, for `rebuild`."""
        return threshold_edits(self.thresholds)


def judge(
    model: nn.Module,
    task: Task,
    thresholds: Mapping[str, float] | None = None,
    *,
    split: str = "validation",
) -> Judged:
    """The error of `model` on `split` and the work it does there, with the thresholds that it holds and those given.

    Work is counted while the task's `evaluate` runs, per example that the network is shown. The model stays as it
    is. Raises RecipeError where a threshold leaves a layer without any input, or names no layer, and TaskError
    where `evaluate` does not run the network's layers.

    >>> judge(model, task, {"fc2": 0.25}).thresholds
    {'fc2': 0.25}
    >>> judge(model, task).layers["fc1"].macs  # a quarter of 48 weights
    12.0
    """
    changed = hold_(deepcopy(model), thresholds or {})
    judged = look(changed, task, split=split)
    if held(changed) and not all(layer.nonzero for layer in judged.layers.values()):
        killed = dead(judged, look(release_(changed), task, split=split))
        if killed:
            theta = judged.thresholds.get(killed[0])
            raise RecipeError(
                f'with {"the other thresholds" if theta is None else f"a threshold of {theta:g}"}, "{killed[0]}" sees '
                f"nothing but zeros. Give smaller ones, or take the layer out of the network."
            )
    return judged


def dead(judged: Judged, before: Judged) -> list[str]:
    """Layers that see nothing but zeros and did not before."""
    alive = [name for name, layer in before.layers.items() if layer.nonzero]
    return [name for name in alive if name in judged.layers and not judged.layers[name].nonzero]


def uncounted(model: nn.Module) -> str:
    """Which weights are of other layers than linear and 2-d convolutions, which have no thresholds; "" for none.

    >>> uncounted(nn.Sequential(nn.LSTM(8, 32), nn.Linear(32, 2)))
    '0.weight_ih_l0, 0.weight_hh_l0 (99 % of the weights) are not counted: thresholds are for linear and conv2d layers'
    """
    every = weights(model)
    free = {
        name: each for name, each in every.items()
        if (each.computed or not each.kept_dense) and not any(isinstance(p.module, CountedLayer) for p in each.places)
    }  # fmt: skip
    if not free:
        return ""
    total = sum(each.tensor.numel() for each in every.values())
    share = sum(each.tensor.numel() for each in free.values()) / total
    names = ", ".join([*free][:3]) + (", ..." if len(free) > 3 else "")
    return f"{names} ({100 * share:.0f} % of the weights) are not counted: thresholds are for linear and conv2d layers"


def look(model: nn.Module, task: Task, *, split: str = "validation", seen: Seen | None = None) -> Judged:
    """`judge` of the model as it is, whatever its thresholds let through; an error that is no number is infinite.

    seen  called with each input that a layer gets
    """
    work: dict[str, _Work] = {}
    with _counting(model, work, seen) as examples:
        # On validation thresholds may ruin a network, and that is an answer.
        on_validation = split == "validation"
        error = task_api.probe(task, model) if on_validation else task_api.evaluate(task, model, split)
    if not work or not sum(examples):
        raise TaskError(
            f"{task_api.name(task)}: evaluate(model) ran no linear or convolution layer of the model that it was "
            f"given, so there is no work to count. Let it call model(inputs) with at least one example."
        )
    count = sum(examples)
    layers = {name: LayerMacs(done.macs / count, done.nonzero / count) for name, done in work.items()}
    return Judged({name: theta for name, theta in held(model).items() if name in layers}, error, layers)


class _Work:
    """Adds up the multiply-accumulates of one layer."""

    def __init__(self) -> None:
        self.macs, self.nonzero = 0, 0.0
        self.meets: dict[tuple[int, ...], Tensor] = {}

    def add(self, module: CountedLayer, x: Tensor, y: Tensor) -> None:
        shape = tuple(x.shape[-1:] if isinstance(module, nn.Linear) else x.shape[-3:])
        if shape not in self.meets:
            self.meets[shape] = _meets(module, shape)
        meets = self.meets[shape]
        hits = (x != 0).reshape(-1, *shape).sum(0).cpu()
        outputs = module.weight.shape[0]
        self.nonzero += float((hits * meets).sum())
        self.macs += int(torch.count_nonzero(module.weight)) * (y.numel() // outputs)


def _meets(module: CountedLayer, shape: tuple[int, ...]) -> Tensor:
    """How many weights that are not zero each element of one input, shaped `shape`, is multiplied with."""
    weight = (module.weight.detach() != 0).cpu().double()
    if isinstance(module, nn.Linear):
        return weight.sum(0)  # (in,)
    # The derivative of a convolution of ones, whatever its stride, padding, dilation and groups.
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)  # (1, channels, h, w)
        (meets,) = torch.autograd.grad(module._conv_forward(x, weight.clone(), None).sum(), x)
    return meets[0]


@contextmanager
def _counting(model: nn.Module, work: dict[str, _Work], seen: Seen | None) -> Iterator[list[int]]:
    """Inside, `work` grows with every layer that runs, and the list that comes with every example."""
    examples: list[int] = []

    def at_layer(
        name: str, module: CountedLayer, args: LayerInputs, named: dict[str, Tensor], y: Tensor
    ) -> None:
        x = args[0] if args else named["input"]
        work.setdefault(name, _Work()).add(module, x, y)
        if seen is not None:
            seen(name, x)

    def at_end(module: nn.Module, args: tuple[object, ...], named: dict[str, object], y: object) -> None:
        examples.append(Inputs(args, named).size)

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, CountedLayer)]
    # Names go with the hooks, which a copy that `evaluate` may make of the network keeps.
    hooks = [m.register_forward_hook(partial(at_layer, name), with_kwargs=True) for name, m in layers]
    hooks.append(model.register_forward_hook(at_end, with_kwargs=True))
    try:
        yield examples
    finally:
        for hook in hooks:
            hook.remove()
