"""The command that makes zeros in activations. Its docstring is the --help."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from zeroskip.cli.options import (
    DATA,
    DOWNLOAD,
    JSON,
    TASK,
    WEIGHTS,
    app,
    load_task,
    progress_bars,
    say,
    show,
    trained,
)
from zeroskip.cli.prune import check_file
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.concepts import Progress
    from zeroskip.task_api import Task

RISE = typer.Option(
    metavar="NUMBER",
    help="How much the validation error may rise, 0.01 = one point; or 1sigma: what five trainings differ by. "
    "Default: one example of the validation split, where the task tells its size.",
)
OUT = typer.Option(metavar="FILE", help="Where weights and thresholds go (safetensors).")


class _Budget(NamedTuple):
    """A rise of the error as a number, or how many sigma it is; neither: the default."""

    rise: float | None
    sigmas: float | None


@app.command()
def prune_activations(
    task: Annotated[str, TASK],
    out: Annotated[Path, OUT],
    max_error_rise: Annotated[str | None, RISE] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
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

    budget = _budget(max_error_rise)
    loaded = load_task(task, data, download)
    check_file(out)
    with progress_bars() as progress:
        model, rise = _start(loaded, weights, budget, progress)
        found = pruning.thresholds(model, loaded, max_error_rise=rise, progress=progress)
        run_folder.save_tensors(out, thresholds.hold_(model, found.thresholds).state_dict())
        before = task_api.evaluate(loaded, thresholds.release_(model), "test")
        after = task_api.evaluate(loaded, thresholds.hold_(model, found.thresholds), "test")
    figures = {
        "written": str(out),
        "max_error_rise": rise,
        "removed": found.removed,
        "thresholds": found.thresholds,
        "before": asdict(found.before),
        "after": asdict(found.after),
        "test_error_before": before,
        "test_error_after": after,
    }
    show(figures, report.threshold_table(found), as_json=as_json)
    if not as_json:
        say(f"test error {report.show_error(before)} -> {report.show_error(after)}")
        if found.note:
            say(found.note)
        say(f"wrote {out}, thresholds with the weights; next: zeroskip pack, as for any weights")


def _budget(word: str | None) -> _Budget:
    """0.01 -> a rise, 1sigma -> a number of sigma."""
    if word is None:
        return _Budget(None, None)
    match = re.fullmatch(r"([0-9.eE+-]+)\s*(sigma)?", word)
    try:
        number = float(match[1]) if match else -1.0
    except ValueError:
        number = -1.0
    if not match or not 0 <= number < float("inf"):
        raise RecipeError(
            f"--max-error-rise {word} is no number from 0 up. 0.01 allows one point more; or 1sigma."
        )
    return _Budget(None, number) if match[2] else _Budget(number, None)


def _start(task: Task, weights: Path | None, budget: _Budget, progress: Progress) -> tuple[nn.Module, float]:
    """The network to prune, and by how much its error may rise."""
    from zeroskip import prune as pruning
    from zeroskip import task_api

    if budget.sigmas is None:
        given = task_api.one_example(task) if budget.rise is None else budget.rise
        return trained(task, weights, progress), given
    noise = pruning.noise(task, progress=progress)
    if weights is not None:
        return trained(task, weights, progress), budget.sigmas * noise.sigma
    # The bound is the mean of the trainings and so many sigma; the middle one is near the mean, not on it.
    return noise.middle, max(0.0, noise.rise + (budget.sigmas - 1) * noise.sigma)
