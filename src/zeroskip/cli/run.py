"""The command that runs a .zs file, or what a run left behind. Its docstring is the --help."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroskip.cli.options import DATA, JSON, TASK, THREADS, app, load_task, progress_bars, say, show
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.run import Quantisation
    from zeroskip.task_api import Task

FILE = typer.Argument(
    metavar="FILE", help="The .zs file to run, or a RUN folder, whose precision is then the default."
)
PRECISION = typer.Option(
    metavar="fp32|int8",
    help="In what to compute; int8 by the scales of the run that FILE is of, else calibrated anew.",
)
BATCH = typer.Option(min=1, help="Inputs per call; default: 1, and the task's batch.")


@app.command()
def run(
    task: Annotated[str, TASK],
    packed: Annotated[Path, FILE],
    batch: Annotated[int | None, BATCH] = None,
    precision: Annotated[str | None, PRECISION] = None,
    threads: Annotated[int, THREADS] = 1,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a .zs file beside every dense engine on this machine, and give the error of what runs.

    The table of layers is of the whole network: what no kernel runs is listed with the reason.
    """
    from zeroskip import journey, measure, outcome, report, task_api
    from zeroskip import pack as packing

    loaded = load_task(task, data)
    file, chosen = _found(packed, precision)
    model = task_api.model(loaded, packing.decode(packing.load(file)))
    quantisation = _scales(loaded, model, file) if chosen == "int8" else None
    with progress_bars() as progress:
        compared = journey.compile_and_compare(
            loaded, model, batch=batch, quantisation=quantisation, threads=threads, progress=progress
        )
    program, timings = compared[0][0], [timing for _, timing in compared]
    error = outcome.error_run(loaded, model, compared)
    cost = measure.cost(model, task_api.first(loaded, 1))
    layers = outcome.layer_summaries(cost, program)
    bits = outcome.eight_bits(quantisation, [program for program, _ in compared])
    figures = {
        "error_run": error,
        "precision": chosen,
        "eight_bits": bits and asdict(bits),
        "weights": cost.weights,
        "weights_kept": cost.kept,
        "macs": cost.macs,
        "layers": [asdict(layer) for layer in layers],
        "choices": [asdict(choice) for choice in program.choices],
        "explanation": program.explanation and program.explanation.to_json(),
        "timings": [asdict(timing) for timing in timings],
    }
    tables = [report.weight_table(layers), report.choice_table(program.choices)]
    tables += [report.explanation_table(program.explanation)] if program.explanation else []
    show(figures, *tables, *map(report.timing_table, timings), as_json=as_json)
    if not as_json:
        say(f"error of what runs, test split: {report.show_error(error)}")


def _found(path: Path, precision: str | None) -> tuple[Path, str]:
    """The .zs file that is meant, and in what to compute: as asked for, or as the run did."""
    from zeroskip import journey, run_folder

    if precision not in (None, *journey.PRECISIONS):
        raise RecipeError(f'--precision is {" or ".join(journey.PRECISIONS)}, not "{precision}".')
    if not path.is_dir():
        return path, precision or "fp32"
    summary = run_folder.load(path).summary
    return path / summary.shown / "model.zs", precision or summary.precision


def _scales(task: Task, model: nn.Module, file: Path) -> Quantisation:
    """The scales that lie beside the file, or those of a new calibration."""
    from zeroskip import journey, run_folder
    from zeroskip import run as running

    stored = run_folder.scales(file.parent)
    return journey.calibrated(task, model) if stored is None else running.quantisation.load(stored)
