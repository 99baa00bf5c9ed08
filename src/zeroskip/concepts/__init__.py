"""The nouns of zeroskip: what the folders hand to each other.

    dense model -> measure -> prune -> retrain -> pack -> run -> report
                   Profile    Recipe   Sparse     Packed  Program  Record
                   Trace      Masks                       Timing

Words that never change their meaning: *sparsity* is the share of zeros, 0..1; a *mask* is a bool tensor
whose True is kept; a *score* says how much a weight matters, higher is kept. `weights` counts exclude
biases and batch norm. An error (of a network) is 0..1, lower is better.
"""

from zeroskip.concepts.activations import CodedNetwork, MapSizes, NetworkZeros, ShapeRow
from zeroskip.concepts.engine import Choice, Kernel, Machine, Precision, Timing
from zeroskip.concepts.explanation import Between, Explanation, Gain, Unskipped
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
    pair,
    silent,
    under_torch_pruning,
    weight_sparsity,
)
from zeroskip.concepts.packed import Packed, PackedTensor
from zeroskip.concepts.plan_comparison import ChipLayers, PlanComparison, PlannedNetwork, PlanPair
from zeroskip.concepts.recipe import STAYS_DENSE, Goal, Point, Recipe, Round, Sparse
from zeroskip.concepts.record import EightBits, LayerSummary, Record, Summary
from zeroskip.concepts.reproduction import (
    Curve,
    FrontierPoint,
    MeasuredNetwork,
    PaperFigures,
    PaperOrigin,
    PaperRow,
    PrunedFrontier,
)

__all__ = [
    "STAYS_DENSE", "Between", "ChipLayers", "Choice", "CodedNetwork", "Curve", "Edits", "EightBits", "Explanation",
    "FrontierPoint", "Gain", "Goal", "Histogram", "Kernel", "Layer", "LayerProfile", "LayerSummary", "Machine",
    "MapSizes", "Masks", "MeasuredNetwork", "NetworkZeros", "Packed", "PackedTensor", "PaperFigures", "PaperOrigin",
    "PaperRow", "PlanComparison", "PlanPair", "PlannedNetwork", "Point", "Precision", "Profile", "Progress",
    "PrunedFrontier", "Recipe", "Record", "Round", "ShapeRow", "Sparse", "Summary", "Timing", "Trace",
    "TrainState", "Unskipped", "pair", "silent", "under_torch_pruning", "weight_sparsity",
]  # fmt: skip
