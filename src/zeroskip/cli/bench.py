"""The command that races every engine. Its docstring is the --help."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroskip.cli.options import JSON, app, note, progress_bars, say, show
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from zeroskip.bench import Case, Effort, Environments, Result, Store
    from zeroskip.concepts import Machine, Progress
    from zeroskip.report import Grid

Row = dict[str, Any]

ACTIVATIONS = typer.Option(
    "--activations",
    help="Zeros in the inputs instead of the weights: 13 convolutions, a large linear layer, and what trained "
    "networks see; CPU time.",
)
OUT = typer.Option(
    metavar="DIR",
    help="Where finished cases are kept, one JSON file for each machine. Default: runs/bench.",
)
MARKDOWN = typer.Option(
    metavar="FILE",
    help="With --activations: write what was found, with the zeros of trained networks and the bytes that they save.",
)
ENVIRONMENTS = typer.Option(
    metavar="DIR",
    help="Folder that holds peers/ and deepsparse/, the environments that `make bench` makes.",
)


@app.command()
def bench(
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Three layers and ResNet-20, one short run: under a minute, two with all engines."
        ),
    ] = False,
    activations: Annotated[bool, ACTIVATIONS] = False,
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this layer or network; may be repeated."),
    ] = None,
    sparsity: Annotated[
        list[float] | None, typer.Option(help="Only cases with this share of zeros; may be repeated.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Only cases on that many threads; may be repeated.")
    ] = None,
    out: Annotated[Path | None, OUT] = None,
    markdown: Annotated[Path | None, MARKDOWN] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Race again what is kept already.")] = False,
    environments: Annotated[Path, ENVIRONMENTS] = Path(".bench"),
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Every engine on this machine, in turns, each in a process of its own; where we lose stands first.

    The networks have random weights and random zeros, the same for all engines; answers are compared with torch
    eager's in fp32. Each time is the median over 3 runs of fresh processes of 9 rounds in turns. An engine that
    cannot take part is named with the reason. The whole takes about three hours, and continues where it was stopped.
    """
    from zeroskip import bench as racing
    from zeroskip.data import data_folder
    from zeroskip.emit import detect

    if markdown is not None and not activations:
        raise RecipeError("--markdown goes with --activations: other races fill no page.")
    if markdown is not None:
        data_folder("weights")  # better missed before the race than after it
    start, machine = time.monotonic(), detect()
    listed = _activations() if activations else racing.QUICK if quick else racing.CASES
    cases = racing.select(
        listed,
        networks=case or [],
        sparsities=sparsity or [],
        threads=threads or [],
    )
    _warn_if_busy()
    effort = racing.SHORT if quick else racing.FULL
    prefix = "quick-" * quick + "activations-" * activations
    store = racing.Store(None if quick and out is None else _file(out, machine, prefix), machine.title)
    with progress_bars() as progress:
        results = _results(cases, machine, racing.Environments(environments), effort, store, fresh, progress)
    told = _told(results, machine, time.monotonic() - start)
    show(told, _table(told["rows"]), _summary(told["rows"]), as_json=as_json)
    if markdown is not None:
        in_order = [row for result in results for row in racing.rows(result)]
        _write(markdown, {**told, "rows": in_order})
    if not as_json:
        _say(told, effort, store, markdown)


def _activations() -> Sequence[Case]:
    """Cases with sparse inputs, those of trained networks where their weights and pictures are found."""
    from zeroskip import bench as racing
    from zeroskip.errors import DataError, FileError

    try:
        return *racing.ACTIVATIONS, *racing.recorded_layers.cases()
    except (DataError, FileError) as fact:
        note(f"layers of trained networks are left out: {fact}")
        return racing.ACTIVATIONS


def _write(path: Path, told: Mapping[str, Any]) -> None:
    """docs/ACTIVATIONS.md: counted anew, coded as the findings that come with zeroskip say, raced as told."""
    from zeroskip import files, report
    from zeroskip import papers as reproducing
    from zeroskip.data import data_folder

    with progress_bars() as progress:
        layers = reproducing.measure_trained(data_folder("weights").parent, progress=progress)
    coded = {one.network: one.findings for one in reproducing.committed() if one.paper == "eyeriss"}
    files.write(path, report.activations_markdown(layers, coded, told))


def _warn_if_busy() -> None:
    # Load is the mean number of running processes in the last minute; engines on two threads wait for each other.
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        note(
            f"the machine is busy (load {load:.1f}): times will be of the crowd, above all those on several threads"
        )


def _file(out: Path | None, machine: Machine, prefix: str) -> Path:
    name = "-".join(re.findall(r"[a-z0-9]+", machine.title.lower()))
    return (out or Path("runs/bench")) / f"{prefix}{name}.json"


