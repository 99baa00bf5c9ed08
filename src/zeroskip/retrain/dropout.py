"""Dropout that shrinks with the connections it works on (Han et al. 2015, section 3.2).

Pruning already leaves fewer paths, so a retraining drops fewer neurons: Dr = Do x sqrt(Cir / Cio), with Cio the
connections of the layer that the dropout feeds and Cir those that pruning left. Only modules can be found:
`F.dropout` with a number in `forward`, and the dropout inside attention and recurrent layers, stay as they are. Layers
are modules with a weight of their own that is multiplied: recurrent layers and attention too, tables are none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zeroskip import graph
from zeroskip.graph import Given, Inputs, Weight, forward

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@contextmanager
def rescaled_dropout(model: nn.Module, example: Given | Inputs) -> Iterator[dict[str, float]]:
    """Inside, every dropout of `model` drops p x sqrt(its connections left / its connections); then p is back.

    Yields dropout -> p inside. The model may be masked or have its zeros in place; a module used several times
    counts the connections of all that it feeds. Raises ModelError where the network cannot run on `example`.

    >>> with rescaled_dropout(nn.Sequential(nn.Dropout(0.5), model), x) as now:
    ...     print(now)  # a quarter of fc1's connections is left
    {'0': 0.25}
    """
    dropouts = {name: module for name, module in model.named_modules() if isinstance(module, DROPOUTS)}
    before = {name: dropout.p for name, dropout in dropouts.items()}
    weights = _by_module(model)
    now = {
        name: before[name] * _share_left([weight for layer in layers for weight in weights[layer]])
        for name, layers in dropout_layers(model, example).items()
    }
    try:
        for name, p in now.items():
            dropouts[name].p = p
        yield now
    finally:
        for name, p in before.items():
            dropouts[name].p = p


def dropout_layers(model: nn.Module, example: Given | Inputs) -> dict[str, tuple[str, ...]]:
    """Each dropout that runs -> the layers, modules with weights, that it feeds or, where it feeds none, the
    one that ran before it. Raises ModelError where the network cannot run on `example`.

    >>> dropout_layers(nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 2)), torch.zeros(1, 4))
    {'1': ('2',)}
    """
    named = dict(model.named_modules())
    dropouts = {module: name for name, module in named.items() if isinstance(module, DROPOUTS)}
    layers = {named[name]: name for name in _by_module(model)}
    with _as_written():
        return {name: _fed(model, example, module, layers) for module, name in dropouts.items()}


def _by_module(model: nn.Module) -> dict[str, list[Weight]]:
    """Path of each module with weights that are multiplied -> these, in the order of the modules."""
    every = [weight for weight in graph.weights(model).values() if weight.computed or not weight.kept_dense]
    found: dict[str, list[Weight]] = {path: [] for path, _ in model.named_modules()}
    for weight in every:
        for path in dict.fromkeys(place.path for place in weight.places):
            found[path].append(weight)
    return {path: weights for path, weights in found.items() if weights}


@contextmanager
def _as_written() -> Iterator[None]:
    """Inside, attention runs module by module: torch's fast path calls neither dropouts nor hooks."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _fed(
    model: nn.Module, x: Given | Inputs, dropout: nn.Module, layers: dict[nn.Module, str]
) -> tuple[str, ...]:
    """The layers whose input turns to NaN when the dropout's output does. Their own output is made clean again,
    so that those further on are not taken for fed."""
    fed: list[str] = []
    before: list[str] = []
    ran: list[str] = []

    def mark(module: nn.Module, args: object, output: Tensor) -> Tensor:
        before.extend(ran[-1:])
        return torch.full_like(output, torch.nan)

    def catch(module: nn.Module, args: object, named: object, output: object) -> object:
        ran.append(layers[module])
        if not any(leaf.isnan().any() for leaf in _tensors((args, named))):
            return None
        fed.append(layers[module])
        return pytree.tree_map_only(Tensor, torch.zeros_like, output)

    handles = [module.register_forward_hook(catch, with_kwargs=True) for module in layers]
    handles.append(dropout.register_forward_hook(mark))
    try:
        forward(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(dict.fromkeys(fed or before))


def _tensors(arguments: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]


def _share_left(weights: list[Weight]) -> float:
    """sqrt(Cir / Cio) over the weights of layers; 1 where there is none."""
    before = sum(weight.parameter.numel() for weight in weights)
    left = sum(int(torch.count_nonzero(weight.tensor)) for weight in weights)
    return math.sqrt(left / before) if before else 1.0
