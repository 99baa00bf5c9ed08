"""The commands that make zeros, in weights and in activations. Their docstrings are the --help."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroskip.cli.options import (
    DATA,
    DOWNLOAD,
    JSON,
    PATTERN,
    PERMUTE,
    RISE,
    SEED,
    TASK,
    WEIGHTS,
    app,
    check_plan,
    load_task,
    progress_bars,
    say,
    show,
    trained,
)
from zeroskip.errors import FileError, RecipeError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.concepts import Progress, Recipe, Sparse
    from zeroskip.simulate import Accelerator
    from zeroskip.task_api import Task

SPARSITY = typer.Option(help="Prune to this share of zeros, such as 0.9.")
ROUNDS = typer.Option(min=1, help="With --sparsity: prune and retrain in so many steps, default 4.")
WHILE_TRAINING = typer.Option(
    "--while-training",
    help="With --sparsity: prune in one training, by w^2 x sqrt(mean g^2); train() calls on_step.",
)
DIVISOR = typer.Option(
    min=1.0, metavar="N", help="Retrain at the task's learning rate divided by this (Han et al.: 10)."
)
COST_ON = typer.Option(metavar="CHIP", help="Spend where this chip gains most: eie, ...")
COST = typer.Option(help="What shall fall on a chip: cycles or joules.")
OUT = typer.Option(metavar="FILE", help="The sparse weights, as safetensors.")
THRESHOLD_RISE = typer.Option(
    metavar="NUMBER",
    help="How much the validation error may rise, 0.01 = one point; or 1sigma: what five trainings differ by. "
    "Default: one example of the validation split, where the task tells its size.",
)
THRESHOLDS_OUT = typer.Option(metavar="FILE", help="Where weights and thresholds go (safetensors).")


@dataclass(frozen=True)
class _Asked:
    """What the words ask for: a budget of error, spent on a chip where one is named, or a sparsity."""

    pattern: str
    max_error_rise: float | None
    sparsity: float | None
    rounds: int | None
    while_training: bool
    learning_rate_divisor: float | None
    chip: Accelerator | None
    cost: str


@dataclass(frozen=True)
class _Dense:
    """A weight without a zero, and why."""

    name: str
    weights: int
    share_of_weights: float
    reason: str


@app.command()
def prune(
    task: Annotated[str, TASK],
    out: Annotated[Path, OUT],
    pattern: Annotated[str, PATTERN] = "free",
    max_error_rise: Annotated[float | None, RISE] = None,
    sparsity: Annotated[float | None, SPARSITY] = None,
    rounds: Annotated[int | None, ROUNDS] = None,
    while_training: Annotated[bool, WHILE_TRAINING] = False,
    cost_on: Annotated[str | None, COST_ON] = None,
    cost: Annotated[str, COST] = "cycles",
    learning_rate_divisor: Annotated[float | None, DIVISOR] = None,
    permute: Annotated[bool, PERMUTE] = True,
    weights: Annotated[Path | None, WEIGHTS] = None,
    seed: Annotated[int, SEED] = 0,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Prune, retrain, write the weights. Trains first unless given --weights."""
    from zeroskip import prune as pruning
    from zeroskip import report, retrain, run_folder, task_api

    asked = _Asked(
        pattern,
        max_error_rise,
        sparsity,
        rounds,
        while_training,
        learning_rate_divisor,
        chip=_cost_chip(cost_on, cost),
        cost=cost,
    )
    _check(asked)
    loaded = load_task(task, data, download)
    task_api.seed_all(seed)
    check_file(out)
    with progress_bars() as progress:
        check_plan(loaded, weights, pattern, max_error_rise, sparsity)
        if while_training:
            task_api.check_on_step(loaded)
        model = trained(loaded, weights, progress, seed=seed)
        if permute and pruning.gains_by_order(pattern):
            model = pruning.permute_channels(model, task_api.batch(loaded), pattern).model
        recipe = _recipe(asked, model, loaded, progress)
        sparse = retrain.loop(model, recipe, loaded, seed=seed, progress=progress)
    run_folder.save_tensors(out, sparse.model.state_dict())
    dense = _left_dense(sparse, recipe)
    figures = {"written": str(out), "seed": seed, "history": [asdict(point) for point in sparse.history]}
    figures["dense"] = [asdict(each) for each in dense]
    show(figures, report.history_table(sparse.history), as_json=as_json)
    if not as_json:
        for each in dense:
            share = report.show_share(each.share_of_weights)
            say(f"{each.name or 'the network'} stays dense, {share} of the weights: {each.reason}")
        say(f"wrote {out}; next: zeroskip pack {task} {out} --out model.zs")


