"""The command that prices zeros on described hardware. Its docstring is the --help."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroskip.cli.options import DATA, JSON, TASK, app, load_task, progress_bars, say, show
from zeroskip.errors import AcceleratorError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.simulate import Accelerator, Estimate, Workload
    from zeroskip.task_api import Task

ON = typer.Option(
    "--on",
    metavar="MACHINES",
    help="Machines by name, with commas between them, or a Python file that makes some (zeroskip.simulate.chips has "
    "the published ones, to be changed with dataclasses.replace). Default: all published ones.",
)
ENERGY = typer.Option(help="Table of energies: han2015, sparseloop, eyeriss2016, eie2016.")
DRAM = typer.Option(help="What a bit from DRAM costs: hbm2, lpddr4, gddr5, ddr4, han2015, ddr3.")
TABLE = typer.Option("--csv", metavar="FILE", help="Write every layer on every machine.")
OUT = typer.Option(
    metavar="PATH",
    help="Write an HTML page: where cycles and energy go, how formats compare. With --sweep: a folder for the points, "
    "which the same command continues, and their page.",
)
SWEEP = typer.Option(
    metavar="NAME=A,B,...",
    help="Estimate one machine with other numbers, e.g. lanes=16,32 or tile.queue=2,8 or memory.entries=65536 (bytes). "
    "Given several times: every combination.",
)
JOBS = typer.Option(min=1, help="With --sweep: so many processes.")


@app.command()
def simulate(
    task: Annotated[str, TASK],
    weights: Annotated[
        Path, typer.Argument(metavar="FILE", help="The network: a .zs file, or weights as safetensors.")
    ],
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

    Counts are exact for the network's own zeros on real inputs: MACs done, gated (the slot is spent, the energy not)
    and skipped. Two machines whose order changes with the DRAM are named: that is no result.
    """
    from zeroskip import measure, task_api
    from zeroskip import simulate as simulating

    chosen = machines(on)
    points = _points(sweep, chosen, table, jobs)
    loaded = load_task(task, data)
    works = simulating.of_trace(measure.trace(_model(loaded, weights), task_api.batch(loaded)[:batch]))
    if sweep:
        settings = {"on": on, "energy": energy, "dram": dram}
        _sweep(works, chosen[0], points, settings, out=out, jobs=jobs, as_json=as_json)
    else:
        _side_by_side(works, chosen, energy, dram, table=table, out=out, as_json=as_json)


