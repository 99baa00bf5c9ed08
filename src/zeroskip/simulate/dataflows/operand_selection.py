"""Chips that look for the zeros of one operand, or for those that a block of filters shares."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroskip.simulate import lane_counts
from zeroskip.simulate.accelerator import Accelerator, size
from zeroskip.simulate.lane_counts import Schedule, tiles
from zeroskip.simulate.workload import Workload, padded, patches, windows


def bricks(work: Workload, chip: Accelerator) -> Schedule:
    """Lanes take the non-zero inputs of their bricks of `brick` channels one by one (Albericio et al. 2016).

    The bricks of a window are dealt to the lanes, which wait for each other at its end; a brick of zeros takes
    `empty` cycles. `width` filters share each input. Layers of fewer channels than a brick are not encoded: the lanes
    take the inputs of one kernel place, one each, then those of the next, as on DaDianNao, which skips nothing.

    >>> bricks(of_masks("fc", torch.ones(256, 256) != 0, torch.eye(256)[:1] != 0), chips.CNVLUTIN).cycles
    1
    """
    brick, groups = size(chip, "brick"), work.weight.shape[0]
    rounds, channels = tiles(work.weight.shape[1], chip.width), work.weight.shape[2]
    if channels < brick or "A" not in chip.skips:
        steps = groups * work.positions * rounds * work.inputs // channels
        return Schedule(steps * tiles(channels, chip.lanes), steps * channels, skips="")
    counts = lane_counts.blocks(padded(work).movedim(2, -1), brick)  # (n, g, rows, columns, bricks)
    cycles = busy = 0
    for seen in patches(counts.clamp(min=size(chip, "empty")).movedim(-1, 2), work):
        cycles += int(lane_counts.dealt(seen.flatten(2), chip.lanes).sum())
        busy += int(seen.sum())
    return Schedule(cycles * rounds, busy * rounds)


def selected(work: Workload, chip: Accelerator) -> Schedule:
    """Lanes own every `lanes`-th output and take `width` of its non-zero weights a cycle (Zhang et al. 2016).

    At most `window` inputs are looked through in a cycle. Cambricon-X; its elements do not wait for each other.

    >>> selected(of_masks("fc", torch.ones(16, 64) != 0, torch.ones(1, 64) != 0), chips.CAMBRICON_X).cycles
    4
    """
    counts = lane_counts.blocks(work.weight.flatten(2), max(work.inputs, 1)).flatten()  # (groups x outputs,)
    costs = (-(-counts // chip.width)).clamp(min=tiles(work.inputs, size(chip, "window")))
    cycles = int(lane_counts.dealt(costs, chip.lanes))
    return Schedule(cycles * work.positions, int(costs.sum()) * work.positions)


def shared(work: Workload, chip: Accelerator) -> Schedule:
    """All lanes take the same `width` inputs a cycle, each for an output of its own (Zhou et al. 2018).

    An input is taken where it is not zero and one of the `lanes` outputs has a weight for it; at most `window` inputs
    are looked through in a cycle. Cambricon-S.

    >>> shared(of_masks("fc", torch.ones(16, 64) != 0, torch.eye(64)[:1] != 0), chips.CAMBRICON_S).cycles
    1
    """
    blocks = lane_counts.filter_counts(work.weight, chip.lanes) > 0  # (g, blocks, c, r, s)
    weight = blocks.permute(0, 1, 3, 4, 2).flatten(2)  # (g, blocks, k)
    filled = lane_counts.blocks(torch.ones(work.weight.shape[1]) != 0, chip.lanes)  # outputs of each block
    least, cycles, busy = tiles(work.inputs, size(chip, "window")), 0, 0
    for seen in windows(work):
        counts = lane_counts.matches(weight, seen.flatten(2).transpose(0, 1))  # (g, blocks, p)
        steps = (counts / chip.width).ceil().clamp(min=least)
        costs = steps.sum(-1, dtype=torch.float64).long()  # (g, blocks)
        cycles += int(costs.sum())
        busy += int((costs * filled).sum())
    return Schedule(cycles, busy)


def shared_weights(work: Workload, chip: Accelerator) -> Tensor:
    """The weights that Cambricon-S works on: all of a block of `lanes` filters of which one is not zero."""
    outputs = work.weight.shape[1]
    lanes = min(chip.lanes, outputs)
    blocks = lane_counts.filter_counts(work.weight, lanes) > 0
    return blocks.repeat_interleave(lanes, dim=1)[:, :outputs]
