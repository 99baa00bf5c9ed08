"""The command that prices zeros on described chips. Its docstring is the --help."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from zeroskip.cli.options import DATA, JSON, TASK, app, load_task, progress_bars, say, show
from zeroskip.errors import AcceleratorError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.exploration import ChipSweep
    from zeroskip.simulate import Accelerator, Estimate, WholeNetwork
    from zeroskip.task_api import Task

FILE = typer.Argument(metavar="FILE", help="A .zs file, safetensors or a RUN folder.")
ON = typer.Option(
    "--on",
    metavar="CHIPS",
    help="Chips by name, with commas between them, or a Python file that makes some: dataclasses.replace of one in "
    "zeroskip.simulate.chips. Default: all published.",
)
ENERGY = typer.Option(help="Table of energies: han2015, sparseloop, eyeriss2016, eie2016.")
DRAM = typer.Option(help="What a bit from DRAM costs: hbm2, lpddr4, gddr5, ddr4, han2015, ddr3.")
TABLE = typer.Option("--csv", metavar="FILE", help="Write every layer on every chip.")
OUT = typer.Option(
    metavar="PATH",
    help="Write an HTML page: where cycles and energy go, how formats compare. With --sweep: a folder for points, "
    "which the same command continues, and page.",
)
SWEEP = typer.Option(
    metavar="NAME=A,B,...",
    help="Estimate one chip with other numbers: lanes=16,32 tile.queue=2,8 memory.entries=65536 (bytes). Given "
    "several times: every combination.",
)
JOBS = typer.Option(min=1, help="With --sweep: so many processes.")


NARROWED = (
    "the run computes in int8: inputs and weights have {} bits here on chips that are described with more"
)


class _Outputs(NamedTuple):
    """Where results go besides the terminal, whether they are printed as JSON, and the bits of the run's numbers."""

    csv: Path | None
    page: Path | None
    as_json: bool
    bits: int | None = None


