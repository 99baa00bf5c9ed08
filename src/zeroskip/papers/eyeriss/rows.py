"""Eyeriss: the run-length code of its feature maps, and what it saves of the traffic to DRAM.

The traffic of a layer, as the chip's mapping has it (table III), is

    input    images * channels * size^2 * overlap * ceil(filters of a group / filters held), coded but for the picture
    weights  all of them * images / images held * strips, not coded
    output   images * filters * output^2, coded

16 bits a value, with strips = ceil(output / rows held) and, since strips share input rows,
overlap = strips * ((rows held - 1) * stride + window) / size. Maps are random at the published shares of zeros, and
coded bit by bit.

Findings of one network, a plain JSON object:

    inputs   how many pictures, of which data set
    layers   layer -> {"examples", "elements", "zeros", "fraction_bits", "bound", "bits": {format: bits}}: input maps
    traffic  {"dense", "coded"}: bits of all maps and weights, without the code and with it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from zeroskip.codecs import arithmetic, runlength
from zeroskip.papers.common.network_sizes import title
from zeroskip.papers.common.row import EQUAL, RECOMPUTED, ROUNDS, Row, Table, figure, within, within_share
from zeroskip.papers.eyeriss import published

PAPER = "eyeriss"
NETWORKS = {"lenet-5": "LeNet-5", "resnet20": "ResNet-20", "squeezenet": "SqueezeNet"}
"""Network -> its name in `tasks/published.py`."""

CODEC_TABLES = (
    "Run-length code",
    "DRAM traffic: AlexNet",
    "DRAM traffic: VGG-16",
    "Run-length code on real maps",
)
"""What the titles of all tables about the code begin with."""

DATA = "needs trained networks and real pictures (--out with --data, or --results)"
RECALLED = "handed down; the sums of these tables agree with the paper's text"
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
RATIO = within(0.12, "0.12: zeros at random places, shares of zeros before pooling from elsewhere")


@dataclass(frozen=True)
class Traffic:
    """Bits between one layer and DRAM: its maps (input and output) without the code and with it, its weights."""

    maps: float
    maps_coded: float
    weights: float

    @property
    def ratio(self) -> float:
        """Times less with the code."""
        return (self.maps + self.weights) / (self.maps_coded + self.weights)


def analytic() -> list[Row]:
    """Every row that follows from published shares of zeros, mappings and totals.

    >>> [row.row for row in analytic() if row.holds is False]
    ['CONV2', 'CONV3']
    """
    return [*_code(), *_alexnet(), *_totals()]


def traffic(layer: published.Layer) -> Traffic:
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
    return Traffic(read + BITS * target.size, read_coded + _coded(target), BITS * weights * reloads)


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """How near the code comes to the entropy on the real maps of `network`, layer by layer, and what it saves.

    >>> measured_rows("resnet20", {})[0].holds is None
    True
    """
    table = Table(PAPER, f"Run-length code on real maps: {NETWORKS[network]}", network, DATA)
    layers = list(findings.get("layers", {}).items())
    maps = layers[1:]  # the first layer's map is the picture, which is not coded
    moved = findings.get("traffic")
    found = None if moved is None else _less(1 - moved["coded"] / moved["dense"])
    claim, rule = f"{published.SAVED} % less on AlexNet", "less than without the code"
    return [
        *(_layer(table, name, one) for name, one in maps),
        table.fact("all layers", COLUMN, LIMITS, _span([_above(one) for _, one in maps]), BETWEEN, REAL),
        table.fact("all layers", "traffic with the code", claim, found, rule, GROWN),
    ]


def _layer(table: Table, name: str, one: Mapping[str, Any]) -> Row:
    """Ours on real maps beside what the format needs for random ones with as many zeros."""
    zeros, bits = one["zeros"] / one["elements"], one["bits"]["run-length"]
    fills_up = runlength.WORD_BITS / runlength.PAIRS  # a pair of each map, in the mean
    random = one["examples"] * (runlength.expected_bits(one["elements"] // one["examples"], zeros) + fills_up)
    row = f"{name} ({100 * zeros:.1f} % zeros, {BITS * one['elements'] / bits:.2f}x smaller)"
    told = f"{100 * (random / one['bound'] - 1):.1f}"
    return table.judge(row, COLUMN, told, _above(one), TWO_POINTS, unit="%", trust=RECOMPUTED, reason=RUNS)


def _above(one: Mapping[str, Any]) -> float:
    return 100 * (one["bits"]["run-length"] / one["bound"] - 1)


def _span(above: list[float]) -> tuple[str, bool] | None:
    if not above:
        return None
    found = f"{sum(map(_near, above))} of {len(above)} layers; {min(above):.1f} to {max(above):.1f} %"
    return found, all(map(_near, above))


def _less(share: float) -> tuple[str, bool]:
    return f"{100 * share:.1f} % less", share > 0


def _code() -> list[Row]:
    table, bits = Table(PAPER, "Run-length code", "alexnet"), runlength.LONGEST.bit_length() + BITS
    column = "three runs of 5 bits, levels of 16, an end bit"
    rows = [table.judge("a word", column, "64", runlength.PAIRS * bits + 1, EQUAL, unit="bits")]
    for layer in published.ALEXNET[1:]:  # the picture itself is not coded
        mask = _maps(layer.channels, layer.size, layer.zeros)
        values = int(np.count_nonzero(mask))
        bound = arithmetic.expected_bits(mask.size, 1 - values / mask.size) + BITS * values
        above = 100 * (_coded(mask) / bound - 1)
        column = f"above the entropy, random maps of {layer.zeros} % zeros"
        rows.append(table.fact(layer.name, column, LIMITS, (f"{above:.1f} %", _near(above)), BETWEEN, RANDOM))
    return rows


def _alexnet() -> list[Row]:
    table, rows, moved = Table(PAPER, "DRAM traffic: AlexNet", "alexnet"), [], []
    for layer in published.ALEXNET:
        one = traffic(layer)
        moved.append(one)
        megabytes = (one.maps_coded + one.weights) / 8e6
        rows += [
            table.judge(layer.name, "with the code", layer.dram, megabytes, TENTH, unit="MB", trust=RECALLED),
            table.judge(
                layer.name, "without / with the code", layer.ratio, one.ratio, RATIO, unit="x", trust=RECALLED
            ),
        ]
        if layer.name in published.MAPS_SAVED:
            told, saved = published.MAPS_SAVED[layer.name], 100 * (1 - one.maps_coded / one.maps)
            rows.append(table.judge(layer.name, "accesses to maps saved", told, saved, TWO_POINTS, unit="%"))
    whole = Traffic(*(sum(getattr(one, key) for one in moved) for key in ("maps", "maps_coded", "weights")))
    told, megabytes = published.TOTALS["alexnet"].dram, (whole.maps_coded + whole.weights) / 8e6
    saved = 100 * (1 - 1 / whole.ratio)
    return [
        *rows,
        table.judge("total", "with the code", told, megabytes, within_share(0.06), unit="MB"),
        table.judge(
            "total", "saved by the code", published.SAVED, saved, TWO_POINTS, unit="%", trust=RECOMPUTED
        ),
    ]


def _totals() -> list[Row]:
    rows = []
    layers = {"alexnet": [layer.dram for layer in published.ALEXNET], "vgg16": published.VGG16_DRAM}
    for network, told in published.TOTALS.items():
        table = Table(PAPER, f"DRAM traffic: {title(network)}", network)
        accesses = figure(told.dram).value * 8e6 / BITS
        macs, pixels = 1e9 * told.macs, told.images * told.pixels
        parts = [figure(one) for one in layers[network]]
        half = within(sum(one.digit for one in parts) / 2, "half a digit of each layer")
        whole = sum(one.value for one in parts)
        judge = partial(table.judge, "total")
        rows += [
            judge("with the code, sum of the layers", told.dram, whole, half, unit="MB"),
            judge("accesses per MAC", told.per_mac, accesses / macs, ROUNDS),
            judge("accesses per input pixel", told.per_pixel, accesses / pixels, ROUNDS),
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
