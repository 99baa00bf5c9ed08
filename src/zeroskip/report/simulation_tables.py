"""What machines make of a network's zeros: one line a machine, one line a layer, and where the energy goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_bytes, show_count, show_seconds, show_share

Told = Mapping[str, Any]

MACHINES = (
    "machine", "cycles", "time", "MACs done", "gated", "skipped", "in use", "bound by", "DRAM", "energy",
)  # fmt: skip
LAYERS = (
    "layer",
    "MACs",
    "done",
    "gated",
    "skipped",
    "cycles",
    "in use",
    "lost most to",
    "bound by",
    "DRAM",
    "energy",
)


def machine_table(estimates: Sequence[Told]) -> Grid:
    """One line for each machine, all its layers together.

    estimates  what `Estimate.to_json` gives, of the same network

    >>> Console().print(machine_table([estimate.to_json()]))
    """
    first = estimates[0]
    cells = [_machine(one) for one in estimates]
    about = f"energies: {first['energy']}, DRAM {first['dram']}; for {first['examples']} example"
    note = f"{about}{'s' if first['examples'] > 1 else ''}. One table of energies serves all: read ratios."
    refused = [f"{one['machine']}: {reason}" for one in estimates for reason in one["refused"].values()]
    return Grid(
        "zeros on silicon", MACHINES, tuple(cells), " ".join([note, *refused[:3]]), prose=("machine",)
    )


def layer_cost_table(estimate: Told) -> Grid:
    """One line for each layer on one machine, and all of them.

    >>> Console().print(layer_cost_table(estimate.to_json()))
    """
    lines = [*estimate["layers"], estimate["total"]]
    notes = {layer["note"] for layer in estimate["layers"] if layer["note"]}
    cells = tuple(_layer(line) for line in lines)
    title = f"{estimate['machine']}, layer by layer"
    return Grid(title, LAYERS, cells, " ".join(sorted(notes)), marks={len(cells) - 1: "total"})


def sweep_table(machine: str, rows: Sequence[Told]) -> Grid:
    """One line for each machine of a sweep.

    rows  {"numbers": {parameter: number}, "cycles", "seconds", "utilisation", "roof", "dram_bytes", "joules"}

    >>> Console().print(sweep_table("EIE", rows))
    """
    names = tuple(rows[0]["numbers"])
    columns = (*names, "cycles", "time", "in use", "bound by", "DRAM", "energy")
    cells = tuple(
        (
            *(f"{row['numbers'][name]:,g}" for name in names),
            show_count(row["cycles"]),
            show_seconds(row["seconds"]),
            show_share(row["utilisation"]),
            row["roof"],
            show_bytes(row["dram_bytes"]),
            _joules(row["joules"]),
        )
        for row in rows
    )
    note = "How operands lie in DRAM stays as the machine has it, also where its lanes are others."
    return Grid(f"{machine} with other numbers", columns, cells, note)


def _machine(one: Told) -> tuple[str, ...]:
    total = one["total"]
    return (
        one["machine"],
        show_count(total["cycles"]),
        show_seconds(one["seconds"]),
        *_kinds(total),
        show_share(_used(total)),
        total["roof"],
        show_bytes(_dram(total)),
        _joules(one["joules"]),
    )


def _layer(line: Told) -> tuple[str, ...]:
    most = max(line["idle"], key=line["idle"].__getitem__, default="")
    return (
        line["name"],
        show_count(line["macs"]),
        *_kinds(line),
        show_count(line["cycles"]),
        show_share(_used(line)),
        most if line["idle"].get(most) else "-",
        line["roof"],
        show_bytes(_dram(line)),
        _joules(sum(line["picojoules"].values()) * 1e-12),
    )


def _kinds(line: Told) -> tuple[str, ...]:
    return tuple(show_share(line[kind] / max(line["macs"], 1)) for kind in ("done", "gated", "skipped"))


def _used(line: Told) -> float:
    return float(line["done"] / line["slots"]) if line["slots"] else 0.0


def _dram(line: Told) -> int:
    return sum(count for name, count in line["bytes"].items() if name.startswith("DRAM "))


def _joules(value: float) -> str:
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e12:.3g} pJ"
