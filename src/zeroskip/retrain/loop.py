"""The iterative loop of Han et al. 2015: prune, retrain, repeat, within a budget of error."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeroskip import contract, files, prune, runs
from zeroskip.concepts import Point, Progress, Recipe, Round, Sparse, TrainState, silent
from zeroskip.errors import RecipeError
from zeroskip.patterns import parse

BISECTIONS = 2
"""How often the gap between the last good round and the first bad one is halved."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class _Setting:
    """What stays the same over a whole loop."""

    model: nn.Module
    recipe: Recipe
    task: contract.Task
    folder: Path | None
    seed: int
    progress: Progress
    budget: float


def loop(
    model: nn.Module,
    recipe: Recipe,
    task: contract.Task,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Sparse:
    """Go through the recipe's rounds; the model ends as the sparse one and is also in the result.

    With `max_error_rise`, rounds stop at the first whose validation error exceeds the budget; the gap to the
    last good one is bisected twice and the last good point is returned (the dense network, if none was good).
    With `folder`, every attempt is stored: called again with the same arguments, the loop continues where it
    was killed and ends with the same result; with others, RunError. Each attempt has a random seed of its own.

    >>> retrain.loop(model, recipe, tasks.digits, folder="runs/digits").history[-1].error
    0.028
    """
    _check(recipe, model)
    path = _claim(folder, model, recipe, seed)
    error = contract.evaluate(task, model, "validation")
    # A billionth more, since sums of shares such as 13/360 + 1/360 need not equal 14/360 to the last bit.
    budget = float("inf") if recipe.max_error_rise is None else error + recipe.max_error_rise + 1e-9
    setting = _Setting(model, recipe, task, path, seed, progress, budget)
    history = [_point(model, "dense", error, good=True)]
    good, done, broken = _plain(model), Round(sparsity=0.0), None
    for one in recipe.rounds:
        after, point = _attempt(setting, good, one, "round", len(history))
        history.append(point)
        if not point.good:
            broken = one
            break
        good, done = after, one
    for _ in range(BISECTIONS):
        if broken is None:
            break
        middle = between(done, broken)
        if middle == broken:
            break  # patterns that fix their sparsity leave nothing in the middle
        after, point = _attempt(setting, good, middle, "bisection", len(history))
        history.append(point)
        if point.good:
            good, done = after, middle
        else:
            broken = middle
    model.load_state_dict(good)
    return as_sparse(model, tuple(history))


def as_sparse(model: nn.Module, history: tuple[Point, ...] = ()) -> Sparse:
    """The model as the outcome of pruning: its zeros are its masks.

    >>> as_sparse(model).masks["fc1"].dtype
    torch.bool
    """
    return Sparse(model.eval(), {name: w != 0 for name, w in prune.weights(model).items()}, history)


def between(good: Round, broken: Round) -> Round:
    """The round half way: each layer keeps the geometric mean of what the two keep, unless its pattern fixes it.

    >>> between(Round(sparsity=0.0), Round(sparsity=0.75)).sparsity
    0.5
    """
    low, high = good.sparsity, broken.sparsity
    if isinstance(high, Mapping):
        lows = low if isinstance(low, Mapping) else dict.fromkeys(high, low or 0.0)
        return replace(
            broken,
            sparsity={
                name: share if _is_fixed(broken, name) else _half_way(lows.get(name, 0.0), share)
                for name, share in high.items()
            },
        )
    assert isinstance(low, float | int | None)  # _check allows no mixture
    assert high is not None
    return replace(broken, sparsity=_half_way(low or 0.0, high))


def _is_fixed(one: Round, name: str) -> bool:
    text = one.pattern if isinstance(one.pattern, str) else one.pattern.get(name, "free")
    return parse(text).fixed_sparsity is not None


def _half_way(low: float, high: float) -> float:
    return 1 - ((1 - low) * (1 - high)) ** 0.5


def _attempt(setting: _Setting, start: Weights, one: Round, kind: str, index: int) -> tuple[Weights, Point]:
    """Prune as `one` says from `start`, retrain, evaluate; or read what an earlier process found."""
    stored = setting.folder / f"{index:03}.json" if setting.folder else None
    if stored is not None and stored.exists():
        point = runs.from_json(Point, files.read_json(stored))
        return runs.load_tensors(stored.with_suffix(".safetensors")), point
    model = setting.model
    model.load_state_dict(start)
    prune.apply_(model, prune.choose(model, one))
    try:
        _retrain(setting, one, kind, index)
    finally:
        prune.remove_(model)
    error = contract.probe(setting.task, model)
    point = _point(model, kind, error, good=error <= setting.budget)
    weights = _plain(model)
    if stored is not None:
        runs.save_tensors(stored.with_suffix(".safetensors"), weights)
        runs.save_json(stored, point)  # last: a point that is there vouches for its weights
    return weights, point


def _retrain(setting: _Setting, one: Round, kind: str, index: int) -> None:
    keywords: dict[str, Any] = dict(one.train)
    divisor = keywords.pop("learning_rate_divisor", None)
    rate = getattr(setting.task, "learning_rate", None)
    if divisor is not None and rate is None:
        warnings.warn(
            f"{contract.name(setting.task)} has no learning_rate to divide by {divisor:g}: its train() runs as it is.",
            stacklevel=2,
        )
    elif divisor is not None and rate is not None:
        # Constant, as Caffe's step policy is within one retraining; without a divisor the task's own schedule runs.
        keywords["learning_rate"] = lambda step: float(rate) / divisor
    with _frozen(setting.model, one.frozen):
        train(
            setting.task,
            setting.model,
            stage=f"{kind} {index}",
            seed=setting.seed * 1000 + index,
            folder=setting.folder,
            progress=setting.progress,
            **keywords,
        )


def train(
    task: contract.Task,
    model: nn.Module,
    *,
    stage: str,
    seed: int,
    folder: Path | None = None,
    progress: Progress = silent,
    **keywords: Any,
) -> None:
    """One training that starts from `seed` and, with `folder`, continues after the last finished epoch.

    >>> train(tasks.digits, model, stage="dense", seed=0, folder=Path("runs/demo"))
    """

    def on_epoch(done: int, total: int, state: TrainState) -> None:
        progress(stage, done, total)
        if folder is not None:
            runs.keep_unfinished(folder, stage, state)

    # Seeding each training by itself makes a resumed run equal an uninterrupted one, for any task.
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    resume = runs.unfinished(folder, stage) if folder is not None else None
    progress(stage, 0, 1)
    contract.train(task, model, resume=resume, on_epoch=on_epoch, **keywords)
    contract.check_finite(model)


@contextmanager
def _frozen(model: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    held = [p for name in names for p in model.get_submodule(name).parameters() if p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def _plain(model: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _point(model: nn.Module, kind: str, error: float, *, good: bool) -> Point:
    weights = prune.weights(model)
    kept = {name: int(torch.count_nonzero(weight)) for name, weight in weights.items()}
    return Point(kind, sum(kept.values()), sum(w.numel() for w in weights.values()), error, good, kept)


def _claim(folder: str | Path | None, model: nn.Module, recipe: Recipe, seed: int) -> Path | None:
    """The folder of the attempts, which belong to this start, recipe and seed and to no others."""
    if folder is None:
        return None
    rounds = hashlib.sha256(json.dumps(recipe.to_json()).encode()).hexdigest()[:12]
    return runs.claim(
        Path(folder) / "rounds",
        {"start": runs.fingerprint(model.state_dict()), "recipe": rounds, "seed": seed},
    )


def _check(recipe: Recipe, model: nn.Module) -> None:
    if not recipe.rounds:
        raise RecipeError("the recipe has no rounds. `prune.plan` makes one, or give Recipe((Round(...),)).")
    for one in recipe.rounds:
        prune.check_names(one.frozen, prune.weights(model))
    if recipe.max_error_rise is None:
        return
    if any(one.sparsity is None for one in recipe.rounds):
        raise RecipeError(
            "rounds given by quality cannot be bisected within a budget. Give sparsities, or max_error_rise=None."
        )
    if len({isinstance(one.sparsity, Mapping) for one in recipe.rounds}) > 1:
        raise RecipeError("some rounds give one sparsity and some one per layer. Use one form in a recipe.")
