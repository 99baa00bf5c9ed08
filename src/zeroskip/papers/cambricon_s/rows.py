"""Cambricon-S: its speed over Cambricon-X on block-pruned AlexNet, and the size of what tells where weights are.

The weights left are those of Han et al. 2015; the fully connected layers are EIE's, which has their inputs too.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from zeroskip.concepts import PaperRow
from zeroskip.papers.cambricon_s import published
from zeroskip.papers.common.masked_layers import NonZeros, convolutions, cycles, masked
from zeroskip.papers.common.network_sizes import sizes
from zeroskip.papers.common.rules import figure, within, within_share
from zeroskip.papers.common.tables import Table
from zeroskip.papers.eie import published as eie
from zeroskip.papers.han2015 import published as han2015
from zeroskip.papers.published_shares import READINGS, kept, seen
from zeroskip.simulate import Workload, of_masks, random_masks
from zeroskip.simulate.chips import CAMBRICON_S, CAMBRICON_X

AGAINST_X = "Cambricon-S against Cambricon-X"
NEAR, CLOSE = within(0.25, "0.25"), within_share(0.05)
STEP_BITS = 4  # of each weight or block left, to the next
CHIP = "needs its circuit in 65 nm, and its own pruned networks"


def analytic() -> list[PaperRow]:
    """Both, from published shares of zeros in AlexNet."""
    return [*_speedups(), *_index()]


def unmeasurable() -> list[PaperRow]:
    """What needs the chip and the networks of the paper."""
    table = Table(published.NAME, AGAINST_X, "", CHIP)
    means = {"times less energy": published.ENERGY, "times less irregular": published.IRREGULARITY}
    return [table.judge("mean", name, figure(printed, "x"), None, CLOSE) for name, printed in means.items()]


def _speedups() -> list[PaperRow]:
    """AlexNet with its fully connected layers; as many weights on both, in blocks on Cambricon-S."""
    table, rows = Table(published.NAME, AGAINST_X, "alexnet"), []
    fully_connected = [layer for layer in eie.LAYERS if layer.network == "alexnet"]
    linear = []
    for layer in fully_connected:
        weights, inputs = (1 - figure(share).value / 100 for share in (layer.weights, layer.seen))
        weight = random_masks.random((layer.outputs, layer.inputs), weights, seed=5)
        linear.append(of_masks(layer.name, weight, random_masks.random((1, layer.inputs), inputs)))
    shares = [*kept("alexnet"), *(figure(layer.weights).value / 100 for layer in fully_connected)]
    for reading in READINGS:
        works = masked(convolutions("alexnet"), NonZeros(shares, seen("alexnet", reading))) + linear
        blocks = [in_blocks(work, share) for work, share in zip(works, shares, strict=True)]
        ours = cycles(works, CAMBRICON_X) / cycles(blocks, CAMBRICON_S)
        column, printed = f"times faster, {reading}", figure(published.SPEEDUP, "x")
        rows.append(table.judge("AlexNet", column, printed, ours, NEAR))
    return rows


def in_blocks(work: Workload, share: float) -> Workload:
    """The layer with this share of weights, in blocks of 16 filters of one input.

    >>> fc = of_masks("fc", torch.ones(40, 8) != 0, torch.ones(1, 8) != 0)
    >>> in_blocks(fc, 0.5).weight[0, :, :, 0, 0].view(5, 8, 8).long().amin(1).equal(
    ...     in_blocks(fc, 0.5).weight[0, :, :, 0, 0].view(5, 8, 8).long().amax(1))
    True
    """
    groups, outputs, *rest = work.weight.shape
    blocks = random_masks.random((groups, math.ceil(outputs / published.BLOCK), *rest), 1 - share)
    weight = torch.repeat_interleave(blocks, published.BLOCK, dim=1)[:, :outputs]
    return replace(work, weight=weight)


def _index() -> list[PaperRow]:
    """Bytes that tell where AlexNet's weights are, weight by weight and block by block."""
    single = blocks = 0.0
    for size, layer in zip(sizes("alexnet"), han2015.LAYERS["alexnet"], strict=True):
        left = size.weights * figure(layer.kept).value / 100
        single += left * STEP_BITS / 8
        blocks += left / published.LINEAR_BLOCKS.get(size.name, published.BLOCK) * STEP_BITS / 8
    table = Table(published.NAME, "Index of AlexNet's weights", "alexnet")
    lines = (
        ("weight by weight", figure(published.INDEX, "MiB"), single / 2**20),
        ("in blocks", figure(published.INDEX_BLOCKS, "KiB"), blocks / 2**10),
        ("times smaller in blocks", figure(published.INDEX_RATIO, "x"), single / blocks),
    )
    total = sum(size.weights for size in sizes("alexnet"))
    theirs = figure(published.INDEX).value * 2**20 * 8 / STEP_BITS / total
    reason = (
        f"{STEP_BITS} bits for each of the weights that Han et al. left, {100 * single * 8 / STEP_BITS / total:.1f} %; "
        f"the published size is that of {100 * theirs:.1f} %"
    )
    return [table.judge("AlexNet", name, printed, ours, CLOSE, reason) for name, printed, ours in lines]
