"""The iterative loop of Han et al. 2015: prune, retrain, repeat, within a budget of error."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from zeroskip import files, graph, prune, run_folder, task_api, thresholds
from zeroskip.concepts import Point, Progress, Recipe, Round, Sparse, TrainState, silent
from zeroskip.errors import RecipeError, TaskError
from zeroskip.patterns import of_layer
from zeroskip.retrain.activation_penalties import raising
from zeroskip.retrain.dropout import rescaled_dropout
from zeroskip.retrain.gradual import Growing, check_gradual
from zeroskip.retrain.losses import PENALTY, TEACHER, check, penalized, taught
from zeroskip.task_api import Loss

_State = dict[str, Tensor]

BISECTIONS = 2
"""How often the gap between the last good round and the first bad one is halved."""


@dataclass(frozen=True)
class _Setting:
    """What stays the same over a whole loop.

    named  weights that a round of the recipe names: their zeros stay in all rounds, also where others keep them dense
    """

    model: nn.Module
    teacher: nn.Module
    task: task_api.Task
    folder: Path | None
    seed: int
    progress: Progress
    budget: float
    named: frozenset[str]


def loop(
    model: nn.Module,
    recipe: Recipe,
    task: task_api.Task,
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

    >>> sparse = loop(dense, Recipe((Round(sparsity=0.5), Round(sparsity=0.75))), task, folder="runs/four")
    >>> [each.weights_kept for each in sparse.history]  # of 80
    [80, 40, 20]
    """
    _check(recipe, model, task)
    path = _claim(folder, model, recipe, seed)
    error = task_api.evaluate(task, model, "validation")
    # A billionth more, since sums of shares such as 13/360 + 1/360 need not equal 14/360 to the last bit.
    budget = float("inf") if recipe.max_error_rise is None else error + recipe.max_error_rise + 1e-9
    teacher = deepcopy(model).eval()
    named = frozenset(name for round_ in recipe.rounds for name in _shares(round_))
    setting = _Setting(model, teacher, task, path, seed, progress, budget, named)
    history = [point(model, "dense", error, good=True)]
    good, done, broken = _plain(model), Round(sparsity=0.0), None
    for round_ in recipe.rounds:
        after, reached = _attempt(setting, good, round_, "round", len(history))
        history.append(reached)
        if not reached.good:
            broken = round_
            break
        good, done = after, round_
    for _ in range(BISECTIONS):
        middle = broken and between(done, broken)
        if middle is None or middle == broken:  # patterns that fix their sparsity leave nothing in the middle
            break
        after, reached = _attempt(setting, good, middle, "bisection", len(history))
        history.append(reached)
        if reached.good:
            good, done = after, middle
        else:
            broken = middle
    thresholds.load_(model, good)
    return as_sparse(model, tuple(history))


def as_sparse(model: nn.Module, history: tuple[Point, ...] = ()) -> Sparse:
    """The model as the outcome of pruning: its zeros are its masks.

    >>> as_sparse(model).masks["fc1"].dtype
    torch.bool
    """
    every = graph.weights(model.eval())
    return Sparse(model, {name: weight.tensor.detach() != 0 for name, weight in every.items()}, history)


def between(good: Round, broken: Round) -> Round:
    """The round half way: each layer keeps the geometric mean of what the two keep, unless its pattern fixes it, and
    has the mean of their thresholds.

    >>> between(Round(sparsity=0.0), Round(sparsity=0.75)).sparsity
    0.5
    """
    low, high = good.sparsity, broken.sparsity
    thetas = {name: (good.thresholds.get(name, 0.0) + theta) / 2 for name, theta in broken.thresholds.items()}
    broken = replace(broken, thresholds=thetas)
    if isinstance(high, Mapping):
        lows = low if isinstance(low, Mapping) else dict.fromkeys(high, low or 0.0)
        free = [name for name in high if of_layer(broken.pattern, name).fixed_sparsity is None]
        return replace(broken, sparsity={**high, **{n: _half_way(lows.get(n, 0.0), high[n]) for n in free}})
    assert isinstance(low, float | int | None)  # _check allows no mixture
    assert high is not None
    return replace(broken, sparsity=_half_way(low or 0.0, high))


