"""EIE: non-zero inputs are broadcast, and every element works on its own part of their columns."""

from __future__ import annotations

import numpy as np

from zeroskip.simulate import lane_counts
from zeroskip.simulate.accelerator import Accelerator, size
from zeroskip.simulate.lane_counts import Schedule
from zeroskip.simulate.workload import Workload, count_macs


def columns(work: Workload, chip: Accelerator) -> Schedule:
    """Lanes own every `lanes`-th output and take one entry of a broadcast column a cycle (Han et al. 2016).

    Padding entries are entries too, and an empty column takes a cycle. A lane's queue holds `queue` columns. Vectors
    longer than `inputs` are worked on in parts, which begin with empty queues.

    >>> columns(of_masks("fc", torch.ones(64, 8) != 0, torch.ones(1, 8) != 0), chips.EIE).cycles
    8
    """
    matrix = work.weight.reshape(work.weight.shape[1], -1).numpy()
    entries = lane_counts.interleaved(matrix, chip.lanes)  # (k, lanes)
    costs, parts = np.maximum(entries, 1), size(chip, "inputs")
    cycles, busy, filled = 0, 0, 0
    for x in work.input.flatten(1).numpy():
        for first in range(0, len(x), parts):
            seen = np.flatnonzero(x[first : first + parts]) + first
            cycles += lane_counts.queued(costs[seen], size(chip, "queue"))
            busy += int(costs[seen].sum())
            filled += int(entries[seen].sum())
    return Schedule(cycles, busy, filled - count_macs(work).both)