def _left_dense(sparse: Sparse, recipe: Recipe) -> list[_Dense]:
    """The weights of which nothing was pruned, largest first, and why; a table may hold zeros of its own."""
    from zeroskip import graph

    total = sum(mask.numel() for mask in sparse.masks.values())
    weights = graph.weights(sparse.model)
    whole = [name for name, mask in sparse.masks.items() if weights[name].kept_dense or mask.all()]
    found = []
    for name in sorted(whole, key=lambda each: -sparse.masks[each].numel()):
        planned = recipe.reasons.get(name, "")
        reason = weights[name].kept_dense or "nothing of it was pruned"
        reason = planned.removeprefix("stays dense: ") if planned.startswith("stays dense") else reason
        count = sparse.masks[name].numel()
        found.append(_Dense(name, count, count / total, reason))
    return found


def check_file(path: Path) -> None:
    """FileError, before a training, where `path` is a folder or its folder cannot be made; none is left behind."""
    from zeroskip import files

    absent = [folder for folder in path.parents if not folder.exists()]
    files.folder(path.parent)
    for folder in absent:
        folder.rmdir()
    if path.is_dir():
        raise FileError(f"{path} is a folder. Name a file in it.")


def check_cost(cost: str) -> None:
    """RecipeError for an unknown --cost."""
    from zeroskip.simulate.plan_cost import OF

    if cost not in OF:
        raise RecipeError(f'--cost is {" or ".join(OF)}, not "{cost}".')


def train_keywords(learning_rate_divisor: float | None) -> dict[str, float] | None:
    """Keywords of each retraining; None for the task's own."""
    return {"learning_rate_divisor": learning_rate_divisor} if learning_rate_divisor else None


def _cost_chip(words: str | None, cost: str) -> Accelerator | None:
    """The chip that --cost-on names, looked for before any training."""
    from zeroskip.exploration.chip_lookup import one_chip

    check_cost(cost)
    if words is None and cost != "cycles":
        raise RecipeError("--cost goes with --cost-on, which names a chip.")
    return None if words is None else one_chip(words)


def _check(asked: _Asked) -> None:
    """RecipeError, or PatternError, for words that do not go together."""
    from zeroskip import prune as pruning

    if asked.sparsity is None and asked.rounds is not None:
        raise RecipeError("--rounds goes with --sparsity; a budget makes as many rounds as it allows.")
    if asked.while_training and (asked.sparsity is None or asked.rounds is not None):
        raise RecipeError("--while-training goes with --sparsity, without --rounds.")
    if asked.while_training and asked.sparsity is not None:
        pruning.while_training(asked.sparsity, pattern=asked.pattern)
    if asked.sparsity is not None and asked.max_error_rise is not None:
        raise RecipeError("give --sparsity or --max-error-rise, not both.")
    if asked.sparsity is not None and asked.chip is not None:
        raise RecipeError("--cost-on goes with --max-error-rise: it says where to spend that budget.")


