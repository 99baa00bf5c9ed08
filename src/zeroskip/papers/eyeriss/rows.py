"""Eyeriss: the run-length code of its feature maps, and what it saves of the traffic to DRAM.

The traffic of a layer, as the chip's mapping has it (table III), is

    input    images * channels * size^2 * overlap * ceil(filters of a group / filters held), coded but for the picture
    weights  all of them * images / images held * strips, not coded
    output   images * filters * output^2, coded

16 bits a value, with strips = ceil(output / rows held) and, since strips share input rows,
overlap = strips * ((rows held - 1) * stride + window) / size. Maps are random at the published shares of zeros, and
coded bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

import numpy as np

from zeroskip.codecs import arithmetic, runlength
from zeroskip.concepts import PaperRow
from zeroskip.papers.common.figure_checks import Verdict
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings, title
from zeroskip.papers.common.rules import EQUAL, RECOMPUTED, ROUNDS, figure, within, within_share
from zeroskip.papers.common.tables import Table
from zeroskip.papers.eyeriss import chip_rows, published
from zeroskip.papers.eyeriss.chip_rows import RATIO, RECALLED

DATA = "needs trained networks and real pictures (--out with --data, or --results)"
RANDOM = (
    "random zeros come that near only from 78 to 92 % zeros; the paper does not say how it reckons its limit"
)
REAL = "a pair takes 64 / 3 bits and a value 16: no code of pairs comes nearer with so few zeros"
RUNS = "zeros lie in runs over 31, which take a pair for every 32 of them"
COLUMN = "run-length code above the entropy"
GROWN = "Caffe's LeNet has no ReLU after its convolutions, and maps without zeros grow by a third"
BITS = 16
LIMITS = "5-10 %"
BETWEEN = "5 to 10 % above size * H(share of zeros) + 16 bits for each other value"
TENTH = within_share(0.1)
TWO_POINTS = within(2, "2 points")


@dataclass(frozen=True)
class CodedMaps:
    """The input maps of one layer, of so many examples together.

    elements, zeros  numbers in them;  bound: bits that the entropy of the zeros and 16 bits for each other number take
    bits             by format
    """

    examples: int
    elements: int
    zeros: int
    bound: float
    bits: Mapping[str, float]


@dataclass(frozen=True)
class CodedTraffic:
    """Bits of all maps and weights, without the code and with it."""

    dense: float
    coded: float


@dataclass(frozen=True)
class EyerissFindings:
    """One network: layer -> its maps, the first layer's being the picture; bits between the chip and DRAM."""

    layers: Mapping[str, CodedMaps] = field(default_factory=dict)
    traffic: CodedTraffic | None = None


@dataclass(frozen=True)
class LayerTraffic:
    """Bits between one layer and DRAM: its maps (input and output) without the code and with it, its weights."""

    maps: float
    maps_coded: float
    weights: float

    @property
    def ratio(self) -> float:
        """Times less with the code."""
        return (self.maps + self.weights) / (self.maps_coded + self.weights)


def analytic() -> list[PaperRow]:
    """Every row that follows from published shares of zeros, mappings and totals, and those of the chip."""
    return [*_code(), *_alexnet(), *_totals(), *chip_rows.analytic()]


