"""The command that makes zeros, in weights or in activations. Its docstring is the --help."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroskip.cli.words import (
    DATA,
    DOWNLOAD,
    JSON,
    PATTERN,
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
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.concepts import Progress, Recipe
    from zeroskip.contract import Task
    from zeroskip.prune import ActivationPruning

ACTIVATIONS = typer.Option(
    "--activations",
    help="Prune small inputs of layers instead of weights: one threshold a layer, searched for all together, "
    "without training.",
)
RISE = typer.Option(
    metavar="NUMBER",
    help="How much the validation error may rise, 0.01 = one point. Default: one example of the validation "
    "split, where the task tells its size. With --activations also 1sigma: what five trainings differ by.",
)
SPARSITY = typer.Option(
    help="Prune to this share of zeros, e.g. 0.9, whatever the error, instead of a budget."
)
ROUNDS = typer.Option(min=1, help="With --sparsity: prune and retrain in this many steps, default 4.")
WHILE_TRAINING = typer.Option(
    "--while-training",
    help="With --sparsity: prune in the course of one training, by w^2 x sqrt(mean g^2): fewer weights at "
    "the same error than by size, for tasks whose train() calls on_step.",
)
DIVISOR = typer.Option(min=1.0, help="Retrain at the task's learning rate divided by this (Han et al.: 10).")


@app.command()
def prune(
    task: Annotated[str, TASK],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the sparse weights go (safetensors).")],
    activations: Annotated[bool, ACTIVATIONS] = False,
    pattern: Annotated[str, PATTERN] = "free",
    max_error_rise: Annotated[str | None, RISE] = None,
    sparsity: Annotated[float | None, SPARSITY] = None,
    rounds: Annotated[int | None, ROUNDS] = None,
    while_training: Annotated[bool, WHILE_TRAINING] = False,
    learning_rate_divisor: Annotated[float | None, DIVISOR] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Prune and retrain, and write the sparse weights. Trains the network first unless given --weights."""
    from zeroskip import contract, files, report, retrain, runs

    rise, sigmas = _rise(max_error_rise)
    _check_ways(sparsity, rounds, rise, while_training, pattern)
    _check_activations(activations, sigmas, sparsity, pattern, learning_rate_divisor)
    loaded = load_task(task, data, download)
    files.folder(out.parent)  # a place that cannot be written is better known before the training
    if activations:
        _prune_activations(loaded, weights, out, rise, sigmas, as_json)
        return
    with progress_bars() as progress:
        check_plan(loaded, weights, pattern, rise, sparsity)
        if while_training:
            contract.check_on_step(loaded)
        model = trained(loaded, weights, progress)
        ways: dict[str, Any] = {
            "pattern": pattern,
            "max_error_rise": rise,
            "sparsity": sparsity,
            "rounds": rounds,
        }
        divisor = {"learning_rate_divisor": learning_rate_divisor} if learning_rate_divisor else None
        recipe = _recipe(model, loaded, progress, while_training=while_training, train=divisor, **ways)
        sparse = retrain.loop(model, recipe, loaded, progress=progress)
    runs.save_tensors(out, sparse.model.state_dict())
    history = [asdict(point) for point in sparse.history]
    show({"written": str(out), "history": history}, report.history_table(sparse.history), as_json=as_json)
    if not as_json:
        say(f"wrote {out}; next: zeroskip pack {task} {out} --out model.zs")


def _check_ways(
    sparsity: float | None, rounds: int | None, rise: float | None, while_training: bool, pattern: str
) -> None:
    if sparsity is None and rounds is not None:
        raise RecipeError("--rounds goes with --sparsity; a budget makes as many rounds as it allows.")
    if while_training and (sparsity is None or rounds is not None or pattern != "free"):
        raise RecipeError("--while-training goes with --sparsity, without --rounds and --pattern.")
    if sparsity is not None and rise is not None:
        raise RecipeError("give --sparsity or --max-error-rise, not both.")


