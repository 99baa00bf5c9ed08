"""Whether a network that was made from another still answers as that one does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroskip.errors import ModelError
from zeroskip.graph import Given, Inputs, forward
from zeroskip.graph.inputs import of
from zeroskip.graph.structure import tensors_in

# Rounding errors of float32 grow through the layers; a channel at the wrong place is orders of magnitude worse.
_TOLERANCE = 1e-3


def answers_differ(made: nn.Module, model: nn.Module, example: Given | Inputs) -> bool:
    """Whether the two differ by more than rounding, on random inputs of the example's shapes.

    ModelError where one of them cannot run, or `model` answers without a tensor.

    >>> answers_differ(model, model, x)
    False
    """
    generator = torch.Generator().manual_seed(0)
    inputs = of(example).map(
        lambda each: (
            torch.randn(each.shape, generator=generator).to(each) if each.is_floating_point() else each
        )
    )
    expected = tensors_in(forward(model, inputs))
    if not expected:
        raise ModelError("the network's answer holds no tensor: another one cannot be compared with it.")
    answers = tensors_in(forward(made, inputs))
    pairs = list(zip(answers, expected, strict=False))
    same = len(answers) == len(expected) and all(a.shape == b.shape for a, b in pairs)
    return not same or any(_differ(a, b) for a, b in pairs)


def _differ(answer: Tensor, expected: Tensor) -> bool:
    if not (expected.is_floating_point() or expected.is_complex()):
        return not torch.equal(answer, expected)
    known = expected.isfinite()
    gap, size = (answer - expected)[known].abs(), expected[known].abs()
    return bool(gap.numel() and not gap.max() <= _TOLERANCE * size.max() + 1e-6)
