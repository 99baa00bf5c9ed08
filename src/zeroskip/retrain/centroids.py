"""Shared weights, fine-tuned: the last training before a network is stored (Deep Compression, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from zeroskip import codebooks, prune, task_api
from zeroskip.concepts import Progress, Sparse, silent
from zeroskip.errors import RecipeError
from zeroskip.retrain.loop import as_sparse, point, train


@dataclass(frozen=True)
class CodebookRecipe:
    """How a sparse network comes to share its weights.

    bits       a width of the codes for all layers, or layer name -> width; biases take `bias_bits`
    start      where k-means starts, one of `codebooks.STARTS`
    max_error  where k-means and training are both worse than this on validation, nothing is shared
    train      keywords for the task's train, by default 4 epochs at a tenth of its learning rate without decay;
               epochs=0 leaves it at k-means

    >>> centroids(as_sparse(model), CodebookRecipe(bits=1, train={"epochs": 0}), task).history[-1].kind
    'centroids'
    """

    bits: int | Mapping[str, int] = 5
    bias_bits: int = 6
    start: str = "linear"
    max_error: float = math.inf
    train: Mapping[str, object] = field(default_factory=dict)


def centroids(
    sparse: Sparse,
    recipe: CodebookRecipe,
    task: task_api.Task,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Sparse:
    """`sparse` with 2^bits shared values a layer, trained together: as accurate, and a fraction of the bytes.

    k-means first, then the task's training on the centroids alone; of the two states, the one with the lower
    validation error is returned. Where both exceed `max_error` it is `sparse`, with the try in its history. `sparse`
    stays as it is; its zeros stay zeros.

    >>> shared = centroids(as_sparse(model), CodebookRecipe(bits=2, train={"epochs": 1}), task)
    >>> len(shared.model.fc1.weight.unique())  # four values, and zero
    5
    """
    model = deepcopy(sparse.model)
    bits = widths(model, recipe.bits, recipe.bias_bits)
    torch.manual_seed(seed)
    start_only = codebooks.release_(codebooks.hold_(deepcopy(model), bits, start=recipe.start))
    shared = [_judged(start_only, task, sparse, recipe.max_error)]
    keywords = {**_gentle(task), **recipe.train}
    if keywords["epochs"] != 0:
        path = None if folder is None else Path(folder)
        torch.manual_seed(seed)  # random starts are the same again, also after a stop
        codebooks.hold_(model, bits, start=recipe.start)
        try:
            train(task, model, stage="centroids", seed=seed, folder=path, progress=progress, **keywords)
        finally:
            codebooks.release_(model)
        shared.append(_judged(model, task, sparse, recipe.max_error))
    best = min(shared, key=lambda state: state.history[-1].error)
    return best if best.history[-1].good else replace(sparse, history=best.history)


def _gentle(task: task_api.Task) -> dict[str, object]:
    """A short training at a low rate: the centroids are near their places already."""
    rate = getattr(task, "learning_rate", None)
    slow = {} if rate is None else {"learning_rate": lambda step: float(rate) / 10}
    return {"epochs": 4, "weight_decay": 0.0, **slow}


def widths(model: nn.Module, bits: int | Mapping[str, int], bias_bits: int = 6) -> dict[str, int]:
    """Name of each stored tensor that is to be shared -> width of its codes: weights, and the biases beside them.

    A number is for all weights that are pruned; by name, tables of embeddings can have a width too.

    >>> widths(model, 5, 6)["fc1.weight"]
    5
    """
    by_name = dict(bits) if isinstance(bits, Mapping) else dict.fromkeys(prune.weights(model), bits)
    for name, width in (*by_name.items(), ("bias", bias_bits)):
        if not 1 <= width <= codebooks.MOST_BITS:
            raise RecipeError(f'"{name}" cannot have codes of {width} bits. Use 1 to {codebooks.MOST_BITS}.')
    layers, stored = prune.named(model, by_name), model.state_dict()
    biases = [name for weight in layers.values() if (name := weight.stored_bias) in stored]
    shared = {weight.stored: by_name[name] for name, weight in layers.items()}
    return shared | dict.fromkeys(biases, bias_bits)


def _judged(model: nn.Module, task: task_api.Task, sparse: Sparse, max_error: float) -> Sparse:
    error = task_api.probe(task, model)
    return as_sparse(model, (*sparse.history, point(model, "centroids", error, good=error <= max_error)))