def _results(
    cases: Sequence[Case],
    machine: Machine,
    environments: Environments,
    effort: Effort,
    store: Store,
    fresh: bool,
    progress: Progress,
) -> list[Result]:
    """What is kept of the cases, and the others raced; those on the same network share their processes."""
    from zeroskip import bench as racing

    kept = {} if fresh else {result.case: result for result in store.load() if result.seconds}
    found = {one: kept[one] for one in cases if one in kept}
    left = [one for one in cases if one not in found]
    # Nothing is kept of a quick run before its end, so that all its cases can share their processes.
    together = (lambda one: one.threads) if store.path is None else _company
    for _, group in groupby(left, together):
        raced = racing.race(list(group), machine, environments, effort, progress=progress)
        store.add(raced)
        found |= {result.case: result for result in raced}
        progress("cases", len(found), len(cases))
    return [found[one] for one in cases]


def _company(case: Case) -> tuple[str, int]:
    """Cases alike in this share their processes: layers whose inputs are sparse are too many to start anew for each."""
    layer_of = case.network.split("/")[0] if "/" in case.network else "layers"
    return layer_of if case.input_sparsity else case.network, case.threads


def _told(results: Sequence[Result], machine: Machine, seconds: float) -> dict[str, Any]:
    from zeroskip import bench as racing

    rows = [row for result in results for row in racing.rows(result)]
    return {
        "machine": machine.title,
        "versions": {name: text for result in results for name, text in result.versions.items()},
        "date": max(result.date for result in results),
        "seconds": seconds,
        "runs": min(result.runs for result in results),
        "rounds": min(result.rounds for result in results),
        "rows": sorted(rows, key=lambda row: (row["speedup"] is None, row["speedup"] or 0)),
        "missing": [
            {"case": result.case.key, "engine": label, "reason": reason}
            for result in results
            for label, reason in result.missing.items()
        ],
    }


def _table(rows: Sequence[Row]) -> Grid:
    """One line for each engine that is not ours, the worst of our losses first."""
    from zeroskip.report import Grid, show_seconds, show_share

    peers = [row for row in rows if row["engine"] != "zeroskip"]
    cells = [
        (
            _case(row),
            show_share(row["sparsity"] or row["input_sparsity"]),
            str(row["batch"]),
            str(row["threads"]),
            f"{row['engine']} {row['precision']}",
            show_seconds(row["seconds"]),
            show_seconds(row["seconds"] / row["speedup"]) if row["speedup"] else "-",
            row["against"] or "-",
            f"{row['speedup']:.2f}" if row["speedup"] else "-",
        )
        for row in peers
    ]
    columns = ("case", "zeros", "batch", "threads", "engine", "its time", "our time", "ours in", "its / ours")
    marks = {place: "win" if (row["speedup"] or 0) > 1 else "loss" for place, row in enumerate(peers)}
    remark = "Below 1 the other engine is faster; the worst stand first."
    return Grid("zeroskip bench", columns, tuple(cells), note=remark, prose=("engine",), marks=marks)


def _case(row: Row) -> str:
    remarks = [
        "cold" if row["cold"] else "",
        row["pattern"] if row["pattern"] != "free" else "",
        "(in its input)" if row["input_sparsity"] else "",
    ]
    return " ".join([row["case"], *filter(None, remarks)])


def _summary(rows: Sequence[Row]) -> Grid:
    """One line for each engine: in how many cases we lose, and the geometric mean of the ratios."""
    from zeroskip.report import Grid

    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row["engine"] != "zeroskip" and row["speedup"]:
            ratios.setdefault(f"{row['engine']} {row['precision']}", []).append(row["speedup"])
    cells = [
        (
            engine,
            str(len(values)),
            str(sum(value < 1 for value in values)),
            f"{min(values):.2f}",
            f"{exp(sum(map(log, values)) / len(values)):.2f}",
        )
        for engine, values in ratios.items()
    ]
    cells.sort(key=lambda line: float(line[-1]))
    return Grid(
        "its time / our time, by engine",
        ("engine", "cases", "we lose", "worst", "geometric mean"),
        tuple(cells),
    )


def _say(told: dict[str, Any], effort: Effort, store: Store, page: Path | None) -> None:
    say(told["machine"])
    say(", ".join(f"{name} {text}" for name, text in told["versions"].items()))
    runs = f"{told['runs']} run{'s' if told['runs'] > 1 else ''} of fresh processes"
    say(f"medians of {runs}, {told['rounds']} rounds each; random weights and zeros, batch norms folded")
    say(f"this command took {told['seconds']:.0f} s")
    if effort.runs < 3:
        say("a quick run is too short for a claim: leave out --quick")
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in told["missing"]:
        reasons.setdefault((one["engine"], one["reason"]), []).append(one["case"])
    for (engine, reason), cases in reasons.items():
        where = f"{len(cases)} cases" if len(cases) > 3 else ", ".join(cases)
        note(f"{engine} is missing in {where}: {reason}")
    for path in filter(None, (store.path, page)):
        say(f"wrote {path}")
