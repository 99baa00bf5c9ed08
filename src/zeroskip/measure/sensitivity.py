"""The error of a network against the sparsity of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from zeroskip.concepts import Progress, silent
from zeroskip.errors import ModelError
from zeroskip.patterns import keep

SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


def sensitivity(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    *,
    names: Sequence[str] | None = None,
    at: Sequence[float] = SPARSITIES,
    progress: Progress = silent,
) -> dict[str, dict[float, float]]:
    """Error of the model when one layer at a time is pruned by magnitude (Han et al. 2015, figure 6).

    The model comes back exactly as it was, also when `evaluate` fails. Costs one `evaluate` per layer and
    sparsity in `at` (each 0..1, else PatternError).

    names  layers to try; by default every linear and convolution layer of the model

    >>> def zeros(pruned):
    ...     return float(sum((layer.weight == 0).sum() for layer in (pruned.fc1, pruned.fc2)))
    >>> sensitivity(model, zeros, at=[0.5, 0.9])  # an evaluation that counts zeros
    {'fc1': {0.5: 36.0, 0.9: 43.0}, 'fc2': {0.5: 52.0, 0.9: 65.0}}
    """
    modules = dict(model.named_modules())
    names = names if names is not None else _weighted(model)
    curves: dict[str, dict[float, float]] = {}
    for index, name in enumerate(names):
        progress("sensitivity", index, len(names))
        curves[name] = {float(s): _error_without(modules[name], s, model, evaluate) for s in at}
    progress("sensitivity", len(names), len(names))
    return curves


def _weighted(model: nn.Module) -> list[str]:
    kinds = (nn.Linear, nn.Conv2d)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    if not names:
        raise ModelError("the network has no linear or convolution layer. There is nothing to prune in it.")
    return names


@torch.no_grad()
def _error_without(
    module: nn.Module, sparsity: float, model: nn.Module, evaluate: Callable[[nn.Module], float]
) -> float:
    weight = module._parameters.get("weight")
    if weight is None:
        raise ModelError(
            "a layer of the network computes its weight (a mask, weight norm). Make it plain first, for example "
            "with prune.release_ or torch.nn.utils.parametrize."
        )
    original = weight.detach().clone()
    try:
        weight.masked_fill_(~keep(original.abs(), "free", sparsity), 0.0)
        return evaluate(model)
    finally:
        weight.copy_(original)
