"""The command that makes zeros, in weights or in activations. Its docstring is the --help."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroskip.cli.compare_plans import check_file, compare_plans, traced
from zeroskip.cli.options import (
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
from zeroskip.cli.simulate import machines
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.concepts import Progress, Recipe
    from zeroskip.prune import ActivationPruning
    from zeroskip.prune.plan import Cost
    from zeroskip.simulate import Accelerator
    from zeroskip.task_api import Task

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
COST_ON = typer.Option(
    metavar="MACHINE",
    help="Spend the budget of error where this machine gains most, e.g. eie, scnn, or a Python file (see simulate).",
)
COST = typer.Option(help="With --cost-on: what shall fall, cycles or joules.")
OUT = typer.Option(
    metavar="PATH",
    help="Where the sparse weights go (safetensors). With --compare: a folder for the points, which the same command "
    "continues.",
)
COMPARE = typer.Option(
    "--compare",
    help="With --cost-on, here also several machines: plan by the number of weights too, train with several --seeds "
    "and budgets (--max-error-rise 0,0.01), and put both plans side by side. Writes no weights.",
)
SEEDS = typer.Option(min=1, help="With --compare: train with so many seeds, default 3.")
JOBS = typer.Option(min=1, help="With --compare: so many processes, default 1.")
MARKDOWN = typer.Option(metavar="FILE", help="With --compare: write the table as a page.")


@app.command()
def prune(
    task: Annotated[str, TASK],
    out: Annotated[Path, OUT],
    activations: Annotated[bool, ACTIVATIONS] = False,
    pattern: Annotated[str, PATTERN] = "free",
    max_error_rise: Annotated[str | None, RISE] = None,
    sparsity: Annotated[float | None, SPARSITY] = None,
    rounds: Annotated[int | None, ROUNDS] = None,
    while_training: Annotated[bool, WHILE_TRAINING] = False,
    cost_on: Annotated[str | None, COST_ON] = None,
    cost: Annotated[str, COST] = "cycles",
    compare: Annotated[bool, COMPARE] = False,
    seeds: Annotated[int | None, SEEDS] = None,
    jobs: Annotated[int | None, JOBS] = None,
    markdown: Annotated[Path | None, MARKDOWN] = None,
    learning_rate_divisor: Annotated[float | None, DIVISOR] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Prune and retrain, and write the sparse weights. Trains the network first unless given --weights."""
    from zeroskip import report, retrain, run_folder, task_api

    ways: dict[str, Any]
    train = {"learning_rate_divisor": learning_rate_divisor} if learning_rate_divisor else None
    others = activations, sparsity, rounds, while_training, weights
    if _compares(compare, cost_on, cost, others, (seeds, jobs, markdown)):
        settings = {"task": task, "on": cost_on, "of": cost, "pattern": pattern, "train": train}
        ways = {"rises": _rises(max_error_rise), "seeds": seeds or 3, "jobs": jobs or 1, "markdown": markdown}
        compare_plans(load_task(task, data, download), settings, out, as_json=as_json, **ways)
        return
    rise, sigmas = _rise(max_error_rise)
    _check_ways(sparsity, rounds, rise, while_training, pattern)
    _check_activations(activations, sigmas, sparsity, pattern, learning_rate_divisor)
    machine = _cost_machine(cost_on, cost, activations or sparsity is not None)
    loaded = load_task(task, data, download)
    check_file(out)
    if activations:
        _prune_activations(loaded, weights, out, rise, sigmas, as_json)
        return
    with progress_bars() as progress:
        check_plan(loaded, weights, pattern, rise, sparsity)
        if while_training:
            task_api.check_on_step(loaded)
        model = trained(loaded, weights, progress)
        ways = {
            "pattern": pattern,
            "max_error_rise": rise,
            "sparsity": sparsity,
            "rounds": rounds,
        }
        ways |= {"while_training": while_training, "train": train, "cost": (machine, cost)}
        recipe = _recipe(model, loaded, progress, **ways)
        sparse = retrain.loop(model, recipe, loaded, progress=progress)
    run_folder.save_tensors(out, sparse.model.state_dict())
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
    cost: tuple[Accelerator | None, str],
) -> Recipe:
    from zeroskip import measure, task_api
    from zeroskip import prune as pruning

    if sparsity is not None and while_training:
        return pruning.while_training(sparsity, train=train)
    profile = measure.profile(model, task, progress=progress)
    if sparsity is None:
        rise = task_api.one_example(task) if max_error_rise is None else max_error_rise
        price = _price(model, task, pattern, *cost)
        return pruning.plan(profile, pattern=pattern, max_error_rise=rise, cost=price, train=train)
    steps = pruning.schedules.cubic(sparsity, rounds or 4)
    return pruning.plan(profile, pattern=pattern, max_error_rise=None, sparsities=steps, train=train)


