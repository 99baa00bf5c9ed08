"""Decide which weights go: scores, thresholds, masks, and the plan for a whole network."""

from zeroskip.prune import schedules, scores
from zeroskip.prune.chance import probabilistic
from zeroskip.prune.choose import choose, quality, quality_threshold, spread
from zeroskip.prune.edits import rebuild
from zeroskip.prune.masks import apply_, check_names, is_masked, parameters, remove_, update_, weights
from zeroskip.prune.neurons import DeadCount, compact, dead_counts, dead_neurons, left_alone
from zeroskip.prune.plan import allocate, check, plan, while_training
from zeroskip.prune.scores import magnitude

__all__ = [
    "DeadCount", "allocate", "apply_", "check", "check_names", "choose", "compact", "dead_counts",
    "dead_neurons", "is_masked", "left_alone", "magnitude", "parameters", "plan", "probabilistic",
    "quality", "quality_threshold", "rebuild", "remove_", "schedules", "scores", "spread", "update_", "weights",
    "while_training",
]  # fmt: skip
