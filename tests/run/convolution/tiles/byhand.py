"""Graphs written by hand: each node says what it is, as a captured one would, and computes itself in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import add as plus
from typing import Any

import guarded
import torch
from captured import whole
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer, Machine
from zeroskip.graph import Graph, Input, Node
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.dense.pytorch import reference
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


def of_two(name: str, op: str, a: str, b: str) -> Node:
    """The sum, product ("mul"), difference ("sub"), "maximum" or "minimum" of two values."""
    overload = "default" if op in ("maximum", "minimum") else "Tensor"
    return plain(
        name, f"{op}.{overload}", [a, b], getattr(torch, op), **({"alpha": 1} if op == "sub" else {})
    )


def sliced(name: str, source: str, dim: int, places: slice) -> Node:
    index = (slice(None),) * dim + (places,)
    given = {"start": places.start, "end": places.stop, "step": places.step or 1}
    return plain(name, "slice.Tensor", [source], lambda x: x[index], dim=dim, **given)


def padded(
    name: str, source: str, amounts: Sequence[int], mode: str = "constant", value: float = 0.0
) -> Node:
    given = {"pad": list(amounts), "mode": mode, "value": value if mode == "constant" else None}
    return plain(name, "pad.default", [source], partial(functional.pad, **given), **given)


def rolled(name: str, source: str, shifts: Sequence[int], dims: Sequence[int]) -> Node:
    given = {"shifts": list(shifts), "dims": list(dims)}
    return plain(name, "roll.default", [source], partial(torch.roll, **given), **given)


def upsampled(name: str, source: str, factors: tuple[int, int], mode: str = "nearest") -> Node:
    given: dict[str, Any] = {"output_size": None, "scale_factors": [float(each) for each in factors]}
    given |= {"align_corners": False} if mode == "bilinear" else {}
    function = partial(functional.interpolate, scale_factor=tuple(given["scale_factors"]), mode=mode)
    return plain(name, f"upsample_{mode}2d.vec", [source], function, **given)


def shuffled(name: str, source: str, op: str, number: int) -> Node:
    """A "channel_shuffle" of so many groups, or a "pixel_shuffle" or "pixel_unshuffle" by that factor."""
    word = {
        "channel_shuffle": "groups",
        "pixel_shuffle": "upscale_factor",
        "pixel_unshuffle": "downscale_factor",
    }
    return plain(
        name, f"{op}.default", [source], lambda x: getattr(functional, op)(x, number), **{word[op]: number}
    )


def transposed(name: str, source: str, layer: Layer, *, relu: bool = False) -> Node:
    def function(x: Tensor) -> Tensor:
        y = reference(replace(layer, weight=layer.weight.double()), x, relu)
        return y

    return Node(name, "aten.conv_transpose2d.input", (source,), function, layer=layer, relu=relu)


def prelu(name: str, source: str, slopes: Tensor) -> Node:
    function = lambda x: functional.prelu(x, slopes.double())
    return plain(name, "prelu.default", [source], function, weight=slopes)


def active(name: str, source: str, op: str, **given: Any) -> Node:
    """An activation by torch's name."""
    overload = "Tensor_Scalar" if op == "pow" else "default"
    return plain(name, f"{op}.{overload}", [source], partial(getattr(torch.ops.aten, op), **given), **given)


def permuted(name: str, source: str, *dims: int) -> Node:
    return plain(name, "permute.default", [source], lambda x: x.permute(dims), dims=list(dims))


def layer_of(
    weight: Tensor, bias: Tensor | None = None, *, stride: int | tuple[int, int] = 1, padding: Any = (0, 0),
    dilation: tuple[int, int] = (1, 1), groups: int = 1,
) -> Layer:  # fmt: skip
    steps = (stride, stride) if isinstance(stride, int) else stride
    return Layer("c", "conv2d", weight, bias, (), (), steps, padding, dilation, groups)


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
    graph = graph_of(nodes, values, list(given), names)
    operations = operations_of(graph)
    images, methods = len(next(iter(given.values()))), {operation.name: method for operation in operations}
    part, guards = guarded.lowered(
        whole(graph, operations, names),
        machine,
        behind=behind,
        images=images,
        methods=methods,
        element=element,
    )
    tensors = [part.tensor(name, values[name].float()) for name in part.inputs]
    made = guarded.call(part, guards, tensors)
    pairs = zip(part.outputs, made, strict=True)
    return operations, [(part.returned(name, each), values[name]) for name, each in pairs]
