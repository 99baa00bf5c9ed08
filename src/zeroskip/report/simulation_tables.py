"""What chips make of a network's zeros: one line a chip, one line a layer, and where the energy goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_bytes, show_count, show_seconds, show_share

if TYPE_CHECKING:
    from zeroskip.exploration import SweepRow
    from zeroskip.simulate import Estimate, LayerEstimate

CHIPS = (
    "machine", "cycles", "time", "MACs done", "gated", "skipped", "in use", "bound by", "DRAM", "energy",
)  # fmt: skip
LAYERS = (
    "layer", "MACs", "done", "gated", "skipped", "cycles", "in use", "lost most to", "bound by", "DRAM", "energy",
)  # fmt: skip


def chip_table(estimates: Sequence[Estimate]) -> Grid:
    """One line for each chip, all layers together, from estimates of the same network.

    >>> from zeroskip.simulate import estimate_trace
    >>> for row in chip_table([estimate_trace(recorded, chip) for chip in (chips.DENSE, chips.EIE)]).rows:
    ...     print(*row[:6], sep=" | ")
    dense array | 11 | 11 ns | 100.0 % | 0.0 % | 0.0 %
    EIE | 32 | 40 ns | 38.3 % | 0.0 % | 61.7 %
    """
    first = estimates[0]
    cells = [_chip(estimate) for estimate in estimates]
    about = f"energies: {first.energy}, DRAM {first.dram}; for {first.examples} example"
    note = f"{about}{'s' if first.examples > 1 else ''}. One table of energies serves all: read ratios."
    refused = [f"{found.chip}: {reason}" for found in estimates for reason in found.refused.values()]
    return Grid("zeros on silicon", CHIPS, tuple(cells), " ".join([note, *refused[:3]]), prose=("machine",))


def layer_cost_table(estimate: Estimate) -> Grid:
    """One line for each layer on one chip, and all of them.

    >>> from zeroskip.simulate import estimate_trace
    >>> [row[:3] for row in layer_cost_table(estimate_trace(recorded, chips.EIE)).rows]
    [('fc1', '144', '25.0 %'), ('fc2', '96', '58.3 %'), ('total', '240', '38.3 %')]
    """
    cells = tuple(_layer(line) for line in (*estimate.layers, estimate.total))
    notes = {layer.note for layer in estimate.layers if layer.note}
    title = f"{estimate.chip}, layer by layer"
    return Grid(title, LAYERS, cells, " ".join(sorted(notes)), marks={len(cells) - 1: "total"})


def sweep_table(chip: str, rows: Sequence[SweepRow]) -> Grid:
    """One line for each point of a sweep of one chip.

    >>> from zeroskip.exploration import SweepRow
    >>> sweep_table("EIE", [SweepRow({"lanes": 32}, 1000, 1e-6, 2e-6, "compute", 0.5, 4096)]).rows
    (('32', '1,000', '1 µs', '50.0 %', 'compute', '4.1 kB', '2 µJ'),)
    """
    names = tuple(rows[0].numbers)
    columns = (*names, "cycles", "time", "in use", "bound by", "DRAM", "energy")
    cells = tuple(
        (
            *(f"{row.numbers[name]:,g}" for name in names),
            show_count(row.cycles),
            show_seconds(row.seconds),
            show_share(row.utilisation),
            row.roof,
            show_bytes(row.dram_bytes),
            _joules(row.joules),
        )
        for row in rows
    )
    note = "How operands lie in DRAM stays as the machine has it, also where its lanes are others."
    return Grid(f"{chip} with other numbers", columns, cells, note)


def _chip(estimate: Estimate) -> tuple[str, ...]:
    total = estimate.total
    return (
        estimate.chip,
        show_count(total.cycles),
        show_seconds(estimate.seconds),
        *_shares(total),
        show_share(total.utilisation),
        total.roof,
        show_bytes(total.moved("DRAM")),
        _joules(estimate.joules),
    )


def _layer(line: LayerEstimate) -> tuple[str, ...]:
    most = max(line.idle, key=line.idle.__getitem__, default="")
    return (
        line.name,
        show_count(line.macs),
        *_shares(line),
        show_count(line.cycles),
        show_share(line.utilisation),
        most if line.idle.get(most) else "-",
        line.roof,
        show_bytes(line.moved("DRAM")),
        _joules(line.joules),
    )


def _shares(line: LayerEstimate) -> tuple[str, ...]:
    return tuple(show_share(macs / max(line.macs, 1)) for macs in (line.done, line.gated, line.skipped))


def _joules(value: float) -> str:
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e12:.3g} pJ"
