"""Captured networks on tiles: the operations as one part, whose values are compared with those of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from interpreted import RUNS_AVX512
from run.drawn import HERE
from torch import Tensor, nn

from zeroskip.concepts import Machine
from zeroskip.graph import Graph, capture
from zeroskip.run.convolution.tiles.graph_operations import maps_of, operations_of
from zeroskip.run.convolution.tiles.lowering import lower
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.segment_code import SegmentCode
from zeroskip.run.convolution.tiles.tiling import left as others

FASTEST = "baked" if RUNS_AVX512 else "streamed"
METHODS = [
    "streamed",
    pytest.param(
        "baked", marks=pytest.mark.skipif(not RUNS_AVX512, reason="too many instructions to interpret")
    ),
]


def operations_in(model: nn.Module, x: Tensor) -> list[Operation]:
    return operations_of(capture(model, x))


def lowered(graph: Graph, *, images: int = 1, method: str = FASTEST, machine: Machine = HERE) -> SegmentCode:
    """All operations of the graph, with everything that leaves them."""
    return lower(whole(graph, operations_of(graph)), machine, images=images, methods=_methods(graph, method))


def whole(graph: Graph, operations: Sequence[Operation], leaving: Sequence[str] = ()) -> Subgraph:
    """The operations as one part, which what PyTorch computes does not cut: it hands its values in.

    `leaving`: the values that leave, if they are maps; else those that the graph returns, or PyTorch reads.
    """
    maps = maps_of(graph, operations)
    made, left = {one.name for one in operations}, others(graph, operations)
    read = {*graph.outputs, *leaving, *(name for node in left for name in node.inputs)}
    outside = dict.fromkeys(name for one in operations for name in one.inputs if name not in made)
    names = [name for name in leaving if name in maps] or [one.name for one in operations if one.name in read]
    forms = {name: maps[name][1] for name in (*outside, *names)}
    entering, given = ({name: maps[name][0] for name in several} for several in (outside, names))
    return Subgraph(tuple(operations), entering, given, forms)


def _methods(graph: Graph, method: str) -> dict[str, str]:
    return {operation.name: method for operation in operations_of(graph)}


def values_of(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    """Every value of the graph as PyTorch computes it."""
    values: dict[str, Any] = {graph.names[0]: x.clone()}
    with torch.no_grad():
        for node in graph.nodes:
            values[node.name] = node.function(*[values[name] for name in node.inputs])
    return values


def answers(model: nn.Module, x: Tensor, *, threads: int = 1, **options: Any) -> list[tuple[Tensor, Tensor]]:
    """For each value that leaves the tiles: ours, and PyTorch's."""
    graph = capture(model, x)
    if not operations_of(graph):
        return []
    part, values = lowered(graph, **options), values_of(graph, x)
    made = Segment(part, threads)(*[values[name] for name in part.inputs])
    return [(ours, values[name]) for ours, name in zip(made, part.outputs, strict=True)]
