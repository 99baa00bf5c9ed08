"""A network as one function, with what it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.concepts import Machine
from zeroskip.graph import Graph
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.origin import Origin
from zeroskip.run.schedule import Runner


@dataclass(frozen=True)
class CompiledNetwork:
    """What a program runs.

    scratch_bytes  working memory of one call, for layers on tiles
    through        what PyTorch computes between the layers, e.g. ("flatten", "softmax")
    """

    run: Runner
    origin: Origin
    machine: Machine
    scratch_bytes: int
    through: tuple[str, ...]


def scratch_bytes(graph: Graph, threads: int) -> int:
    """Working memory that one call of a network on tiles needs.

    >>> scratch_bytes(graph, 1)  # nothing works on tiles
    0
    """
    segments = [node.function for node in graph.nodes if isinstance(node.function, Segment)]
    return threads * sum(segment.lowered.bytes for segment in segments)


def through(graph: Graph) -> tuple[str, ...]:
    """The operations that are neither layers nor on tiles, by torch's names.

    >>> through(graph)
    ()
    """
    others = [
        node.op for node in graph.nodes if node.layer is None and not isinstance(node.function, Segment)
    ]
    names = [op.removeprefix("aten.").split(".")[0] for op in others]
    return tuple(dict.fromkeys(name for name in names if name != "getitem"))
