"""Measurements that leave a network as it is: cost, zeros, sizes of coded maps, sensitivity to pruning."""

from zeroskip.graph import record as trace
from zeroskip.measure.activation_zeros import Zeros, activations, results
from zeroskip.measure.cost import LayerCost, NetworkCost, cost
from zeroskip.measure.map_compression import Compressed, MapTraffic, compression, traffic
from zeroskip.measure.profile import histogram, profile
from zeroskip.measure.sensitivity import sensitivity
from zeroskip.measure.shape_table import table
from zeroskip.measure.zero_sums import Count, Spread, Sums

__all__ = [
    "Compressed",
    "Count",
    "LayerCost",
    "MapTraffic",
    "NetworkCost",
    "Spread",
    "Sums",
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
