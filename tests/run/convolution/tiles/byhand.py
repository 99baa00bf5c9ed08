"""Graphs written by hand: each node says what it is, as a captured one would, and computes itself in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import add as plus
from typing import Any

import guarded
import torch
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer, Machine
from zeroskip.graph import Graph, Input, Node
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.element import FP32, Element

Shape = tuple[int, ...]


def convolution(name: str, source: str, layer: Layer, *, relu: bool = False) -> Node:
    bias = None if layer.bias is None else layer.bias.double()

    def function(x: Tensor) -> Tensor:
        rest = layer.stride, layer.padding, layer.dilation, layer.groups
        y = functional.conv2d(x, layer.weight.double(), bias, *rest)
        return y.relu() if relu else y

    return Node(name, "aten.conv2d.default", (source,), function, layer=layer, relu=relu)


def plain(
    name: str, op: str, inputs: Sequence[str], function: Callable[..., Tensor], **arguments: Any
) -> Node:
    return Node(name, f"aten.{op}", tuple(inputs), function, arguments=arguments)


def relu(name: str, source: str) -> Node:
    return plain(name, "relu.default", [source], torch.relu)


def relu6(name: str, source: str) -> Node:
    return plain(name, "relu6.default", [source], functional.relu6)


def add(name: str, a: str, b: str) -> Node:
    return plain(name, "add.Tensor", [a, b], plus, alpha=1)


def concat(name: str, *parts: str) -> Node:
    return plain(name, "cat.default", parts, lambda *each: torch.cat(each, 1), dim=1)


def norm(name: str, source: str, scale: Tensor, shift: Tensor) -> Node:
    """A batch norm that multiplies by `scale` and adds `shift`."""
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    given = {
        "running_mean": zeros,
        "running_var": ones,
        "weight": scale,
        "bias": shift,
        "eps": 0.0,
        "training": False,
    }
    function = lambda x: x * scale.double()[:, None, None] + shift.double()[:, None, None]
    return plain(name, "batch_norm.default", [source], function, **given)


def max_pool(name: str, source: str, **given: Any) -> Node:
    given = {"stride": [], "padding": 0, "dilation": 1, "ceil_mode": False} | given
    stride = given["stride"] or None
    function = partial(functional.max_pool2d, **given | {"stride": stride})
    return plain(name, "max_pool2d.default", [source], function, **given)


def average_pool(name: str, source: str, **given: Any) -> Node:
    basic = {
        "stride": [],
        "padding": 0,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
    }
    given = basic | given
    function = partial(functional.avg_pool2d, **given | {"stride": given["stride"] or None})
    return plain(name, "avg_pool2d.default", [source], function, **given)


def mean(name: str, source: str, *, keepdim: bool = True) -> Node:
    function = lambda x: x.mean((2, 3), keepdim=keepdim)
    return plain(name, "mean.dim", [source], function, dim=[2, 3], keepdim=keepdim, dtype=None)


def layer_of(
    weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: Any = (0, 0),
    dilation: tuple[int, int] = (1, 1), groups: int = 1,
) -> Layer:  # fmt: skip
    return Layer("c", "conv2d", weight, bias, (), (), (stride, stride), padding, dilation, groups)


def whole_numbers(*shape: int, seed: int, most: int = 8) -> Tensor:
    """Small ones, whose products and sums are exact in float32 in any order."""
    return torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def evaluated(nodes: Sequence[Node], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All values, in float64."""
    values = {name: value.double() for name, value in given.items()}
    for node in nodes:
        values[node.name] = node.function(*[values[name] for name in node.inputs])
    return values


def graph_of(
    nodes: Sequence[Node], values: Mapping[str, Tensor], given: Sequence[str], outputs: Sequence[str]
) -> Graph:
    """The graph with `given[0]` for its input; the other given values are made by nodes that no tile can do."""
    shaped = [_with_shape(node, values) for node in nodes]
    others = [
        Node(name, "aten.sin.default", (given[0],), torch.sin, shape=tuple(values[name].shape[1:]))
        for name in given[1:]
    ]
    return Graph(
        (Input(given[0], tuple(values[given[0]].shape[1:])),), (*others, *shaped), tuple(outputs), list
    )


def _with_shape(node: Node, values: Mapping[str, Tensor]) -> Node:
    shape = tuple(values[node.name].shape[1:])
    return Node(node.name, node.op, node.inputs, node.function, node.layer, node.relu, node.arguments, shape)


def both(
    nodes: Sequence[Node], given: Mapping[str, Tensor], machine: Machine, *, leaving: Sequence[str] = (),
    method: str = "baked", behind: bool | None = True, element: Element = FP32,
) -> tuple[list[Operation], list[tuple[Tensor, Tensor]]]:  # fmt: skip
    """The operations, and for each value that leaves (else the last one): on tiles in guarded memory, and exact.

    The batch of `given` is worked on at once.
    """
    values = evaluated(nodes, given)
    names = list(leaving) or [nodes[-1].name]
    operations = operations_of(graph_of(nodes, values, list(given), names))
    read = {name for one in operations for name in one.inputs}
    outside = {name: tuple(x.shape[1:]) for name, x in given.items() if name in read}
    shapes = {name: tuple(values[name].shape[1:]) for name in names}
    images, methods = len(next(iter(given.values()))), {operation.name: method for operation in operations}
    part, guards = guarded.lowered(
        Subgraph(tuple(operations), outside, shapes),
        machine,
        behind=behind,
        images=images,
        methods=methods,
        element=element,
    )
    made = guarded.call(part, guards, [given[name] for name in part.inputs])
    return operations, [(ours, values[name]) for ours, name in zip(made, names, strict=True)]
