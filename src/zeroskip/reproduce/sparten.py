"""SparTen: how much faster than dense, one-sided and SCNN's, from published shares of zeros; what its balance gains."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

from zeroskip.reproduce.masked import HAN, OURS, READINGS, cycles, faster, network
from zeroskip.reproduce.networks import title
from zeroskip.reproduce.published import sparten as published
from zeroskip.reproduce.rows import Row, Table, at_least, within, within_share
from zeroskip.simulate import Workload, dataflows
from zeroskip.simulate.machines import SCNN, SPARTEN, SPARTEN_GB_H, SPARTEN_GB_S

PAPER = "sparten"
NETWORKS = ("alexnet", "vgg16")
# As many multipliers in the same 32 x 32, with neither operand's zeros skipped.
TWIN = replace(
    SPARTEN, name="dense twin", dataflow=dataflows.array, tile={"outputs": 32}, skips="", formats={}
)
NEAR, WIDE = within_share(0.15), within(0.7, "0.7")
ZEROS = (
    "mean of AlexNet and VGG-16; the paper's shares of zeros, and GoogLeNet's, are not published as a table"
)
SPREAD = 0.4
GAIN = "1.2"


def analytic() -> list[Row]:
    """Speed-ups with both readings of the inputs, and the gain of balance where filters differ.

    >>> analytic()[-1].table
    'Balance'
    """
    return [*_speedups(), *_balance()]


@cache  # products of masks of all of VGG-16
def _speedups() -> tuple[Row, ...]:
    rows = []
    ratios: dict[str, Callable[[list[Workload]], int]] = {
        "dense": lambda works: cycles(works, TWIN),
        "one-sided (zeros of inputs)": lambda works: cycles(_one_sided(works), SPARTEN),
        "SCNN": lambda works: cycles(works, SCNN),
    }
    rules = zip((published.DENSE, published.ONE_SIDED, published.SCNN), (WIDE, NEAR, NEAR), strict=True)
    told = dict(zip(ratios, rules, strict=True))
    for reading in READINGS:
        works = {name: network(name, reading) for name in NETWORKS}
        ours = {name: cycles(one, SPARTEN_GB_H) for name, one in works.items()}
        for over, count in ratios.items():
            found = {name: count(one) / ours[name] for name, one in works.items()}
            each = " and ".join(f"{title(name)} {ratio:.2f}x" for name, ratio in found.items())
            printed, rule = told[over]
            judge, mean = Table(PAPER, "Speed-up").judge, statistics.fmean(found.values())
            reason = f"{each}; {ZEROS}"
            rows.append(judge(f"over {over}", reading, printed, mean, rule, unit="x", reason=reason))
    return tuple(rows)


@cache
def _balance() -> tuple[Row, ...]:
    """GB-S and GB-H against none on AlexNet."""
    table, rule = Table(PAPER, "Balance", "alexnet"), at_least()
    works = network("alexnet", HAN, variation=SPREAD)
    column = f"times faster than without, filters' shares spread by {SPREAD}"
    pairs = ("GB-S", SPARTEN_GB_S), ("GB-H", SPARTEN_GB_H)
    return tuple(
        table.judge(name, column, GAIN, faster(works, machine, SPARTEN), rule, unit="x", trust=OURS)
        for name, machine in pairs
    )


def _one_sided(works: list[Workload]) -> list[Workload]:
    return [replace(work, weight=torch.ones_like(work.weight)) for work in works]
