"""GoogLeNet's inception modules at one share of non-zeros, and the share that explains SCNN's speed on GoogLeNet."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch

from zeroskip.concepts import Layer
from zeroskip.errors import AcceleratorError
from zeroskip.papers.common.masked_layers import NonZeros, faster, masked
from zeroskip.papers.common.rules import figure
from zeroskip.papers.scnn import published
from zeroskip.simulate import Workload
from zeroskip.simulate.chips import DCNN, SCNN

SHARES = (0.4, 0.45, 0.5)


def layers() -> list[Layer]:
    """The 54 convolutions in GoogLeNet's nine modules, those of 5 x 5 pixels as the paper has them."""
    convolutions = []
    for name, size, channels, one, reduced3, three, reduced5, five, pooled in published.INCEPTION:
        parts = [(channels, width, 1) for width in (one, reduced3, reduced5, pooled)]
        parts += [(reduced3, three, 3), (reduced5, five, 5)]
        for number, (inputs, outputs, kernel) in enumerate(parts):
            weight = torch.empty(outputs, inputs, kernel, kernel, device="meta")
            shapes, pad = ((inputs, size, size), (outputs, size, size)), (kernel // 2, kernel // 2)
            convolutions.append(Layer(f"{name}.{number}", "conv2d", weight, None, *shapes, padding=pad))
    return convolutions


@cache  # several rows ask for the same shares
def modules(weights: float, inputs: float) -> tuple[Workload, ...]:
    """The modules with those shares of non-zeros; an output has those of the inputs."""
    network = layers()
    shares = [inputs] * len(network)
    return tuple(masked(network, NonZeros([weights] * len(network), shares, shares)))


@cache
def speedup(share: float) -> float:
    """Times faster than the dense twin with this share of non-zeros in all weights and inputs."""
    return faster(modules(share, share), SCNN, DCNN)


@cache
def googlenet_share() -> float:
    """The share of non-zeros in all weights and inputs of the modules that explains GoogLeNet's speed-up."""
    return share_at(SHARES, speedup, figure(published.GOOGLENET).value)


def share_at(shares: Sequence[float], ratio: Callable[[float], float], wanted: float) -> float:
    """Where between those shares a ratio that falls as they rise is `wanted`.

    Raises AcceleratorError where it is above that everywhere, or below.

    >>> share_at((0.25, 0.75), lambda share: 1 / share, 2)
    0.625
    """
    place = bisect.bisect_left(shares, -wanted, key=lambda share: -ratio(share))
    if place == len(shares) or (place == 0 and ratio(shares[0]) != wanted):
        first, last = ratio(shares[0]), ratio(shares[-1])
        raise AcceleratorError(
            f"from a share of {shares[0]} to {shares[-1]} the ratios are {first:.3g} to {last:.3g}, never "
            f"{wanted:g}. Give shares on both sides of it."
        )
    around = shares[max(place - 1, 0) : place + 1]
    return float(np.interp(-wanted, [-ratio(share) for share in around], around))
