"""The command that runs a .zs file. Its docstring is the --help."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from zeroskip.cli.options import DATA, JSON, TASK, THREADS, app, load_task, progress_bars, say, show

BATCH = typer.Option(min=1, help="Inputs per call; default: 1, and the task's batch.")


@app.command()
def run(
    task: Annotated[str, TASK],
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="The .zs file to run.")],
    batch: Annotated[int | None, BATCH] = None,
    threads: Annotated[int, THREADS] = 1,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a .zs file beside every dense engine on this machine, and give the error of what runs.

    The table of layers is of the whole network: what no kernel runs is listed with the reason.
    """
    from zeroskip import journey, measure, report, task_api
    from zeroskip import pack as packing
    from zeroskip import run as running

    loaded = load_task(task, data)
    model = task_api.model(loaded, packing.decode(packing.load(packed)))
    with progress_bars() as progress:
        compared = journey.compile_and_compare(loaded, model, batch=batch, threads=threads, progress=progress)
    program, timings = compared[0][0], [timing for _, timing in compared]
    error = task_api.evaluate(loaded, running.as_module(program, model), "test")
    cost = measure.cost(model, task_api.first(loaded, 1))
    layers = journey.layer_summaries(cost, program)
    figures = {
        "error_run": error,
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
