"""The command that prices zeros on described hardware. Its docstring is the --help."""

from __future__ import annotations

import csv
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeroskip.cli.words import DATA, JSON, TASK, app, load_task, say, show
from zeroskip.errors import AcceleratorError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.contract import Task
    from zeroskip.simulate import Accelerator, Estimate

ON = typer.Option(
    "--on",
    metavar="MACHINES",
    help="Machines by name, with commas between them, or a Python file that makes some (zeroskip.simulate.machines has "
    "the published ones, to be changed with dataclasses.replace). Default: all published ones.",
)


@app.command()
def simulate(
    task: Annotated[str, TASK],
    weights: Annotated[
        Path, typer.Argument(metavar="FILE", help="The network: a .zs file, or weights as safetensors.")
    ],
    on: Annotated[str | None, ON] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples of the task's batch to run.")] = 1,
    energy: Annotated[
        str, typer.Option(help="Table of energies: han2015, sparseloop, eyeriss2016, eie2016.")
    ] = "han2015",
    dram: Annotated[
        str, typer.Option(help="What a bit from DRAM costs: hbm2, lpddr4, gddr5, ddr4, han2015, ddr3.")
    ] = "lpddr4",
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every layer on every machine.")
    ] = None,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """What the zeros of a network, in weights and activations, are worth on silicon: cycles, bytes and energy.

    Counts are exact for the network's own zeros on real inputs: MACs done, gated (the slot is spent, the energy not)
    and skipped. Two machines whose order changes with the DRAM are named: that is no result.
    """
    from zeroskip import contract, files, measure, report
    from zeroskip import simulate as simulating

    machines = _machines(on)
    loaded = load_task(task, data)
    trace = measure.trace(_model(loaded, weights), contract.batch(loaded)[:batch])
    works = simulating.of_trace(trace)
    found, refused = [], []
    for machine in machines:
        try:
            found.append(simulating.estimate(works, machine, energy=energy, dram=dram))
        except AcceleratorError as fact:
            if len(machines) == 1:
                raise
            refused.append(str(fact))
    told = [one.to_json() for one in found]
    tables = [report.machine_table(told)] if len(told) > 1 else [report.layer_cost_table(told[0])]
    if table is not None:
        files.write(table, _csv(told))
    show({"estimates": told, "refused": refused}, *tables, as_json=as_json)
    if not as_json:
        for line in [*refused, *_undecided(found)]:
            say(line)
        if table is not None:
            say(f"wrote {table}")


def _machines(words: str | None) -> list[Accelerator]:
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
            f"{path} makes no Accelerator. Write one: CHIP = dataclasses.replace(machines.SCNN, name='mine')."
        )
    return found


def _slug(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9:]+", name.lower()))


def _model(task: Task, path: Path) -> nn.Module:
    from zeroskip import contract, pack, runs

    stored = pack.decode(pack.load(path)) if path.suffix == ".zs" else runs.load_tensors(path)
    return contract.model(task, stored)


def _undecided(found: list[Estimate]) -> list[str]:
    """Pairs of neighbours in energy whose order depends on the DRAM."""
    from zeroskip.simulate import less_energy

    ordered = sorted(found, key=lambda one: one.joules)
    lines = []
    for one, two in pairwise(ordered):
        winners = less_energy(one, two)
        if len(set(winners.values())) > 1:
            others = ", ".join(dram for dram, winner in winners.items() if winner == two.machine)
            lines.append(f"{one.machine} needs less energy than {two.machine} here, and more with {others}")
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
