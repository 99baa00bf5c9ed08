"""The command that goes the whole path. Its docstring is the --help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroskip.cli import options
from zeroskip.cli.options import app, load_task, load_weights, note, progress_bars, say, show

SPARSITY = typer.Option(
    help="Prune to this share of zeros in the course of one training, whatever the error, instead of rounds within a "
    "budget: far fewer weights where train() takes on_step and uses Adam."
)
BITS = typer.Option(min=1, max=16, help="Let each layer share 2^BITS trained values.")


@app.command()
def sparsify(
    task: Annotated[str, options.TASK],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for everything the run leaves behind.")],
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with this many seeds and report means.")] = 1,
    pattern: Annotated[str, options.PATTERN] = "free",
    max_error_rise: Annotated[float | None, options.RISE] = None,
    sparsity: Annotated[float | None, SPARSITY] = None,
    bits: Annotated[int | None, BITS] = None,
    precision: Annotated[str, options.PRECISION] = "fp32",
    weights: Annotated[Path | None, options.WEIGHTS] = None,
    permute: Annotated[bool, options.PERMUTE] = True,
    threads: Annotated[int, options.THREADS] = 1,
    data: Annotated[Path | None, options.DATA] = None,
    download: Annotated[bool, options.DOWNLOAD] = False,
    as_json: Annotated[bool, options.JSON] = False,
) -> None:
    """The whole journey: train, measure, prune, retrain, pack, run. Ends with a table and a verdict.

    Writes report.html, summary.json, model.zs and sparse.safetensors into RUN. Killed at any moment and
    started again with the same words, it continues where it was.
    """
    from zeroskip import journey, report, task_api
    from zeroskip.concepts import Goal

    loaded = load_task(task, data, download)
    goal = Goal(pattern, max_error_rise, sparsity, bits, precision)
    setup = journey.RunSetup(weights=load_weights(weights), threads=threads, permute=permute)
    if (out / "summary.json").exists():
        note(f"{out} is finished; its figures are shown again. Another --out runs anew.")
    with progress_bars() as progress:
        if seeds > 1:
            record = journey.sparsify_seeds(loaded, out, seeds, goal, setup, progress=progress)
        else:
            record = journey.sparsify(loaded, out, goal, setup, progress=progress)
    if not as_json and (sizes := task_api.split_sizes(loaded)):
        say(f"{task}: " + ", ".join(f"{count:,} {split}" for split, count in sizes.items()) + " examples")
    tables = [report.summary_table(record), report.layer_table(record)]
    tables += [report.timing_table(timing) for timing in record.timings]
    tables += [report.explanation_table(why)] if (why := record.summary.explanation) else []
    tables += [report.seeds_table(record)] if seeds > 1 else []
    show(record.summary.to_json(), *tables, as_json=as_json)
    if not as_json:
        say(f"wrote {out / 'report.html'}, {out / 'summary.json'}")
        say(record.summary.verdict)
