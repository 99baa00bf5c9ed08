"""GoogLeNet (Szegedy et al. 2015) as torchvision has it: with batch norm, without the auxiliary classifiers."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip.models.resnet import he_

Widths = tuple[int, int]
"""Channels of a 1x1 convolution and of what comes after it."""


class BasicConv2d(nn.Module):
    """A convolution that keeps the size (stride 1), batch norm, ReLU. (batch, channels, h, w) -> (batch, out, h, w)."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """After the ReLU."""
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Four ways side by side. (batch, channels, h, w) -> (batch, single + three[1] + five[1] + pool, h, w).

    single  channels of the 1x1 convolution
    three   of the 1x1 and the 3x3 after it
    five    of the 1x1 and what comes after it: 5x5 in the paper, 3x3 in torchvision and here
    pool    of the 1x1 after a 3x3 max pool
    """

    def __init__(self, channels: int, single: int, three: Widths, five: Widths, pool: int) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(channels, single, 1)
        self.branch2 = nn.Sequential(BasicConv2d(channels, three[0], 1), BasicConv2d(*three, 3))
        self.branch3 = nn.Sequential(BasicConv2d(channels, five[0], 1), BasicConv2d(*five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), BasicConv2d(channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The channels of the four ways in their order."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


def googlenet(*, classes: int = 1000) -> nn.Sequential:
    """GoogLeNet with torchvision's names. (batch, 3, 224, 224) -> (batch, classes).

    6,624,904 parameters with 1,000 classes. Of torchvision's checkpoint "aux1" and "aux2" are left out
    (`load_state_dict(..., strict=False)`), and it was trained on images with mean 0.5 and deviation 0.5.

    >>> googlenet()(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv1=BasicConv2d(3, 64, 7, stride=2), maxpool1=_pool(3))
    parts["conv2"], parts["conv3"] = BasicConv2d(64, 64, 1), BasicConv2d(64, 192, 3)
    parts["maxpool2"] = _pool(3)  # (batch, 192, 28, 28)
    parts["inception3a"] = Inception(192, 64, (96, 128), (16, 32), 32)
    parts["inception3b"] = Inception(256, 128, (128, 192), (32, 96), 64)
    parts["maxpool3"] = _pool(3)  # (batch, 480, 14, 14)
    parts["inception4a"] = Inception(480, 192, (96, 208), (16, 48), 64)
    parts["inception4b"] = Inception(512, 160, (112, 224), (24, 64), 64)
    parts["inception4c"] = Inception(512, 128, (128, 256), (24, 64), 64)
    parts["inception4d"] = Inception(512, 112, (144, 288), (32, 64), 64)
    parts["inception4e"] = Inception(528, 256, (160, 320), (32, 128), 128)
    parts["maxpool4"] = _pool(2)  # (batch, 832, 7, 7)
    parts["inception5a"] = Inception(832, 256, (160, 320), (32, 128), 128)
    parts["inception5b"] = Inception(832, 384, (192, 384), (48, 128), 128)
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    parts["dropout"], parts["fc"] = nn.Dropout(0.2), nn.Linear(1024, classes)
    return nn.Sequential(parts).apply(he_)


def _pool(side: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(side, 2, ceil_mode=True)
