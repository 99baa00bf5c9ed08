"""Networks on tiles in half precision: maps, weights and sums in fp16, twice as many numbers in a vector.

fp16 has 11 significant bits and ends at 65504. Every sum is rounded each time something is added to it, so a network
works in it only where no number comes near the end on the example, and no sum has too many terms. Processors without
arithmetic in fp16 convert numbers there and back for each operation, which is right and slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.dense import pytorch

SUFFIX = "_fp16"  # ends the names of kernels that compute in it
LARGEST = 65504.0
TRUSTED = LARGEST / 2  # as large as numbers may be on the example: other inputs may make them twice as large
LEAST = 2**-12  # as small as an operation's largest number may be: the smallest lie 2^-24 apart


def is_half(kernels: Iterable[str]) -> bool:
    """Whether kernels with these names compute in fp16.

    >>> is_half(["baked_fp16", "depthwise_fp16"])
    True
    """
    return any(name.endswith(SUFFIX) for name in kernels)


def beyond(chain: Sequence[Operation], values: Mapping[str, Tensor]) -> str | None:
    """None, or which operation has numbers that fp16 cannot hold, given the network's values on the example.

    >>> beyond(operations(graph), values)
    'conv3 reaches 5.1e+04 on the example; fp16 ends at 65504, and half of that is left to other inputs'
    """
    for one in chain:
        largest, result = _largest(one, *[values[each].abs() for each in (one.name, *one.inputs)])
        name = one.name if one.layer is None else one.layer.name
        if not largest <= TRUSTED:  # NaN is not
            end = f"fp16 ends at {LARGEST:.0f}, and half of that is left to other inputs"
            return f"{name} reaches {largest:.3g} on the example; {end}"
        if 0 < result < LEAST:
            return f"{name} reaches only {result:.3g} on the example, and fp16 counts in steps of 6e-08 there"
    return None


def _largest(one: Operation, made: Tensor, *inputs: Tensor) -> tuple[float, float]:
    """The largest magnitude of any number in an operation, and of its sums, given values without their signs."""
    total, parts = inputs[0], [made, *inputs, torch.tensor(one.most or 0.0)]
    if one.layer is not None:
        weight, bias = one.layer.weight.detach().abs(), one.layer.bias
        bias = None if bias is None else bias.detach().abs()
        parts.append(weight)
        total = pytorch.reference(replace(one.layer, weight=weight, bias=bias), total, False)
    if one.factors is not None:
        scale, shift = (factor.abs() for factor in one.factors)
        parts += [scale, shift]
        total = total * scale[:, None, None] + shift[:, None, None]
    if one.kind in ("conv", "add") and len(inputs) > 1:
        total = total + inputs[1]
    largest = torch.stack([part.max() for part in [*parts, total] if part.numel()]).max()
    return float(largest), float(total.max()) if total.numel() else 0.0