def _recipe(
    model: nn.Module,
    task: Task,
    progress: Progress,
    *,
    pattern: str,
    max_error_rise: float | None,
    sparsity: float | None,
    rounds: int | None,
    while_training: bool,
    train: dict[str, Any] | None,
) -> Recipe:
    from zeroskip import contract, measure
    from zeroskip import prune as pruning

    if sparsity is not None and while_training:
        return pruning.while_training(sparsity, train=train)
    profile = measure.profile(model, task, progress=progress)
    if sparsity is None:
        rise = contract.one_example(task) if max_error_rise is None else max_error_rise
        return pruning.plan(profile, pattern=pattern, max_error_rise=rise, train=train)
    steps = pruning.schedules.cubic(sparsity, rounds or 4)
    return pruning.plan(profile, pattern=pattern, max_error_rise=None, sparsities=steps, train=train)


def _rise(word: str | None) -> tuple[float | None, float | None]:
    """The rise as a number, or how many sigma it is; "1sigma" -> (None, 1.0)."""
    match = re.fullmatch(r"([0-9.eE+-]+)\s*(sigma)?", word or "0")
    try:
        number = float(match[1]) if match else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise RecipeError(
            f"--max-error-rise {word} is no number from 0 up. 0.01 allows one point more; or 1sigma."
        )
    if word is None:
        return None, None
    return (None, number) if match and match[2] else (number, None)


def _check_activations(
    activations: bool,
    sigmas: float | None,
    sparsity: float | None,
    pattern: str,
    divisor: float | None,
) -> None:
    if sigmas is not None and not activations:
        raise RecipeError("a rise in sigma goes with --activations. Give --max-error-rise as a number.")
    if activations and (sparsity is not None or divisor is not None or pattern != "free"):
        raise RecipeError("--activations goes with --max-error-rise alone: no weight is pruned or trained.")


def _prune_activations(
    task: Task, weights: Path | None, out: Path, rise: float | None, sigmas: float | None, as_json: bool
) -> None:
    """Find thresholds, put them before the layers, write the weights with them."""
    from zeroskip import contract, report, runs, thresholds
    from zeroskip import prune as pruning

    with progress_bars() as progress:
        model, rise = _start(task, weights, rise, sigmas, progress)
        found = pruning.thresholds(model, task, max_error_rise=rise, progress=progress)
        runs.save_tensors(out, thresholds.hold_(model, found.thresholds).state_dict())
        before = contract.evaluate(task, thresholds.release_(model), "test")
        after = contract.evaluate(task, thresholds.hold_(model, found.thresholds), "test")
    figures = {"written": str(out), "max_error_rise": rise, "removed": found.removed, **_told(found)}
    figures |= {"test_error_before": before, "test_error_after": after}
    show(figures, report.threshold_table(figures), as_json=as_json)
    if not as_json:
        say(f"test error {report.show_error(before)} -> {report.show_error(after)}")
        if found.note:
            say(found.note)
        say(
            f"wrote {out}, thresholds with the weights; next: zeroskip pack {contract.name(task)} {out} --out model.zs"
        )


def _start(
    task: Task, weights: Path | None, rise: float | None, sigmas: float | None, progress: Progress
) -> tuple[nn.Module, float]:
    """The network to prune, and by how much its error may rise."""
    from zeroskip import contract
    from zeroskip import prune as pruning

    if sigmas is None:
        given = contract.one_example(task) if rise is None else rise
        return trained(task, weights, progress), given
    noise = pruning.noise(task, progress=progress)
    if weights is not None:
        return trained(task, weights, progress), sigmas * noise.sigma
    # The bound is the mean of the trainings and so many sigma; the middle one is near the mean, not on it.
    return noise.middle, max(0.0, noise.rise + (sigmas - 1) * noise.sigma)


def _told(found: ActivationPruning) -> dict[str, Any]:
    return {"thresholds": found.thresholds, "before": asdict(found.before), "after": asdict(found.after)}
