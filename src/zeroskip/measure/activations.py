"""How many zeros enter and leave each layer on real data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zeroskip.errors import ModelError
from zeroskip.graph import evaluating

# What may stand between a layer and the next without ending its output: Han et al. 2015 count the zeros
# that leave a layer after its ReLU and its pooling, which is what reproduces their tables' totals.
# Not those that move elements between channels (flatten): the share would be the same, its channels lost.
_CARRY_ON = frozenset(
    ["relu", "relu_", "relu6", "hardtanh", "leaky_relu", "threshold", "clamp", "gelu", "silu", "sigmoid",
     "tanh", "batch_norm", "dropout", "boolean_dispatch", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
     "adaptive_max_pool2d"]
)  # fmt: skip


@dataclass(frozen=True)
class Zeros:
    """Shares of exact zeros of one layer over a data set; by channel (axis 1 of maps, last axis else).

    output is what leaves the layer for the next: after its activation function and its pooling
    """

    input: float
    output: float
    input_by_channel: tuple[float, ...]
    output_by_channel: tuple[float, ...]


def activations(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Zeros]:
    """Layer name -> Zeros of every linear and convolution layer, over all `batches` (batch axis first).

    Runs the model in eval mode without gradients. A layer called twice counts both times. Raises
    ModelError where there is no batch.

    >>> activations(lenet, [images])["fc2"].input
    0.62
    """
    counters: dict[str, tuple[_Counter, _Counter]] = {}
    with evaluating(model):
        for inputs in batches:
            _count(model, inputs, counters)
    if not counters:
        raise ModelError("no zeros could be counted: there was no batch of inputs, or no layer was used.")
    return {
        name: Zeros(before.share(), after.share(), before.by_channel(), after.by_channel())
        for name, (before, after) in counters.items()
    }


class _Counter:
    """Adds up zeros and elements per channel."""

    def __init__(self) -> None:
        self.zeros: Tensor | int = 0
        self.elements = 0

    def add(self, tensor: Tensor) -> None:
        channel = 1 if tensor.ndim == 4 else tensor.ndim - 1
        others = [axis for axis in range(tensor.ndim) if axis != channel]
        self.zeros = self.zeros + (tensor == 0).sum(others)
        self.elements += tensor.numel() // max(tensor.shape[channel], 1)

    def by_channel(self) -> tuple[float, ...]:
        return tuple((torch.as_tensor(self.zeros) / self.elements).tolist())

    def share(self) -> float:
        return float(torch.as_tensor(self.zeros).sum() / (self.elements * len(torch.as_tensor(self.zeros))))


class _Follow(TorchFunctionMode):
    """Remembers, for each layer's output, the last tensor made of it by the operations in _CARRY_ON."""

    def __init__(self) -> None:
        super().__init__()
        self.owner: dict[int, str] = {}  # id of a tensor -> layer it left
        self.last: dict[str, Tensor] = {}
        self.alive: list[Tensor] = []  # an id stays unique only while its tensor lives

    def starts(self, name: str, output: Tensor) -> None:
        self.owner[id(output)] = name
        self.last[name] = output
        self.alive.append(output)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = self.owner.get(id(args[0])) if args else None
        if name is not None and isinstance(result, Tensor) and func.__name__ in _CARRY_ON:
            self.starts(name, result)
        return result


def _count(model: nn.Module, inputs: Tensor, counters: dict[str, tuple[_Counter, _Counter]]) -> None:
    follow = _Follow()
    names: dict[nn.Module, str] = {
        module: name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }

    def seen(module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        before, _ = counters.setdefault(names[module], (_Counter(), _Counter()))
        before.add(args[0] if args else named["input"])
        _settle(follow, names[module], counters)  # a second call of a layer must not hide its first
        follow.starts(names[module], output)

    hooks = [module.register_forward_hook(seen, with_kwargs=True) for module in names]
    try:
        with follow:
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for name in list(follow.last):
        _settle(follow, name, counters)


def _settle(follow: _Follow, name: str, counters: dict[str, tuple[_Counter, _Counter]]) -> None:
    if (output := follow.last.pop(name, None)) is not None:
        counters[name][1].add(output)
