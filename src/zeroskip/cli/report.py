"""The command that writes the page of finished runs. Its docstring is the --help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroskip.cli.options import JSON, app, say, show

OUT = typer.Option(metavar="FILE", help="Where the page goes; default: report.html in the first RUN.")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="One RUN folder, or several to compare.")],
    out: Annotated[Path | None, OUT] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the HTML report of one run, or compare several."""
    from zeroskip import report as reporting
    from zeroskip import run_folder

    records = [run_folder.load(folder) for folder in runs]
    path = reporting.html(out or runs[0] / "report.html", *records)
    alone = len(records) == 1
    table = reporting.summary_table(records[0]) if alone else reporting.comparison_table(records)
    summaries = [record.summary.to_json() for record in records]
    show({"written": str(path), "runs": summaries}, table, as_json=as_json)
    if not as_json:
        say(f"wrote {path}")