@app.command()
def simulate(
    task: Annotated[str, TASK],
    weights: Annotated[Path, FILE],
    on: Annotated[str | None, ON] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples of the task's batch to run.")] = 1,
    energy: Annotated[str, ENERGY] = "han2015",
    dram: Annotated[str, DRAM] = "lpddr4",
    table: Annotated[Path | None, TABLE] = None,
    out: Annotated[Path | None, OUT] = None,
    sweep: Annotated[list[str] | None, SWEEP] = None,
    jobs: Annotated[int, JOBS] = 1,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """What the zeros of a network, in weights and activations, are worth on silicon: cycles, bytes and energy.

    Exact for the network's own zeros on real inputs: MACs done, gated (the slot is spent, the energy not), skipped.
    It names what is not simulated, with its share, and chips whose order changes with the DRAM: that is no result.
    """
    from zeroskip import exploration, task_api
    from zeroskip import simulate as simulating

    chosen, outputs = exploration.find_chips(on), _Outputs(table, out, as_json)
    values = _swept_values(sweep, on, chosen, outputs, jobs)
    loaded = load_task(task, data)
    file, width = _found(weights)
    network = simulating.whole_network(_model(loaded, file), task_api.first(loaded, batch))
    if on is not None and values:
        _sweep(network, exploration.ChipSweep(on, values, energy, dram), jobs, outputs)
    else:
        if width is not None:
            chosen = [simulating.accelerator.narrowed(chip, width) for chip in chosen]
        _side_by_side(network, chosen, energy, dram, _Outputs(table, out, as_json, width))


def _side_by_side(
    network: WholeNetwork, chosen: list[Accelerator], energy: str, dram: str, outputs: _Outputs
) -> None:
    from zeroskip import files, report
    from zeroskip import simulate as simulating

    estimates, refused, (works, left_out, _) = [], [], network
    for chip in chosen:
        try:
            estimates.append(simulating.estimate(works, chip, energy=energy, dram=dram, left_out=left_out))
        except AcceleratorError as fact:
            if len(chosen) == 1:
                raise
            refused.append(str(fact))
    if not estimates:
        raise AcceleratorError(refused[0])
    alone = len(estimates) == 1
    grid = report.layer_cost_table(estimates[0]) if alone else report.chip_table(estimates)
    if outputs.csv is not None:
        files.write(outputs.csv, _csv(estimates))
    if outputs.page is not None:
        bandwidths = {chip.name: chip.dram_bytes_per_cycle for chip in chosen}
        width = outputs.bits or 16
        sizes, limits = simulating.format_sizes(works, bits=width), simulating.cross_overs(bits=width)
        report.simulation_html(
            outputs.page, estimates, formats=sizes, cross_overs=limits, bandwidths=bandwidths
        )
    values = [estimate.to_json() for estimate in estimates]
    show({"estimates": values, "refused": refused, "bits": outputs.bits}, grid, as_json=outputs.as_json)
    if not outputs.as_json:
        written = [f"wrote {path}" for path in (outputs.csv, outputs.page) if path]
        turns = [
            f"{pair.less} needs less energy than {pair.more} here, and more with {', '.join(pair.drams)}"
            for pair in simulating.undecided(estimates)
        ]
        bits = [NARROWED.format(outputs.bits)] if outputs.bits else []
        for line in [*bits, *refused, *turns, *written]:
            say(line)


def _sweep(network: WholeNetwork, asked: ChipSweep, jobs: int, outputs: _Outputs) -> None:
    """Estimate the chip at each point; those that contradict themselves are named, not left out."""
    from zeroskip import exploration, report

    folder, (works, left_out, _) = outputs.page, network
    with progress_bars() as progress:
        points = folder / "points" if folder else None
        outcome = exploration.sweep_chip(
            works, asked, left_out=left_out, folder=points, jobs=jobs, progress=progress
        )
    notes = report.left_out_sentences(outcome.left_out, outcome.network_macs, refuses=outcome.chip)
    if folder is not None:
        report.sweep_html(folder / "sweep.html", outcome.chip, outcome.rows, notes)
    show(outcome.to_json(), report.sweep_table(outcome.chip, outcome.rows, notes), as_json=outputs.as_json)
    if not outputs.as_json:
        for line in [*outcome.refused, *([f"wrote {folder / 'sweep.html'}"] if folder else [])]:
            say(line)


def _swept_values(
    words: list[str] | None, on: str | None, chosen: list[Accelerator], outputs: _Outputs, jobs: int
) -> dict[str, list[float]]:
    """What --sweep asks for, checked before the network is run; nothing without it."""
    from zeroskip.simulate.accelerator import check_parameters

    if not words:
        if jobs > 1:
            raise AcceleratorError("--jobs goes with --sweep.")
        return {}
    if on is None or len(chosen) > 1 or outputs.csv is not None:
        raise AcceleratorError("--sweep changes one chip, without --csv. Name it: --on eie.")
    values = dict(_numbers(word) for word in words)
    if len(values) < len(words):
        raise AcceleratorError("--sweep names a number twice. Give all its values at once: lanes=16,32")
    check_parameters(chosen[0], values)
    return values


def _numbers(word: str) -> tuple[str, list[float]]:
    """lanes=16,32 -> ("lanes", [16, 32])."""
    name, _, numbers = word.partition("=")
    try:
        values = [float(number) for number in numbers.split(",")]
        return name.strip(), [int(value) if value == int(value) else value for value in values]
    except (ValueError, OverflowError):
        raise AcceleratorError(
            f'--sweep "{word}" is not NAME=NUMBER,NUMBER,... such as lanes=16,32'
        ) from None


def _found(path: Path) -> tuple[Path, int | None]:
    """The file that holds the network, and the bits of its numbers where a run says so."""
    from zeroskip import run_folder

    if not path.is_dir():
        return path, None
    summary = run_folder.load(path).summary
    return path / summary.shown / "sparse.safetensors", 8 if summary.precision == "int8" else None


def _model(task: Task, path: Path) -> nn.Module:
    from zeroskip import pack, run_folder, task_api

    stored = pack.decode(pack.load(path)) if path.suffix == ".zs" else run_folder.load_tensors(path)
    return task_api.model(task, stored)


def _csv(estimates: Sequence[Estimate]) -> str:
    """A line for each layer on each chip, and one for each that is in no figure: of these only the MACs are known."""
    columns = ("name", "op", "macs", "done", "gated", "skipped", "cycles", "slots", "roof", "note")
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(("machine", *columns, "dram_bytes", "joules", "runs", "share_of_macs"))
    for estimate in estimates:
        for layer in estimate.layers:
            values = (getattr(layer, name) for name in columns)
            sums = layer.moved("DRAM"), layer.joules, layer.runs, estimate.share(layer.macs)
            writer.writerow((estimate.chip, *values, *sums))
        for other in estimate.left_out:
            about = other.name, "", other.macs, *[""] * 6, f"not simulated: {other.reason}"
            writer.writerow((estimate.chip, *about, "", "", "", estimate.share(other.macs)))
    return stream.getvalue()
