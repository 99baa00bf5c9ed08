"""Single convolutions whose inputs are sparse, as tables of papers list them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SquareWindow:
    """What a square convolution looks at for one output."""

    side: int
    padding: int = 0
    stride: int = 1


@dataclass(frozen=True)
class Convolution:
    """A square convolution over a square map, and the share of zeros in its input."""

    channels: int
    size: int
    outputs: int
    window: SquareWindow
    sparsity: float

    def network(self) -> nn.Sequential:
        """The convolution and the ReLU behind it, with torch's random weights."""
        window = self.window
        layer = nn.Conv2d(self.channels, self.outputs, window.side, window.stride, window.padding)
        return nn.Sequential(layer, nn.ReLU())

    def example(self, batch: int, *, seed: int = 0) -> Tensor:
        """Maps (batch, channels, size, size) as a ReLU leaves them: positive values, zeros where a seeded coin says.

        >>> zeros = RECTIFIED["Inception4a.2"].example(16) == 0
        >>> round(float(zeros.float().mean()), 2)
        0.9
        """
        generator = torch.Generator().manual_seed(seed)
        shape = batch, self.channels, self.size, self.size
        kept = torch.rand(shape, generator=generator) >= self.sparsity
        return torch.randn(shape, generator=generator).abs() * kept


# Shi and Chu 2017 (arXiv 1704.07724): shapes and sparsities as in the authors' later benchmark (hclhkbu/gcoospdm,
# src/perf_compare.py). "C" is AlexNet for CIFAR-10, "I" for ImageNet.
RECTIFIED = {
    "LeNet Conv2": Convolution(20, 11, 64, SquareWindow(5, 1), 0.95),
    "AlexNetC Conv3": Convolution(32, 6, 64, SquareWindow(5, 2), 0.90),
    "AlexNetI Conv2": Convolution(96, 26, 256, SquareWindow(5, 2, 2), 0.60),
    "AlexNetI Conv3": Convolution(256, 5, 384, SquareWindow(3, 1), 0.70),
    "AlexNetI Conv4": Convolution(384, 5, 384, SquareWindow(3, 1), 0.90),
    "AlexNetI Conv5": Convolution(384, 5, 256, SquareWindow(3, 1), 0.80),
    "Inception4a.1": Convolution(480, 14, 192, SquareWindow(1), 0.90),
    "Inception4a.2": Convolution(192, 14, 96, SquareWindow(1), 0.90),
    "Inception4e.3": Convolution(160, 14, 320, SquareWindow(3, 1), 0.90),
    "Inception5a.1": Convolution(832, 7, 256, SquareWindow(1), 0.95),
    "Inception5a.2": Convolution(256, 7, 160, SquareWindow(1), 0.90),
    "Inception5b.3": Convolution(192, 7, 384, SquareWindow(3, 1), 0.95),
    "Inception5b.5": Convolution(48, 7, 128, SquareWindow(5, 2), 0.95),
}

# Where a second listing of the same layers differs.
RECTIFIED_OTHERWISE = {
    "LeNet Conv2": Convolution(20, 11, 64, SquareWindow(5, 1, 2), 0.95),
    "Inception4a.2": Convolution(192, 7, 96, SquareWindow(1), 0.90),
    "Inception4e.3": Convolution(160, 7, 320, SquareWindow(3, 1), 0.90),
}


def im2col(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """The convolution and ReLU of `model` as Caffe has them: windows as columns of a matrix, one product an image.

    >>> layer = Convolution(3, 6, 2, SquareWindow(3), sparsity=0.5)
    >>> network, maps = layer.network(), layer.example(4)
    >>> torch.allclose(im2col(network, maps)(), network(maps), atol=1e-6)
    True
    """
    layer = model.get_submodule("0")
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    weight, bias = layer.weight.detach().flatten(1), layer.bias.detach()[:, None]
    with torch.no_grad():
        y = model(x).contiguous()
        places = y[0, 0].numel()
        columns, products = torch.empty(weight.shape[1], places), y.view(len(x), -1, places)
    window = layer.kernel_size, layer.dilation, layer.padding, layer.stride

    def call() -> Tensor:
        for image, product in zip(x, products, strict=True):
            torch.ops.aten.im2col.out(image, *window, out=columns)  # memory that is there already
            torch.addmm(bias, weight, columns, out=product).relu_()
        return y

    return call
