"""The command that looks at a network. Its docstring is the --help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroskip.cli import options
from zeroskip.cli.options import app, load_task, progress_bars, say, show, trained
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.concepts import Progress
    from zeroskip.measure import Count, NetworkCost, Sums, Zeros
    from zeroskip.task_api import Task

ACTIVATIONS = typer.Option(
    "--activations",
    help="Count the zeros between the layers instead, over the whole validation split: in what each layer reads, and "
    "in what leaves it.",
)
OUT = typer.Option(
    metavar="RUN",
    help="With --activations: folder for activations.html (zeros by position, channel, class and example) and for "
    "what a killed pass needs to continue.",
)
BY = ("position", "class", "example")
EVERY = 20  # batches after which a pass is stored, to be continued


@app.command()
def measure(
    task: Annotated[str, options.TASK],
    activations: Annotated[bool, ACTIVATIONS] = False,
    out: Annotated[Path | None, OUT] = None,
    weights: Annotated[Path | None, options.WEIGHTS] = None,
    data: Annotated[Path | None, options.DATA] = None,
    download: Annotated[bool, options.DOWNLOAD] = False,
    as_json: Annotated[bool, options.JSON] = False,
) -> None:
    """Look at a network: cost, zeros and sensitivity of each layer. Trains it first unless given --weights."""
    from zeroskip import measure as measuring
    from zeroskip import report, task_api

    if out is not None and not activations:
        raise RecipeError("--out goes with --activations; the profile is only shown.")
    loaded = load_task(task, data, download)
    with progress_bars() as progress:
        model = trained(loaded, weights, progress)
        if activations:
            _activations(model, loaded, out, progress, as_json)
            return
        profile = measuring.profile(model, loaded, progress=progress)
    cost = measuring.cost(model, task_api.first(loaded, 1))
    figures = asdict(profile) | {"network": _network(cost)}
    show(figures, report.profile_table(profile, cost.activation_macs), as_json=as_json)


def _network(cost: NetworkCost) -> dict[str, int]:
    """The whole network's figures."""
    names = ("weights", "kept", "macs", "activation_macs", "stored_bytes")
    return {name: getattr(cost, name) for name in names}


def _activations(model: nn.Module, task: Task, out: Path | None, progress: Progress, as_json: bool) -> None:
    from zeroskip import measure as measuring
    from zeroskip import report, task_api

    zeros = _zeros(model, task, out, progress)
    rows = measuring.table(model, task_api.first(task, 1), zeros)
    title = f"{task_api.name(task)}: zeros between the layers"
    figures = {"layers": [asdict(row) for row in rows], "zeros": _counts(zeros)}
    show(figures, report.activation_table(rows, title=title), as_json=as_json)
    if out is not None:
        page = report.activations_html(out / "activations.html", title, rows, zeros)
        if not as_json:
            say(f"wrote {page}")


def _zeros(model: nn.Module, task: Task, out: Path | None, progress: Progress) -> Mapping[str, Zeros]:
    """One pass over the task's examples; with a folder, everything is counted and the pass can be continued."""
    from zeroskip import measure as measuring
    from zeroskip import run_folder, task_api

    if out is None:
        return measuring.activations(model, task_api.examples(task), progress=progress)
    owner = {"task": task_api.identity(task), "weights": run_folder.fingerprint(model.state_dict())}
    path = run_folder.claim(out, owner) / "activations.safetensors"

    def keep(done: int, sums: Sums) -> None:
        if done % EVERY == 0:
            run_folder.save_tensors(path, sums)

    resume = run_folder.load_tensors(path) if path.exists() else None
    by = BY if task_api.has_classes(task) else ("position", "example")
    examples = task_api.examples(task)
    return measuring.activations(model, examples, by=by, resume=resume, on_batch=keep, progress=progress)


def _counts(zeros: Mapping[str, Zeros]) -> dict[str, dict[str, dict[str, int] | None]]:
    """Layer -> "before", "after" -> counts; without the maps, which belong into pictures."""
    return {name: {"before": _plain(z.before), "after": _plain(z.after)} for name, z in zeros.items()}


def _plain(count: Count | None) -> dict[str, int] | None:
    if count is None:
        return None
    return {"zeros": count.zeros, "elements": count.elements, "nonfinite": count.nonfinite}
