"""How a network is pruned, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from zeroskip.concepts.network import Masks

STAYS_DENSE = "stays dense: "
"""With it begins the reason of a layer that a plan leaves dense."""


@dataclass(frozen=True)
class Goal:
    """What is asked of a run: where zeros may lie, how far to go, and in how many bits to compute.

    pattern         see `zeroskip.patterns`
    max_error_rise  what pruning may cost on validation; None: one example, the smallest difference there is
    sparsity        prune to this in one training, by saliency, instead of rounds within max_error_rise
    bits            each layer ends with 2^bits values, trained; None: values are not shared
    precision       of the compiled program: "fp32", or "int8", for which the pruned network is calibrated

    >>> Goal("1x4", precision="int8").max_error_rise is None
    True
    """

    pattern: str = "free"
    max_error_rise: float | None = None
    sparsity: float | None = None
    bits: int | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class Round:
    """One prune-and-retrain step.

    sparsity  a number: the share of all that can be pruned that is zero afterwards, cut by one threshold for the
              whole network, its tables of embeddings and what else stays dense aside; a dict: name of a weight ->
              share, each cut by its own threshold, tables too
    quality   name -> q, instead of sparsity: weights below q x standard deviation go (Han et al. 2015)
    pattern   where zeros may lie, for all layers or by layer name; see `zeroskip.patterns`
    score     name of a function in `zeroskip.prune.scores`
    frozen    weights that do not change in this round's retraining, nor do the biases beside them: "fc1" is fc1.weight
              and fc1.bias, "lstm.weight_ih_l0" is that and lstm.bias_ih_l0
    gradual   share of the retraining during which the sparsity grows to its value, fast first (Zhu and Gupta
              2017); 0: everything is cut before the retraining
    penalty   {"l1": a, "l2": b}: a x sum |w| + b / 2 x sum w^2 of the layers' weights is added to the loss;
              "activation_l1" and "activation_hoyer" weigh what ReLUs give: `retrain.penalized`
    thresholds  layer name -> theta: what enters it with |x| < theta is 0 from now on; they grow as sparsity does
    teacher   {"weight": a, "temperature": t}: this share of the loss is the distance to the softened answers of
              the network that the loop started from (Hinton et al. 2015)
    rescale_dropout  dropout shrinks with the connections it works on (Han et al. 2015, section 3.2)
    train     keywords handed to the task's `train`, and `learning_rate_divisor`

    >>> Round({"fc1": 0.9, "fc2": 0.5}, pattern="4x1").score
    'magnitude'
    """

    sparsity: float | Mapping[str, float] | None = None
    quality: Mapping[str, float] | None = None
    pattern: str | Mapping[str, str] = "free"
    score: str = "magnitude"
    frozen: tuple[str, ...] = ()
    gradual: float = 0.0
    penalty: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    teacher: Mapping[str, float] = field(default_factory=dict)
    rescale_dropout: bool = True
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Rounds to go through, and how much error they may cost.

    max_error_rise  None: every round is done. A number: rounds stop at the first whose validation error
                    exceeds the dense network's by more; two bisections follow, the last good point wins
    reasons         layer name -> why it loses as much as it does, for people
    """

    rounds: tuple[Round, ...]
    max_error_rise: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists; `from_json` turns them back.

        >>> recipe = Recipe((Round(0.5), Round({"fc1": 0.75})), max_error_rise=0.01)
        >>> Recipe.from_json(recipe.to_json()) == recipe
        True
        """
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote."""
        rounds = tuple(Round(**{**one, "frozen": tuple(one["frozen"])}) for one in value["rounds"])
        return Recipe(rounds, value["max_error_rise"], value["reasons"])


@dataclass(frozen=True)
class Point:
    """One point of the trade-off that a loop went through.

    kind  "dense", "round", "bisection" or "centroids"; good tells whether the error stayed within the budget

    >>> Point("round", weights_kept=20, weights=80, error=0.06, good=True).sparsity
    0.75
    """

    kind: str
    weights_kept: int
    weights: int
    error: float
    good: bool
    layers_kept: dict[str, int] = field(default_factory=dict)

    @property
    def sparsity(self) -> float:
        """Share of the weights that is zero."""
        return 1 - self.weights_kept / self.weights


@dataclass(frozen=True)
class Sparse:
    """The outcome of pruning: a plain model with its zeros in place, the way there, and the masks of all its weights,
    also of those that stay dense.

    >>> from zeroskip import retrain
    >>> retrain.as_sparse(model).masks["fc1"].sum()
    tensor(12)
    """

    model: nn.Module
    masks: Masks
    history: tuple[Point, ...]