def _recipe(asked: _Asked, model: nn.Module, task: Task, progress: Progress) -> Recipe:
    from zeroskip import measure, simulate, task_api
    from zeroskip import prune as pruning
    from zeroskip.exploration.plan_comparison import example_trace

    train = train_keywords(asked.learning_rate_divisor)
    if asked.sparsity is not None and asked.while_training and asked.pattern == "free":
        return pruning.while_training(asked.sparsity, train=train)
    profile = measure.profile(model, task, progress=progress)
    if asked.sparsity is not None and asked.while_training:
        return pruning.while_training(asked.sparsity, pattern=asked.pattern, profile=profile, train=train)
    if asked.sparsity is not None:
        steps = pruning.schedules.cubic(asked.sparsity, asked.rounds or 4)
        return pruning.plan(
            profile, pattern=asked.pattern, max_error_rise=None, sparsities=steps, train=train
        )
    rise = task_api.one_example(task) if asked.max_error_rise is None else asked.max_error_rise
    cost = None
    if asked.chip is not None:
        trace = example_trace(model, task)
        cost = simulate.cost_on(asked.chip, trace, of=asked.cost, pattern=asked.pattern)
    return pruning.plan(profile, pattern=asked.pattern, max_error_rise=rise, cost=cost, train=train)


@app.command()
def prune_activations(
    task: Annotated[str, TASK],
    out: Annotated[Path, THRESHOLDS_OUT],
    max_error_rise: Annotated[str | None, THRESHOLD_RISE] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    seed: Annotated[int, SEED] = 0,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Prune small inputs of layers: one threshold a layer, searched for all together, without training.

    The thresholds are stored with the weights, and every other command honours them. Trains the network first unless
    given --weights; no weight is pruned.
    """
    from zeroskip import prune as pruning
    from zeroskip import report, run_folder, task_api, thresholds

    number, in_sigmas = _number(max_error_rise)
    loaded = load_task(task, data, download)
    task_api.seed_all(seed)
    check_file(out)
    with progress_bars() as progress:
        if number is not None and in_sigmas:
            model, rise = _within_sigmas(loaded, weights, number, seed, progress)
        else:
            rise = task_api.one_example(loaded) if number is None else number
            model = trained(loaded, weights, progress, seed=seed)
        search = pruning.thresholds(model, loaded, max_error_rise=rise, progress=progress)
        run_folder.save_tensors(out, thresholds.hold_(model, search.thresholds).state_dict())
        before = task_api.evaluate(loaded, thresholds.release_(model), "test")
        after = task_api.evaluate(loaded, thresholds.hold_(model, search.thresholds), "test")
    figures = {
        "written": str(out),
        "seed": seed,
        "max_error_rise": rise,
        "removed": search.removed,
        "thresholds": search.thresholds,
        "before": asdict(search.before),
        "after": asdict(search.after),
        "test_error_before": before,
        "test_error_after": after,
    }
    show(figures, report.threshold_table(search), as_json=as_json)
    if not as_json:
        say(f"test error {report.show_error(before)} -> {report.show_error(after)}")
        if search.note:
            say(search.note)
        say(f"wrote {out}, thresholds with the weights; next: zeroskip pack, as for any weights")


def _number(word: str | None) -> tuple[float | None, bool]:
    """0.01 is a rise of the error; 1sigma is a number of sigma, which the second value says; None is the default."""
    if word is None:
        return None, False
    match = re.fullmatch(r"([0-9.eE+-]+)\s*(sigma)?", word)
    try:
        number = float(match[1]) if match else math.inf
    except ValueError:
        number = math.inf
    if not match or not 0 <= number < math.inf:
        raise RecipeError(
            f"--max-error-rise {word} is no number from 0 up. 0.01 allows one point more; or 1sigma."
        )
    return number, match[2] is not None


def _within_sigmas(
    task: Task, weights: Path | None, sigmas: float, seed: int, progress: Progress
) -> tuple[nn.Module, float]:
    """The network to prune, and by how much its error may rise: so many sigma of five trainings."""
    from zeroskip import prune as pruning

    noise = pruning.noise(task, first=seed, progress=progress)
    if weights is not None:
        return trained(task, weights, progress, seed=seed), sigmas * noise.sigma
    # The bound is the mean of the trainings and so many sigma; the middle one is near the mean, not on it.
    return noise.middle, max(0.0, noise.rise + (sigmas - 1) * noise.sigma)
