"""Residual networks (He et al. 2016): ResNet-20 and 56 for CIFAR-10, ResNet-50 for ImageNet, torchvision's names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Option = Literal["A", "B"]


class Padding(nn.Module):
    """Option A: every second pixel, and zero channels in equal parts before and after; it has no weights.

    (batch, channels, h, w) -> (batch, channels + 2 * extra, h / 2, w / 2).
    """

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """The smaller, wider map."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. (batch, channels, h, w) -> (batch, width, h / stride, w / stride).

    option  the shortcut where sizes differ: "B" a 1x1 convolution with batch norm, "A" `Padding`
    """

    def __init__(self, channels: int, width: int, stride: int, *, option: Option = "B") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride, option)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, after the ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 with the stride, a 1x1 that widens four times, and a shortcut.

    (batch, channels, h, w) -> (batch, 4 * width, h / stride, w / stride). As in torchvision the 3x3 has the
    stride, which the paper gives to the 1x1 before it.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, after the ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def resnet20(*, classes: int = 10, option: Option = "B") -> nn.Sequential:
    """ResNet-20 of section 4.2. (batch, 3, 32, 32) -> (batch, classes).

    272,474 parameters with 10 classes: where a block changes the size, a 1x1 convolution with batch norm is
    the shortcut (option B). The paper's own pads with zeros (option A) and has 269,722.

    >>> resnet20()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _cifar(3, classes, option)


def resnet56(*, classes: int = 10, option: Option = "B") -> nn.Sequential:
    """ResNet-56 of section 4.2. (batch, 3, 32, 32) -> (batch, classes); 853,018 parameters with option A.

    >>> resnet56()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return _cifar(9, classes, option)


def cifar_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights of ResNet-20 and 56 with option A under the names that `resnet20` and `resnet56` have.

    Theirs are those of github.com/akamaster/pytorch_resnet_cifar10: "module." in front, "linear" for "fc".

    >>> list(cifar_names({"module.conv1.weight": torch.zeros(1), "module.linear.bias": torch.zeros(1)}))
    ['conv1.weight', 'fc.bias']
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return {name.replace("linear.", "fc."): tensor for name, tensor in plain.items()}


def resnet50(*, classes: int = 1000) -> nn.Sequential:
    """ResNet-50 with torchvision's names, so that its checkpoints load. (batch, 3, 224, 224) -> (batch, classes).

    25,557,032 parameters with 1,000 classes.

    >>> with torch.device("meta"):
    ...     y = resnet50()(torch.zeros(1, 3, 224, 224))
    >>> y.shape
    torch.Size([1, 1000])
    """
    stem = OrderedDict(conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False), bn1=nn.BatchNorm2d(64), relu=nn.ReLU())
    stem["maxpool"] = nn.MaxPool2d(3, 2, 1)
    return _resnet(stem, Bottleneck, 4, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), classes=classes)


def he_(module: nn.Module) -> None:
    """Start a convolution as He et al. 2015 have it; other modules are left alone. For `model.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _cifar(blocks: int, classes: int, option: Option) -> nn.Sequential:
    stem = OrderedDict(conv1=nn.Conv2d(3, 16, 3, 1, 1, bias=False), bn1=nn.BatchNorm2d(16), relu=nn.ReLU())
    block = partial(BasicBlock, option=option)
    return _resnet(stem, block, 1, widths=(16, 32, 64), blocks=(blocks,) * 3, classes=classes)


def _resnet(
    stem: OrderedDict[str, nn.Module],
    block: Callable[[int, int, int], nn.Module],
    widening: int,
    *,
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    classes: int,
) -> nn.Sequential:
    """widening  channels that a block makes, for each of its width"""
    parts, channels = OrderedDict(stem), widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
        stride = 1 if stage == 1 else 2
        first = block(channels, width, stride)
        channels = widening * width
        parts[f"layer{stage}"] = nn.Sequential(first, *(block(channels, width, 1) for _ in range(count - 1)))
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    parts["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(parts).apply(he_)


def _shortcut(channels: int, out: int, stride: int, option: Option = "B") -> nn.Module:
    if stride == 1 and channels == out:
        return nn.Identity()
    if option == "A":
        return Padding((out - channels) // 2)
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
