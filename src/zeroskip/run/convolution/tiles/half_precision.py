"""Whether a network on tiles can work in half precision: maps, weights and sums in fp16, twice as many in a vector.

fp16 has 11 significant bits and ends at 65504. Every sum is rounded each time something is added to it, so a network
works in it only where no number comes near the end on the example, and no sum has too many terms. Processors without
arithmetic in fp16 convert numbers there and back for each operation, which is right and slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.dense import pytorch
from zeroskip.run.element import FP16


def beyond(operations: Sequence[Operation], values: Mapping[str, Tensor]) -> str | None:
    """None, or which operation has numbers that fp16 cannot hold, given the network's values on the example.

    >>> relu = Operation("y", "scale", ("x",), (1, 1, 2), names=("y",), relu=True)
    >>> beyond([relu], dict.fromkeys("xy", torch.full((1, 1, 1, 2), 5.1e4)))
    'y reaches 5.1e+04 on the example; fp16 ends at 65504, and half of that is left to other inputs'
    """
    for operation in operations:
        magnitudes = [values[name].abs() for name in (operation.name, *operation.inputs)]
        largest, result = _largest(operation, *magnitudes)
        name = operation.name if operation.layer is None else operation.layer.name
        if (overflow := FP16.overflow(largest)) is not None:
            return f"{name} {overflow}"
        if 0 < result < FP16.least:
            return f"{name} reaches only {result:.3g} on the example, and fp16 counts in steps of 6e-08 there"
    return None


def _largest(operation: Operation, made: Tensor, *inputs: Tensor) -> tuple[float, float]:
    """The largest magnitude of any number in an operation, and of its sums, given values without their signs."""
    total, parts = inputs[0], [made, *inputs, torch.tensor(operation.bound or 0.0)]
    if operation.layer is not None:
        weight, bias = operation.layer.weight.detach().abs(), operation.layer.bias
        bias = None if bias is None else bias.detach().abs()
        parts.append(weight)
        total = pytorch.reference(replace(operation.layer, weight=weight, bias=bias), total, False)
    if operation.factors is not None:
        scale, shift = (factor.abs() for factor in operation.factors)
        parts += [scale, shift]
        total = total * scale[:, None, None] + shift[:, None, None]
    if operation.kind in ("conv", "add") and len(inputs) > 1:
        total = total + inputs[1]
    largest = torch.stack([part.max() for part in [*parts, total] if part.numel()]).max()
    return float(largest), float(total.max()) if total.numel() else 0.0
