"""A network whose weights are the bytes that its layers compute with, times scales: one program, and a small file."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from zeroskip.errors import EngineError
from zeroskip.graph import Given, Graph, Inputs, Weight, weights
from zeroskip.graph.structure import tensors_in
from zeroskip.run.integer_network import (
    ByteOperation,
    byte_operations,
    byte_weight_of,
    demand_fit,
    in_bytes,
    layers_in_bytes,
)
from zeroskip.run.network_checks import captured_graph, checked
from zeroskip.run.quantisation import Quantisation, checksum

LIKE = (
    2.0**-20
)  # how near to a multiple of the parameter a layer's weight lies that is one, rounded a few times
LEAST, MOST = 2.0**-126, 2.0**120  # scales whose products with bytes are normal numbers of float32


@dataclass(frozen=True)
class Rounded:
    """A network of rounded weights.

    model         a copy of the network
    quantisation  of the copy: the same scales, with its checksum
    scales        name of each rounded weight in the state -> (out,) float32: weight = scale * byte; for `pack.encode`

    >>> list(rounded(model, x, run.calibrate(model, [x])).scales)  # its layers have few rows, and stay in fp32
    []
    """

    model: nn.Module
    quantisation: Quantisation
    scales: Mapping[str, Tensor]


def rounded(model: nn.Module, example: Given | Inputs, quantisation: Quantisation) -> Rounded:
    """The network with the weights of all layers that compute in eight bits replaced by scale * byte.

    A program compiled from it with its quantisation has the same integers as one of the network: a product and its
    quotient by the scale are each off by at most 2^-24 of themselves, and of 127 that is far below one half. Where a
    batch norm is folded into the layer, the scale is that of the weight before. Left as they are: weights that PyTorch
    reads too or that are computed, transposed or cut, since bytes would be others there. Raises EngineError as
    `compile` does, and where other constants of the network are made of these weights.

    >>> torch.equal(rounded(model, x, run.calibrate(model, [x])).model(x), model(x))
    True
    """
    inputs = checked(model, example, 0)
    graph = captured_graph(model, inputs)
    demand_fit(graph, quantisation)
    layers, copied, scales = _in_bytes(graph, quantisation), deepcopy(model), dict[str, Tensor]()
    bare = _read_otherwise(graph, layers)
    own = weights(model)
    for name, weight in weights(copied).items():
        of_it = [each for each in layers if _layer_name(each) == name]
        if not of_it or weight.computed or _memory(own[name].parameter) in bare or name in bare:
            continue
        found = [_scaled_bytes(weight.parameter, each, quantisation) for each in of_it]
        first = found[0]
        if first is None or any(other is None or not torch.equal(other[1], first[1]) for other in found):
            continue
        scales[weight.stored] = first[0]
        _set_(weight, first[0], first[1])
    again = captured_graph(copied, inputs)
    made = replace(quantisation, network=checksum(again))
    _demand_same(graph, again, quantisation, made)
    return Rounded(copied, made, scales)


def _in_bytes(graph: Graph, quantisation: Quantisation) -> list[ByteOperation]:
    """The layers that compute in eight bits, as in `integer_network`."""
    operations = [each for each in byte_operations(graph) if each.maps]
    computing = in_bytes(operations, {*quantisation.values}, {*layers_in_bytes(quantisation)})
    return [each for each in computing if each.is_layer]


def _layer_name(each: ByteOperation) -> str:
    assert each.operation.layer is not None
    return each.operation.layer.name


def _read_otherwise(graph: Graph, layers: list[ByteOperation]) -> set[str | int]:
    """Names and addresses of what nodes read that are none of these layers."""
    within = {name for each in layers for name in each.operation.names}
    rest = [node for node in graph.nodes if node.name not in within]
    names: set[str | int] = {layer.name for node in rest for layer in node.layers}
    return names | {_memory(tensor) for node in rest for tensor in tensors_in(dict(node.arguments))}


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _scaled_bytes(
    parameter: Tensor, each: ByteOperation, quantisation: Quantisation
) -> tuple[Tensor, Tensor] | None:
    """Scales (out,) and bytes (out, ...) of the parameter for which the layer has its bytes; None where there are none.

    The layer's weight is the parameter times a factor for each output, 1 or that of a batch norm.
    """
    weight = byte_weight_of(each, quantisation.weights)
    layer = each.operation.layer
    assert layer is not None
    if parameter.dtype is not torch.float32 or len(parameter) != len(weight.numbers):
        return None
    rows, folded = parameter.detach().double().flatten(1), layer.weight.detach().double().flatten(1)
    if rows.shape != folded.shape or not rows.shape[1]:
        return None
    largest = rows.abs().argmax(1, keepdim=True)
    factors = torch.where(
        rows.gather(1, largest) != 0, folded.gather(1, largest) / rows.gather(1, largest), 0
    )
    if not torch.allclose(rows * factors, folded, rtol=LIKE, atol=2.0**-120):
        return None  # transposed, cut or rearranged
    factors = factors.flatten()
    scales = torch.where(factors != 0, weight.scales.double() / factors.abs(), 1.0).float()
    if not ((scales >= LEAST) & (scales <= MOST)).all():
        return None
    signed = weight.numbers.flatten(1) * factors.sign().float()[:, None]
    return scales, signed.reshape(parameter.shape) + 0.0


@torch.no_grad()
def _set_(weight: Weight, scales: Tensor, numbers: Tensor) -> None:
    weight.parameter.copy_(numbers * scales.reshape(-1, *[1] * (numbers.ndim - 1)))


def _demand_same(graph: Graph, again: Graph, before: Quantisation, after: Quantisation) -> None:
    """EngineError unless the layers have the same bytes and biases, and all else reads the same numbers."""
    layers = zip(_in_bytes(graph, before), _in_bytes(again, after), strict=True)
    changed = [one.name for one, other in layers if not _same_layer(one, other, before)]
    within = {name for each in _in_bytes(graph, before) for name in each.operation.names}
    for node, other in zip(graph.nodes, again.nodes, strict=True):
        read = (tensors_in(dict(each.arguments)) for each in (node, other))
        if node.name not in within and not all(_same(*pair) for pair in zip(*read, strict=True)):
            changed.append(node.name)
    if changed:
        raise EngineError(
            f"the weights cannot be rounded: {changed[0]} reads numbers that the network makes of them, and would "
            "compute something else. Store the weights as they are."
        )


def _same_layer(one: ByteOperation, other: ByteOperation, quantisation: Quantisation) -> bool:
    numbers = (byte_weight_of(each, quantisation.weights).numbers for each in (one, other))
    biases = [each.operation.layer.bias for each in (one, other) if each.operation.layer is not None]
    return torch.equal(*numbers) and (biases[0] is biases[1] or _same(*biases))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two constants are equal; NaN is NaN."""
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
