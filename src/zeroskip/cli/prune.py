"""The command that makes zeros in weights. Its docstring is the --help."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroskip.cli.options import (
    DATA,
    DOWNLOAD,
    JSON,
    PATTERN,
    RISE,
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

    from zeroskip.concepts import Progress, Recipe
    from zeroskip.prune.plan import NetworkCost
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
COST_ON = typer.Option(
    metavar="CHIP", help="Spend the budget where this chip gains most, e.g. eie, or a Python file."
)
COST = typer.Option(help="What shall fall on a chip: cycles or joules.")
OUT = typer.Option(metavar="FILE", help="The sparse weights, as safetensors.")


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
    weights: Annotated[Path | None, WEIGHTS] = None,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Prune and retrain, and write the sparse weights. Trains the network first unless given --weights."""
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
    check_file(out)
    with progress_bars() as progress:
        check_plan(loaded, weights, pattern, max_error_rise, sparsity)
        if while_training:
            task_api.check_on_step(loaded)
        model = trained(loaded, weights, progress)
        recipe = _recipe(asked, model, loaded, progress)
        sparse = retrain.loop(model, recipe, loaded, progress=progress)
    run_folder.save_tensors(out, sparse.model.state_dict())
    history = [asdict(point) for point in sparse.history]
    show({"written": str(out), "history": history}, report.history_table(sparse.history), as_json=as_json)
    if not as_json:
        say(f"wrote {out}; next: zeroskip pack {task} {out} --out model.zs")


def check_file(path: Path) -> None:
    """Make the folder of a file to be written; FileError where that fails, or where `path` is a folder itself.

    Better known before a training than after it.
    """
    from zeroskip import files

    files.folder(path.parent)
    if path.is_dir():
        raise FileError(f"{path} is a folder. Name a file in it.")


def check_cost(cost: str) -> None:
    """RecipeError where --cost is none."""
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
    """RecipeError for words that do not go together."""
    if asked.sparsity is None and asked.rounds is not None:
        raise RecipeError("--rounds goes with --sparsity; a budget makes as many rounds as it allows.")
    if asked.while_training and (
        asked.sparsity is None or asked.rounds is not None or asked.pattern != "free"
    ):
        raise RecipeError("--while-training goes with --sparsity, without --rounds and --pattern.")
    if asked.sparsity is not None and asked.max_error_rise is not None:
        raise RecipeError("give --sparsity or --max-error-rise, not both.")
    if asked.sparsity is not None and asked.chip is not None:
        raise RecipeError("--cost-on goes with --max-error-rise: it says where to spend that budget.")


def _recipe(asked: _Asked, model: nn.Module, task: Task, progress: Progress) -> Recipe:
    from zeroskip import measure, task_api
    from zeroskip import prune as pruning

    train = train_keywords(asked.learning_rate_divisor)
    if asked.sparsity is not None and asked.while_training:
        return pruning.while_training(asked.sparsity, train=train)
    profile = measure.profile(model, task, progress=progress)
    if asked.sparsity is not None:
        steps = pruning.schedules.cubic(asked.sparsity, asked.rounds or 4)
        return pruning.plan(
            profile, pattern=asked.pattern, max_error_rise=None, sparsities=steps, train=train
        )
    rise = task_api.one_example(task) if asked.max_error_rise is None else asked.max_error_rise
    price = _price(asked, model, task)
    return pruning.plan(profile, pattern=asked.pattern, max_error_rise=rise, cost=price, train=train)


def _price(asked: _Asked, model: nn.Module, task: Task) -> NetworkCost | None:
    """What the network costs on the chip, as a function of sparsities, by a few examples."""
    from zeroskip import simulate
    from zeroskip.exploration.plan_comparison import example_trace

    if asked.chip is None:
        return None
    return simulate.cost_on(asked.chip, example_trace(model, task), of=asked.cost, pattern=asked.pattern)