def _side_by_side(
    works: list[Workload],
    chosen: list[Accelerator],
    energy: str,
    dram: str,
    *,
    table: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from zeroskip import files, report
    from zeroskip import simulate as simulating

    found, refused = [], []
    for machine in chosen:
        try:
            found.append(simulating.estimate(works, machine, energy=energy, dram=dram))
        except AcceleratorError as fact:
            if len(chosen) == 1:
                raise
            refused.append(str(fact))
    told = [one.to_json() for one in found]
    tables = [report.machine_table(told)] if len(told) > 1 else [report.layer_cost_table(told[0])]
    if table is not None:
        files.write(table, _csv(told))
    if out is not None:
        bandwidths = {one.name: one.dram_bytes_per_cycle for one in chosen}
        sizes = {"formats": [sizes.to_json() for sizes in simulating.format_sizes(works)], "cross_overs": simulating.cross_overs()}
        report.simulation_html(out, told, bandwidths=bandwidths, **sizes)  # type: ignore[arg-type]
    show({"estimates": told, "refused": refused}, *tables, as_json=as_json)
    if not as_json:
        for line in [*refused, *_undecided(found), *(f"wrote {path}" for path in (table, out) if path)]:
            say(line)


def _sweep(
    works: list[Workload],
    machine: Accelerator,
    points: list[dict[str, float]],
    settings: dict[str, Any],
    *,
    out: Path | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Estimate the machine at each point; those that contradict themselves are told, not left out."""
    from zeroskip import report
    from zeroskip.sweep import sweep

    about = settings | _identity(works, machine, settings["on"])
    told = [{**about, "numbers": numbers} for numbers in points]
    with progress_bars() as progress:
        folder = out / "points" if out else None
        found = sweep(told, partial(_estimate, works), folder=folder, jobs=jobs, progress=progress)
    rows = [one for one in found if "refused" not in one]
    refused = [one["refused"] for one in found if "refused" in one]
    if not rows:
        raise AcceleratorError(refused[0])
    if out is not None:
        report.sweep_html(out / "sweep.html", machine.name, rows)
    show(
        {"machine": machine.name, "points": rows, "refused": refused},
        report.sweep_table(machine.name, rows),
        as_json=as_json,
    )
    if not as_json:
        for line in [*refused, *([f"wrote {out / 'sweep.html'}"] if out else [])]:
            say(line)


def _estimate(works: list[Workload], point: dict[str, Any]) -> dict[str, Any]:
    """One point; the machine is looked up by its name, since its functions cannot be sent to another process."""
    from zeroskip import simulate as simulating

    try:
        machine = simulating.vary(machines(point["on"])[0], point["numbers"])
        found = simulating.estimate(works, machine, energy=point["energy"], dram=point["dram"])
    except AcceleratorError as fact:
        return {"numbers": point["numbers"], "refused": f"{point['numbers']}: {fact}"}
    total = found.total
    figures = {"cycles": found.cycles, "seconds": found.seconds, "joules": found.joules, "roof": total.roof}
    figures |= {"utilisation": total.utilisation, "dram_bytes": total.moved("DRAM")}
    return {"numbers": point["numbers"], **figures}


def _identity(works: list[Workload], machine: Accelerator, on: str) -> dict[str, Any]:
    """What a point depends on besides its numbers: the zeros, the machine as it is described, the version."""
    found = hashlib.sha256()
    for work in works:
        found.update(
            repr(
                (
                    work.name,
                    work.op,
                    work.weight.shape,
                    work.input.shape,
                    work.stride,
                    work.padding,
                    work.dilation,
                )
            ).encode()
        )
        for mask in (work.weight, work.input, work.output):
            found.update(mask.numpy().tobytes())
    return {"network": found.hexdigest(), **identity(machine, on)}


def identity(machine: Accelerator, on: str) -> dict[str, Any]:
    """The machine as it is described, the user's file where it comes from one, the version."""
    import zeroskip
    from zeroskip import files
    from zeroskip.simulate import parameters

    numbers = {name: str(number) for name, number in parameters(machine).items()}  # JSON has no infinity
    own = hashlib.sha256(files.read(on)).hexdigest() if on.endswith(".py") else ""
    return {"machine": numbers, "file": own, "version": zeroskip.__version__}


def _points(
    words: list[str] | None, chosen: list[Accelerator], table: Path | None, jobs: int
) -> list[dict[str, float]]:
    """Every combination of the numbers; none without --sweep."""
    from zeroskip.simulate import parameters

    if not words:
        if jobs > 1:
            raise AcceleratorError("--jobs goes with --sweep.")
        return []
    if len(chosen) > 1 or table is not None:
        raise AcceleratorError("--sweep changes one machine, without --csv. Name it: --on eie.")
    given = dict(_numbers(word) for word in words)
    if len(given) < len(words):
        raise AcceleratorError("--sweep names a number twice. Give all its values at once: lanes=16,32")
    unknown = set(given) - set(parameters(chosen[0]))
    if unknown:
        raise AcceleratorError(
            f'{chosen[0].name} has no "{sorted(unknown)[0]}". It has {", ".join(parameters(chosen[0]))}'
        )
    return [dict(zip(given, some, strict=True)) for some in product(*given.values())]


def _numbers(word: str) -> tuple[str, list[float]]:
    """lanes=16,32 -> ("lanes", [16, 32])."""
    name, _, numbers = word.partition("=")
    try:
        found = [float(number) for number in numbers.split(",")]
        return name.strip(), [int(one) if one == int(one) else one for one in found]
    except (ValueError, OverflowError):
        raise AcceleratorError(
            f'--sweep "{word}" is not NAME=NUMBER,NUMBER,... such as lanes=16,32'
        ) from None


def machines(words: str | None) -> list[Accelerator]:
    """The machines that --on names, all published ones without it.

    >>> [machine.name for machine in machines("eie,scnn")]
    ['EIE', 'SCNN']
    """
    from zeroskip.simulate import CHIPS

    if words is None:
        return list(CHIPS)
    if words.endswith(".py"):
        return _own(Path(words))
    known = {_slug(chip.name): chip for chip in CHIPS}
    names = [_slug(word) for word in words.split(",") if word.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        named = f'"{unknown[0]}"' if unknown else "nothing"
        raise AcceleratorError(f"--on names {named}. Machines are {', '.join(known)}; or give a Python file.")
    return [known[name] for name in names]


def _own(path: Path) -> list[Accelerator]:
    """The machines that a user's file makes, in its order."""
    from zeroskip.simulate import Accelerator
    from zeroskip.tasks.load import run_file

    found = [one for one in vars(run_file(path)).values() if isinstance(one, Accelerator)]
    if not found:
        raise AcceleratorError(
            f"{path} makes no Accelerator. Write one: CHIP = dataclasses.replace(chips.SCNN, name='mine')."
        )
    return found


def _slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9:]+", name.lower()))


def _model(task: Task, path: Path) -> nn.Module:
    from zeroskip import pack, run_folder, task_api

    stored = pack.decode(pack.load(path)) if path.suffix == ".zs" else run_folder.load_tensors(path)
    return task_api.model(task, stored)


def _undecided(found: list[Estimate]) -> list[str]:
    """Pairs of neighbours in energy whose order depends on the DRAM."""
    from zeroskip.simulate import less_energy

    ordered = sorted(found, key=lambda one: one.joules)
    lines = []
    for one, two in pairwise(ordered):
        winners = less_energy(one, two)
        if len(set(winners.values())) > 1:
            others = ", ".join(dram for dram, winner in winners.items() if winner == two.chip)
            lines.append(f"{one.chip} needs less energy than {two.chip} here, and more with {others}")
    return lines


def _csv(told: list[dict[str, Any]]) -> str:
    kept = ("name", "op", "macs", "done", "gated", "skipped", "cycles", "slots", "roof", "note")
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(("machine", *kept, "dram_bytes", "joules"))
    for one in told:
        for line in one["layers"]:
            moved = sum(count for name, count in line["bytes"].items() if name.startswith("DRAM "))
            joules = sum(line["picojoules"].values()) * 1e-12
            writer.writerow((one["machine"], *(line[key] for key in kept), moved, joules))
    return stream.getvalue()
