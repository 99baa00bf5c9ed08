"""SCNN: speed and energy against its dense twin and one-sided variants, from shares of zeros at random places."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from zeroskip.errors import AcceleratorError
from zeroskip.papers.common.masked_layers import DENSE, HAN, at, cycles, faster, inception, network
from zeroskip.papers.common.network_sizes import title
from zeroskip.papers.common.row import RECOMPUTED, Row, Table, at_most, figure, within, within_share
from zeroskip.papers.scnn import published
from zeroskip.simulate import Accelerator, Workload, estimate, simulation
from zeroskip.simulate.chips import DCNN, SCNN
from zeroskip.simulate.energy import prices
from zeroskip.simulate.traffic import stored

PAPER = "scnn"
NEAR, TENTH = within_share(0.15), within(0.1, "0.1")
SPEED, ENERGY = "Speed-up over DCNN", "Energy against DCNN"
MODULES = "GoogLeNet's inception modules"
SHARES, FEW = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95), (0.4, 0.45, 0.5)
BOTH = 0.4
READ_OFF = "read off a figure"
SPILLED = (
    "{:.0f} % in the one with most, median {:.0f} %: our outputs come before pooling, which SCNN does before it stores "
    "them, and the energy of the paper's DRAM is not published"
)
IDEAL = "at a share of 0.4 the zeros of the other operand are worth 2.5x fewer MACs; the published figure is above that"


def analytic() -> list[Row]:
    """Speed-ups of networks, of inception modules at one share of non-zeros, and of variants; energies.

    >>> [row.column for row in analytic() if row.holds is False]
    ['times less', 'more energy for these, mean', 'times faster', 'times faster than skipping zeros of inputs alone']
    """
    return list(_rows())


def unmeasurable() -> list[Row]:
    """GoogLeNet, whose own zeros are not there.

    >>> unmeasurable()[0].holds is None
    True
    """
    reason = "GoogLeNet's shares of zeros are a figure, not a table; with one share of non-zeros in all weights and "
    reason += f"inputs of its inception modules, ours is as much faster at {googlenet():.2f}"
    table = Table(PAPER, SPEED, "", reason)
    return [table.judge("GoogLeNet", "times faster", published.GOOGLENET, None, NEAR, unit="x")]


@cache
def googlenet() -> float:
    """The share of non-zeros in all weights and inputs of the inception modules that explains GoogLeNet's speed-up.

    >>> round(googlenet(), 2)
    0.43
    """
    speeds = [_speed(modules(share, share)) for share in FEW]
    return _share_at(FEW, speeds, figure(published.GOOGLENET).value)


def modules(weights: float, inputs: float) -> list[Workload]:
    """GoogLeNet's inception modules with those shares of non-zeros; an output has those of the inputs.

    >>> len(modules(0.4, 0.4))
    54
    """
    some = inception()
    shares = [inputs] * len(some)
    return at(some, [weights] * len(some), shares, outputs=shares)


@cache
def _rows() -> tuple[Row, ...]:
    return (*_networks(), *_uniform(), *_even(), *_variants())


def _networks() -> list[Row]:
    rows, works = [], {name: network(name, HAN) for name in published.SPEEDUPS}
    for name, told in published.SPEEDUPS.items():
        ours, column = _speed(works[name]), f"times faster, {HAN}"
        rows.append(Table(PAPER, SPEED, name).judge(title(name), column, told, ours, NEAR, unit="x"))
    share = googlenet()
    three = [*works.values(), modules(share, share)]
    row = f"mean of AlexNet, VGG-16 and GoogLeNet's modules at {share:.2f}, which explains their speed-up"
    ours, crossbar = statistics.fmean(1 / _energy(one) for one in three), _crossbar()
    reason = (
        "the energy of SCNN's crossbar is not published, and not in ours; with as much for each product as makes the "
        f"modules use {published.UNIFORM_ENERGY['1.0']} % of DCNN's at a share of 1.0, it would be "
        f"{statistics.fmean(1 / _energy(one, crossbar) for one in three):.2f}x"
    )
    judge = Table(PAPER, ENERGY).judge
    rows.append(judge(row, "times less", published.ENERGY, ours, NEAR, unit="x", reason=reason))
    return [*rows, *_spilled(works["vgg16"])]


def _crossbar() -> float:
    """Joules of each product, if the published energy of the modules without zeros were that of a crossbar."""
    works = modules(DENSE, DENSE)
    told = figure(published.UNIFORM_ENERGY["1.0"]).value / 100
    return (told * _joules(works, DCNN) - _joules(works, SCNN)) / _products(works)


def _spilled(works: list[Workload]) -> list[Row]:
    """Layers whose maps do not fit the chip, and what their way to DRAM adds to the energy of these layers."""
    more = []
    for work in works:
        # Alone: the last one's output goes to others.
        layer = simulation.layer(work, SCNN, prices("han2015", "lpddr4"))
        maps = layer.bytes["DRAM", "A"] + layer.bytes["DRAM", "O"]
        if maps:
            again = layer.bytes["DRAM", "W"] - -(-stored(work, SCNN)["W"].bits // 8)
            added = layer.picojoules["DRAM"] * (maps + again) / layer.moved("DRAM")
            more.append(100 * added / (layer.joules * 1e12 - added))
    table, column = Table(PAPER, "Maps on the chip", "vgg16"), f"layers whose maps do not fit, {HAN}"
    return [
        table.judge("VGG-16", column, published.TOO_LARGE, len(more), within(1, "1")),
        table.judge(
            "VGG-16", "more energy for these, mean", published.SPILLED, statistics.fmean(more), NEAR,
            unit="%", reason=SPILLED.format(max(more), statistics.median(more)),
        ),
    ]  # fmt: skip


def _uniform() -> list[Row]:
    """The ends of the sweep over shares of non-zeros."""
    rows = []
    for share, tolerance in (("1.0", 0.08), ("0.1", 0.15)):
        works, rule = modules(float(share), float(share)), within_share(tolerance)
        ours, told = _speed(works), published.UNIFORM[share]
        reason = (
            f"elements wait for each other; if they did not, ours would be {_speed_without_waiting(works):.1f}x. "
            "The paper's figure may be of its analytical model, which does not know single zeros"
        )
        table = Table(PAPER, f"{MODULES}, one share of non-zeros")
        rows.append(table.judge(share, "times faster", told, ours, rule, unit="x", reason=reason))
        told, table = published.UNIFORM_ENERGY[share], Table(PAPER, ENERGY)
        row = f"{MODULES}, a share of {share}"
        rows.append(table.judge(row, "of DCNN's", told, 100 * _energy(works), NEAR, unit="%"))
    return rows


def _even() -> list[Row]:
    """Where it is no longer worth it."""
    table = Table(PAPER, f"{MODULES}, one share of non-zeros")
    works = [modules(share, share) for share in SHARES]
    speeds, energies = [_speed(one) for one in works], [1 / _energy(one) for one in works]
    found = {
        "takes as long": (published.EVEN, _share_at(SHARES, speeds, 1)),
        "takes as much energy": (published.EVEN_ENERGY, _share_at(SHARES, energies, 1)),
    }
    return [
        table.judge("cross-over", f"share at which DCNN {what}", told, ours, TENTH, trust=READ_OFF)
        for what, (told, ours) in found.items()
    ]


def _variants() -> list[Row]:
    """SCNN against what skips the zeros of one operand only, and against fewer and larger elements."""
    table, rows, both = Table(PAPER, f"{MODULES} at a share of {BOTH}"), [], modules(BOTH, BOTH)
    alone = {"weights": ("W", modules(BOTH, DENSE)), "inputs": ("A", modules(DENSE, BOTH))}
    for name, (operand, works) in alone.items():
        ours, column = cycles(works, SCNN) / cycles(both, SCNN), f"skipping zeros of {name} alone"
        told = published.ONE_SIDED[name]
        rows.append(
            table.judge("SCNN", f"times faster than {column}", told, ours, NEAR, unit="x", reason=IDEAL)
        )
        single = replace(SCNN, formats={operand: SCNN.formats[operand]})  # the other has no index
        ours, told = _joules(works, single) / _joules(both, SCNN), published.ONE_SIDED_ENERGY[name]
        rows.append(table.judge("SCNN", f"times less energy than {column}", told, ours, NEAR, unit="x"))
    tile = {**SCNN.tile, "rows": 2, "columns": 2, "weights": 16, "inputs": 16}
    ours = faster(both, SCNN, replace(SCNN, lanes=4, width=256, tile=tile))
    column, told = "times faster than 4 elements of 256 multipliers", published.FEW_LANES
    rows.append(table.judge("SCNN", column, told, ours, NEAR, unit="x", trust=RECOMPUTED))
    last = 100 * estimate(both[-12:], SCNN).total.utilisation
    rows.append(
        table.judge("modules 5a and 5b", "multipliers at work", published.BUSY, last, at_most(), unit="%")
    )
    return rows


def _speed(works: list[Workload]) -> float:
    return faster(works, SCNN, DCNN)


def _speed_without_waiting(works: list[Workload]) -> float:
    return cycles(works, DCNN) * SCNN.lanes / sum(SCNN.dataflow(work, SCNN).busy for work in works)


def _energy(works: list[Workload], crossbar: float = 0.0) -> float:
    """Share of DCNN's, with so many joules more for each product."""
    more = crossbar * _products(works) if crossbar else 0.0
    return (_joules(works, SCNN) + more) / _joules(works, DCNN)


def _products(works: list[Workload]) -> int:
    found = estimate(works, SCNN).total
    return found.done + found.idle["useless"]


def _joules(works: list[Workload], machine: Accelerator) -> float:
    return estimate(works, machine).joules


def _share_at(shares: Sequence[float], ratios: list[float], told: float) -> float:
    """Between those shares; ratios fall as shares rise. AcceleratorError where all are above it, or below."""
    if not ratios[-1] <= told <= ratios[0]:
        raise AcceleratorError(
            f"from a share of {shares[0]} to {shares[-1]} the ratios are {ratios[0]:.3g} to {ratios[-1]:.3g}, never "
            f"{told:g}. Give shares on both sides of it."
        )
    return float(np.interp(-told, [-one for one in ratios], shares))
