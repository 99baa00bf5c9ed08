"""What is measured for Minerva. Shares and errors are 0..1; counts are of the test split, which no search has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MinervaLayer:
    """MACs of a layer for one example: all, those whose input is not zero, and those left with thresholds."""

    macs: float
    nonzero: float
    kept: float


@dataclass(frozen=True)
class NetworkMacs:
    """MACs of a network for one test example.

    zero_inputs       of the first layer, whose input is zero;  zero_activations: of the other layers
    nonzero           the rest;  kept: those of the rest that thresholds leave
    """

    all: float
    zero_inputs: float
    zero_activations: float
    nonzero: float
    kept: float

    @property
    def removed(self) -> float:
        """Share of the MACs with a non-zero input that thresholds remove.

        >>> NetworkMacs(all=1000, zero_inputs=700, zero_activations=100, nonzero=200, kept=80).removed
        0.6
        """
        return 1 - self.kept / self.nonzero

    @property
    def skipped(self) -> float:
        """Share of all MACs that need not be done."""
        return 1 - self.kept / self.all


@dataclass(frozen=True)
class Thresholds:
    """A network with thresholds on small activations: its test error before and after, and its validation error."""

    test: float
    test_pruned: float
    validation_pruned: float
    macs: NetworkMacs
    layers: Mapping[str, MinervaLayer] = field(default_factory=dict)


@dataclass(frozen=True)
class MinervaFindings:
    """One network.

    errors, validation  test and validation errors of the trainings, which differ in their seed alone
    test ... layers     as in `Thresholds`, found on the validation split for the network of the median error
    retrained           thresholds that cost several sigma at first, and a second training with them in place that won
                        the error back, then a search for more; where all that removes no more, those above
    """

    errors: tuple[float, ...]
    validation: tuple[float, ...]
    test: float
    test_pruned: float
    validation_pruned: float
    macs: NetworkMacs
    layers: Mapping[str, MinervaLayer] = field(default_factory=dict)
    retrained: Thresholds | None = None

    @property
    def thresholds(self) -> Thresholds:
        """Those found for the network as it was trained."""
        return Thresholds(self.test, self.test_pruned, self.validation_pruned, self.macs, self.layers)


@dataclass(frozen=True)
class MeanShares:
    """Means over the five networks: of the MACs with a non-zero input, and of all."""

    removed: float
    skipped: float


@dataclass(frozen=True)
class MinervaMeans:
    """Means over the five networks; power: table of energies -> what is gated already -> times less power."""

    removed: float
    skipped: float
    retrained: MeanShares
    power: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
