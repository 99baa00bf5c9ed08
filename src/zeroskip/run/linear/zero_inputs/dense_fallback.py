"""Falling back to dense PyTorch where a batch turns out to have too few zeros among its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroskip.run.linear.compiled_linear import CompiledLinear


@dataclass(frozen=True)
class DenseFallback:
    """A layer that skips zero inputs, but for batches of `rows` and more with a larger `share` of non-zeros.

    For fewer examples reading the weights is what takes time, which PyTorch does no faster.
    """

    skipping: CompiledLinear
    dense: Callable[[Tensor], Tensor]
    rows: int
    share: float

    def __call__(self, x: Tensor) -> Tensor:
        many = x.numel() >= self.rows * self.skipping.inputs and x.dtype is torch.float32
        if many and x.shape[-1] == self.skipping.inputs and torch.count_nonzero(x) > self.share * x.numel():
            return self.dense(x)
        return self.skipping(x)