def traffic(layer: published.EyerissLayer) -> LayerTraffic:
    """What one layer of AlexNet moves for a batch, on random maps at its published shares of zeros.

    >>> round(traffic(published.ALEXNET[1]).ratio, 2)
    1.36
    """
    strips = -(-layer.output // layer.rows_held)
    overlap = strips * ((layer.rows_held - 1) * layer.stride + layer.window) / layer.size
    reads = overlap * -(-(layer.filters // layer.groups) // layer.filters_held)
    source = _maps(layer.channels, layer.size, layer.zeros)
    target = _maps(layer.filters, layer.output, layer.zeros_written)
    is_picture = layer is published.ALEXNET[0]
    read = reads * BITS * source.size
    read_coded = read if is_picture else reads * _coded(source)
    weights = layer.filters * layer.channels // layer.groups * layer.window**2
    reloads = published.ALEXNET_IMAGES // layer.images_held * strips
    return LayerTraffic(read + BITS * target.size, read_coded + _coded(target), BITS * weights * reloads)


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """How near the code comes to the entropy on the real maps of `network`, layer by layer, and what it saves."""
    title = f"Run-length code on real maps: {published.MEASURED[network]}"
    table, measured = Table(published.NAME, title, network, DATA), read(EyerissFindings, findings)
    maps = list(measured.layers.items())[1:]  # the first layer's map is the picture, which is not coded
    moved, verdict = measured.traffic, None
    if moved is not None:
        saved = 1 - moved.coded / moved.dense
        verdict = f"{100 * saved:.1f} % less", saved > 0
    claim, rule = f"{published.SAVED} % less on AlexNet", "less than without the code"
    return [
        *(_layer(table, name, layer) for name, layer in maps),
        table.fact("all layers", COLUMN, LIMITS, _span([_above(layer) for _, layer in maps]), BETWEEN, REAL),
        table.fact("all layers", "traffic with the code", claim, verdict, rule, GROWN),
    ]


def _layer(table: Table, name: str, maps: CodedMaps) -> PaperRow:
    """Ours on real maps beside what the format needs for random ones with as many zeros."""
    zeros, bits = maps.zeros / maps.elements, maps.bits["run-length"]
    fills_up = runlength.WORD_BITS / runlength.PAIRS  # a pair of each map, in the mean
    random = maps.examples * (runlength.expected_bits(maps.elements // maps.examples, zeros) + fills_up)
    row = f"{name} ({100 * zeros:.1f} % zeros, {BITS * maps.elements / bits:.2f}x smaller)"
    expected = figure(f"{100 * (random / maps.bound - 1):.1f}", "%", RECOMPUTED)
    return table.judge(row, COLUMN, expected, _above(maps), TWO_POINTS, RUNS)


def _above(maps: CodedMaps) -> float:
    return 100 * (maps.bits["run-length"] / maps.bound - 1)


def _span(above: list[float]) -> Verdict:
    if not above:
        return None
    span = f"{sum(map(_near, above))} of {len(above)} layers; {min(above):.1f} to {max(above):.1f} %"
    return span, all(map(_near, above))


def _code() -> list[PaperRow]:
    table, bits = Table(published.NAME, "Run-length code", "alexnet"), runlength.LONGEST.bit_length() + BITS
    column = "three runs of 5 bits, levels of 16, an end bit"
    rows = [table.judge("a word", column, figure("64", "bits"), runlength.PAIRS * bits + 1, EQUAL)]
    for layer in published.ALEXNET[1:]:  # the picture itself is not coded
        mask = _maps(layer.channels, layer.size, layer.zeros)
        values = int(np.count_nonzero(mask))
        bound = arithmetic.expected_bits(mask.size, 1 - values / mask.size) + BITS * values
        above = 100 * (_coded(mask) / bound - 1)
        column = f"above the entropy, random maps of {layer.zeros} % zeros"
        rows.append(table.fact(layer.name, column, LIMITS, (f"{above:.1f} %", _near(above)), BETWEEN, RANDOM))
    return rows


def _alexnet() -> list[PaperRow]:
    table, rows, moved = Table(published.NAME, "DRAM traffic: AlexNet", "alexnet"), [], []
    for layer in published.ALEXNET:
        bits = traffic(layer)
        moved.append(bits)
        megabytes, saved = (bits.maps_coded + bits.weights) / 8e6, 100 * (1 - bits.maps_coded / bits.maps)
        printed, ratio = figure(layer.dram, "MB", RECALLED), figure(layer.ratio, "x", RECALLED)
        rows.append(table.judge(layer.name, "with the code", printed, megabytes, TENTH))
        rows.append(table.judge(layer.name, "without / with the code", ratio, bits.ratio, RATIO))
        if layer.name in published.MAPS_SAVED:
            printed = figure(published.MAPS_SAVED[layer.name], "%")
            rows.append(table.judge(layer.name, "accesses to maps saved", printed, saved, TWO_POINTS))
    whole = LayerTraffic(*(sum(parts) for parts in zip(*map(astuple, moved), strict=True)))
    megabytes, saved = (whole.maps_coded + whole.weights) / 8e6, 100 * (1 - 1 / whole.ratio)
    total, share = figure(published.TOTALS["alexnet"].dram, "MB"), figure(published.SAVED, "%", RECOMPUTED)
    return [
        *rows,
        table.judge("total", "with the code", total, megabytes, within_share(0.06)),
        table.judge("total", "saved by the code", share, saved, TWO_POINTS),
    ]


def _totals() -> list[PaperRow]:
    rows = []
    layers = {"alexnet": [layer.dram for layer in published.ALEXNET], "vgg16": published.VGG16_DRAM}
    for network, printed in published.TOTALS.items():
        table = Table(published.NAME, f"DRAM traffic: {title(network)}", network)
        accesses = figure(printed.dram).value * 8e6 / BITS
        macs, pixels = 1e9 * printed.macs, printed.images * printed.pixels
        per_mac, per_pixel = figure(printed.per_mac), figure(printed.per_pixel)
        parts = [figure(megabytes) for megabytes in layers[network]]
        half = within(sum(part.digit for part in parts) / 2, "half a digit of each layer")
        whole, total = sum(part.value for part in parts), figure(printed.dram, "MB")
        rows += [
            table.judge("total", "with the code, sum of the layers", total, whole, half),
            table.judge("total", "accesses per MAC", per_mac, accesses / macs, ROUNDS),
            table.judge("total", "accesses per input pixel", per_pixel, accesses / pixels, ROUNDS),
        ]
    return rows


def _maps(channels: int, size: int, zeros: str) -> np.ndarray:
    """Masks (images, channels, size, size) of random maps with `zeros` % zeros, the same at every call."""
    random = np.random.default_rng(0).random((published.ALEXNET_IMAGES, channels, size, size))
    return random >= figure(zeros).value / 100


def _coded(masks: np.ndarray) -> int:
    """Bits of all images' codes."""
    return sum(map(runlength.bits, masks))


def _near(above: float) -> bool:
    low, high = published.ABOVE_ENTROPY
    return low <= above <= high
