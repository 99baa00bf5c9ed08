"""What every command needs: the app, shared options, inputs from their words, and how results are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from zeroskip import __version__

# Everything heavy is imported inside the commands, so that --help answers at once.
if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID
    from torch import Tensor, nn

    from zeroskip.concepts import Progress
    from zeroskip.task_api import Task

app = typer.Typer(
    help="Find, make, store and run the zeros of a neural network, and measure whether they pay.\n\n"
    "Start with: zeroskip sparsify digits --out runs/demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"zeroskip {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


TASK = typer.Argument(
    metavar="TASK",
    help="digits, digits-conv, mnist, mnist-conv, cifar10, cifar10-resnet20, minerva-mnist, minerva-forest, "
    "minerva-reuters, minerva-webkb, minerva-20ng, alexnet, alexnet-caffe, vgg16, squeezenet (ImageNet: --data), "
    "sts, or your file with model(), train(model), evaluate(model), batch().",
)
WEIGHTS = typer.Option(metavar="FILE", help="Start from this safetensors state dict.")
DATA = typer.Option(
    metavar="DIR", help="Folder that holds mnist/ and other data sets; default ZEROSKIP_DATA."
)
DOWNLOAD = typer.Option(help="Fetch the data set into --data first.")
JSON = typer.Option("--json", help="Print JSON instead of tables.")
SEED = typer.Option(
    min=0,
    max=2**31 - 1,
    help="Of all random numbers.",
)
THREADS = typer.Option(min=1, help="Threads for every engine that is timed.")
PATTERN = typer.Option(help="Where zeros may lie: free, 2:4, 1x4, 4x1, 1x1x3x3, channel, ...")
PRECISION = typer.Option(metavar="fp32|int8", help="In what the program computes; int8 is calibrated.")
PERMUTE = typer.Option(help="For 1x4: order channels so that blocks keep more.")
RISE = typer.Option(
    min=0.0,
    help="How much the validation error may rise, 0.01 = one point. Default: one example, where splits have sizes.",
)


def load_task(word: str, data: Path | None, download: bool = False) -> Task:
    """The task called `word`, its data found in `data`, and fetched first where asked for and absent.

    A file that draws its data when it is read draws the same for every command.
    """
    from zeroskip import task_api
    from zeroskip.data import mnist
    from zeroskip.tasks import load

    use_data(data)
    if download and word.startswith("mnist"):
        parent = Path(os.environ.get("ZEROSKIP_DATA", "data"))
        os.environ["ZEROSKIP_DATA"] = str(parent)
        if not mnist.is_complete(parent):
            note(f"fetching MNIST into {parent / 'mnist'}")
            mnist.download(parent)
    task_api.seed_all(0)
    return load(word)


def check_plan(
    task: Task, weights: Path | None, pattern: str, max_error_rise: float | None, sparsity: float | None
) -> None:
    """Refuse before a training what could not be planned after it."""
    from zeroskip import journey, prune, task_api

    journey.check_plan(task_api.model(task, load_weights(weights)), pattern, max_error_rise)
    if sparsity is not None:
        prune.schedules.one_shot(sparsity)


def use_data(data: Path | None) -> None:
    """Look for data sets in this folder, if one was named."""
    if data is not None:
        os.environ["ZEROSKIP_DATA"] = str(data)


def load_weights(path: Path | None) -> dict[str, Tensor] | None:
    """The tensors in a safetensors file, if one was named."""
    from zeroskip import run_folder

    return None if path is None else run_folder.load_tensors(path)


def trained(task: Task, weights: Path | None, progress: Progress, *, seed: int = 0) -> nn.Module:
    """The task's network with the weights in `weights`, or trained from random ones that follow the seed."""
    from zeroskip import journey

    return journey.dense_network(task, load_weights(weights), seed=seed, progress=progress)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """One bar per stage on stderr, with time left; nothing where stderr is no terminal."""
    from rich import progress as rich

    columns = rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn()
    times = rich.TimeElapsedColumn(), rich.TimeRemainingColumn()
    console = Console(stderr=True)
    with rich.Progress(*columns, *times, console=console, disable=not console.is_terminal) as bars:
        stages: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in stages:
                stages[what] = bars.add_task(what)
            bars.update(stages[what], completed=done, total=total)

        yield progress


def show(figures: object, *tables: RenderableType, as_json: bool) -> None:
    """Print the tables, or the figures as JSON.

    >>> show({"weights": 1}, as_json=True)
    {
      "weights": 1
    }
    """
    if as_json:
        print_json(figures)
        return
    console = Console(width=None if sys.stdout.isatty() else 100)
    for table in tables:
        console.print(table)


def print_json(figures: object) -> None:
    """Print for programs that read it."""
    print(json.dumps(figures, indent=2))


def say(text: str) -> None:
    """Print a sentence."""
    Console(soft_wrap=True).print(text, markup=False, highlight=False)


def note(text: str) -> None:
    """Print a sentence that is no result, to stderr."""
    Console(stderr=True, soft_wrap=True).print(f"note: {text}", markup=False, highlight=False)
