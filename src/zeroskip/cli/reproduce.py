"""The command that puts published tables beside ours. Its docstring is the --help."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from zeroskip.papers import Paper, Result

PAPER = typer.Argument(
    metavar="PAPER",
    help="han2015, deep-compression, shi2017, eyeriss, minerva; of the simulator eie, eyeriss-v2, cnvlutin, scnn, "
    "cambricon-s, sparten, extensor; default: all.",
)
OUT = typer.Option(
    metavar="RUN",
    help="Train or time what can be measured, in this folder. Default where --data is given: runs/reproduce.",
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


@app.command()
def reproduce(
    paper: Annotated[str | None, PAPER] = None,
    analytic: Annotated[bool, ANALYTIC] = False,
    codec: Annotated[bool, CODEC] = False,
    network: Annotated[list[str] | None, NETWORK] = None,
    results: Annotated[list[Path] | None, RESULTS] = None,
    out: Annotated[Path | None, OUT] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --out: train with this many seeds.")] = 3,
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
    from zeroskip import papers as reproducing
    from zeroskip import report

    if data is not None and paper is not None and not (analytic or results):
        out = out or Path("runs/reproduce")
    _check_words(paper, analytic, out, results, weights, network, codec)
    papers = [reproducing.named(paper)] if paper else list(reproducing.PAPERS)
    use_data(data)
    found = [] if analytic else reproducing.committed()
    found += [one for path in results or [] for one in reproducing.load(path)]
    found += _measured(papers[0], network or [], out, seeds, weights) if out else []
    rows = reproducing.rows(papers, analytic=analytic, networks=network or [], results=found)
    rows = [row for row in rows if not codec or row.table.startswith(reproducing.CODEC_TABLES)]
    told = [row.to_json() for row in rows]
    page = html or (out / f"report-{paper}.html" if out else None)
    _write(markdown, page, told, found, {one.name: one.title for one in papers})
    if as_json:
        print_json(told)
        return
    show(told, *report.reproduction_tables(told), as_json=False)
    for line in report.reproduction_summary(told):
        say(line)
    if analytic:
        say("rows that need training are left out; without --analytic they are there")
    for path in filter(None, (markdown, page)):
        say(f"wrote {path}")


def _check_words(
    paper: str | None,
    analytic: bool,
    out: Path | None,
    results: list[Path] | None,
    weights: Path | None,
    network: list[str] | None,
    codec: bool,
) -> None:
    if codec and paper != "eyeriss":
        raise RecipeError("--codec is about eyeriss: zeroskip reproduce eyeriss --codec.")
    if analytic and (out or results):
        raise RecipeError("--analytic leaves out what --out and --results are for. Give one or the other.")
    if out and paper is None:
        raise RecipeError("--out measures one paper. Name it: zeroskip reproduce han2015 --out RUN.")
    if weights and paper not in ("han2015", "deep-compression", "eyeriss"):
        raise RecipeError(
            f"{paper or 'a table of all papers'} does not start from given --weights. Leave them out."
        )
    if weights and len(network or []) != 1:
        raise RecipeError("--weights are those of one network. Name it with --network.")


def _write(
    markdown: Path | None,
    page: Path | None,
    told: Sequence[Mapping[str, Any]],
    found: Sequence[Result],
    titles: Mapping[str, str],
) -> None:
    from zeroskip import files, report

    if markdown is not None:
        files.write(markdown, report.reproduction_markdown(told, titles, [one.origin for one in found]))
    if page is not None:
        report.reproduction_html(page, told, [asdict(one) for one in found], titles)


def _measured(paper: Paper, networks: list[str], out: Path, seeds: int, weights: Path | None) -> list[Result]:
    from zeroskip import papers as reproducing
    from zeroskip.emit import detect

    results = []
    for network in reproducing.measurable(paper, networks):
        # Findings from other weights would be wrong; with weights the folders of the trainings tell whose they are.
        result = None if weights else reproducing.stored(out, paper.name, network, seeds)
        if result is None:
            with progress_bars() as progress:
                findings = paper.measure[network](
                    out=out / "trained", seeds=seeds, progress=progress, weights=load_weights(weights)
                )
            about = date.today().isoformat(), detect().title, " ".join(["zeroskip", *sys.argv[1:]])
            result = reproducing.Result(paper.name, network, *about, seeds, dict(findings))
            reproducing.store(out, result)
        results.append(result)
    return results
