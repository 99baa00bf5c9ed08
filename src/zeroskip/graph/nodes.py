"""A network as a list of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.graph.recurrent import Recurrent
from zeroskip.graph.signature import Signature
from zeroskip.graph.torch_operations import Argument


@dataclass(frozen=True)
class Input:
    """A tensor that a network is called with.

    name       of the value
    shape      of one example, without the batch axis; the whole shape where it has none
    has_batch  whether its first axis is that of the examples; otherwise it is the same for all of them

    >>> Input("mask", (7,), torch.bool).has_batch
    True
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    has_batch: bool = True


@dataclass(frozen=True)
class Node:
    """One operation on the values named in `inputs`: the graph's input or earlier nodes.

    op         torch's name, e.g. "aten.max_pool2d.default"; a name like "aten.add_.Tensor" overwrites its first input
    function   computes the node in plain PyTorch
    layer      the weighted operation, where it is one with constant weights
    recurrent  the LSTM, GRU or RNN, where it is one with constant weights
    relu       the layer's output goes through a ReLU, which is part of this node
    arguments  of the operation besides `inputs`, by the names in torch's schema ("1" for the second of a plain
               function like getitem), defaults filled in. A list with values of `inputs` among others has None for
               them. A layer's weight and bias are here as they are there
    shape      of one example's value, without the batch axis; None where the first axis is not the batch alone
    dtype      of the value, where it is a tensor and known

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
    dtype: torch.dtype | None = None
    recurrent: Recurrent | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layer, or the matrices of a recurrent operation."""
        if self.recurrent is not None:
            return self.recurrent.matrices
        return () if self.layer is None else (self.layer,)


@dataclass(frozen=True)
class Graph:
    """The operations of a network in an order in which they can run.

    inputs     the tensors that the network is called with, in the order of `signature`
    outputs    names of the values that are returned
    rebuild    list of those values -> what the network itself returns (a tensor, a tuple, a dict, ...)
    batch      None: any batch size; a number: the network could only be captured for that one
    signature  how the network is called; None of a graph that was made by hand
    used       the weights and buffers that its operations read, also those that are computed with once

    >>> relu = Node("y", "aten.relu.default", ("x",), torch.relu)
    >>> Graph((Input("x", (1,)),), (relu,), ("y",), rebuild=tuple).rebuild([torch.zeros(1)])
    (tensor([0.]),)
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    rebuild: Callable[[Sequence[Tensor]], Any]
    batch: int | None = None
    signature: Signature | None = None
    used: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(each.name for each in self.inputs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...] | None]:
        """Value -> its shape of one example; None where it has none, or its numbers are not float32."""
        shapes = {each.name: each.shape if each.has_batch else None for each in self.inputs}
        shapes |= {node.name: node.shape for node in self.nodes}
        kinds = {each.name: each.dtype for each in self.inputs} | {
            node.name: node.dtype for node in self.nodes
        }
        return {
            name: shape if kinds[name] in (None, torch.float32) else None for name, shape in shapes.items()
        }


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


def kind_of(node: Node) -> str:
    """The operation's plain name: "relu" of "aten.relu_.default".

    >>> kind_of(Node("y", "aten.__and__.Tensor", ("x",), torch.bitwise_and))
    '__and__'
    """
    name = node.op.removeprefix("aten.").split(".")[0]
    return name if name.startswith("__") else name.rstrip("_")