def _half_way(low: float, high: float) -> float:
    return 1 - ((1 - low) * (1 - high)) ** 0.5


def _attempt(setting: _Setting, start: _State, round_: Round, kind: str, index: int) -> tuple[_State, Point]:
    """Prune as `round_` says from `start`, retrain, evaluate; or read what an earlier process found."""
    stored = setting.folder / f"{index:03}.json" if setting.folder else None
    if stored is not None and stored.exists():
        reached = run_folder.from_json(Point, files.read_json(stored))
        return run_folder.load_tensors(stored.with_suffix(".safetensors")), reached
    model = setting.model
    thresholds.load_(model, start)
    # A round that prunes gradually starts with the zeros that are there.
    at_once = Round(sparsity={}) if round_.gradual else round_
    prune.hold_(model, prune.choose(model, at_once, also=setting.named))
    growing = Growing(model, round_, also=setting.named) if round_.gradual else None
    try:
        prune.check_reach(model, task_api.first(setting.task, 1))
        _retrain(setting, round_, growing, f"{kind} {index}", setting.seed * 1000 + index)
    finally:
        prune.release_(model)
    if growing is not None:
        _check_reached(setting, growing)
    error = task_api.probe(setting.task, model)
    reached = point(model, kind, error, good=error <= setting.budget)
    weights = _plain(model)
    if stored is not None:
        run_folder.save_tensors(stored.with_suffix(".safetensors"), weights)
        run_folder.save_json(stored, reached)  # last: a point that is there vouches for its weights
    return weights, reached


def _check_reached(setting: _Setting, growing: Growing) -> None:
    """A training that ended before the schedule, or never called `on_step`, must not pass for sparse."""
    round_, model = growing.round_, setting.model
    weights = {name: weight.tensor for name, weight in graph.weights(model).items()}
    wanted = growing.wanted()
    kept = sum(int(torch.count_nonzero(weights[name])) for name in wanted)
    held = thresholds.held(model)
    # Thresholds are held as float32, and each layer's share of weights is rounded.
    low = any(held.get(name, 0.0) < 0.999 * theta for name, theta in round_.thresholds.items())
    if low or kept > sum(int(mask.sum()) for mask in wanted.values()) + len(wanted):
        raise TaskError(
            f"{task_api.name(setting.task)}: train() {growing.progress}, so it ends with too few zeros. Call on_step "
            f"after each backward to the end of the training, announce no more steps than there are, or give the "
            f"round a smaller gradual than {round_.gradual:g}."
        )
    if dense := growing.left_dense:
        reasons = ", ".join(f'"{name}" ({reason})' for name, reason in dense.items())
        warnings.warn(
            f'these weights had no gradients for "{round_.score}" and stay dense: {reasons}', stacklevel=2
        )


def _loss(setting: _Setting, round_: Round) -> Loss | None:
    """The task's loss with what the round adds to it; None: train() uses its own."""
    if not round_.penalty and not round_.teacher:
        return None
    loss: Loss | None = getattr(setting.task, "loss", None)
    if loss is None:
        raise TaskError(
            f"{task_api.name(setting.task)} has no loss(model, inputs, targets) that a penalty or a teacher could be "
            f"added to. Write one and let train() take it as a keyword, or leave penalty and teacher out of the round."
        )
    loss = taught(loss, setting.teacher, round_.teacher) if round_.teacher else loss
    return penalized(loss, round_.penalty) if round_.penalty else loss


def _retrain(setting: _Setting, round_: Round, growing: Growing | None, stage: str, seed: int) -> None:
    task, model = setting.task, setting.model
    keywords: dict[str, object] = {**round_.train, "loss": _loss(setting, round_)}
    if growing is not None:
        raise_ = raising(model, round_.thresholds, share=round_.gradual)
        keywords["on_step"] = lambda *at: (raise_(*at), growing(*at))
    else:
        thresholds.hold_(model, round_.thresholds)
    divisor = round_.train.get("learning_rate_divisor")
    keywords.pop("learning_rate_divisor", None)
    rate = getattr(task, "learning_rate", None)
    if divisor is not None and rate is None:
        warnings.warn(
            f"{task_api.name(task)} has no learning_rate to divide by {divisor:g}: its train() runs as it is.",
            stacklevel=2,
        )
    elif divisor is not None and rate is not None:
        # Constant, as Caffe's step policy is within one retraining; without a divisor the task's own schedule runs.
        keywords["learning_rate"] = lambda step: float(rate) / divisor
    example = task_api.first(task, 1)
    dropout = rescaled_dropout(model, example) if round_.rescale_dropout else nullcontext()
    with dropout, _frozen(model, round_.frozen):
        train(
            task, model, stage=stage, seed=seed, folder=setting.folder, progress=setting.progress, **keywords
        )


