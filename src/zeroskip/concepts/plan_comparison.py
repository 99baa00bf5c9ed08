"""Plans by what chips gain, and plans by the number of weights: what came of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class PlannedNetwork:
    """A network at the end of its plan, and its cost on one chip. Errors are 0..1, on each split."""

    sparsity: float
    validation_error: float
    test_error: float
    cycles: int
    joules: float

    def to_json(self) -> dict[str, float]:
        """By the names that files have.

        >>> PlannedNetwork(0.9, 0.02, 0.03, 1000, 2e-6).to_json()["zeros"]
        0.9
        """
        errors = {"validation": self.validation_error, "test": self.test_error}
        return {"zeros": self.sparsity, **errors, "cycles": self.cycles, "joules": self.joules}


@dataclass(frozen=True)
class PlanPair:
    """Both plans of one seed and one budget on one chip, and the dense network that they start from.

    >>> dense, sparse = PlannedNetwork(0, 0.02, 0.03, 9000, 9e-6), PlannedNetwork(0.9, 0.02, 0.03, 1000, 2e-6)
    >>> PlanPair("EIE", 0.01, 0, dense, by_weights=sparse, by_cost=sparse).to_json()["machine"]
    'EIE'
    """

    chip: str
    max_error_rise: float
    seed: int
    dense: PlannedNetwork
    by_weights: PlannedNetwork
    by_cost: PlannedNetwork

    def to_json(self) -> dict[str, object]:
        """By the names that files have."""
        networks = {"dense": self.dense, "weights": self.by_weights, "cost": self.by_cost}
        about = {"machine": self.chip, "seed": self.seed, "rise": self.max_error_rise}
        return {**about, **{name: network.to_json() for name, network in networks.items()}}


@dataclass(frozen=True)
class ChipLayers:
    """The layers of a network that a chip runs, and those it refuses, which are in no figure.

    simulated  share of the network's multiplications that the chip runs; the rest may also be products of activations

    >>> ChipLayers(run=("fc1", "fc2"), refused=("conv1",)).refused
    ('conv1',)
    """

    run: tuple[str, ...]
    refused: tuple[str, ...]
    simulated: float = 1.0


@dataclass(frozen=True)
class PlanComparison:
    """All pairs of a task, chip by chip, budget by budget, seed by seed.

    cost    what the plans by cost were to lower: "cycles" or "joules"
    layers  chip -> what it runs
    """

    task: str
    cost: str
    pattern: str
    layers: Mapping[str, ChipLayers]
    pairs: tuple[PlanPair, ...]

    def to_json(self) -> dict[str, object]:
        """What `zeroskip compare-plans --json` prints.

        >>> PlanComparison("digits", "cycles", "free", {"EIE": ChipLayers(("fc1",), ())}, ()).to_json()["of"]
        'cycles'
        """
        return {
            "task": self.task,
            "of": self.cost,
            "pattern": self.pattern,
            "layers": {chip: asdict(layers) for chip, layers in self.layers.items()},
            "pairs": [pair.to_json() for pair in self.pairs],
        }
