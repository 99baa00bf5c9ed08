"""AlexNet and VGG-16 as the accelerator papers run them, as masks of given sparsities."""

from __future__ import annotations

import math
from collections.abc import Sequence

from zeroskip.simulate import masks
from zeroskip.simulate.workload import Workload, of_masks

# name, channels, height, filters, kernel, stride, padding, groups
ALEXNET = [
    ("conv1", 3, 227, 96, 11, 4, 0, 1),
    ("conv2", 96, 27, 256, 5, 1, 2, 2),
    ("conv3", 256, 13, 384, 3, 1, 1, 1),
    ("conv4", 384, 13, 384, 3, 1, 1, 2),
    ("conv5", 384, 13, 256, 3, 1, 1, 2),
]
_VGG = [
    (3, 224, 64),
    (64, 224, 64),
    (64, 112, 128),
    (128, 112, 128),
    (128, 56, 256),
    (256, 56, 256),
    (256, 56, 256),
]
_VGG += [(256, 28, 512), (512, 28, 512), (512, 28, 512), (512, 14, 512), (512, 14, 512), (512, 14, 512)]
VGG16 = [(f"conv{i}", c, h, m, 3, 1, 1, 1) for i, (c, h, m) in enumerate(_VGG)]

# Shares of non-zeros in weights and inputs, Han et al. 2015, tables 4 and 5 (an input is the layer before's output).
HAN_ALEXNET = [0.84, 0.38, 0.35, 0.37, 0.37], [1.0, 0.88, 0.52, 0.37, 0.40]
_HAN_VGG = [0.58, 0.22, 0.34, 0.36, 0.53, 0.24, 0.42, 0.32, 0.27, 0.34, 0.35, 0.29, 0.36]
HAN_VGG16 = _HAN_VGG, [1.0, 0.53, 0.89, 0.80, 0.81, 0.68, 0.70, 0.64, 0.51, 0.45, 0.34, 0.32, 0.29]
# Zeros in the inputs of AlexNet's convolutions as Eyeriss met them (Chen et al., JSSC 2017, table V).
EYERISS_ALEXNET = [0.0001, 0.387, 0.725, 0.793, 0.776]


def network(
    rows: Sequence[tuple],
    weights: Sequence[float],
    inputs: Sequence[float],
    *,
    outputs: Sequence[float] | None = None,
    images: int = 1,
    variation: float = 0.0,
) -> list[Workload]:
    """Layers whose weights, inputs and outputs have these shares of non-zeros, at random places."""
    found = []
    for i, (name, channels, height, filters, kernel, stride, padding, groups) in enumerate(rows):
        place = {"stride": (stride, stride), "padding": (padding, padding), "groups": groups}
        shape, size = (
            (filters, channels // groups, kernel, kernel),
            (height + 2 * padding - kernel) // stride + 1,
        )
        most = 0.95 * math.sqrt((1 - weights[i]) / weights[i])
        weight = masks.over_dispersed(shape, 1 - weights[i], variation=min(variation, most), seed=i)
        x = masks.random((images, channels, height, height), 1 - inputs[i], seed=100 + i)
        share = 1.0 if outputs is None else outputs[i]
        y = masks.random((images, filters, size, size), 1 - share, seed=200 + i)
        found.append(of_masks(name, weight, x, output=y, **place))
    return found
