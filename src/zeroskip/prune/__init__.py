"""Decide which weights go: scores, thresholds, masks, and the plan for a whole network."""

from zeroskip.prune import schedules, scores
from zeroskip.prune.choose import choose, quality_threshold, spread
from zeroskip.prune.masks import apply_, check_names, is_masked, remove_, weights
from zeroskip.prune.plan import allocate, check, plan
from zeroskip.prune.scores import magnitude

__all__ = [
    "allocate", "apply_", "check", "check_names", "choose", "is_masked", "magnitude", "plan", "quality_threshold",
    "remove_", "schedules", "scores", "spread", "weights",
]  # fmt: skip
