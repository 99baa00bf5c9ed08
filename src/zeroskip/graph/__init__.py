"""A network as data: its weighted layers, their inputs and outputs, and its operations in order."""

from zeroskip.graph.capture import capture, quiet
from zeroskip.graph.inputs import Given, Inputs
from zeroskip.graph.layers import evaluating, forward, layers, record
from zeroskip.graph.nodes import Graph, Input, Node, last_uses
from zeroskip.graph.undisturbed import undisturbed
from zeroskip.graph.weights import Place, Weight, weight_name, weights

__all__ = [
    "Given", "Graph", "Input", "Inputs", "Node", "Place", "Weight", "capture", "evaluating", "forward", "last_uses",
    "layers", "quiet", "record", "undisturbed", "weight_name", "weights",
]  # fmt: skip
