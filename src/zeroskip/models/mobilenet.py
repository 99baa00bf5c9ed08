"""MobileNets: networks of depthwise convolutions. Versions 1 (Howard et al. 2017), 2 (Sandler et al. 2018)
and 3 (Howard et al. 2019)."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from zeroskip.models.mobile_blocks import BlockShape, MBConv, SqueezeExcitation, conv_norm, with_classifier

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Version 1 (table 1): channels after the first convolution and after each of the 13 blocks; doubling halves the
size of the map but for the first."""

STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Version 2 (table 2): expansion, channels, number of blocks, stride of the first."""

LARGE = (
    *((3, 16, 16, 0, nn.ReLU, 1), (3, 64, 24, 0, nn.ReLU, 2), (3, 72, 24, 0, nn.ReLU, 1)),
    *((5, 72, 40, 24, nn.ReLU, 2), (5, 120, 40, 32, nn.ReLU, 1), (5, 120, 40, 32, nn.ReLU, 1)),
    *((3, 240, 80, 0, nn.Hardswish, 2), (3, 200, 80, 0, nn.Hardswish, 1)),
    *((3, 184, 80, 0, nn.Hardswish, 1), (3, 184, 80, 0, nn.Hardswish, 1)),
    *((3, 480, 112, 120, nn.Hardswish, 1), (3, 672, 112, 168, nn.Hardswish, 1)),
    *((5, 672, 160, 168, nn.Hardswish, 2), (5, 960, 160, 240, nn.Hardswish, 1)),
    (5, 960, 160, 240, nn.Hardswish, 1),
)
"""Version 3, large (table 1): kernel, expanded channels, channels, those of squeeze and excite (a quarter of the
expanded ones, as a multiple of 8; 0: none), activation, stride."""


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a depthwise 3x3, a 1x1 that narrows without ReLU, and a shortcut if one fits.

    (batch, channels, h, w) -> (batch, out, h / stride, w / stride)
    """

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * channels
        expand = [conv_norm(channels, wide, 1, nn.ReLU6())] if expansion > 1 else []
        depthwise = conv_norm(wide, wide, 3, nn.ReLU6(), stride=stride, groups=wide)
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
    features = [conv_norm(3, WIDTHS[0], 3, nn.ReLU(), stride=2)]
    for number, (channels, out) in enumerate(itertools.pairwise(WIDTHS)):
        stride = 2 if number and out == 2 * channels else 1
        depthwise = conv_norm(channels, channels, 3, nn.ReLU(), stride=stride, groups=channels)
        features.append(nn.Sequential(depthwise, conv_norm(channels, out, 1, nn.ReLU())))
    return with_classifier(features, nn.Dropout(0.001), nn.Linear(WIDTHS[-1], classes))


def mobilenet_v2(*, classes: int = 1000) -> nn.Sequential:
    """MobileNetV2 of width 1.0 with torchvision's names, so that its checkpoints load.

    (batch, 3, 224, 224) -> (batch, classes); 3,504,872 parameters with 1,000 classes.

    >>> mobilenet_v2()(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    """
    features: list[nn.Module] = [conv_norm(3, 32, 3, nn.ReLU6(), stride=2)]
    channels = 32
    for expansion, out, blocks, first in STAGES:
        for number in range(blocks):
            stride = 1 if number else first
            features.append(InvertedResidual(channels, out, stride, expansion))
            channels = out
    features.append(conv_norm(channels, 1280, 1, nn.ReLU6()))
    return with_classifier(features, nn.Dropout(0.2), nn.Linear(1280, classes))


def mobilenet_v3_large(*, classes: int = 1000) -> nn.Sequential:
    """MobileNetV3-Large of width 1.0 with torchvision's names, so that its checkpoints load.

    (batch, 3, 224, 224) -> (batch, classes); 5,483,032 parameters with 1,000 classes.

    >>> mobilenet_v3_large()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1000])
    """
    features: list[nn.Module] = [conv_norm(3, 16, 3, nn.Hardswish(), stride=2)]
    channels = 16
    for kernel, wide, out, squeezed, activation, stride in LARGE:
        squeeze = SqueezeExcitation(wide, squeezed, nn.ReLU(), nn.Hardsigmoid()) if squeezed else None
        features.append(MBConv(channels, BlockShape(wide, kernel, stride, out), activation, squeeze))
        channels = out
    features.append(conv_norm(channels, 960, 1, nn.Hardswish()))
    hidden = nn.Linear(960, 1280), nn.Hardswish()
    network = with_classifier(features, *hidden, nn.Dropout(0.2), nn.Linear(1280, classes))
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eps, norm.momentum = 0.001, 0.01  # what its checkpoints were trained with
    return network
