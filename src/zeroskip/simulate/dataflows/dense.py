"""Grids of lanes that take every MAC, and one that halves the work where weights are 2:4."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeroskip.simulate.accelerator import Accelerator, divided, size
from zeroskip.simulate.formats import is_two_of_four
from zeroskip.simulate.lane_counts import Schedule, tiles
from zeroskip.simulate.workload import Workload


def array(work: Workload, chip: Accelerator) -> Schedule:
    """A grid of `outputs` x positions lanes, each a dot product of `width` inputs: no zero changes its cycles.

    >>> array(of_masks("fc", torch.ones(10, 32) != 0, torch.ones(1, 32) != 0), chips.DENSE).cycles
    2
    """
    return _grid(work, chip, work.inputs)


def structured(work: Workload, chip: Accelerator) -> Schedule:
    """The `array` of half as many inputs, where of every four weights two are zero (NVIDIA A100, 2020).

    >>> structured(of_masks("fc", torch.eye(16) != 0, torch.ones(1, 16) != 0), chips.TENSOR_CORE).cycles
    1
    """
    return _grid(work, chip, tiles(work.inputs, 2) if is_two_of_four(work.weight.numpy()) else work.inputs)


def two_of_four(work: Workload, chip: Accelerator) -> Tensor:
    """The weights that a 2:4 chip works on: two of every four, zeros among them where fewer are not zero.

    >>> work = of_masks("fc", torch.tensor([[0, 0, 0, 1]]) != 0, torch.ones(1, 4) != 0)
    >>> two_of_four(work, chips.TENSOR_CORE).flatten().tolist()
    [True, False, False, True]
    """
    if not is_two_of_four(work.weight.numpy()):
        return torch.ones_like(work.weight)
    fours = work.weight.unflatten(2, (-1, 4))
    best = fours.to(torch.uint8).argsort(dim=3, descending=True, stable=True)[:, :, :, :2]
    return torch.zeros_like(fours).scatter_(3, best, True).flatten(2, 3)


def planar(work: Workload, chip: Accelerator) -> Schedule:
    """A grid of `rows` x `columns` lanes that own tiles of the output plane, each a dot product of `width` inputs.

    DCNN, the dense twin that SCNN is compared with (Parashar et al. 2017, section 5). Layers of one pixel share the
    filters out instead.

    >>> planar(of_masks("fc", torch.ones(10, 32) != 0, torch.ones(1, 32) != 0), chips.DCNN).cycles
    2
    """
    divided(chip, "rows", "columns")
    (groups, outputs), (tall, wide) = work.weight.shape[:2], work.output.shape[3:]
    steps = groups * tiles(work.inputs, chip.width)
    if tall * wide == 1:
        rounds = tiles(outputs, chip.lanes) * work.positions
    else:
        largest = tiles(tall, size(chip, "rows")) * tiles(wide, size(chip, "columns"))
        rounds = outputs * largest * work.output.shape[0]
    return Schedule(steps * rounds, steps * outputs * work.positions)


def perfect(work: Workload, chip: Accelerator) -> Schedule:
    """Every MAC, on lanes that are never idle: what a chip falls back to on layers that it cannot run."""
    lanes = tiles(work.macs, chip.width)
    return Schedule(tiles(lanes, chip.lanes), lanes, skips="")


def _grid(work: Workload, chip: Accelerator, inputs: int) -> Schedule:
    across = divided(chip, "outputs")  # positions at a time
    groups, outputs = work.weight.shape[:2]
    steps = groups * tiles(inputs, chip.width)
    rounds = tiles(outputs, size(chip, "outputs")) * tiles(work.positions, across)
    return Schedule(steps * rounds, math.prod((steps, outputs, work.positions)))