def _cost_machine(words: str | None, cost: str, other_way: bool) -> Accelerator | None:
    """The machine that --cost-on names, looked for before any training."""
    from zeroskip.simulate.plan_cost import OF

    if words is None and cost == OF[0]:
        return None
    found = machines(words)
    if other_way or len(found) > 1 or cost not in OF:
        raise RecipeError(
            "--cost-on names one machine, with --cost cycles or joules, and goes with --max-error-rise."
        )
    return found[0]


def _price(model: nn.Module, task: Task, pattern: str, machine: Accelerator | None, of: str) -> Cost | None:
    """What the network costs on the machine, as a function of sparsities, by a few examples."""
    from zeroskip import simulate

    return None if machine is None else simulate.cost_on(machine, traced(model, task), of=of, pattern=pattern)


def _compares(
    compare: bool, cost_on: str | None, cost: str, others: tuple[Any, ...], own: tuple[Any, ...]
) -> bool:
    """Whether plans are compared; RecipeError for words that do not go with that."""
    from zeroskip.simulate.plan_cost import OF

    if not compare and any(one is not None for one in own):
        raise RecipeError("--seeds, --jobs and --markdown go with --compare.")
    if compare and (cost_on is None or cost not in OF or any(others)):
        raise RecipeError(
            "--compare goes with --cost-on and --cost cycles or joules, and with --max-error-rise, --pattern and "
            "--learning-rate-divisor. It trains networks of its own."
        )
    return compare


def _rises(words: str | None) -> list[float | None]:
    """The budgets between the commas; [None] is the default one."""
    found = [_rise(word) for word in words.split(",")] if words else [(None, None)]
    if any(sigmas is not None for _, sigmas in found):
        raise RecipeError("a rise in sigma goes with --activations. Give --max-error-rise as numbers.")
    return [rise for rise, _ in found]


def _rise(word: str | None) -> tuple[float | None, float | None]:
    """The rise as a number, or how many sigma it is; "1sigma" -> (None, 1.0)."""
    if word is None:
        return None, None
    match = re.fullmatch(r"([0-9.eE+-]+)\s*(sigma)?", word)
    try:
        number = float(match[1]) if match else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise RecipeError(
            f"--max-error-rise {word} is no number from 0 up. 0.01 allows one point more; or 1sigma."
        )
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
    from zeroskip import prune as pruning
    from zeroskip import report, run_folder, task_api, thresholds

    with progress_bars() as progress:
        model, rise = _start(task, weights, rise, sigmas, progress)
        found = pruning.thresholds(model, task, max_error_rise=rise, progress=progress)
        run_folder.save_tensors(out, thresholds.hold_(model, found.thresholds).state_dict())
        before = task_api.evaluate(task, thresholds.release_(model), "test")
        after = task_api.evaluate(task, thresholds.hold_(model, found.thresholds), "test")
    figures = {"written": str(out), "max_error_rise": rise, "removed": found.removed, **_told(found)}
    figures |= {"test_error_before": before, "test_error_after": after}
    show(figures, report.threshold_table(figures), as_json=as_json)
    if not as_json:
        say(f"test error {report.show_error(before)} -> {report.show_error(after)}")
        if found.note:
            say(found.note)
        say(f"wrote {out}, thresholds with the weights; next: zeroskip pack, as for any weights")


def _start(
    task: Task, weights: Path | None, rise: float | None, sigmas: float | None, progress: Progress
) -> tuple[nn.Module, float]:
    """The network to prune, and by how much its error may rise."""
    from zeroskip import prune as pruning
    from zeroskip import task_api

    if sigmas is None:
        given = task_api.one_example(task) if rise is None else rise
        return trained(task, weights, progress), given
    noise = pruning.noise(task, progress=progress)
    if weights is not None:
        return trained(task, weights, progress), sigmas * noise.sigma
    # The bound is the mean of the trainings and so many sigma; the middle one is near the mean, not on it.
    return noise.middle, max(0.0, noise.rise + (sigmas - 1) * noise.sigma)


def _told(found: ActivationPruning) -> dict[str, Any]:
    return {"thresholds": found.thresholds, "before": asdict(found.before), "after": asdict(found.after)}
