"""From a graph to one function that runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zeroskip.graph import Graph, Node, last_uses
from zeroskip.run.linear.compiled_linear import CompiledLinear, sequence

Runner = Callable[..., Sequence[Tensor]]
"""The tensors that go into a network -> those that come out, in the order of `Graph.outputs`."""


def runner(graph: Graph, functions: Mapping[str, Callable[..., Tensor]]) -> Runner:
    """The graph as a function, with `functions` (by node name) in place of PyTorch's.

    Layers in machine code that follow each other become one call. Takes any batch size; a graph that is bound
    to one is called with the examples cut and filled up (the last one repeated) to that size.

    >>> torch.equal(runner(graph, {})(x)[0], model(x))
    True
    """
    graph = joined(graph, functions)
    run = _straight(graph) if _is_straight(graph) else _network(graph)
    if graph.batch is None:
        return run
    return _in_pieces(run, graph.batch, [each.has_batch for each in graph.inputs])


def joined(graph: Graph, functions: Mapping[str, Callable[..., Tensor]]) -> Graph:
    """The graph with `functions` in place of PyTorch's, layers that become one call as one node.

    >>> [node.name for node in joined(graph, {}).nodes]
    ['linear', 'linear_1']
    """
    nodes = [replace(node, function=functions.get(node.name, node.function)) for node in graph.nodes]
    return replace(graph, nodes=tuple(_joined(nodes, graph.outputs)))


def _joined(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes, with each run of compiled layers that only feed each other as a single node."""
    uses = Counter([*outputs, *(name for node in nodes for name in node.inputs)])
    compiled = {node.name for node in nodes if isinstance(node.function, CompiledLinear)}
    groups: list[list[Node]] = []
    for node in nodes:
        before = groups[-1][-1] if groups else None
        follows = before is not None and node.inputs == (before.name,) and uses[before.name] == 1
        if follows and compiled.issuperset({node.name, *node.inputs}):
            groups[-1].append(node)
        else:
            groups.append([node])
    return [_sequence(group) if len(group) > 1 else group[0] for group in groups]


def _sequence(group: Sequence[Node]) -> Node:
    function = sequence([node.function for node in group if isinstance(node.function, CompiledLinear)])
    return Node(group[-1].name, "sequence", group[0].inputs, function)


def _is_straight(graph: Graph) -> bool:
    """Whether every node reads just the one before it, and the last one is the result."""
    names = [*graph.names, *(node.name for node in graph.nodes)]
    straight = all(node.inputs == (before,) for node, before in zip(graph.nodes, names, strict=False))
    return straight and len(graph.inputs) == 1 and graph.outputs == (names[-1],)


def _straight(graph: Graph) -> Runner:
    functions = [node.function for node in graph.nodes]

    def run(x: Tensor) -> Sequence[Tensor]:
        for function in functions:
            x = function(x)
        return (x,)

    return run


def _network(graph: Graph) -> Runner:
    steps = [
        (node.function, node.inputs, node.name, ended)
        for node, ended in zip(graph.nodes, last_uses(graph), strict=True)
    ]

    names = graph.names

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        values: dict[str, Any] = dict(zip(names, tensors, strict=True))
        for function, inputs, name, ended in steps:
            values[name] = function(*[values[each] for each in inputs])
            for each in ended:
                del values[each]
        return [values[name] for name in graph.outputs]

    return run


def _in_pieces(run: Runner, batch: int, batched: Sequence[bool]) -> Runner:
    def run_all(*tensors: Tensor) -> Sequence[Tensor]:
        count = next(len(each) for each, has in zip(tensors, batched, strict=True) if has)
        missing = batch if not count else -count % batch
        filled = [
            torch.cat([each, _filling(each, missing)]) if has and missing else each
            for each, has in zip(tensors, batched, strict=True)
        ]
        starts = range(0, count + missing, batch)
        pieces = [
            [each[start : start + batch] if has else each for each, has in zip(filled, batched, strict=True)]
            for start in starts
        ]
        results = zip(*[run(*piece) for piece in pieces], strict=True)
        return [torch.cat(parts)[:count] for parts in results]

    return run_all


def _filling(examples: Tensor, count: int) -> Tensor:
    """So many examples more: the last one again, which any network takes; zeros where there is none."""
    return (
        examples[-1:].expand(count, *examples.shape[1:])
        if len(examples)
        else examples.new_zeros(count, *examples.shape[1:])
    )
