"""What chips make of a network's zeros: one line a chip, one line a layer, and where the energy goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_bytes, show_count, show_seconds, show_share

if TYPE_CHECKING:
    from zeroskip.exploration import SweepRow
    from zeroskip.simulate import Estimate, LayerEstimate, LeftOut

CHIPS = (
    "machine", "cycles", "time", "MACs done", "gated", "skipped", "in use", "bound by", "DRAM", "energy",
)  # fmt: skip
LAYERS = (
    "layer", "runs", "MACs", "done", "gated", "skipped", "cycles", "in use", "lost most to", "bound by", "DRAM",
    "energy",
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
    cells = tuple(_chip(estimate) for estimate in estimates)
    about = f"energies: {first.energy}, DRAM {first.dram}; for {first.examples} example"
    note = f"{about}{'s' if first.examples > 1 else ''}. One table of energies serves all: read ratios."
    sentences = (
        left_out_sentences(each.left_out, each.network_macs, refuses=each.chip) for each in estimates
    )
    notes = dict.fromkeys(sentence for found in sentences for sentence in found)
    return Grid("zeros on silicon", CHIPS, cells, " ".join([note, *notes]), prose=("machine",))


def layer_cost_table(estimate: Estimate) -> Grid:
    """One line for each layer on one chip, and all of them.

    >>> from zeroskip.simulate import estimate_trace
    >>> [row[:3] for row in layer_cost_table(estimate_trace(recorded, chips.EIE)).rows]
    [('fc1', '144', '25.0 %'), ('fc2', '96', '58.3 %'), ('total', '240', '38.3 %')]
    """
    from zeroskip.simulate.operations import (
        FIRST_INPUT_ONLY,
    )  # here, for tables of others do without the simulator

    cells = tuple(_layer(line) for line in (*estimate.layers, estimate.total))
    fallen_back = [layer.name for layer in estimate.layers if layer.note not in ("", FIRST_INPUT_ONLY)]
    half_known = [layer.name for layer in estimate.layers if FIRST_INPUT_ONLY in layer.note]
    notes = [
        f"{estimate.chip} has no way to run {_names(fallen_back)}, counted as dense on the same multipliers."
    ]
    notes = notes[: bool(fallen_back)] + left_out_sentences(
        estimate.left_out, estimate.network_macs, refuses=estimate.chip
    )
    if half_known:
        notes.append(f"Of {_names(half_known)}: {FIRST_INPUT_ONLY}.")
    title = f"{estimate.chip}, layer by layer"
    grid = Grid(title, LAYERS, cells, " ".join(notes), marks={len(cells) - 1: "total"})
    return grid if any(layer.runs > 1 for layer in estimate.layers) else grid.without("runs")


def left_out_table(estimates: Sequence[Estimate]) -> Grid:
    """What of the network is in no figure, by chip, with its share of all multiplications.

    >>> from zeroskip.simulate import LeftOut, estimate_trace
    >>> table = LeftOut("table", 0, "its rows are looked up, not multiplied")
    >>> left_out_table([estimate_trace(recorded, chips.EIE, left_out=[table])]).rows
    (('EIE', 'table', '0', '0.0 %', 'its rows are looked up, not multiplied'),)
    """
    rows = tuple(
        (
            found.chip,
            _named(each.name),
            show_count(each.macs),
            show_share(found.share(each.macs)),
            each.reason,
        )
        for found in estimates
        for each in found.left_out
    )
    columns = ("machine", "not simulated", "MACs", "of the network", "reason")
    return Grid("What is in no figure", columns, rows, prose=("not simulated", "reason"))


def left_out_sentences(left_out: Sequence[LeftOut], network_macs: int, *, refuses: str) -> list[str]:
    """The same in sentences; `refuses` is the chip that has no way to run layers.

    >>> from zeroskip.simulate import LeftOut
    >>> left_out_sentences([LeftOut("products of activations", 25, "")], 100, refuses="EIE")
    ["25.0 % of the network's multiplications are products of activations, which are not simulated."]
    """
    sentences = []
    refused = [each for each in left_out if each.refused]
    if refused:
        names, macs = _names([each.name for each in refused]), sum(each.macs for each in refused)
        share = f"{show_share(macs / max(network_macs, 1))} of the network's multiplications"
        sentences.append(f"{refuses} has no way to run {names}: {share}, in no figure.")
    sentences += [
        f"{show_share(each.macs / network_macs)} of the network's multiplications are {_named(each.name)}, which are "
        "not simulated."
        for each in left_out
        if each.macs and not each.refused
    ]
    others = [each for each in left_out if not each.macs and not each.refused]
    for reason in dict.fromkeys(each.reason for each in others):
        names = _names([each.name for each in others if each.reason == reason])
        sentences.append(f"Not simulated: {names} ({reason}).")
    return sentences


def sweep_table(chip: str, rows: Sequence[SweepRow], notes: Sequence[str] = ()) -> Grid:
    """One line for each point of a sweep of one chip.

    notes  what of the network is in no row: `left_out_sentences`

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
    return Grid(f"{chip} with other numbers", columns, cells, " ".join([note, *notes]))


def _chip(estimate: Estimate) -> tuple[str, ...]:
    total = estimate.total
    part = f" ({show_share(estimate.simulated)} of the MACs)" if estimate.refused else ""
    return (
        f"{estimate.chip}{part}",
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
        _named(line.name),
        show_count(line.runs),
        show_count(line.macs),
        *_shares(line),
        show_count(line.cycles),
        show_share(line.utilisation),
        most if line.idle.get(most) else "-",
        line.roof,
        show_bytes(line.moved("DRAM")),
        _joules(line.joules),
    )


def _names(layers: Sequence[str], most: int = 3) -> str:
    names = ", ".join(map(_named, layers[:most]))
    return names + (f" and {len(layers) - most} more" if len(layers) > most else "")


def _named(name: str) -> str:
    """A layer's name, also of a network that is one layer itself."""
    return name or "(itself)"


def _shares(line: LayerEstimate) -> tuple[str, ...]:
    return tuple(show_share(macs / max(line.macs, 1)) for macs in (line.done, line.gated, line.skipped))


def _joules(value: float) -> str:
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e12:.3g} pJ"
