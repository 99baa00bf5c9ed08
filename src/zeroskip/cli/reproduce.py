"""The command that puts published tables beside ours. Its docstring is the --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroskip.cli.options import (
    DATA,
    JSON,
    WEIGHTS,
    app,
    load_weights,
    print_json,
    progress_bars,
    say,
    show,
    use_data,
)
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from zeroskip.papers import Paper, PaperResult

PAPER = typer.Argument(
    metavar="PAPER",
    help="han2015, deep-compression, shi2017, eyeriss, minerva; of the simulator eie, eyeriss-v2, cnvlutin, scnn, "
    "cambricon-s, sparten, extensor; default: all.",
)
OUT = typer.Option(
    metavar="RUN",
    help="Train or time what can be measured, in this folder. Default where --data is given: runs/reproduce.",
)
KEEP = typer.Option(
    "--keep", help="With --out, in a source checkout: the findings become those that come with zeroskip."
)
HTML = typer.Option(
    metavar="FILE", help="Write the page with the papers' figures. Default with --out: RUN/report-PAPER.html."
)
NETWORK = typer.Option(
    help="Only this network; may be repeated, for example lenet-5, digits, alexnet, fc-layers (Deep Compression, table "
    "8), minerva-forest. Measured with --out, unless named: the two LeNets, or all that the paper has."
)
RESULTS = typer.Option(
    metavar="PATH", help="Findings stored by an earlier --out: a file, or a folder of them; may be repeated."
)
CODEC = typer.Option("--codec", help="eyeriss: only rows about its run-length code and the bytes it saves.")
ANALYTIC = typer.Option("--analytic", help="Only rows that need no training and no timing.")


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    paper: str | None
    networks: list[str]
    analytic: bool
    codec: bool
    results: list[Path]
    out: Path | None
    seeds: int
    keep: bool
    weights: Path | None


@app.command()
def reproduce(
    paper: Annotated[str | None, PAPER] = None,
    analytic: Annotated[bool, ANALYTIC] = False,
    codec: Annotated[bool, CODEC] = False,
    network: Annotated[list[str] | None, NETWORK] = None,
    results: Annotated[list[Path] | None, RESULTS] = None,
    out: Annotated[Path | None, OUT] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --out: train with this many seeds.")] = 3,
    keep: Annotated[bool, KEEP] = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown, failures included.")
    ] = None,
    html: Annotated[Path | None, HTML] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Every table of a paper, row by row: published, ours, the difference, and whether it holds.

    Rows that need training show the figures that come with zeroskip, with the date and machine of their run; --out
    trains anew. LeNet-300-100 takes an hour on a core, LeNet-5 two, digits one minute, a network on ImageNet days.
    What was not measured stays in the table, with the reason.
    """
    from zeroskip import files, papers, report

    if data is not None and paper is not None and not (analytic or results):
        out = out or Path("runs/reproduce")
    asked = Asked(paper, network or [], analytic, codec, results or [], out, seeds, keep, weights)
    _check(asked)
    chosen = [papers.named(paper)] if paper else list(papers.PAPERS)
    use_data(data)
    stored = [] if analytic else papers.committed()
    stored += [result for path in asked.results for result in papers.load(path)]
    stored += (
        _measured(chosen[0], asked, out) if out else []
    )  # of two for a paper and network the last one counts
    rows = papers.rows(chosen, analytic=analytic, networks=asked.networks, results=stored)
    rows = [row for row in rows if not codec or row.table.startswith(papers.CODEC_TABLES)]
    page = html or (out / f"report-{paper}.html" if out else None)
    titles = {paper.name: paper.title for paper in chosen}
    if markdown is not None:
        origins = [result.origin for result in stored]
        files.write(markdown, report.reproduction_markdown(rows, titles, origins))
    if page is not None:
        report.reproduction_html(page, rows, papers.measured_networks(rows, stored), titles)
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    show(rows, *report.reproduction_tables(rows), as_json=False)
    for line in report.reproduction_summary(rows):
        say(line)
    if analytic:
        say("rows that need training are left out; without --analytic they are there")
    for path in filter(None, (markdown, page)):
        say(f"wrote {path}")


def _check(asked: Asked) -> None:
    """Raises RecipeError, or RunError, where what is asked for cannot be done."""
    from zeroskip.papers import results_folder

    if asked.codec and asked.paper != "eyeriss":
        raise RecipeError("--codec is about eyeriss: zeroskip reproduce eyeriss --codec.")
    if asked.analytic and (asked.out or asked.results):
        raise RecipeError("--analytic leaves out what --out and --results are for. Give one or the other.")
    if asked.out and asked.paper is None:
        raise RecipeError("--out measures one paper. Name it: zeroskip reproduce han2015 --out RUN.")
    if asked.keep and not asked.out:
        raise RecipeError("--keep keeps what --out measures. Give both.")
    if asked.weights and asked.paper not in ("han2015", "deep-compression", "eyeriss"):
        paper = asked.paper or "a table of all papers"
        raise RecipeError(f"{paper} does not start from given --weights. Leave them out.")
    if asked.weights and len(asked.networks) != 1:
        raise RecipeError("--weights are those of one network. Name it with --network.")
    if asked.keep and asked.paper is not None:
        results_folder(asked.paper)  # refused before hours of training, not after


def _measured(paper: Paper, asked: Asked, out: Path) -> list[PaperResult]:
    from zeroskip import papers
    from zeroskip.emit import detect

    results = []
    for network in papers.measurable(paper, asked.networks):
        # Findings from other weights would be wrong; with weights the folders of the trainings name whose they are.
        result = None if asked.weights else papers.stored(out, paper.name, network, asked.seeds)
        if result is None:
            with progress_bars() as progress:
                setup = papers.Setup(out / "trained", asked.seeds, progress, load_weights(asked.weights))
                findings = paper.measure[network](setup)
            about = date.today().isoformat(), detect().title, " ".join(["zeroskip", *sys.argv[1:]])
            result = papers.PaperResult(paper.name, network, *about, asked.seeds, dict(findings))
            papers.store(out, result)
        if asked.keep:
            papers.store(papers.results_folder(paper.name), result)
        results.append(result)
    return results