def train(
    task: task_api.Task,
    model: nn.Module,
    *,
    stage: str,
    seed: int,
    folder: Path | None = None,
    progress: Progress = silent,
    **keywords: object,
) -> None:
    """One training that starts from `seed` and, with `folder`, continues after the last finished epoch.

    >>> train(task, model, stage="dense", seed=0)
    >>> task_api.evaluate(task, model, "validation") < 0.5
    True
    """

    def on_epoch(done: int, total: int, state: TrainState) -> None:
        progress(stage, done, total)
        if folder is not None:
            run_folder.keep_unfinished(folder, stage, state)

    # Seeding each training by itself makes a resumed run equal an uninterrupted one, for any task.
    task_api.seed_all(seed)
    resume = run_folder.unfinished(folder, stage) if folder is not None else None
    progress(stage, 0, 1)
    task_api.train(task, model, resume=resume, on_epoch=on_epoch, **keywords)
    task_api.check_finite(model)


@contextmanager
def _frozen(model: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    """Inside, these weights and the biases beside them do not learn."""
    every = graph.weights(model)
    parameters = {every[name].parameter for name in names}
    for place in (place for name in names for place in every[name].places):
        bias = place.module._parameters.get(place.tensor.replace("weight", "bias", 1))
        if bias is not None:
            parameters.add(bias)
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _plain(model: nn.Module) -> _State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def point(model: nn.Module, kind: str, error: float, *, good: bool) -> Point:
    """Where `model` stands on the trade-off of weights against error."""
    weights = {name: weight.tensor.detach() for name, weight in graph.weights(model).items()}
    kept = {name: int(torch.count_nonzero(weight)) for name, weight in weights.items()}
    return Point(kind, sum(kept.values()), sum(w.numel() for w in weights.values()), error, good, kept)


def _claim(folder: str | Path | None, model: nn.Module, recipe: Recipe, seed: int) -> Path | None:
    """The folder of the attempts, which belong to this start, recipe and seed and to no others."""
    if folder is None:
        return None
    rounds = hashlib.sha256(json.dumps(recipe.to_json()).encode()).hexdigest()[:12]
    owner = {"start": run_folder.fingerprint(model.state_dict()), "recipe": rounds, "seed": seed}
    return run_folder.claim(Path(folder) / "rounds", owner)


def _check(recipe: Recipe, model: nn.Module, task: task_api.Task) -> None:
    if not recipe.rounds:
        raise RecipeError("the recipe has no rounds. `prune.plan` makes one, or give Recipe((Round(...),)).")
    if any(round_.gradual for round_ in recipe.rounds):
        task_api.check_on_step(task)
    for round_ in recipe.rounds:
        prune.check_names(round_.frozen, graph.weights(model))
        prune.named(model, _shares(round_))
        thresholds.check(model, round_.thresholds)
        check(round_.penalty, PENALTY, "penalty")
        check(round_.teacher, TEACHER, "teacher")
        check_gradual(round_, model)
    if recipe.max_error_rise is None:
        return
    if any(round_.sparsity is None for round_ in recipe.rounds):
        raise RecipeError(
            "rounds given by quality cannot be bisected within a budget. Give sparsities, or max_error_rise=None."
        )
    if len({isinstance(round_.sparsity, Mapping) for round_ in recipe.rounds}) > 1:
        raise RecipeError("some rounds give one sparsity and some one per layer. Use one form in a recipe.")


def _shares(round_: Round) -> list[str]:
    """The weights that the round names to lose something."""
    shares = round_.quality if round_.quality is not None else round_.sparsity
    return list(shares) if isinstance(shares, Mapping) else []
