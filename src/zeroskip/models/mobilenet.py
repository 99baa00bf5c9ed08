"""MobileNets: networks of depthwise convolutions. Version 1 (Howard et al. 2017) and 2 (Sandler et al. 2018)."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from zeroskip.models.vgg import start_

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Version 1 (table 1): channels after the first convolution and after each of the 13 blocks; doubling halves the
size of the map but for the first."""

STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Version 2 (table 2): expansion, channels, number of blocks, stride of the first."""


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a depthwise 3x3, a 1x1 that narrows without ReLU, and a shortcut if one fits.

    (batch, channels, h, w) -> (batch, out, h / stride, w / stride)
    """

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * channels
        expand = [_conv(channels, wide, 1, nn.ReLU6())] if expansion > 1 else []
        depthwise = _conv(wide, wide, 3, nn.ReLU6(), stride=stride, groups=wide)
        narrow = nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)
        self.conv = nn.Sequential(*expand, depthwise, *narrow)
        self.has_shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """The narrow end, which no ReLU follows."""
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


def mobilenet_v1(*, classes: int = 1000) -> nn.Sequential:
    """MobileNet of width 1.0. (batch, 3, 224, 224) -> (batch, classes); 4,231,976 parameters with 1,000 classes.

    "features.3.1.0" is the 1x1 convolution of the third block, "features.3.0.0" the depthwise one before it.

    >>> mobilenet_v1()(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    """
    features = [_conv(3, WIDTHS[0], 3, nn.ReLU(), stride=2)]
    for number, (channels, out) in enumerate(itertools.pairwise(WIDTHS)):
        stride = 2 if number and out == 2 * channels else 1
        depthwise = _conv(channels, channels, 3, nn.ReLU(), stride=stride, groups=channels)
        features.append(nn.Sequential(depthwise, _conv(channels, out, 1, nn.ReLU())))
    return _network(features, WIDTHS[-1], classes, dropout=0.001)


def mobilenet_v2(*, classes: int = 1000) -> nn.Sequential:
    """MobileNetV2 of width 1.0 with torchvision's names, so that its checkpoints load.

    (batch, 3, 224, 224) -> (batch, classes); 3,504,872 parameters with 1,000 classes.

    >>> mobilenet_v2()(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    """
    features: list[nn.Module] = [_conv(3, 32, 3, nn.ReLU6(), stride=2)]
    channels = 32
    for expansion, out, blocks, first in STAGES:
        for number in range(blocks):
            stride = 1 if number else first
            features.append(InvertedResidual(channels, out, stride, expansion))
            channels = out
    features.append(_conv(channels, 1280, 1, nn.ReLU6()))
    return _network(features, 1280, classes, dropout=0.2)


def _conv(
    into: int, out: int, kernel: int, relu: nn.Module, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), relu)


def _network(features: Sequence[nn.Module], channels: int, classes: int, *, dropout: float) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=nn.Sequential(*features))
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    parts["classifier"] = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, classes))
    return nn.Sequential(parts).apply(start_)
