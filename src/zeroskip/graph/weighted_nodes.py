"""Operations of torch with constant weights -> Layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from zeroskip.concepts import Layer
from zeroskip.graph.torch_operations import Argument, Constants, bind, known_arguments
from zeroskip.graph.weights import weight_name

ATEN = torch.ops.aten
CONVOLUTIONS = {
    overload: name
    for name in ("conv1d", "conv2d", "conv3d")
    for overload in (getattr(ATEN, name).default, getattr(ATEN, name).padding)
} | {
    ATEN.conv_transpose1d.default: "conv_transpose1d",
    ATEN.conv_transpose2d.input: "conv_transpose2d",
    ATEN.conv_transpose3d.input: "conv_transpose3d",
}
PRODUCTS = (ATEN.mm.default, ATEN.matmul.default)


@dataclass(frozen=True)
class Weighted:
    """An operation with a constant weight.

    inputs  the changing values that it reads
    weight  the node of its weight, which names the layer
    """

    op: str
    inputs: tuple[fx.Node, ...]
    weight: fx.Node
    arguments: Mapping[str, Argument]

    def layer(self, name: str, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Layer:
        """It as a Layer of that name, with the shapes of one example."""
        weight, bias = cast(Tensor, self.arguments["weight"]), cast("Tensor | None", self.arguments["bias"])
        if "stride" not in self.arguments:
            return Layer(name, self.op, weight, bias, input_shape, output_shape)
        axes, padding = weight.ndim - 2, self.arguments["padding"]
        return Layer(
            name,
            self.op,
            weight,
            bias,
            input_shape,
            output_shape,
            stride=_sizes(self.arguments["stride"], axes),
            padding=padding if isinstance(padding, str) else _sizes(padding, axes),
            dilation=_sizes(self.arguments["dilation"], axes),
            groups=cast(int, self.arguments["groups"]),
            output_padding=_sizes(self.arguments.get("output_padding", [0]), axes),
        )


def weighted(node: fx.Node, constants: Constants) -> Weighted | None:
    """The node as an operation of changing inputs with a constant weight; None where it is something else."""
    if node.kwargs:
        return None
    args: tuple[Any, ...] = node.args
    if node.target is ATEN.linear.default:
        return _plain("linear", node, args[:1], args[1:3], constants)
    if node.target in CONVOLUTIONS:
        return _plain(CONVOLUTIONS[node.target], node, args[:1], args[1:3], constants)
    if node.target is ATEN.bilinear.default:
        return _plain("bilinear", node, args[:2], args[2:4], constants)
    if node.target in PRODUCTS:
        return _product(args[0], args[1], None, constants)
    if node.target is ATEN.addmm.default:
        bias = args[0]
        out = args[2].meta["val"].shape[-1]
        return _product(args[1], args[2], bias, constants) if bias.meta["val"].shape == (out,) else None
    return None


def names_of(model: nn.Module) -> dict[str, str]:
    """Parameter or buffer -> the name of the weight that it is; of tied ones the first.

    >>> names_of(model)["fc1.weight"]
    'fc1'
    """
    first: dict[int, str] = {}
    both = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    named = [pair for tensors in both for pair in tensors]
    for name, tensor in named:
        first.setdefault(id(tensor), name)
    return {name: weight_name(first[id(tensor)]) for name, tensor in named}


def layer_name(weight: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """The name of the weight, or of the parameter that it is computed from."""
    while weight not in names and weight.all_input_nodes:
        weight = weight.all_input_nodes[0]
    return names.get(weight, weight.name)


def _plain(
    op: str, node: fx.Node, inputs: Sequence[fx.Node], weights: Sequence[fx.Node | None], constants: Constants
) -> Weighted | None:
    fixed = all(weight is None or weight in constants for weight in weights)
    if not fixed or any(x in constants for x in inputs) or weights[0] is None:
        return None
    function, changing = bind(node, constants)
    return Weighted(op, tuple(changing), weights[0], known_arguments(function))


def _product(x: fx.Node, weight: fx.Node, bias: fx.Node | None, constants: Constants) -> Weighted | None:
    """x @ weight + bias, whose weight is stored as (in, out), as a linear layer."""
    fixed = weight in constants and (bias is None or bias in constants)
    matrix = constants.get(weight)
    if not fixed or x in constants or not isinstance(matrix, Tensor) or matrix.ndim != 2:
        return None
    if x.meta["val"].ndim < 2 or not matrix.is_floating_point():
        return None
    arguments: dict[str, Argument] = {"weight": matrix.t(), "bias": None if bias is None else constants[bias]}
    return Weighted("linear", (x,), weight, arguments)


def _sizes(argument: Argument, axes: int) -> tuple[int, ...]:
    # torch writes a size that is the same in all directions once.
    sizes = tuple(cast("Sequence[int]", argument))
    return sizes * axes if len(sizes) == 1 else sizes
