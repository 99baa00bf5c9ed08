"""A network as data: its weighted layers, what they saw, and its operations in order."""

from zeroskip.graph.capture import Graph, Node, capture, last_uses, quiet
from zeroskip.graph.layers import evaluating, forward, layers, record

__all__ = ["Graph", "Node", "capture", "evaluating", "forward", "last_uses", "layers", "quiet", "record"]
