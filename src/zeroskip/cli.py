"""Words on a terminal: every command prints a table, `--json` prints the same for machines."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from zeroskip.errors import RecipeError, ZeroskipError

# Everything heavy is imported inside the commands, so that --help answers at once.
if TYPE_CHECKING:
    from torch import Tensor

    from zeroskip.concepts import Progress
    from zeroskip.contract import Task

app = typer.Typer(
    help="Find, make, store and run the zeros of a neural network, and measure whether they pay.\n\n"
    "Start with: zeroskip sparsify digits --out runs/demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TASK = typer.Argument(
    metavar="TASK",
    help="digits, digits-conv, mnist, mnist-conv, or your Python file with model(), train(model), "
    "evaluate(model) and batch().",
)
WEIGHTS = typer.Option(metavar="FILE", help="Start from this trained network (safetensors state dict).")
DATA = typer.Option(
    metavar="DIR", help="Folder that holds mnist/ and other data sets; default ZEROSKIP_DATA."
)
DOWNLOAD = typer.Option(help="Fetch the data set into --data first, if it is absent.")
JSON = typer.Option("--json", help="Print JSON instead of tables.")
THREADS = typer.Option(min=1, help="Threads for every engine that is timed.")
PATTERN = typer.Option(help="Where zeros may lie: free, 2:4, 4x1, 1x1x3x3, channel, ...")
RISE = typer.Option(
    min=0.0,
    help="How much the validation error may rise, 0.01 = one point. Default: one example of the validation split, "
    "where the task tells its size.",
)


@app.command()
def sparsify(
    task: Annotated[str, TASK],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for everything the run leaves behind.")],
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with this many seeds and report means.")] = 1,
    pattern: Annotated[str, PATTERN] = "free",
    max_error_rise: Annotated[float | None, RISE] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    threads: Annotated[int, THREADS] = 1,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """The whole journey: train, measure, prune, retrain, pack, run. Ends with a table and a verdict.

    Writes report.html, summary.json, model.zs and sparse.safetensors into RUN. Killed at any moment and
    started again with the same words, it continues where it was.
    """
    from zeroskip import contract, journey, report

    loaded = _task(task, data, download)
    options: dict[str, Any] = {
        "pattern": pattern,
        "max_error_rise": max_error_rise,
        "weights": _weights(weights),
        "threads": threads,
    }
    if (out / "summary.json").exists():
        _note(f"{out} is finished; its figures are shown again. Another --out runs anew.")
    with _progress() as progress:
        if seeds > 1:
            record = journey.sparsify_seeds(loaded, out, seeds=seeds, progress=progress, **options)
        else:
            record = journey.sparsify(loaded, out, progress=progress, **options)
    if not as_json and (sizes := contract.split_sizes(loaded)):
        _say(f"{task}: " + ", ".join(f"{count:,} {split}" for split, count in sizes.items()) + " examples")
    tables = [report.summary_table(record), report.layer_table(record)]
    tables += [report.timing_table(timing) for timing in record.timings]
    tables += [report.seeds_table(record)] if seeds > 1 else []
    _show(record.summary, *tables, as_json=as_json)
    if not as_json:
        _say(f"wrote {out / 'report.html'}, {out / 'summary.json'}")
        _say(str(record.summary["verdict"]))


@app.command()
def measure(
    task: Annotated[str, TASK],
    weights: Annotated[Path | None, WEIGHTS] = None,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Look at a network: cost, zeros and sensitivity of each layer. Trains it first unless given --weights."""
    from zeroskip import measure as measuring
    from zeroskip import report

    loaded = _task(task, data, download)
    with _progress() as progress:
        profile = measuring.profile(_trained(loaded, weights, progress), loaded, progress=progress)
    _show(asdict(profile), report.profile_table(profile), as_json=as_json)


