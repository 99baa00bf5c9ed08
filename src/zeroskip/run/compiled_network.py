"""A network as one function, and what it was made from: with that it can be made again without timing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zeroskip.concepts import Kernel, Machine, Precision
from zeroskip.graph import Graph
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.schedule import Runner


@dataclass(frozen=True)
class Origin:
    """A network and how each of its layers is computed.

    dtype    of the network's input
    kernels  node of a layer -> its kernel, unless the layer works on tiles
    tiles    operation on tiles that has weights -> its kernel; empty: nothing works on tiles. All of them have the
             same `element`, which is that of the maps
    images   that are worked on at a time there
    """

    graph: Graph
    dtype: torch.dtype
    precision: Precision
    kernels: dict[str, Kernel]
    tiles: dict[str, Kernel]
    images: int = 1


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
    """Working memory that one call of a network on tiles needs."""
    segments = [node.function for node in graph.nodes if isinstance(node.function, Segment)]
    return threads * sum(segment.lowered.bytes for segment in segments)


def through(graph: Graph) -> tuple[str, ...]:
    """The operations that are neither layers nor on tiles, by torch's names."""
    others = [
        node.op for node in graph.nodes if node.layer is None and not isinstance(node.function, Segment)
    ]
    names = [op.removeprefix("aten.").split(".")[0] for op in others]
    return tuple(dict.fromkeys(name for name in names if name != "getitem"))
