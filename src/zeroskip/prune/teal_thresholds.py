"""Thresholds for a given sparsity of the inputs, instead of a budget of error (TEAL, Liu et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from zeroskip.errors import ModelError, RecipeError
from zeroskip.graph import Given, Inputs, forward, record
from zeroskip.graph.inputs import of
from zeroskip.patterns import Pattern, check_sparsity
from zeroskip.thresholds import hold_, release_

STEP = 0.05
"""What one step of the allocation adds to the sparsity of the whole network."""


def teal(
    model: nn.Module, batches: Iterable[Given | Inputs], sparsity: float, *, uniform: bool = False
) -> dict[str, float]:
    """Layer name -> theta, so that `sparsity` of the inputs of the linear layers is zero, weighted by their weights.

    Each theta is a percentile of the |x| that the layer gets from `batches`, kept in memory. Shares grow in steps, each
    given to the layer where it moves the network's answers least, as TEAL does block by block: that takes layers^2 /
    0.05 x sparsity runs. Zeros that are there already count. Convolutions stay as they are; so does the model.

    uniform  all layers get the same share, TEAL's baseline

    Raises PatternError for a sparsity outside 0..1, RecipeError where it would leave a layer without any input,
    ModelError where no linear layer runs or there is no batch.

    >>> {name: round(theta, 2) for name, theta in teal(model, [x], 0.5, uniform=True).items()}
    {'fc1': 0.53, 'fc2': 0.14}
    """
    check_sparsity(sparsity, Pattern("free"))
    kept = [inputs for batch in batches if (inputs := of(batch)).size]
    sizes, weights = _inputs(release_(deepcopy(model)), kept)
    shares = dict.fromkeys(sizes, sparsity) if uniform else _shares(model, kept, sparsity, sizes, weights)
    thetas = _thetas(sizes, shares)
    for name, seen in _inputs(hold_(release_(deepcopy(model)), thetas), kept)[0].items():
        if thetas[name] and not seen.any():
            raise RecipeError(f'at {sparsity:.1%} zeros "{name}" would see nothing else. Ask for fewer.')
    return thetas


def _shares(
    model: nn.Module,
    batches: list[Inputs],
    sparsity: float,
    sizes: dict[str, Tensor],
    weights: dict[str, int],
) -> dict[str, float]:
    """Each layer's share of zeros, grown where the answers move least."""
    changed, total = release_(deepcopy(model)), sum(weights.values())
    exact = _answers(changed, batches)
    shares = dict.fromkeys(sizes, 0.0)
    while (missing := sparsity * total - sum(shares[name] * weights[name] for name in shares)) > 1e-9 * total:
        # In weights, so that each step skips as many, whichever layer it is.
        step = min(STEP * total, missing)
        grown = {name: min(share + step / weights[name], 1.0) for name, share in shares.items() if share < 1}
        tries = [{**shares, name: share} for name, share in grown.items()]
        shares = min(tries, key=lambda each: _moved(changed, batches, exact, _thetas(sizes, each)))
    return shares


def _inputs(model: nn.Module, batches: list[Inputs]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """By linear layer: |x| that it gets, sorted, and how many weights it has."""
    sizes: dict[str, list[Tensor]] = {}
    weights: dict[str, int] = {}
    modules = dict(model.named_modules())  # matrices of an LSTM are linear too, and have no thresholds
    for batch in batches:
        for layer, x, _ in record(model, batch):
            if layer.op == "linear" and isinstance(modules.get(layer.name), nn.Linear):
                sizes.setdefault(layer.name, []).append(x.abs().flatten())
                weights[layer.name] = layer.weights
    if not sizes:
        raise ModelError("no linear layer ran, or there was no batch of inputs: there is nothing to cut.")
    return {name: torch.cat(each).sort().values for name, each in sizes.items()}, weights


def _thetas(sizes: dict[str, Tensor], shares: dict[str, float]) -> dict[str, float]:
    """The thresholds below which these shares of the inputs lie; the largest input always stays."""
    lasts = {name: len(sizes[name]) - 1 for name in shares}
    places = {name: min(round(shares[name] * len(sizes[name])), last) for name, last in lasts.items()}
    return {name: float(sizes[name][place]) if place else 0.0 for name, place in places.items()}


def _answers(model: nn.Module, batches: list[Inputs]) -> list[Tensor]:
    answers = [forward(model, batch) for batch in batches]
    if not all(isinstance(each, Tensor) for each in answers):
        raise ModelError("the network's answer is no tensor: how far it moves is unknown. Use uniform=True.")
    return answers


def _moved(model: nn.Module, batches: list[Inputs], exact: list[Tensor], thetas: dict[str, float]) -> float:
    """Squared distance of the answers from the exact ones."""
    answers = _answers(hold_(model, thetas), batches)
    return sum(float((a - b).double().square().sum()) for a, b in zip(answers, exact, strict=True))
