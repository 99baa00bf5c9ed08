"""Layers as masks, for tables that come without weights: published shares of non-zeros, placed at random.

The places are seeded, so that the same figures come out at every call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from zeroskip.concepts import Layer, pair
from zeroskip.graph import layers
from zeroskip.papers.common.network_sizes import on_meta
from zeroskip.simulate import Accelerator, Geometry, Workload, of_masks, random_masks

DENSE = 1.0


@dataclass(frozen=True)
class NonZeros:
    """Shares of non-zeros of a network's layers, one for each layer.

    outputs    None: all of them
    variation  of the weights' shares over filters, standard deviation / mean; less where no share could have it
    """

    weights: Sequence[float]
    inputs: Sequence[float]
    outputs: Sequence[float] | None = None
    variation: float = 0.0


@cache
def convolutions(network: str) -> tuple[Layer, ...]:
    """The convolutions of "alexnet" or "vgg16", without memory for their weights.

    >>> [layer.groups for layer in convolutions("alexnet")]
    [1, 2, 1, 2, 2]
    """
    return tuple(replace(layer, bias=None) for layer in layers(*on_meta(network)) if layer.op == "conv2d")


def masked(network: Sequence[Layer], shares: NonZeros, *, images: int = 1) -> list[Workload]:
    """Layers whose weights, inputs and outputs have these shares of non-zeros.

    >>> conv3 = convolutions("alexnet")[2:3]
    >>> masked(conv3, NonZeros([0.35], [0.52]))[0].macs
    149520384
    """
    works = []
    for place, layer in enumerate(network):
        kept = shares.weights[place]
        most = 0.95 * math.sqrt((1 - kept) / kept)
        weight = random_masks.over_dispersed(
            tuple(layer.weight.shape), 1 - kept, variation=min(shares.variation, most), seed=place
        )
        x = random_masks.random((images, *layer.input_shape), 1 - shares.inputs[place], seed=100 + place)
        y = None
        if shares.outputs is not None:
            y = random_masks.random(
                (images, *layer.output_shape), 1 - shares.outputs[place], seed=200 + place
            )
        padding = layer.padding if isinstance(layer.padding, str) else pair(layer.padding)
        geometry = Geometry(pair(layer.stride), padding, pair(layer.dilation), layer.groups)
        works.append(of_masks(layer.name, weight, x, geometry, output=y))
    return works


def cycles(works: Sequence[Workload], chip: Accelerator) -> int:
    """Cycles of the dataflow alone, as the papers' speed-ups count them.

    >>> cycles([of_masks("fc", torch.ones(64, 8) != 0, torch.ones(1, 8) != 0)], chips.EIE)
    8
    """
    return sum(chip.dataflow(work, chip).cycles for work in works)


def faster(works: Sequence[Workload], chip: Accelerator, than: Accelerator) -> float:
    """Times fewer cycles on `chip`."""
    return cycles(works, than) / cycles(works, chip)
