"""Every product of a non-zero weight and a non-zero input that they meet: EIE, SCNN, the element of Eyeriss v2."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zeroskip.errors import AcceleratorError
from zeroskip.simulate import lane_counts
from zeroskip.simulate.accelerator import Accelerator, divided, size
from zeroskip.simulate.lane_counts import Schedule, tiles
from zeroskip.simulate.workload import Workload, count_macs


def columns(work: Workload, chip: Accelerator) -> Schedule:
    """Lanes own every `lanes`-th output and take one entry of a broadcast column a cycle (Han et al. 2016).

    Padding entries are entries too, and an empty column takes a cycle. A lane's queue holds `queue` columns. Vectors
    longer than `inputs` are worked on in parts, which begin with empty queues.

    >>> columns(of_masks("fc", torch.ones(64, 8) != 0, torch.ones(1, 8) != 0), chips.EIE).cycles
    8
    """
    matrix = work.weight.reshape(work.weight.shape[1], -1).numpy()
    # Lanes beyond the outputs have none: each column takes them a cycle, as an empty one does.
    lanes = min(chip.lanes, len(matrix))
    entries = lane_counts.interleaved(matrix, lanes)  # (k, lanes)
    costs, parts = np.maximum(entries, 1), size(chip, "inputs")
    cycles, busy, filled = 0, 0, 0
    for x in work.input.flatten(1).numpy():
        for first in range(0, len(x), parts):
            seen = np.flatnonzero(x[first : first + parts]) + first
            cycles += lane_counts.queued(costs[seen], size(chip, "queue"))
            busy += int(costs[seen].sum()) + (chip.lanes - lanes) * len(seen)
            filled += int(entries[seen].sum())
    return Schedule(cycles, busy, filled - count_macs(work).both)


def cartesian(work: Workload, chip: Accelerator) -> Schedule:
    """A grid of `rows` x `columns` lanes that own input tiles and take `weights` x `inputs` products a cycle.

    All lanes wait for the slowest after each `filters` filters. With a stride, inputs meet the weights of their own
    phase only. Products that fall outside the output are made all the same. SCNN (Parashar et al. 2017, section 4);
    one such lane, of 1 x 1 product and with all filters, is an element of Eyeriss v2 (Chen et al. 2019).

    >>> cartesian(of_masks("fc", torch.ones(2, 3) != 0, torch.ones(1, 3) != 0), chips.EYERISS_V2_PE).cycles
    6
    """
    divided(chip, "rows", "columns")
    wide, high = size(chip, "inputs"), size(chip, "weights")
    if wide * high != chip.width:
        raise AcceleratorError(
            f"{chip.name}: width = {chip.width} is not tile['weights'] x tile['inputs'] = {high} x {wide}"
        )
    inputs, weights = _inputs(work, chip), _weights(work, chip)
    cycles = lane_counts.products(-(-inputs // wide), -(-weights // high))  # (n, g, lanes, groups of filters)
    made = int((inputs.sum((0, 2)) * weights.sum(1)).sum())
    return Schedule(int(cycles.amax(2).sum()), int(cycles.sum()), made - count_macs(work).both)


def _inputs(work: Workload, chip: Accelerator) -> Tensor:
    """Non-zero inputs of each lane: (examples, groups, lanes, channels x phases), int64."""
    rows, columns = work.input.shape[3:]
    up = _tile_and_phase(rows, work.padding[0], work.stride[0], size(chip, "rows"))  # (rows, tiles x phases)
    across = _tile_and_phase(columns, work.padding[2], work.stride[1], size(chip, "columns"))
    counts = lane_counts.folded(work.input, up, across)  # (n, g, c, tiles x phases of both axes)
    cut = counts.unflatten(3, (-1, work.stride[0])).unflatten(-1, (-1, work.stride[1]))
    return cut.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3).long()


def _weights(work: Workload, chip: Accelerator) -> Tensor:
    """Non-zero weights of each group of filters: (groups, groups of filters, channels x phases), int64."""
    counts = lane_counts.filter_counts(work.weight, chip.tile.get("filters", max(work.weight.shape[1], 1)))
    for axis in (0, 1):
        stride = work.stride[axis]
        phase = torch.arange(work.weight.shape[3 + axis]) * work.dilation[axis] % stride
        summed = torch.zeros(*counts.shape[: 3 + axis], stride, *counts.shape[4 + axis :], dtype=torch.int64)
        counts = summed.index_add_(3 + axis, phase, counts)
    return counts.flatten(2)


def _tile_and_phase(length: int, before: int, stride: int, lanes: int) -> Tensor:
    """Which tile and phase a row belongs to, as 0/1: (length, lanes x stride); of lanes only those that have a row."""
    row, lanes = torch.arange(length), min(lanes, length)
    place = row // tiles(length, lanes) * stride + (row + before) % stride
    return torch.nn.functional.one_hot(place, lanes * stride).float()
