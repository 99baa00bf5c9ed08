"""Cambricon-S: its speed over Cambricon-X on block-pruned AlexNet, and the size of what tells where weights are."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import torch

from zeroskip.papers.cambricon_s import published
from zeroskip.papers.common.masked_layers import READINGS, at, convolutions, cycles, kept, seen
from zeroskip.papers.common.network_sizes import sizes
from zeroskip.papers.common.row import Row, Table, figure, within, within_share
from zeroskip.papers.eie import published as eie
from zeroskip.papers.han2015 import published as han
from zeroskip.simulate import Workload, of_masks, random_masks
from zeroskip.simulate.chips import CAMBRICON_S, CAMBRICON_X

PAPER = "cambricon-s"
NEAR, CLOSE = within(0.25, "0.25"), within_share(0.05)
STEP_BITS = 4  # of each weight or block left, to the next
CHIP = "needs its circuit in 65 nm, and its own pruned networks"


def analytic() -> list[Row]:
    """Both, from published shares of zeros in AlexNet.

    >>> [round(row.ours, 2) for row in analytic()][:2]
    [1.47, 1.82]
    """
    return [*_speedups(), *_index()]


def unmeasurable() -> list[Row]:
    """What needs the chip and the networks of the paper.

    >>> [row.holds for row in unmeasurable()]
    [None, None]
    """
    table = Table(PAPER, "Cambricon-S against Cambricon-X", "", CHIP)
    told = {"times less energy": published.ENERGY, "times less irregular": published.IRREGULARITY}
    return [table.judge("mean", name, printed, None, CLOSE, unit="x") for name, printed in told.items()]


@cache
def _speedups() -> tuple[Row, ...]:
    """AlexNet with its fully connected layers; as many weights on both, in blocks on Cambricon-S."""
    table, rows = Table(PAPER, "Cambricon-S against Cambricon-X", "alexnet"), []
    linear = [one for one in eie.LAYERS if one.network == "alexnet"]
    shares = kept("alexnet") + [figure(one.weights).value / 100 for one in linear]
    for reading in READINGS:
        works = at(convolutions("alexnet"), shares, seen("alexnet", reading)) + [
            _linear(one, share) for one, share in zip(linear, shares[-3:], strict=True)
        ]
        blocks = [_in_blocks(work, share) for work, share in zip(works, shares, strict=True)]
        ours = cycles(works, CAMBRICON_X) / cycles(blocks, CAMBRICON_S)
        rows.append(
            table.judge("AlexNet", f"times faster, {reading}", published.SPEEDUP, ours, NEAR, unit="x")
        )
    return tuple(rows)


def _linear(layer: eie.Layer, share: float) -> Workload:
    weight = random_masks.random((layer.outputs, layer.inputs), 1 - share, seed=5)
    return of_masks(
        layer.name, weight, random_masks.random((1, layer.inputs), 1 - figure(layer.seen).value / 100)
    )


def _in_blocks(work: Workload, share: float) -> Workload:
    """The same share of weights in blocks of 16 filters of one input."""
    groups, outputs, *rest = work.weight.shape
    blocks = random_masks.random((groups, math.ceil(outputs / published.BLOCK), *rest), 1 - share)
    weight = torch.repeat_interleave(blocks, published.BLOCK, dim=1)[:, :outputs]
    return replace(work, weight=weight)


def _index() -> list[Row]:
    """Bytes that tell where AlexNet's weights are, weight by weight and block by block."""
    single = blocks = 0.0
    for size, told in zip(sizes("alexnet"), han.LAYERS["alexnet"], strict=True):
        left = size.weights * figure(told.kept).value / 100
        single += left * STEP_BITS / 8
        blocks += left / published.LINEAR_BLOCKS.get(size.name, published.BLOCK) * STEP_BITS / 8
    table = Table(PAPER, "Index of AlexNet's weights", "alexnet")
    found = (
        ("weight by weight", published.INDEX, single / 2**20, "MiB"),
        ("in blocks", published.INDEX_BLOCKS, blocks / 2**10, "KiB"),
        ("times smaller in blocks", published.INDEX_RATIO, single / blocks, "x"),
    )
    total = sum(one.weights for one in sizes("alexnet"))
    theirs = figure(published.INDEX).value * 2**20 * 8 / STEP_BITS / total
    reason = (
        f"{STEP_BITS} bits for each of the weights that Han et al. left, {100 * single * 8 / STEP_BITS / total:.1f} %; "
        f"the published size is that of {100 * theirs:.1f} %"
    )
    return [
        table.judge("AlexNet", name, told, ours, CLOSE, unit=unit, reason=reason)
        for name, told, ours, unit in found
    ]
