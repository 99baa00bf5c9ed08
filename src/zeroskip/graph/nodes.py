"""A network as a list of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.graph.torch_operations import Argument


@dataclass(frozen=True)
class Node:
    """One operation on the values named in `inputs`: the graph's input or earlier nodes.

    op         torch's name, e.g. "aten.max_pool2d.default"; a name like "aten.add_.Tensor" overwrites its first input
    function   computes the node in plain PyTorch
    layer      the weighted operation, where it is a linear or conv2d with constant weights
    relu       the layer's output goes through a ReLU, which is part of this node
    arguments  of the operation besides `inputs`, by the names in torch's schema ("1" for the second of a plain
               function like getitem), defaults filled in. A list with values of `inputs` among others has None for
               them. A layer's weight and bias are here as they are there
    shape      of one example's value, without the batch axis; None where the first axis is not the batch alone

    >>> Node("y", "aten.relu.default", ("x",), torch.relu, shape=(4,)).function(torch.tensor([-1.0, 1.0]))
    tensor([0., 1.])
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    function: Callable[..., Any]
    layer: Layer | None = None
    relu: bool = False
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Graph:
    """The operations of a network in an order in which they can run.

    input    name of the value that the network is called with
    outputs  names of the values that are returned
    rebuild  list of those values -> what the network itself returns (a tensor, a tuple, a dict, ...)
    batch    None: any batch size; a number: the network could only be captured for that one
    shape    of one example of the input, without the batch axis

    >>> relu = Node("y", "aten.relu.default", ("x",), torch.relu)
    >>> Graph("x", (relu,), ("y",), rebuild=tuple, batch=None).rebuild([torch.zeros(1)])
    (tensor([0.]),)
    """

    input: str
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    rebuild: Callable[[Sequence[Tensor]], Any]
    batch: int | None
    shape: tuple[int, ...] = ()


def last_uses(graph: Graph) -> list[tuple[str, ...]]:
    """For each node, the values that nothing needs any more once it has run.

    >>> last_uses(graph)
    [('input',), ('linear',)]
    """
    needed = set(graph.outputs)
    ends: list[tuple[str, ...]] = []
    for node in reversed(graph.nodes):
        # A node without readers (the network drops its result) ends itself.
        ending = {*node.inputs, node.name} - needed
        ends.append(tuple(sorted(ending)))
        needed |= ending
    return ends[::-1]
