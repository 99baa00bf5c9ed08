"""Whether a network on tiles can work in half precision: maps, weights and sums in fp16, twice as many in a vector.

fp16 has 11 significant bits and ends at 65504. Every sum is rounded each time something is added to it, so a network
works in it only where no number comes near the end on the example, and no sum has too many terms. Processors without
arithmetic in fp16 convert numbers there and back for each operation, which is right and slow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.dense import pytorch
from zeroskip.run.element import FP16


def beyond(operations: Sequence[Operation], values: Mapping[str, Tensor]) -> str | None:
    """None, or which operation has numbers that fp16 cannot hold, given the network's values on the example.

    >>> from zeroskip.run.convolution.tiles.activation import RELU
    >>> relu = Operation("y", "scale", ("x",), (1, 1, 2), names=("y",), activation=RELU)
    >>> beyond([relu], dict.fromkeys("xy", torch.full((1, 1, 1, 2), 5.1e4)))
    'y reaches 5.1e+04 on the example; fp16 ends at 65504, and half of that is left to other inputs'
    """
    for operation in operations:
        names = (operation.name, *operation.inputs)
        if not all(name in values for name in names):
            continue  # a transposed convolution before its pixels are interleaved: the same numbers come next
        largest, result = _largest(operation, *(values[name].abs() for name in names))
        name = operation.name if operation.layer is None else operation.layer.name
        if (overflow := FP16.overflow(largest)) is not None:
            return f"{name} {overflow}"
        if 0 < result < FP16.least:
            return f"{name} reaches only {result:.3g} on the example, and fp16 counts in steps of 6e-08 there"
    return None


def holds_constants(operations: Sequence[Operation]) -> bool:
    """Whether fp16 holds the weights and factors of all operations, be their inputs what they may.

    >>> holds_constants([Operation("y", "scale", ("x",), (1, 1, 2), ("y",), factors=(torch.ones(1), torch.ones(1)))])
    True
    """
    return all(FP16.overflow(_largest_constant(operation)) is None for operation in operations)


def _largest_constant(operation: Operation) -> float:
    layer = operation.layer
    tensors = [*(operation.factors or ()), *([] if layer is None else [layer.weight, layer.bias])]
    sizes = [float(each.detach().abs().max()) for each in tensors if each is not None and each.numel()]
    return max([_end(operation), abs(operation.fill), *sizes])


def _largest(operation: Operation, made: Tensor, *inputs: Tensor) -> tuple[float, float]:
    """The largest magnitude of any number in an operation, and of its sums, given values without their signs."""
    total, parts = inputs[0], [made, *inputs, torch.tensor(_largest_constant(operation))]
    if operation.layer is not None:
        weight, bias = operation.layer.weight.detach().abs(), operation.layer.bias
        bias = None if bias is None else bias.detach().abs()
        total = pytorch.reference(replace(operation.layer, weight=weight, bias=bias), total, False)
    if operation.kind == "scale" and operation.factors is not None:
        scale, shift = (factor.abs() for factor in operation.factors)
        total = total * scale[:, None, None] + shift[:, None, None]
    if operation.kind in ("conv", "add") and len(inputs) > 1:
        total = total + inputs[1]
    largest = torch.stack([part.max() for part in [*parts, total] if part.numel()]).max()
    return float(largest), float(total.max()) if total.numel() else 0.0


def _end(operation: Operation) -> float:
    """The largest number that the activation compares with."""
    numbers = () if operation.activation is None else operation.activation.numbers
    return max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
