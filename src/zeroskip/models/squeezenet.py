"""SqueezeNet v1.0 (Iandola et al. 2016) as its authors' Caffe file has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fire(nn.Module):
    """A 1x1 convolution that squeezes, then a 1x1 and a 3x3 side by side that expand.

    (batch, channels, h, w) -> (batch, 2 * expand, h, w), the 1x1 half first.
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.conv1x1_1 = nn.Conv2d(channels, squeeze, 1)
        self.conv1x1_2 = nn.Conv2d(squeeze, expand, 1)
        self.conv3x3_2 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Both halves of the channels, after the ReLU."""
        x = F.relu(self.conv1x1_1(x))
        return torch.cat([F.relu(self.conv1x1_2(x)), F.relu(self.conv3x3_2(x))], dim=1)


class SqueezeNet10(nn.Module):
    """Eight Fire modules between two convolutions, no linear layer. (batch, 3, 227, 227) -> (batch, classes).

    With 1,000 classes it has 1,244,448 weights. Unlike torchvision's: no padding in conv1, one pixel of it
    around conv_final. Layers are named as in the Caffe file with "." for "/": "fire2.conv1x1_1".

    >>> SqueezeNet10()(torch.zeros(1, 3, 227, 227)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        self.fire2, self.fire3, self.fire4 = Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128)
        self.fire5, self.fire6 = Fire(256, 32, 128), Fire(256, 48, 192)
        self.fire7, self.fire8 = Fire(384, 48, 192), Fire(384, 64, 256)
        self.fire9 = Fire(512, 64, 256)
        self.drop9 = nn.Dropout(0.5)
        self.conv_final = nn.Conv2d(512, classes, 1, padding=1)
        self.apply(_start_)
        nn.init.normal_(self.conv_final.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax; never negative, for a ReLU comes last."""
        x = _pooled(F.relu(self.conv1(x)))  # (batch, 96, 55, 55)
        x = _pooled(self.fire4(self.fire3(self.fire2(x))))  # (batch, 256, 27, 27)
        x = _pooled(self.fire8(self.fire7(self.fire6(self.fire5(x)))))  # (batch, 512, 13, 13)
        x = F.relu(self.conv_final(self.drop9(self.fire9(x))))  # (batch, classes, 15, 15)
        return x.mean((2, 3))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As any module's, and Caffe's names ("fire2/conv1x1_1.weight") are taken too."""
        dotted = {name.replace("/", "."): tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(dotted, strict=strict, assign=assign)


def _pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)  # Caffe rounds sizes up


def _start_(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        # What Caffe calls "xavier": uniform, variance 1 / inputs.
        nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
