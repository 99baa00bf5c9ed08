"""The command that races every engine. Its docstring is the --help."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroskip.cli.options import JSON, app, note, progress_bars, say, show
from zeroskip.errors import RecipeError

if TYPE_CHECKING:
    from zeroskip.bench import Case, RaceReport, RaceRow
    from zeroskip.concepts import Machine
    from zeroskip.report import Grid

QUICK = typer.Option(
    "--quick",
    help="A layer and ResNet-20, each in fp32 and in int8, one short run without torch.compile: under a minute with "
    "all other engines.",
)
TRANSFORMERS = typer.Option(
    "--transformers",
    help="The encoders of BERT-base and MiniLM at every length (16, 128, 384 tokens), batch (1, 16), share of zeros "
    "and precision: 48 cases, hours. Those of them that say most are among the others.",
)
CASE = typer.Option(metavar="NAME", help="Only this layer or network; may be repeated.")
SPARSITY = typer.Option(help="Only cases with this share of zeros; may be repeated.")
THREADS = typer.Option(min=1, help="Only cases on that many threads; may be repeated.")
PRECISION = typer.Option(help="Only cases of fp32 or of int8; may be repeated.")
TOKENS = typer.Option(min=1, help="Only transformers that read that many tokens; may be repeated.")
RUNS = typer.Option(min=1, help="Runs of fresh processes. Default: 3, or 1 with --quick.")
ACTIVATIONS = typer.Option(
    "--activations",
    help="Zeros in the inputs instead of the weights: 13 convolutions, a large linear layer, and what trained "
    "networks see; CPU time.",
)
OUT = typer.Option(
    metavar="DIR", help="Where finished cases are kept, one JSON file for each machine. Default: runs/bench."
)
MARKDOWN = typer.Option(
    metavar="FILE",
    help="With --activations: write what was found, with the zeros of trained networks and the bytes that they save.",
)
ENVIRONMENTS = typer.Option(
    metavar="DIR", help="Folder that holds peers/ and deepsparse/, the environments that `make bench` makes."
)


@app.command()
def bench(
    quick: Annotated[bool, QUICK] = False,
    activations: Annotated[bool, ACTIVATIONS] = False,
    transformers: Annotated[bool, TRANSFORMERS] = False,
    case: Annotated[list[str] | None, CASE] = None,
    sparsity: Annotated[list[float] | None, SPARSITY] = None,
    threads: Annotated[list[int] | None, THREADS] = None,
    precision: Annotated[list[str] | None, PRECISION] = None,
    tokens: Annotated[list[int] | None, TOKENS] = None,
    runs: Annotated[int | None, RUNS] = None,
    out: Annotated[Path | None, OUT] = None,
    markdown: Annotated[Path | None, MARKDOWN] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Race again what is kept already.")] = False,
    environments: Annotated[Path, ENVIRONMENTS] = Path(".bench"),
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Every engine on this machine, in turns, each in a process of its own; where we lose stands first.

    The networks have random weights and random zeros, the same for all engines; answers are compared with torch
    eager's in fp32. Each time is the median over runs of fresh processes of 9 rounds in turns; with it stand the
    99th percentile, and the first call: from the network as the engine stores it to its first answer. Cases of int8
    have zeros in blocks of four (1x4), and all engines in eight bits are calibrated on the same inputs. An engine that
    cannot take part is named with the reason. The whole takes about five hours, and continues where it was stopped.
    """
    from zeroskip import bench as racing
    from zeroskip.emit import detect

    if markdown is not None:
        _check_page(activations)
    start, machine = time.monotonic(), detect()
    cases = racing.select(
        _listed(quick, activations, transformers),
        networks=case,
        sparsities=sparsity,
        threads=threads,
        precisions=precision,
        tokens=tokens,
    )
    _warn_if_busy()
    effort, engines = (racing.SHORT, racing.QUICK_ENTRANTS) if quick else (racing.FULL, racing.ENTRANTS)
    effort = replace(effort, runs=runs or effort.runs)
    setup = racing.RaceSetup(machine, racing.Environments(environments), effort, engines)
    prefix = "quick-" * quick + "activations-" * activations
    store = racing.Store(None if quick and out is None else _file(out, machine, prefix), machine.title)
    with progress_bars() as progress:
        results = racing.race_rest(cases, setup, store, fresh=fresh, progress=progress)
    race = racing.race_report(results, machine.title, time.monotonic() - start)
    if markdown is not None:
        _write(markdown, race)
    sorted_race = replace(race, rows=tuple(racing.worst_first(race.rows)))
    show(sorted_race.to_json(), _table(sorted_race.rows), _summary(race.rows), as_json=as_json)
    if not as_json:
        _say(race, quick, [path for path in (store.path, markdown) if path])


def _check_page(activations: bool) -> None:
    """RecipeError or DataError where --markdown has nothing to write: better before the race than after it."""
    from zeroskip.data import data_folder

    if not activations:
        raise RecipeError("--markdown goes with --activations: other races fill no page.")
    data_folder("weights")


def _listed(quick: bool, activations: bool, transformers: bool) -> Sequence[Case]:
    """The cases of which some may be chosen; RecipeError where two lists of them are asked for."""
    from zeroskip import bench as racing

    if activations and transformers:
        raise RecipeError("--activations and --transformers are races of their own: choose one.")
    if activations:
        return _activations()
    return racing.ENCODERS if transformers else racing.QUICK if quick else _cases()


