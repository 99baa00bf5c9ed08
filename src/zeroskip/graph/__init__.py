"""A network as data: its weighted layers, their inputs and outputs, and its operations in order."""

from zeroskip.graph.capture import capture, quiet
from zeroskip.graph.layers import evaluating, forward, layers, record
from zeroskip.graph.nodes import Graph, Node, last_uses

__all__ = ["Graph", "Node", "capture", "evaluating", "forward", "last_uses", "layers", "quiet", "record"]
