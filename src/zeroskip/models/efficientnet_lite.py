"""EfficientNet-Lite0 with the names of its published weights: no squeeze and excite, ReLU6, TensorFlow's padding."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# expansion, kernel, stride of the first block, channels in and out, repeats
STAGES = (
    *((1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3)),
    *((6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)),
)


class EfficientNetLite0(nn.Module):
    """(batch, 3, height, width) -> (batch, 1000); height and width are multiples of 32.

    Where a step is 2, "same" padding of TensorFlow puts the smaller half in front: for maps of even size one number
    less than PyTorch's. Pictures are RGB, (pixel - 127) / 128.

    >>> sum(parameter.numel() for parameter in EfficientNetLite0().parameters())
    4652008
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        self._blocks = nn.ModuleList(
            _Block(expansion, kernel, 1 if number else stride, out if number else into, out)
            for expansion, kernel, stride, into, out, repeats in STAGES
            for number in range(repeats)
        )
        self._conv_head, self._bn1, self._fc = _conv(320, 1280, 1), _norm(1280), nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """What the classes get, before a softmax."""
        x = F.relu6(self._bn0(self._conv_stem(_padded(x, self._conv_stem))))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


class _Block(nn.Module):
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
        y = F.relu6(self._bn1(self._depthwise_conv(_padded(y, self._depthwise_conv))))
        y = self._bn2(self._project_conv(y))
        return y + x if self.adds else y


def _conv(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(into, out, kernel, stride, padding, groups=groups, bias=False)


def _padded(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """What a convolution with a step of 2 reads, for maps of even size; others pad by themselves."""
    if conv.stride[0] == 1:
        return x
    front, back = (conv.kernel_size[0] - 2) // 2, (conv.kernel_size[0] - 1) // 2
    return F.pad(x, (front, back, front, back))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
