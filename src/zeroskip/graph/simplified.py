"""A captured network in the words that say most: what it computes stays, in fewer and larger operations."""

from __future__ import annotations

from zeroskip.graph.attention_masks import with_causes, with_numbers, with_shared_heads
from zeroskip.graph.batch_first import batch_first, displaced
from zeroskip.graph.duplicates import without_duplicates
from zeroskip.graph.exporting import Exported
from zeroskip.graph.nodes import Graph
from zeroskip.graph.same_for_all import with_constants
from zeroskip.graph.written_attention import with_attention
from zeroskip.graph.written_functions import with_functions
from zeroskip.graph.written_norms import with_norms
from zeroskip.graph.written_products import with_products


def simplified(graph: Graph, exported: Exported) -> Graph:
    """The graph with examples first, constants in place of what is the same for all, and what is written out named.

    >>> from zeroskip.graph import capture
    >>> class Gate(nn.Module):
    ...     def forward(self, x):
    ...         return x * torch.sigmoid(x)
    >>> [node.op for node in capture(Gate(), x).nodes]
    ['aten.silu.default']
    """
    if graph.batch is None:
        wanted = {node.name for node in graph.nodes if node.shape is None}
        graph = batch_first(graph, displaced(exported, wanted))
        graph = with_constants(graph)
    graph = without_duplicates(with_norms(with_functions(graph)))
    return with_numbers(with_causes(with_shared_heads(with_attention(with_products(graph)))))
