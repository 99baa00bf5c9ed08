"""The weighted layers of a network and their inputs and outputs, recorded by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.concepts import Layer, Trace
from zeroskip.errors import ModelError, ZeroskipError


def layers(model: nn.Module, example: Tensor) -> list[Layer]:
    """Every nn.Linear and nn.Conv2d that runs when `model` sees `example`, in the order of running.

    A module that runs several times is listed once, as it ran first. Names are those of `named_modules()`,
    so a bare nn.Linear is called "". Weights are the effective ones (parametrizations applied) and share the
    model's memory where they can. `example` has the batch first; the shapes in a Layer are without it.
    Raises ModelError where the network cannot run on `example`.

    >>> [(layer.name, layer.macs) for layer in layers(model, x)]
    [('fc1', 48), ('fc2', 32)]
    """
    visited: list[Layer] = []
    _visit(model, example, lambda layer, x, y: visited.append(layer))
    return visited


def record(model: nn.Module, batch: Tensor) -> Trace:
    """The layers of `layers(model, batch)`, each with a copy of its real input and output.

    >>> [(layer.name, tuple(x.shape), tuple(y.shape)) for layer, x, y in record(model, x)]
    [('fc1', (3, 6), (3, 8)), ('fc2', (3, 8), (3, 4))]
    """
    trace: Trace = []
    # Copies, because later operations of the network may work in place (ReLU, residual sums).
    _visit(model, batch, lambda layer, x, y: trace.append((layer, x.clone(), y.clone())))
    return trace


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every module's own training flag comes back afterwards.

    >>> with evaluating(model.train()):
    ...     model.training, model(x).requires_grad
    (False, False)
    """
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def per_example(tensor: Tensor, batch: int) -> tuple[int, ...]:
    """The shape of one example's share of a tensor whose first axis holds `batch` examples.

    A first axis of batch x n (a network that folds n patches into it) gives (n, ...).

    >>> per_example(torch.zeros(8, 5), 4)
    (2, 5)
    """
    first, *rest = tensor.shape
    if first % batch:
        raise ModelError(
            f"a layer works on a tensor {tuple(tensor.shape)}, whose first axis does not divide into the "
            f"{batch} examples given, so the share of one is unknown. Give a single example (a batch of 1)."
        )
    return tuple(rest) if first == batch else (first // batch, *rest)


def forward(model: nn.Module, batch: Tensor) -> Any:
    """What `model` returns in evaluation mode, without gradients. Raises ModelError where it fails.

    >>> forward(model, x).shape
    torch.Size([3, 4])
    """
    try:
        with evaluating(model):
            return model(batch)
    except ZeroskipError:
        raise
    except Exception as fact:  # whatever a user's network may raise
        raise ModelError(
            f"the network cannot run on an input of shape {tuple(batch.shape)} and type {batch.dtype}: "
            f"{type(fact).__name__}: {fact}. Give a batch as the network takes it, examples first."
        ) from fact


def _visit(model: nn.Module, batch: Tensor, visited: Callable[[Layer, Tensor, Tensor], None]) -> None:
    """Run `model` once and call `visited(layer, input, output)` when each weighted module has run first."""
    waiting: dict[nn.Linear | nn.Conv2d, str] = {
        module: name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))
    }

    def hook(
        module: nn.Linear | nn.Conv2d, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
    ) -> None:
        if module in waiting:
            x = args[0] if args else kwargs["input"]
            visited(_layer(waiting.pop(module), module, x, output, len(batch)), x, output)

    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in waiting]
    try:
        forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, module: nn.Linear | nn.Conv2d, x: Tensor, y: Tensor, batch: int) -> Layer:
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    linear = Layer(name, "linear", weight, bias, per_example(x, batch), per_example(y, batch))
    if isinstance(module, nn.Linear):
        return linear
    stride, dilation = _pair(module.stride), _pair(module.dilation)
    padding = module.padding if isinstance(module.padding, str) else _pair(module.padding)
    return replace(
        linear, op="conv2d", stride=stride, padding=padding, dilation=dilation, groups=module.groups
    )


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]  # torch may have made lists of them
