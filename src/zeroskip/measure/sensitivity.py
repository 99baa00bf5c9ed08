"""The error of a network against the sparsity of each weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from zeroskip.concepts import Progress, silent
from zeroskip.errors import ModelError
from zeroskip.graph import Weight, weights
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
    """Error of the model when one weight at a time is pruned by magnitude (Han et al. 2015, figure 6).

    The model comes back exactly as it was, also when `evaluate` fails. Costs one `evaluate` per weight and
    sparsity in `at` (each 0..1, else PatternError). Masked weights are pruned further.

    names  of `graph.weights`; by default all but those that it keeps dense. ModelError for one that does not exist
           or that the network computes in another way than by a mask

    >>> def zeros(pruned):
    ...     return float(sum((layer.weight == 0).sum() for layer in (pruned.fc1, pruned.fc2)))
    >>> sensitivity(model, zeros, at=[0.5, 0.9])  # an evaluation that counts zeros
    {'fc1': {0.5: 36.0, 0.9: 43.0}, 'fc2': {0.5: 52.0, 0.9: 65.0}}
    """
    listed = weights(model)
    names = names if names is not None else [name for name, each in listed.items() if not each.kept_dense]
    if not names:
        raise ModelError("the network has no weight that can be pruned.")
    for name in names:
        _check(name, listed)
    curves: dict[str, dict[float, float]] = {}
    for index, name in enumerate(names):
        progress("sensitivity", index, len(names))
        curves[name] = {float(s): _error_without(listed[name], s, model, evaluate) for s in at}
    progress("sensitivity", len(names), len(names))
    return curves


def _check(name: str, listed: Mapping[str, Weight]) -> None:
    if name not in listed:
        raise ModelError(f'the network has no weight "{name}". It has {", ".join(listed) or "none"}.')
    weight = listed[name]
    if weight.computed or weight.parameter.shape != weight.tensor.shape:
        raise ModelError(
            f'the network computes its weight "{name}" (weight norm, shared values), so it cannot be pruned alone. '
            "Make it plain first, with prune.release_ or torch.nn.utils.parametrize."
        )


@torch.no_grad()
def _error_without(
    weight: Weight, sparsity: float, model: nn.Module, evaluate: Callable[[nn.Module], float]
) -> float:
    kept, parameter = keep(weight.tensor.abs(), "free", sparsity), weight.parameter
    original = parameter.detach().clone()
    try:
        parameter.masked_fill_(~kept, 0.0)
        return evaluate(model)
    finally:
        parameter.copy_(original)
