"""Look, do not touch: what a network costs, where its zeros are, how much each layer minds pruning."""

from zeroskip.graph import record as trace
from zeroskip.measure.activations import Zeros, activations, results
from zeroskip.measure.cost import Cost, cost
from zeroskip.measure.map_compression import Compressed, Traffic, compression, traffic
from zeroskip.measure.profile import histogram, profile
from zeroskip.measure.sensitivity import sensitivity
from zeroskip.measure.shape_table import table
from zeroskip.measure.zero_sums import Count, Spread, Sums

__all__ = [
    "Compressed",
    "Cost",
    "Count",
    "Spread",
    "Sums",
    "Traffic",
    "Zeros",
    "activations",
    "compression",
    "cost",
    "histogram",
    "profile",
    "results",
    "sensitivity",
    "table",
    "trace",
    "traffic",
]
