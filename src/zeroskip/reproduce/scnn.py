"""SCNN: how much faster than its dense twin, from published shares of zeros at random places."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import cache

import numpy as np

from zeroskip.reproduce.masked import DENSE, HAN, at, cycles, faster, inception, network
from zeroskip.reproduce.networks import title
from zeroskip.reproduce.published import scnn as published
from zeroskip.reproduce.rows import RECOMPUTED, Row, Table, within, within_share
from zeroskip.simulate import Workload, estimate
from zeroskip.simulate.machines import DCNN, SCNN

PAPER = "scnn"
NEAR = within_share(0.15)
SHARES = (0.7, 0.75, 0.8, 0.85, 0.9)
BOTH = 0.4
READ_OFF = "read off a figure"
FILTERS = (
    "with 8 filters at a time few of an element's 16 products are there at a share of 0.1; the paper may take more "
    "filters where they are this sparse"
)
IDEAL = "at a share of 0.4 the zeros of the other operand are worth 2.5x fewer MACs; the published figure is above that"
ENERGY = (
    "our DCNN reads an input from its buffer for each MAC; held for 8 filters, as the paper's input-stationary twin "
    "may do, it would be 2.70x less for the networks and 1.19x more for all ones"
)


def analytic() -> list[Row]:
    """Speed-ups of networks, of inception modules at one share of non-zeros, and of variants; energies.

    >>> [row.column for row in analytic() if row.holds is None]
    []
    """
    return list(_rows())


def unmeasurable() -> list[Row]:
    """GoogLeNet, whose own zeros are not there.

    >>> unmeasurable()[0].holds is None
    True
    """
    table = Table(PAPER, "Speed-up over DCNN", "", "GoogLeNet's shares of zeros are a figure, not a table")
    return [table.judge("GoogLeNet", "times faster", published.GOOGLENET, None, NEAR, unit="x")]


@cache
def _rows() -> tuple[Row, ...]:
    return (*_networks(), *_uniform(), *_variants())


def _networks() -> list[Row]:
    rows, saved = [], []
    for name, told in published.SPEEDUPS.items():
        works = network(name, HAN)
        saved.append(_energy(works))
        table = Table(PAPER, "Speed-up over DCNN", name)
        ours = faster(works, SCNN, DCNN)
        rows.append(table.judge(title(name), f"times faster, {HAN}", told, ours, NEAR, unit="x"))
    table, ours = Table(PAPER, "Energy against DCNN"), statistics.fmean(saved)
    row = "mean of AlexNet and VGG-16; theirs has GoogLeNet too"
    rows.append(table.judge(row, "times less", published.ENERGY, ours, NEAR, unit="x", reason=ENERGY))
    return rows


def _uniform() -> list[Row]:
    table, rows = Table(PAPER, "GoogLeNet's inception modules, one share of non-zeros"), []
    for share, tolerance in (("1.0", 0.08), ("0.1", 0.15)):
        ours = faster(_modules(float(share), float(share)), SCNN, DCNN)
        rule, told = within_share(tolerance), published.UNIFORM[share]
        rows.append(table.judge(share, "times faster", told, ours, rule, unit="x", reason=FILTERS))
    ratios = [faster(_modules(share, share), SCNN, DCNN) for share in SHARES]
    even = float(np.interp(-1.0, [-one for one in ratios], SHARES))  # ratios fall as shares rise
    column, rule = "share at which both take as long", within(0.1, "0.1")
    rows.append(table.judge("cross-over", column, published.EVEN, even, rule, trust=READ_OFF))
    ours, table = 1 / _energy(_modules(DENSE, DENSE)), Table(PAPER, "Energy against DCNN")
    told = published.ENERGY_DENSE
    rows.append(table.judge("inception, all ones", "times more", told, ours, NEAR, unit="x", reason=ENERGY))
    return rows


def _variants() -> list[Row]:
    """SCNN against what skips the zeros of one operand only, and against fewer and larger elements."""
    table = Table(PAPER, f"GoogLeNet's inception modules at a share of {BOTH}")
    both = _modules(BOTH, BOTH)
    alone = {"weights": _modules(BOTH, DENSE), "inputs": _modules(DENSE, BOTH)}
    rows = []
    for name, told in published.ONE_SIDED.items():
        ours = cycles(alone[name], SCNN) / cycles(both, SCNN)
        column = f"times faster than skipping zeros of {name} alone"
        rows.append(table.judge("SCNN", column, told, ours, NEAR, unit="x", reason=IDEAL))
    tile = {**SCNN.tile, "rows": 2, "columns": 2, "weights": 16, "inputs": 16}
    ours = faster(both, SCNN, replace(SCNN, lanes=4, width=256, tile=tile))
    column, told = "times faster than 4 elements of 256 multipliers", published.FEW_LANES
    rows.append(table.judge("SCNN", column, told, ours, NEAR, unit="x", trust=RECOMPUTED))
    return rows


def _modules(weights: float, inputs: float) -> list[Workload]:
    some = inception()
    return at(some, [weights] * len(some), [inputs] * len(some))


def _energy(works: list[Workload]) -> float:
    """Times less energy than on DCNN."""
    return estimate(works, DCNN).joules / estimate(works, SCNN).joules