def _activations() -> Sequence[Case]:
    """Cases with sparse inputs, those of trained networks where their weights and pictures are found."""
    from zeroskip import bench as racing

    return *racing.ACTIVATIONS, *_if_found(racing.recorded_layers.cases, "layers of trained networks are")


def _cases() -> Sequence[Case]:
    """Cases with sparse weights, that of a trained network where its weights and pictures are found."""
    from zeroskip import bench as racing

    return *racing.CASES, *_if_found(racing.trained_networks.cases, "EfficientNet-Lite0 is")


def _if_found(cases: Callable[[], Sequence[Case]], what: str) -> Sequence[Case]:
    from zeroskip.errors import DataError, FileError

    try:
        return cases()
    except (DataError, FileError) as fact:
        note(f"{what} left out: {fact}")
        return ()


def _write(path: Path, race: RaceReport) -> None:
    """docs/ACTIVATIONS.md: counted anew, coded as the findings that come with zeroskip say, raced as given."""
    from zeroskip import files, report
    from zeroskip import papers as reproducing
    from zeroskip.concepts import CodedNetwork
    from zeroskip.data import data_folder
    from zeroskip.papers.common.trained_activations import measure_trained

    with progress_bars() as progress:
        networks = measure_trained(data_folder("weights").parent, progress=progress)
    coded = {
        result.network: CodedNetwork.from_json(result.findings)
        for result in reproducing.committed()
        if result.paper == "eyeriss"
    }
    files.write(path, report.activations_markdown(networks, coded, race))


def _warn_if_busy() -> None:
    # Load is the mean number of running processes in the last minute; engines on two threads wait for each other.
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        note(f"the machine is busy (load {load:.1f}): others slow the engines down, most on several threads")


def _file(out: Path | None, machine: Machine, prefix: str) -> Path:
    name = "-".join(re.findall(r"[a-z0-9]+", machine.title.lower()))
    return (out or Path("runs/bench")) / f"{prefix}{name}.json"


def _table(rows: Sequence[RaceRow]) -> Grid:
    """One line for each engine, in the order of the rows."""
    from zeroskip.report import Grid, show_seconds, show_share

    cells = [
        (
            _case(row),
            show_share(row.sparsity or row.input_sparsity),
            str(row.batch),
            str(row.threads),
            f"{row.engine} {row.precision}",
            show_seconds(row.seconds),
            show_seconds(row.seconds_99) if row.seconds_99 is not None else "-",
            show_seconds(row.first_call) if row.first_call is not None else "-",
            row.against or "-",
            f"{row.speedup:.2f}" if row.speedup else "-",
        )
        for row in rows
    ]
    columns = (
        "case",
        "zeros",
        "batch",
        "threads",
        "engine",
        "time",
        "99 %",
        "first call",
        "ours in",
        "its / ours",
    )
    marks = {
        place: "win" if (row.speedup or 0) > 1 else "loss"
        for place, row in enumerate(rows)
        if not row.is_ours
    }
    remark = "Below 1 the other engine is faster; the worst stand first. 99 %: of 100 calls one takes longer."
    return Grid("zeroskip bench", columns, tuple(cells), note=remark, prose=("engine",), marks=marks)


def _case(row: RaceRow) -> str:
    inputs = "(in its input)" if row.input_sparsity else ""
    int8 = "int8" if row.asked == "int8" else ""
    tokens = f"{row.tokens} tokens" if row.tokens else ""
    remarks = tokens, "cold" if row.cold else "", row.pattern.replace("free", ""), int8, inputs
    return " ".join([row.case, *filter(None, remarks)])


def _summary(rows: Sequence[RaceRow]) -> Grid:
    """One line for each engine: in how many cases we lose, and the geometric mean of the ratios."""
    from zeroskip.bench import ratios
    from zeroskip.report import Grid

    cells = []
    for engine in ratios(rows):
        name = f"{engine.engine}, {engine.group}" if engine.group else engine.engine
        counts = str(len(engine.values)), str(engine.losses)
        cells.append((name, *counts, f"{min(engine.values):.2f}", f"{engine.mean:.2f}"))
    columns = ("engine", "cases", "we lose", "worst", "geometric mean")
    return Grid("its time / our time, by engine", columns, tuple(cells))


def _say(race: RaceReport, quick: bool, written: Sequence[Path]) -> None:
    say(race.machine)
    say(", ".join(f"{name} {text}" for name, text in race.versions.items()))
    runs = f"{race.runs} run{'s' if race.runs > 1 else ''} of fresh processes"
    say(f"medians of {runs}, {race.rounds} rounds each; random weights and zeros, batch norms folded")
    say(f"this command took {race.seconds:.0f} s")
    if quick:
        say("a quick run is too short for a claim: leave out --quick")
    cases: dict[tuple[str, str], list[str]] = {}
    for missing in race.missing:
        cases.setdefault((missing.engine, missing.reason), []).append(missing.case)
    for (engine, reason), names in cases.items():
        where = f"{len(names)} cases" if len(names) > 3 else ", ".join(names)
        note(f"{engine} is missing in {where}: {reason}")
    for path in written:
        say(f"wrote {path}")
