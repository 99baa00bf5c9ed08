"""Decide which weights and small activations go: scores, masks, thresholds, and the plan for a whole network."""

from zeroskip.prune import schedules, scores
from zeroskip.prune.activation_macs import ActivationPruning, Judged, LayerMacs, judge
from zeroskip.prune.channel_permutation import Permuted, gains_by_order, permute_channels
from zeroskip.prune.edits import rebuild, relu_edits, threshold_edits
from zeroskip.prune.mask_choice import choose, probabilistic, quality, quality_threshold, spread
from zeroskip.prune.masks import (
    check_names,
    check_reach,
    hold_,
    is_masked,
    masked,
    named,
    parameters,
    plain_zeros_,
    release_,
    update_,
    weights,
)
from zeroskip.prune.neuron_removal import DeadCount, compact, dead_counts, dead_neurons, left_alone
from zeroskip.prune.plan import allocate, check, plan, while_training
from zeroskip.prune.scores import magnitude
from zeroskip.prune.teal_thresholds import teal
from zeroskip.prune.threshold_search import thresholds
from zeroskip.prune.training_noise import Noise, noise

__all__ = [
    "ActivationPruning", "DeadCount", "Judged", "LayerMacs", "Noise", "Permuted", "allocate", "check",
    "check_names", "check_reach", "choose", "compact", "dead_counts", "dead_neurons", "gains_by_order", "hold_",
    "is_masked", "judge", "left_alone", "magnitude", "masked", "named", "noise", "parameters", "permute_channels",
    "plain_zeros_", "plan", "probabilistic", "quality", "quality_threshold", "rebuild", "release_", "relu_edits",
    "schedules", "scores", "spread", "teal", "threshold_edits", "thresholds", "update_", "weights",
    "while_training",
]  # fmt: skip
