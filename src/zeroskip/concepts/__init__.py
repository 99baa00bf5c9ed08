"""The nouns of zeroskip: what the folders hand to each other.

    dense model -> measure -> prune -> retrain -> pack -> run -> report
                   Profile    Recipe   Sparse     Packed  Program  Record
                   Trace      Masks                       Timing

Words that never change their meaning: *sparsity* is the share of zeros, 0..1; a *mask* is a bool tensor
whose True is kept; a *score* says how much a weight matters, higher is kept. `weights` counts exclude
biases and batch norm. An error (of a network) is 0..1, lower is better.
"""

from zeroskip.concepts.engine import Choice, Kernel, Machine, Precision, Timing
from zeroskip.concepts.network import (
    Edits,
    Histogram,
    Layer,
    LayerProfile,
    Masks,
    Profile,
    Progress,
    Trace,
    TrainState,
    silent,
    weight_sparsity,
)
from zeroskip.concepts.packed import Packed, PackedTensor
from zeroskip.concepts.recipe import Point, Recipe, Round, Sparse
from zeroskip.concepts.record import LayerSummary, Record, Summary

__all__ = [
    "Choice",
    "Edits",
    "Histogram",
    "Kernel",
    "Layer",
    "LayerProfile",
    "LayerSummary",
    "Machine",
    "Masks",
    "Packed",
    "PackedTensor",
    "Point",
    "Precision",
    "Profile",
    "Progress",
    "Recipe",
    "Record",
    "Round",
    "Sparse",
    "Summary",
    "Timing",
    "Trace",
    "TrainState",
    "silent",
    "weight_sparsity",
]
