"""What is measured for Han et al. 2015. Shares and errors are 0..1, errors those of the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zeroskip.concepts import Curve, Histogram


@dataclass(frozen=True)
class LayerShares:
    """Of a layer or of all: weights left, activations that are not zero after pooling, FLOP left."""

    kept: float | None = None
    output: float | None = None
    work: float | None = None


@dataclass(frozen=True)
class MaskFigure:
    """Connections of the first layer that are left, at each input pixel."""

    kept_by_pixel: tuple[float, ...]


@dataclass(frozen=True)
class DropoutErrors:
    """After retraining with dropout by the paper's rule, and as it was."""

    rule: float
    unchanged: float


@dataclass(frozen=True)
class DeadNeurons:
    """Neurons without inputs or outputs: how many were removed, and the largest change of an output by that."""

    removed: float
    largest_difference: float


@dataclass(frozen=True)
class HanFindings:
    """One network, whose findings hold those of `frontier_rows.IMAGES` too; every part may be absent.

    Up to `total` means over the seeds, the rest of seed 0.

    error_dense, error_pruned  before and after; top5_dense, top5_pruned likewise
    layers                     our layer name -> shares
    figure5                    "L1", "L2" (not retrained), "L1 retrained", "L2 retrained", "L2 iterative" ->
                               (share of weights kept, error)
    figure5_dense              "L1", "L2" -> error of the dense networks that the curves start from
    figure6                    layer -> sparsity -> validation error with this layer alone pruned
    figure7                    "before", "after" -> fc1's non-zero weights;  figure7_survivors: of those before that
                               are left after
    """

    error_dense: float | None = None
    error_pruned: float | None = None
    top5_dense: float | None = None
    top5_pruned: float | None = None
    weights_kept: float | None = None
    layers: Mapping[str, LayerShares] = field(default_factory=dict)
    total: LayerShares = LayerShares()
    figure4: MaskFigure | None = None
    figure5: Mapping[str, Curve] = field(default_factory=dict)
    figure5_dense: Mapping[str, float] = field(default_factory=dict)
    figure6: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    figure7: Mapping[str, Histogram] = field(default_factory=dict)
    figure7_survivors: Histogram | None = None
    dropout: DropoutErrors | None = None
    dead_neurons: DeadNeurons | None = None
