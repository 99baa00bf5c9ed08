"""Parts that MobileNets and EfficientNets share, with torchvision's names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from zeroskip.models.vgg import start_


class SqueezeExcitation(nn.Module):
    """A factor for each channel, found from the means of all channels (Hu et al. 2018). Shapes stay as they are.

    squeezed  channels between the two 1x1 convolutions
    gate      what makes factors of the second one's sums, such as `nn.Sigmoid()`
    """

    def __init__(self, channels: int, squeezed: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = activation, gate

    def forward(self, x: Tensor) -> Tensor:
        """The map times its factors."""
        squeezed = self.activation(self.fc1(self.avgpool(x)))  # (batch, squeezed, 1, 1)
        return self.scale_activation(self.fc2(squeezed)) * x


@dataclass(frozen=True)
class BlockShape:
    """Channels of the depthwise convolution, its kernel and stride, and channels that leave the block."""

    wide: int
    kernel: int
    stride: int
    out: int


class MBConv(nn.Module):
    """A 1x1 convolution that expands, a depthwise one, squeeze and excite, a 1x1 that narrows, and a shortcut.

    (batch, channels, h, w) -> (batch, out, h / stride, w / stride). The 1x1 that expands is left out where it would
    not, the shortcut where sizes differ. No activation follows the narrow end.
    """

    def __init__(
        self, channels: int, shape: BlockShape, activation: type[nn.Module], squeeze: nn.Module | None
    ) -> None:
        super().__init__()
        wide, stride = shape.wide, shape.stride
        expand = [conv_norm(channels, wide, 1, activation())] if wide != channels else []
        depthwise = conv_norm(wide, wide, shape.kernel, activation(), stride=stride, groups=wide)
        squeezes = [squeeze] if squeeze is not None else []
        self.block = nn.Sequential(*expand, depthwise, *squeezes, conv_norm(wide, shape.out, 1))
        self.has_shortcut = stride == 1 and channels == shape.out

    def forward(self, x: Tensor) -> Tensor:
        """The narrow end."""
        return x + self.block(x) if self.has_shortcut else self.block(x)


def conv_norm(
    into: int,
    out: int,
    kernel: int,
    activation: nn.Module | None = None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """A convolution that keeps the map's size but for its stride, batch norm, and an activation if one is given."""
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), *([activation] if activation is not None else []))


def with_classifier(features: Sequence[nn.Module], *classifier: nn.Module) -> nn.Sequential:
    """A network of convolutions, the mean over all pixels and a classifier, its weights drawn as `start_` does."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=nn.Sequential(*features))
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    parts["classifier"] = nn.Sequential(*classifier)
    return nn.Sequential(parts).apply(start_)
