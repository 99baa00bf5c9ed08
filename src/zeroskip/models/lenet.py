"""LeNet-300-100 and LeNet-5 as in Han et al. 2015 (the Caffe forms of LeCun et al. 1998)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet300100(nn.Module):
    """Two hidden layers of 300 and 100 ReLUs. (batch, inputs) or (batch, 1, h, w) -> (batch, classes).

    With 784 inputs it has 266,200 weights (Han et al. 2015, table 2). `dropout` is the share of each hidden
    layer that a training step leaves out.

    >>> LeNet300100()(torch.zeros(2, 784)).shape
    torch.Size([2, 10])
    """

    def __init__(self, inputs: int = 784, classes: int = 10, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        x = x.flatten(1)  # (batch, inputs)
        x = self.drop1(F.relu(self.fc1(x)))  # (batch, 300)
        x = self.drop2(F.relu(self.fc2(x)))  # (batch, 100)
        return self.fc3(x)


@dataclass(frozen=True)
class LeNet5Sizes:
    """Of LeNet-5, by default for MNIST; `channels` are those of conv1, conv2 and fc1.

    >>> LeNet5Sizes(side=8, kernel=3, padding=1).final_side
    2
    """

    side: int = 28
    kernel: int = 5
    padding: int = 0
    channels: tuple[int, int, int] = (20, 50, 500)
    classes: int = 10

    @property
    def final_side(self) -> int:
        """Side of the map that reaches fc1: 4 for MNIST."""
        shrink = self.kernel - 1 - 2 * self.padding
        return ((self.side - shrink) // 2 - shrink) // 2


class LeNet5(nn.Module):
    """Two convolutions with pooling, two linear layers. (batch, 1, side, side) -> (batch, classes).

    With side 28 it has 430,500 weights (Han et al. 2015, table 3). ReLU follows the convolutions too, as the
    published activation densities need; Caffe's example, which `rectified=False` makes, has it after fc1 only.
    `dropout` is the share of fc1's outputs that a training step leaves out.

    >>> LeNet5()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, sizes: LeNet5Sizes = LeNet5Sizes(), *, dropout: float = 0.0, rectified: bool = True
    ) -> None:
        super().__init__()
        self.rectified = rectified
        first, second, hidden = sizes.channels
        self.conv1 = nn.Conv2d(1, first, sizes.kernel, padding=sizes.padding)
        self.conv2 = nn.Conv2d(first, second, sizes.kernel, padding=sizes.padding)
        self.fc1 = nn.Linear(second * sizes.final_side**2, hidden)
        self.fc2 = nn.Linear(hidden, sizes.classes)
        self.drop1 = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        x = F.max_pool2d(self._rectify(self.conv1(x)), 2)  # (batch, 20, 12, 12) for MNIST
        x = F.max_pool2d(self._rectify(self.conv2(x)), 2)  # (batch, 50, 4, 4)
        x = self.drop1(F.relu(self.fc1(x.flatten(1))))  # (batch, 500)
        return self.fc2(x)

    def _rectify(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.rectified else x


def caffe_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of Caffe's LeNet under the names that `LeNet5` has: its ip1 and ip2 are fc1 and fc2.

    >>> list(caffe_names({"conv1.bias": torch.zeros(20), "ip2.bias": torch.zeros(10)}))
    ['conv1.bias', 'fc2.bias']
    """
    return {f"fc{name[2:]}" if name.startswith("ip") else name: tensor for name, tensor in tensors.items()}
