"""EfficientNet-Lite0 with the names of its published weights: no squeeze and excite, padding as TensorFlow's "same"."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# expansion, kernel, stride of the first block, channels in and out, repeats
STAGES = (
    *((1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3)),
    *((6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)),
)


class SameConv(nn.Conv2d):
    """A convolution with the smaller half of its padding in front."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        row, column = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        return super().forward(F.pad(x, (column // 2, column - column // 2, row // 2, row - row // 2)))


def _conv(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return SameConv(into, out, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, expansion: int, kernel: int, stride: int, into: int, out: int) -> None:
        super().__init__()
        wide = into * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = _conv(into, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = _conv(wide, wide, kernel, stride, wide), _norm(wide)
        self._project_conv, self._bn2 = _conv(wide, out, 1), _norm(out)
        self.expands, self.adds = expansion > 1, stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return y + x if self.adds else y


class EfficientNetLite0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        self._blocks = nn.ModuleList(
            Block(expansion, kernel, 1 if number else stride, out if number else into, out)
            for expansion, kernel, stride, into, out, repeats in STAGES
            for number in range(repeats)
        )
        self._conv_head, self._bn1, self._fc = _conv(320, 1280, 1), _norm(1280), nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
