"""Chips explored: found by name, estimated with other numbers, and asked what they gain from plans of their own.

chip_lookup.py      published chips by name, one's own from a Python file
chip_sweep.py       one chip at many points
plan_comparison.py  plans by what chips gain, and plans by the number of weights: trained, pruned, estimated

Each point of a sweep may be computed in a process of its own, which looks chips and tasks up by their words.
"""

from zeroskip.exploration.chip_lookup import find_chips, identity
from zeroskip.exploration.chip_sweep import ChipSweep, SweepOutcome, SweepRow, sweep_chip
from zeroskip.exploration.plan_comparison import PlanStudy, compare_plans

__all__ = [
    "ChipSweep",
    "PlanStudy",
    "SweepOutcome",
    "SweepRow",
    "compare_plans",
    "find_chips",
    "identity",
    "sweep_chip",
]