@app.command()
def prune(
    task: Annotated[str, TASK],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the sparse weights go (safetensors).")],
    pattern: Annotated[str, PATTERN] = "free",
    max_error_rise: Annotated[float | None, RISE] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(help="Prune to this share of zeros, e.g. 0.9, whatever the error, instead of a budget."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="With --sparsity: prune and retrain in this many steps, default 4."),
    ] = None,
    learning_rate_divisor: Annotated[
        float | None,
        typer.Option(min=1.0, help="Retrain at the task's learning rate divided by this (Han et al.: 10)."),
    ] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Prune and retrain, and write the sparse weights. Trains the network first unless given --weights."""
    from zeroskip import contract, files, measure, report, retrain, runs
    from zeroskip import prune as pruning

    if sparsity is None and rounds is not None:
        raise RecipeError("--rounds goes with --sparsity; a budget makes as many rounds as it allows.")
    if sparsity is not None and max_error_rise is not None:
        raise RecipeError("give --sparsity or --max-error-rise, not both.")
    loaded = _task(task, data, download)
    files.folder(out.parent)  # a place that cannot be written is better known before the training
    train = {"learning_rate_divisor": learning_rate_divisor} if learning_rate_divisor else None
    with _progress() as progress:
        fresh = contract.model(loaded, _weights(weights))
        shapes = {name: tuple(weight.shape) for name, weight in pruning.weights(fresh).items()}
        pruning.check(shapes, pattern, max_error_rise)
        if sparsity is not None:
            pruning.schedules.one_shot(sparsity)
        model = _trained(loaded, weights, progress)
        profile = measure.profile(model, loaded, progress=progress)
        if sparsity is None:
            rise = contract.one_example(loaded) if max_error_rise is None else max_error_rise
            recipe = pruning.plan(profile, pattern=pattern, max_error_rise=rise, train=train)
        else:
            steps = pruning.schedules.cubic(sparsity, rounds or 4)
            recipe = pruning.plan(
                profile, pattern=pattern, max_error_rise=None, sparsities=steps, train=train
            )
        sparse = retrain.loop(model, recipe, loaded, progress=progress)
    runs.save_tensors(out, sparse.model.state_dict())
    history = [asdict(point) for point in sparse.history]
    _show({"written": str(out), "history": history}, report.history_table(sparse.history), as_json=as_json)
    if not as_json:
        _say(f"wrote {out}; next: zeroskip pack {task} {out} --out model.zs")


@app.command()
def pack(
    task: Annotated[str, TASK],
    sparse: Annotated[Path, typer.Argument(metavar="SPARSE", help="Weights to store (safetensors).")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .zs file to write.")],
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Store sparse weights as a .zs file, and say where its bytes go."""
    from zeroskip import contract, report, runs
    from zeroskip import pack as packing

    model = contract.model(_task(task, data), runs.load_tensors(sparse))  # refuses weights of another network
    packed = packing.encode(model)
    packing.save(packed, out)
    figures = {"written": str(out), "stored_bytes": packed.stored_bytes, "ledger": packed.ledger}
    _show(figures, report.ledger_table(packed.ledger), as_json=as_json)
    if not as_json:
        _say(f"wrote {out}, {packed.stored_bytes:,} bytes; next: zeroskip run {task} {out}")


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="The .zs file to read.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the plain weights go (safetensors).")],
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Turn a .zs file back into plain weights, checked, exactly as they were."""
    from zeroskip import pack as packing
    from zeroskip import runs

    tensors = packing.decode(packing.load(packed))
    runs.save_tensors(out, tensors)
    if as_json:
        _print_json(
            {"written": str(out), "tensors": {name: list(one.shape) for name, one in tensors.items()}}
        )
    else:
        _say(f"wrote {out}: {len(tensors)} tensors, {sum(one.numel() for one in tensors.values()):,} values")


@app.command()
def run(
    task: Annotated[str, TASK],
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="The .zs file to run.")],
    batch: Annotated[
        int | None, typer.Option(min=1, help="Inputs per call; default: 1, and the task's batch.")
    ] = None,
    threads: Annotated[int, THREADS] = 1,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a .zs file beside every dense engine on this machine, and give the error of what runs."""
    from zeroskip import contract, journey, report
    from zeroskip import pack as packing
    from zeroskip import run as running

    loaded = _task(task, data)
    model = contract.model(loaded, packing.decode(packing.load(packed)))
    with _progress() as progress:
        raced = journey.race(loaded, model, batch=batch, threads=threads, progress=progress)
    program, timings = raced[0][0], [timing for _, timing in raced]
    error = contract.evaluate(loaded, running.as_module(program, model), "test")
    figures = {
        "error_run": error,
        "choices": [asdict(one) for one in program.choices],
        "timings": [asdict(one) for one in timings],
    }
    _show(figures, report.choice_table(program.choices), *map(report.timing_table, timings), as_json=as_json)
    if not as_json:
        _say(f"error of what runs, test split: {report.show_error(error)}")


