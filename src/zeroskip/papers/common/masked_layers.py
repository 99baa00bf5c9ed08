"""The papers' convolutions as masks, for tables that come without weights: published shares of zeros, placed at random.

The places are seeded, so that the same figures come out at every call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from zeroskip.concepts import Layer
from zeroskip.graph import layers
from zeroskip.papers.common.network_sizes import NETWORKS
from zeroskip.papers.common.row import figure
from zeroskip.papers.eyeriss import published
from zeroskip.papers.han2015 import published as han
from zeroskip.papers.scnn.published import INCEPTION
from zeroskip.simulate import Accelerator, Geometry, Workload, of_masks, random_masks

DENSE = 1.0
OURS = "our own bound; the paper has no such figure"
HAN, EYERISS = "inputs by Han et al.", "inputs by Eyeriss"
READINGS = (HAN, EYERISS)
"""Shares of zeros in the inputs by Han et al. 2015, tables 4 and 5; as Eyeriss met them, JSSC 2017, tables V and VI."""


def convolutions(network: str) -> list[Layer]:
    """The convolutions of "alexnet" or "vgg16", without memory for their weights.

    >>> [layer.groups for layer in convolutions("alexnet")]
    [1, 2, 1, 2, 2]
    """
    _, build, shape = NETWORKS[network]
    with torch.device("meta"):
        found = layers(build(), torch.zeros(1, *shape))
    return [replace(layer, bias=None) for layer in found if layer.op == "conv2d"]


def inception() -> list[Layer]:
    """The 54 convolutions in GoogLeNet's nine modules, those of 5 x 5 pixels as the paper has them.

    >>> len(inception())
    54
    """
    found = []
    for name, size, channels, one, reduced3, three, reduced5, five, pooled in INCEPTION:
        parts = [(channels, width, 1) for width in (one, reduced3, reduced5, pooled)]
        for number, (inputs, outputs, kernel) in enumerate(
            [*parts, (reduced3, three, 3), (reduced5, five, 5)]
        ):
            weight = torch.empty(outputs, inputs, kernel, kernel, device="meta")
            shapes = (inputs, size, size), (outputs, size, size)
            pad = (kernel // 2, kernel // 2)
            found.append(Layer(f"{name}.{number}", "conv2d", weight, None, *shapes, padding=pad))
    return found


def kept(network: str) -> list[float]:
    """Shares of weights left in the convolutions by Han et al. 2015.

    >>> kept("alexnet")
    [0.84, 0.38, 0.35, 0.37, 0.37]
    """
    count = len(convolutions(network))
    return [round(figure(one.kept).value / 100, 9) for one in han.LAYERS[network][:count]]


def seen(network: str, reading: str) -> list[float]:
    """Shares of non-zeros in the convolutions' inputs, by one of READINGS.

    >>> seen("alexnet", HAN)
    [1.0, 0.88, 0.52, 0.37, 0.4]
    """
    count = len(convolutions(network))
    if reading == HAN:  # an input is what the layer before handed on
        return [DENSE, *(figure(one.output).value / 100 for one in han.LAYERS[network][: count - 1])]
    zeros = {
        "alexnet": [one.zeros for one in published.ALEXNET],
        "vgg16": [one.zeros for one in published.VGG16_CHIP],
    }
    return [1 - figure(one).value / 100 for one in zeros[network]]


def at(
    some: Sequence[Layer],
    weights: Sequence[float],
    inputs: Sequence[float],
    *,
    outputs: Sequence[float] | None = None,
    images: int = 1,
    variation: float = 0.0,
) -> list[Workload]:
    """Layers whose weights, inputs and outputs have these shares of non-zeros.

    variation  of the weights' shares over filters, standard deviation / mean; less where no share could have it

    >>> at(convolutions("alexnet"), [1.0] * 5, [1.0] * 5)[0].macs
    105415200
    """
    found = []
    for place, layer in enumerate(some):
        most = 0.95 * math.sqrt((1 - weights[place]) / weights[place])
        spread = min(variation, most)
        weight = random_masks.over_dispersed(
            tuple(layer.weight.shape), 1 - weights[place], variation=spread, seed=place
        )
        x = random_masks.random((images, *layer.input_shape), 1 - inputs[place], seed=100 + place)
        y = None  # all of them
        if outputs is not None:
            y = random_masks.random((images, *layer.output_shape), 1 - outputs[place], seed=200 + place)
        geometry = Geometry(layer.stride, layer.padding, layer.dilation, layer.groups)
        found.append(of_masks(layer.name, weight, x, geometry, output=y))
    return found


def network(name: str, reading: str, *, variation: float = 0.0) -> list[Workload]:
    """The convolutions of a network with the weights of Han et al. and inputs by one of READINGS.

    An output has the zeros of the input that it becomes; the last convolution's are always those of Han et al.

    >>> len(network("vgg16", EYERISS))
    13
    """
    inputs = seen(name, reading)
    last = figure(han.LAYERS[name][len(inputs) - 1].output).value / 100
    outputs = [*inputs[1:], last]
    return at(convolutions(name), kept(name), inputs, outputs=outputs, variation=variation)


def cycles(works: Sequence[Workload], machine: Accelerator) -> int:
    """Cycles of the dataflow alone, as the papers' speed-ups count them.

    >>> cycles(network("alexnet", HAN), machines.DCNN)
    913056
    """
    return sum(machine.dataflow(work, machine).cycles for work in works)


def faster(works: Sequence[Workload], machine: Accelerator, than: Accelerator) -> float:
    """Times fewer cycles on `machine`.

    >>> round(faster(network("alexnet", HAN), chips.SCNN, machines.DCNN), 2)
    2.29
    """
    return cycles(works, than) / cycles(works, machine)
