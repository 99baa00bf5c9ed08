"""What is measured for Shi and Chu 2017."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayerSeconds:
    """Seconds of one call of a layer: im2col and GEMM; the faster of PyTorch's two layouts; skipping zero inputs.

    "skipping" includes finding the zeros.
    """

    im2col: float
    dense: float
    skipping: float


@dataclass(frozen=True)
class ShiFindings:
    """The 13 layers as first listed, and those of them that are listed in another way as well."""

    layers: Mapping[str, LayerSeconds] = field(default_factory=dict)
    otherwise: Mapping[str, LayerSeconds] = field(default_factory=dict)
