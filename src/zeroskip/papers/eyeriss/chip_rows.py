"""Eyeriss, the chip: elements at work, latencies, traffic to DRAM by the simulator, and what gating saves.

Its cycles do not depend on zeros. VGG-16's cut into passes is not published; `simulate/dataflows/eyeriss.py` infers it
from the published traffic, and the buffer's rate from the published latencies: a fit, and no prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.masked_layers import DENSE, NonZeros, convolutions, masked
from zeroskip.papers.common.rules import EQUAL, RECOMPUTED, Figure, Rule, figure, within, within_share
from zeroskip.papers.common.tables import Table
from zeroskip.papers.eyeriss import published
from zeroskip.simulate import Accelerator, Estimate, LayerEstimate, Workload, chips, estimate
from zeroskip.simulate.dataflows import eyeriss as dataflow
from zeroskip.simulate.lane_counts import tiles

ALEXNET, VGG16 = "Chip: AlexNet", "Chip: VGG-16 (a fit: passes and buffer rate come from these figures)"
GATING = "Chip: power of the elements saved by gating, AlexNet"
RECALLED = "handed down; the sums of these tables agree with the paper's text"
RATIO = within(0.12, "0.12: zeros at random places, shares of zeros before pooling from elsewhere")
EACH, WHOLE, POINTS = within_share(0.1), within_share(0.03), within(5, "5 points")
THIRD = Rule("from 31 to 34 %", lambda published, ours: 31 <= ours <= 34)
CLOCK = (
    "here the zeros of the padding come on top of the published shares; and clock and control, which no zero gates, "
    "are in the paper's figure and not in ours"
)
PADS = ("MAC", "gated MAC", "input pad", "weight pad", "sum pad")


def analytic() -> list[PaperRow]:
    """Every row that the simulator gives from shapes and published shares of zeros."""
    return [*_alexnet(), *_vgg16(), *_gating()]


def _alexnet() -> list[PaperRow]:
    layers = published.ALEXNET
    shares = NonZeros(
        weights=[DENSE] * len(layers),
        inputs=[_non_zeros(layer.zeros) for layer in layers],
        outputs=[_non_zeros(layer.zeros_written) for layer in layers],
    )
    works = masked(convolutions("alexnet"), shares, images=published.ALEXNET_IMAGES)
    coded, plain = estimate(works, chips.EYERISS), estimate(works, replace(chips.EYERISS, formats={}))
    table, names = Table(published.NAME, ALEXNET, "alexnet"), [layer.name for layer in layers]
    rows = _elements(table, names, works, [figure(active) for active in published.ACTIVE])
    rows += _latencies(table, names, coded, published.LATENCIES)
    column = "traffic to DRAM without / with the code"
    for layer, with_code, without in zip(layers, coded.layers, plain.layers, strict=True):
        ratio, printed = without.moved("DRAM") / with_code.moved("DRAM"), figure(layer.ratio, "x", RECALLED)
        rows.append(table.judge(layer.name, column, printed, ratio, RATIO))
    rows += _megabytes(table, coded)
    saved = 100 * (1 - coded.total.moved("DRAM") / plain.total.moved("DRAM"))
    printed = figure(published.SAVED, "%", RECOMPUTED)
    return [*rows, table.judge("total", "traffic to DRAM saved", printed, saved, THIRD)]


def _non_zeros(zeros: str) -> float:
    return 1 - figure(zeros).value / 100


def _megabytes(table: Table, estimated: Estimate) -> list[PaperRow]:
    rows = []
    for layer, moved in zip(published.ALEXNET, estimated.layers, strict=True):
        for column, printed, memory in (
            ("traffic to DRAM", layer.dram, "DRAM"),
            ("traffic to the buffer", layer.buffer, "global buffer"),
        ):
            megabytes, reason = moved.moved(memory) / 1e6, _as_conv4(layer, moved)
            rows.append(
                table.judge(layer.name, column, figure(printed, "MB", RECALLED), megabytes, EACH, reason)
            )
    return rows


def _as_conv4(layer: published.EyerissLayer, estimated: LayerEstimate) -> str:
    """What the buffer would move, if the layer were cut into passes like CONV4 and CONV5."""
    channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
    own, conv4 = dataflow.PASSES[layer.window, layer.output, channels], dataflow.PASSES[3, 13, 192]
    sums, inputs = estimated.bytes["global buffer", "O"], estimated.bytes["global buffer", "A"]
    moved = sums * tiles(channels, conv4.inputs) / tiles(channels, own.inputs)
    moved += inputs * tiles(filters, conv4.outputs) / tiles(filters, own.outputs)
    return (
        f"table III, as handed down, adds up {own.inputs} channels at a time here and {conv4.inputs} in CONV4 and "
        f"CONV5; cut like these it would be {moved / 1e6:.1f} MB, and the latency, which the buffer binds here, would "
        "fall to what the elements take"
    )


def _vgg16() -> list[PaperRow]:
    """One picture at a time, as the chip takes them; latencies are of three."""
    table, layers = Table(published.NAME, VGG16, "vgg16"), published.VGG16_CHIP
    works = masked(convolutions("vgg16"), NonZeros([DENSE] * len(layers), [DENSE] * len(layers)))
    names, active = [layer.name for layer in layers], [figure(layer.active, "", RECALLED) for layer in layers]
    latencies = [layer.latency for layer in layers]
    rows = _elements(table, names, works, active)
    return rows + _latencies(table, names, estimate(works, chips.EYERISS), latencies, published.VGG16_IMAGES)


def _elements(
    table: Table, names: Sequence[str], works: Sequence[Workload], active: Sequence[Figure]
) -> list[PaperRow]:
    return [
        table.judge(name, "elements at work", printed, dataflow.active(work, chips.EYERISS), EQUAL)
        for name, work, printed in zip(names, works, active, strict=True)
    ]


def _latencies(
    table: Table, names: Sequence[str], estimated: Estimate, latencies: Sequence[str], images: int = 1
) -> list[PaperRow]:
    column, milliseconds = "processing latency", 1e3 * images / chips.EYERISS.hertz
    rows = [
        table.judge(name, column, figure(printed, "ms", RECALLED), milliseconds * layer.cycles, EACH)
        for name, layer, printed in zip(names, estimated.layers, latencies, strict=True)
    ]
    total = figure(published.LATENCY_TOTALS[table.network], "ms")
    return [*rows, table.judge("total", column, total, milliseconds * estimated.cycles, WHOLE)]


def _gating() -> list[PaperRow]:
    """The paper's sizes count the padding as input; whether its shares of zeros do is not said."""
    table, network = Table(published.NAME, GATING, "alexnet"), convolutions("alexnet")
    alone, rows = [_non_zeros(layer.zeros) for layer in published.ALEXNET], []
    with_padding = [
        min(1.0, share * layer.size**2 / convolution.input_shape[1] ** 2)
        for share, layer, convolution in zip(alone, published.ALEXNET, network, strict=True)
    ]
    readings = {"zeros of picture and padding together": with_padding, "zeros of the picture alone": alone}
    for row, inputs in readings.items():
        works = masked(network, NonZeros([DENSE] * len(network), inputs))
        free = _elements_energy(works, replace(chips.EYERISS, gates=""))
        saved = 100 * (1 - _elements_energy(works, chips.EYERISS) / free)
        rows.append(table.judge(row, "saved", figure(published.GATED, "%"), saved, POINTS, CLOCK))
    return rows


def _elements_energy(works: Sequence[Workload], chip: Accelerator) -> float:
    events = estimate(works, chip, energy="sparseloop").total.picojoules
    return sum(events.get(part, 0.0) for part in PADS)
