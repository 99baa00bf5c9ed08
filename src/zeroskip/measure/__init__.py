"""Look, do not touch: what a network costs, where its zeros are, how much each layer minds pruning."""

from zeroskip.graph import record as trace
from zeroskip.measure.activations import Zeros, activations
from zeroskip.measure.cost import Cost, cost
from zeroskip.measure.profile import histogram, profile
from zeroskip.measure.sensitivity import sensitivity

__all__ = ["Cost", "Zeros", "activations", "cost", "histogram", "profile", "sensitivity", "trace"]