@app.command()
def report(
    runs_: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="One RUN folder, or several to compare.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; default: report.html in the first RUN."),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the HTML report of one run, or compare several."""
    from zeroskip import report as reporting
    from zeroskip import runs

    records = [runs.load(one) for one in runs_]
    path = reporting.html(out or runs_[0] / "report.html", *records)
    table = (
        reporting.summary_table(records[0])
        if len(records) == 1
        else reporting.comparison_table(tuple(records))
    )
    _show({"written": str(path), "runs": [record.summary for record in records]}, table, as_json=as_json)
    if not as_json:
        _say(f"wrote {path}")


@app.command()
def doctor(
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """This machine: what it is, which kernels it can run, which data sets are found."""
    from zeroskip.doctor import examine, show

    _use_data(data)
    found = examine()
    _show(found, show(found), as_json=as_json)


def main() -> None:
    """Entry point: errors of ours, one sentence each, exit status 1; no traceback.

    >>> main()
    """
    warnings.simplefilter("ignore")  # libraries' own; ours are notes to the user
    warnings.filterwarnings("always", module=r"zeroskip(\.|$)")
    warnings.showwarning = lambda message, *_, **__: _note(str(message))
    try:
        app(prog_name="zeroskip")
    except ZeroskipError as fact:
        Console(stderr=True).print(
            f"error: {fact}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)


def _task(word: str, data: Path | None, download: bool = False) -> Task:
    from zeroskip.data import mnist
    from zeroskip.tasks import load

    _use_data(data)
    if download and word.startswith("mnist"):
        parent = Path(os.environ.get("ZEROSKIP_DATA", "data"))
        os.environ["ZEROSKIP_DATA"] = str(parent)
        if not mnist.is_complete(parent):
            _note(f"fetching MNIST into {parent / 'mnist'}")
            mnist.download(parent)
    return load(word)


def _use_data(data: Path | None) -> None:
    if data is not None:
        os.environ["ZEROSKIP_DATA"] = str(data)


def _weights(path: Path | None) -> dict[str, Tensor] | None:
    from zeroskip import runs

    return None if path is None else runs.load_tensors(path)


def _trained(task: Task, weights: Path | None, progress: Progress) -> Any:
    from zeroskip import contract, retrain

    model = contract.model(task, _weights(weights))
    if weights is None:
        retrain.train(task, model, stage="dense training", seed=0, progress=progress)
    return model.eval()


@contextmanager
def _progress() -> Iterator[Progress]:
    """One bar per stage on stderr, with time left; nothing where stderr is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console = Console(stderr=True)
    with Bars(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        stages: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in stages:
                stages[what] = bars.add_task(what)
            bars.update(stages[what], completed=done, total=total)

        yield progress


def _show(figures: Any, *tables: Any, as_json: bool) -> None:
    if as_json:
        _print_json(figures)
        return
    console = Console(width=None if sys.stdout.isatty() else 100)
    for table in tables:
        console.print(table)


def _print_json(figures: Any) -> None:
    print(json.dumps(figures, indent=2))


def _say(text: str) -> None:
    Console(soft_wrap=True).print(text, markup=False, highlight=False)


def _note(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"note: {text}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
