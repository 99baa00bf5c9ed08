"""SCNN: speed and energy against its dense twin and one-sided variants, from shares of zeros at random places."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.masked_layers import DENSE, cycles, faster
from zeroskip.papers.common.paper import title
from zeroskip.papers.common.rules import RECOMPUTED, at_most, figure, within, within_share
from zeroskip.papers.common.tables import Table
from zeroskip.papers.published_shares import HAN, workloads
from zeroskip.papers.scnn import published
from zeroskip.papers.scnn.inception import googlenet_share, modules, share_at, speedup
from zeroskip.simulate import Workload, estimate, simulation
from zeroskip.simulate.chips import DCNN, SCNN
from zeroskip.simulate.energy import prices
from zeroskip.simulate.traffic import stored

NEAR, TENTH = within_share(0.15), within(0.1, "0.1")
SPEED, ENERGY = "Speed-up over DCNN", "Energy against DCNN"
MODULES = "GoogLeNet's inception modules"
UNIFORM = f"{MODULES}, one share of non-zeros"
SHARES = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
BOTH = 0.4
READ_OFF = "read off a figure"
SPILLED = (
    "{:.0f} % in the one with most, median {:.0f} %: our outputs come before pooling, which SCNN does before it stores "
    "them, and the energy of the paper's DRAM is not published"
)
NO_TABLE = (
    "GoogLeNet's shares of zeros are a figure, not a table; with one share of non-zeros in all weights and "
    "inputs of its inception modules, ours is as much faster at {:.2f}"
)
IDEAL = "at a share of 0.4 the zeros of the other operand are worth 2.5x fewer MACs; the published figure is above that"


@dataclass(frozen=True)
class TwinEnergies:
    """Of the same layers on SCNN and on its dense twin; products that SCNN makes, useless ones among them."""

    scnn_joules: float
    dcnn_joules: float
    products: int

    def share(self, crossbar_joules: float = 0.0) -> float:
        """SCNN's share of its twin's energy, with so many joules more for each product.

        >>> TwinEnergies(1.0, 2.0, 100).share(), TwinEnergies(1.0, 2.0, 100).share(0.01)
        (0.5, 1.0)
        """
        return (self.scnn_joules + crossbar_joules * self.products) / self.dcnn_joules


def energies(works: Sequence[Workload]) -> TwinEnergies:
    """What the layers take on both."""
    sparse = estimate(works, SCNN)
    products = sparse.total.done + sparse.total.idle["useless"]
    return TwinEnergies(sparse.joules, estimate(works, DCNN).joules, products)


@cache
def module_energies(share: float) -> TwinEnergies:
    """Those of the inception modules with this share of non-zeros in all weights and inputs."""
    return energies(modules(share, share))


def analytic() -> list[PaperRow]:
    """Speed-ups of networks, of inception modules at one share of non-zeros, and of variants; energies."""
    return [*_networks(), *_uniform(), *_even(), *_variants()]


def unmeasurable() -> list[PaperRow]:
    """GoogLeNet, whose own zeros are not there."""
    table = Table(published.NAME, SPEED, "", NO_TABLE.format(googlenet_share()))
    return [table.judge("GoogLeNet", "times faster", figure(published.GOOGLENET, "x"), None, NEAR)]


def _networks() -> list[PaperRow]:
    rows, networks = [], {name: workloads(name, HAN) for name in published.SPEEDUPS}
    for name, printed in published.SPEEDUPS.items():
        ours, column = faster(networks[name], SCNN, DCNN), f"times faster, {HAN}"
        table = Table(published.NAME, SPEED, name)
        rows.append(table.judge(title(name), column, figure(printed, "x"), ours, NEAR))
    share = googlenet_share()
    three = [*map(energies, networks.values()), module_energies(share)]
    row = f"mean of AlexNet, VGG-16 and GoogLeNet's modules at {share:.2f}, which explains their speed-up"
    dense, dense_share = module_energies(DENSE), figure(published.UNIFORM_ENERGY["1.0"]).value / 100
    # Of each product, if the published energy of the modules without zeros were that of a crossbar.
    crossbar = (dense_share * dense.dcnn_joules - dense.scnn_joules) / dense.products
    ours = statistics.fmean(1 / network.share() for network in three)
    reason = (
        "the energy of SCNN's crossbar is not published, and not in ours; with as much for each product as makes the "
        f"modules use {published.UNIFORM_ENERGY['1.0']} % of DCNN's at a share of 1.0, it would be "
        f"{statistics.fmean(1 / network.share(crossbar) for network in three):.2f}x"
    )
    table = Table(published.NAME, ENERGY)
    rows.append(table.judge(row, "times less", figure(published.ENERGY, "x"), ours, NEAR, reason))
    return [*rows, *_spilled(networks["vgg16"])]


def _spilled(works: Sequence[Workload]) -> list[PaperRow]:
    """Layers whose maps do not fit the chip, and what their way to DRAM adds to the energy of these layers."""
    percents = []
    for work in works:
        # Alone: the last one's output goes to others.
        layer = simulation.layer(work, SCNN, prices("han2015", "lpddr4"))
        maps = layer.bytes["DRAM", "A"] + layer.bytes["DRAM", "O"]
        if maps:
            again = layer.bytes["DRAM", "W"] - -(-stored(work, SCNN)["W"].bits // 8)
            added = layer.picojoules["DRAM"] * (maps + again) / layer.moved("DRAM")
            percents.append(100 * added / (layer.joules * 1e12 - added))
    table, column = Table(published.NAME, "Maps on the chip", "vgg16"), f"layers whose maps do not fit, {HAN}"
    mean, energy = statistics.fmean(percents), figure(published.SPILLED, "%")
    reason = SPILLED.format(max(percents), statistics.median(percents))
    return [
        table.judge("VGG-16", column, figure(published.TOO_LARGE), len(percents), within(1, "1")),
        table.judge("VGG-16", "more energy for these, mean", energy, mean, NEAR, reason),
    ]


def _uniform() -> list[PaperRow]:
    """The ends of the sweep over shares of non-zeros."""
    rows = []
    for share, tolerance in (("1.0", 0.08), ("0.1", 0.15)):
        works = modules(float(share), float(share))
        busy = sum(SCNN.dataflow(work, SCNN).busy for work in works)
        without_waiting = cycles(works, DCNN) * SCNN.lanes / busy
        reason = (
            f"elements wait for each other; if they did not, ours would be {without_waiting:.1f}x. "
            "The paper's figure may be of its analytical model, which does not know single zeros"
        )
        table, printed = Table(published.NAME, UNIFORM), figure(published.UNIFORM[share], "x")
        ours, rule = speedup(float(share)), within_share(tolerance)
        rows.append(table.judge(share, "times faster", printed, ours, rule, reason))
        table, printed = Table(published.NAME, ENERGY), figure(published.UNIFORM_ENERGY[share], "%")
        row, ours = f"{MODULES}, a share of {share}", 100 * module_energies(float(share)).share()
        rows.append(table.judge(row, "of DCNN's", printed, ours, NEAR))
    return rows


def _even() -> list[PaperRow]:
    """Where it is no longer worth it."""
    table = Table(published.NAME, UNIFORM)
    printed = {"time": published.EVEN, "energy": published.EVEN_ENERGY}
    ratios: dict[str, Callable[[float], float]] = {"time": speedup}
    ratios["energy"] = lambda share: 1 / module_energies(share).share()
    rows = []
    for what, column in (("time", "takes as long"), ("energy", "takes as much energy")):
        even, ours = figure(printed[what], "", READ_OFF), share_at(SHARES, ratios[what], 1)
        rows.append(table.judge("cross-over", f"share at which DCNN {column}", even, ours, TENTH))
    return rows


def _variants() -> list[PaperRow]:
    """SCNN against what skips the zeros of one operand only, and against fewer and larger elements."""
    table, rows, both = Table(published.NAME, f"{MODULES} at a share of {BOTH}"), [], modules(BOTH, BOTH)
    alone = {"weights": ("W", modules(BOTH, DENSE)), "inputs": ("A", modules(DENSE, BOTH))}
    for name, (operand, works) in alone.items():
        ours, column = cycles(works, SCNN) / cycles(both, SCNN), f"skipping zeros of {name} alone"
        printed = figure(published.ONE_SIDED[name], "x")
        rows.append(table.judge("SCNN", f"times faster than {column}", printed, ours, NEAR, IDEAL))
        single = replace(SCNN, formats={operand: SCNN.formats[operand]})  # the other has no index
        ours = estimate(works, single).joules / module_energies(BOTH).scnn_joules
        printed = figure(published.ONE_SIDED_ENERGY[name], "x")
        rows.append(table.judge("SCNN", f"times less energy than {column}", printed, ours, NEAR))
    tile = {**SCNN.tile, "rows": 2, "columns": 2, "weights": 16, "inputs": 16}
    ours = faster(both, SCNN, replace(SCNN, lanes=4, width=256, tile=tile))
    printed = figure(published.FEW_LANES, "x", RECOMPUTED)
    rows.append(table.judge("SCNN", "times faster than 4 elements of 256 multipliers", printed, ours, NEAR))
    busy = 100 * estimate(both[-12:], SCNN).total.utilisation
    printed = figure(published.BUSY, "%")
    rows.append(table.judge("modules 5a and 5b", "multipliers at work", printed, busy, at_most()))
    return rows
