"""Fully connected networks of given widths."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Layers fc1, fc2, ... with ReLU between. (batch, inputs) or (batch, 1, h, w) -> (batch, classes).

    widths   neurons of each layer, the classes last
    dropout  share of each hidden layer that a training step leaves out

    >>> MLP(784, (256, 256, 256, 10))(torch.zeros(2, 784)).shape
    torch.Size([2, 10])
    """

    def __init__(self, inputs: int, widths: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.depth = len(widths)
        for index, (before, after) in enumerate(zip([inputs, *widths], widths, strict=False), 1):
            self.add_module(f"fc{index}", nn.Linear(before, after))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        x = x.flatten(1)  # (batch, inputs)
        for index in range(1, self.depth):
            x = self.dropout(F.relu(self.get_submodule(f"fc{index}")(x)))  # (batch, widths[index - 1])
        return self.get_submodule(f"fc{self.depth}")(x)
