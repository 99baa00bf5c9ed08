"""The generator of DCGAN (Radford et al. 2016): transposed convolutions from noise to a picture."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn

WIDTHS = (512, 256, 128, 64)
"""Channels of the maps of 4, 8, 16 and 32 pixels a side."""


def dcgan_generator(*, noise: int = 100) -> nn.Sequential:
    """The generator with the names and widths of PyTorch's example of DCGAN, so that its checkpoints load.

    (batch, noise, 1, 1) -> (batch, 3, 64, 64), from -1 to 1; 3,576,704 parameters with 100 numbers of noise. Its
    widths are half of those of the paper's figure 1, as in the example.

    >>> dcgan_generator()(torch.zeros(2, 100, 1, 1)).shape
    torch.Size([2, 3, 64, 64])
    """
    first = nn.ConvTranspose2d(noise, WIDTHS[0], 4, bias=False)
    steps: list[nn.Module] = [first, nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
    for channels, out in pairwise(WIDTHS):
        steps += [_doubling(channels, out), nn.BatchNorm2d(out), nn.ReLU()]
    steps += [_doubling(WIDTHS[-1], 3), nn.Tanh()]
    return nn.Sequential(OrderedDict(main=nn.Sequential(*steps))).apply(_start_)


def _doubling(channels: int, out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1, bias=False)


def _start_(module: nn.Module) -> None:
    """Section 4: weights start with a deviation of 0.02."""
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
