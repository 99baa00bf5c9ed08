"""The command that puts plans by what chips gain and plans by weights side by side. Its docstring is the --help."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from zeroskip.cli.options import DATA, DOWNLOAD, JSON, PATTERN, TASK, app, load_task, progress_bars, say, show
from zeroskip.cli.prune import COST, DIVISOR, check_cost, check_file, train_keywords
from zeroskip.errors import RecipeError

ON = typer.Option(
    "--on", metavar="CHIPS", help="Chips by name, with commas between them, or a Python file that makes some."
)
RISES = typer.Option(
    metavar="A,B,...",
    help="Budgets: how much the validation error may rise, 0.01 = one point. Default: one example of the validation "
    "split.",
)
OUT = typer.Option(metavar="DIR", help="A folder for the points, which the same command continues.")
SEEDS = typer.Option(min=1, help="Train with so many seeds.")
JOBS = typer.Option(min=1, help="So many processes.")
MARKDOWN = typer.Option(metavar="FILE", help="Write the table as a page.")


@app.command()
def compare_plans(
    task: Annotated[str, TASK],
    on: Annotated[str, ON],
    out: Annotated[Path, OUT],
    cost: Annotated[str, COST] = "cycles",
    max_error_rise: Annotated[str | None, RISES] = None,
    pattern: Annotated[str, PATTERN] = "free",
    learning_rate_divisor: Annotated[float | None, DIVISOR] = None,
    seeds: Annotated[int, SEEDS] = 3,
    jobs: Annotated[int, JOBS] = 1,
    markdown: Annotated[Path | None, MARKDOWN] = None,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Plan by what chips gain and by the number of weights, and put both side by side, losses included.

    Trains networks of its own: for each seed and budget, both plans start from one dense network. Writes no weights.
    """
    from zeroskip import exploration, files
    from zeroskip.emit import detect
    from zeroskip.report.plan_tables import plans_markdown, plans_table

    rises = _rises(max_error_rise)
    check_cost(cost)
    exploration.find_chips(on)  # better missed before a data set is fetched
    load_task(task, data, download)
    if markdown is not None:
        check_file(markdown)
    files.folder(out)
    study = exploration.PlanStudy(task, on, cost, pattern, train_keywords(learning_rate_divisor))
    with progress_bars() as progress:
        comparison = exploration.compare_plans(
            study, max_error_rises=rises, seeds=seeds, folder=out, jobs=jobs, progress=progress
        )
    if markdown is not None:
        command = " ".join(["zeroskip", *sys.argv[1:]])
        files.write(markdown, plans_markdown(comparison, f"{date.today()}, {detect().title}, `{command}`"))
    show(comparison.to_json(), plans_table(comparison), as_json=as_json)
    if not as_json and markdown is not None:
        say(f"wrote {markdown}")


def _rises(words: str | None) -> Sequence[float | None]:
    """The budgets between the commas; [None] is the default one."""
    if words is None:
        return [None]
    try:
        rises = [float(word) for word in words.split(",")]
    except ValueError:
        rises = [math.inf]
    if not all(0 <= rise < math.inf for rise in rises):
        raise RecipeError(
            f"--max-error-rise {words} is no list of numbers from 0 up. 0,0.01 are two budgets: none, and one point."
        )
    return rises
