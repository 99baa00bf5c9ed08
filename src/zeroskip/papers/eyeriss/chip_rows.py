"""Eyeriss, the chip: elements at work, latencies, traffic to DRAM by the simulator, and what gating saves.

Its cycles do not depend on zeros. VGG-16's cut into passes is not published; `simulate/dataflows/eyeriss.py` infers it
from the published traffic, and the buffer's rate from the published latencies: a fit, and no prediction.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from zeroskip.papers.common.masked_layers import DENSE, EYERISS, at, convolutions, seen
from zeroskip.papers.common.row import EQUAL, READ, RECOMPUTED, Row, Rule, Table, figure, within, within_share
from zeroskip.papers.eyeriss import published
from zeroskip.papers.eyeriss.rows import PAPER, RATIO, RECALLED
from zeroskip.simulate import Accelerator, Estimate, LayerEstimate, Workload, chips, estimate
from zeroskip.simulate.dataflows import eyeriss as dataflow
from zeroskip.simulate.lane_counts import tiles

ALEXNET, VGG16 = "Chip: AlexNet", "Chip: VGG-16 (a fit: passes and buffer rate come from these figures)"
GATING = "Chip: power of the elements saved by gating, AlexNet"
EACH, WHOLE, POINTS = within_share(0.1), within_share(0.03), within(5, "5 points")
THIRD = Rule("from 31 to 34 %", lambda told, ours: 31 <= ours <= 34)
CLOCK = (
    "here the zeros of the padding come on top of the published shares; and clock and control, which no zero gates, "
    "are in the paper's figure and not in ours"
)
PADS = ("MAC", "gated MAC", "input pad", "weight pad", "sum pad")


def analytic() -> list[Row]:
    """Every row that the simulator gives from shapes and published shares of zeros.

    >>> [row.row for row in analytic() if row.holds is False]
    ['CONV3', 'zeros of the picture alone']
    """
    return list(_rows())


@cache
def _rows() -> tuple[Row, ...]:
    return (*_alexnet(), *_vgg16(), *_gating())


def _alexnet() -> list[Row]:
    names = [one.name for one in published.ALEXNET]
    inputs = [1 - figure(one.zeros).value / 100 for one in published.ALEXNET]
    outputs = [1 - figure(one.zeros_written).value / 100 for one in published.ALEXNET]
    ones, images = [DENSE] * len(names), published.ALEXNET_IMAGES
    works = at(convolutions("alexnet"), ones, inputs, outputs=outputs, images=images)
    coded, plain = estimate(works, chips.EYERISS), estimate(works, replace(chips.EYERISS, formats={}))
    table = Table(PAPER, ALEXNET, "alexnet")
    rows = _elements(table, names, works, published.ACTIVE)
    rows += _latencies(table, names, coded, published.LATENCIES, 1)
    moved = [
        (one.moved("DRAM"), two.moved("DRAM")) for one, two in zip(coded.layers, plain.layers, strict=True)
    ]
    for layer, (ours, without) in zip(published.ALEXNET, moved, strict=True):
        column = "traffic to DRAM without / with the code"
        rows.append(
            table.judge(layer.name, column, layer.ratio, without / ours, RATIO, unit="x", trust=RECALLED)
        )
    rows += _megabytes(table, coded)
    saved = 100 * (1 - coded.total.moved("DRAM") / plain.total.moved("DRAM"))
    rows.append(
        table.judge(
            "total", "traffic to DRAM saved", published.SAVED, saved, THIRD, unit="%", trust=RECOMPUTED
        )
    )
    return rows


def _megabytes(table: Table, found: Estimate) -> list[Row]:
    rows = []
    for told, layer in zip(published.ALEXNET, found.layers, strict=True):
        for column, printed, memory in (
            ("traffic to DRAM", told.dram, "DRAM"),
            ("traffic to the buffer", told.buffer, "global buffer"),
        ):
            ours, reason = layer.moved(memory) / 1e6, _as_conv4(told, layer)
            rows.append(
                table.judge(told.name, column, printed, ours, EACH, unit="MB", trust=RECALLED, reason=reason)
            )
    return rows


def _as_conv4(told: published.Layer, layer: LayerEstimate) -> str:
    """What the buffer would move, if the layer were cut into passes like CONV4 and CONV5."""
    channels, own = (
        told.channels // told.groups,
        dataflow.PASSES[told.window, told.output, told.channels // told.groups],
    )
    one = dataflow.PASSES[3, 13, 192]
    sums, inputs = layer.bytes["global buffer", "O"], layer.bytes["global buffer", "A"]
    moved = sums * tiles(channels, one.inputs) / tiles(channels, own.inputs)
    filters = told.filters // told.groups
    moved += inputs * tiles(filters, one.outputs) / tiles(filters, own.outputs)
    return (
        f"table III, as handed down, adds up {own.inputs} channels at a time here and {one.inputs} in CONV4 and CONV5; "
        f"cut like these it would be {moved / 1e6:.1f} MB, and the latency, which the buffer binds here, would fall to "
        "what the elements take"
    )


def _vgg16() -> list[Row]:
    """One picture at a time, as the chip takes them; latencies are of three."""
    table, told = Table(PAPER, VGG16, "vgg16"), published.VGG16_CHIP
    works = at(convolutions("vgg16"), [DENSE] * len(told), [DENSE] * len(told))
    names, latencies = [one.name for one in told], [one.latency for one in told]
    found = estimate(works, chips.EYERISS)
    rows = _elements(table, names, works, [one.active for one in told], RECALLED)
    return rows + _latencies(table, names, found, latencies, published.VGG16_IMAGES)


def _elements(
    table: Table,
    names: list[str],
    works: list[Workload],
    told: tuple[str, ...] | list[str],
    trust: str = READ,
) -> list[Row]:
    return [
        table.judge(
            name, "elements at work", printed, dataflow.active(work, chips.EYERISS), EQUAL, trust=trust
        )
        for name, work, printed in zip(names, works, told, strict=True)
    ]


def _latencies(
    table: Table, names: list[str], found: Estimate, told: tuple[str, ...] | list[str], times: int
) -> list[Row]:
    column, milliseconds = "processing latency", 1e3 * times / chips.EYERISS.hertz
    rows = [
        table.judge(name, column, printed, milliseconds * one.cycles, EACH, unit="ms", trust=RECALLED)
        for name, one, printed in zip(names, found.layers, told, strict=True)
    ]
    printed = published.LATENCY_TOTALS[table.network]
    return [*rows, table.judge("total", column, printed, milliseconds * found.cycles, WHOLE, unit="ms")]


def _gating() -> list[Row]:
    """The paper's sizes count the padding as input; whether its shares of zeros do is not said."""
    table, some = Table(PAPER, GATING, "alexnet"), convolutions("alexnet")
    alone, rows = seen("alexnet", EYERISS), []
    with_padding = [
        min(1.0, share * told.size**2 / layer.input_shape[1] ** 2)
        for share, told, layer in zip(alone, published.ALEXNET, some, strict=True)
    ]
    readings = {"zeros of picture and padding together": with_padding, "zeros of the picture alone": alone}
    for row, inputs in readings.items():
        works = at(some, [DENSE] * len(some), inputs)
        gated, free = (
            _elements_energy(works, one) for one in (chips.EYERISS, replace(chips.EYERISS, gates=""))
        )
        saved = 100 * (1 - gated / free)
        rows.append(table.judge(row, "saved", published.GATED, saved, POINTS, unit="%", reason=CLOCK))
    return rows


def _elements_energy(works: list[Workload], machine: Accelerator) -> float:
    events = estimate(works, machine, energy="sparseloop").total.picojoules
    return sum(events.get(part, 0.0) for part in PADS)
