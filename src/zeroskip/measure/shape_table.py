"""A network's layers in the form of Shi and Chu 2017 (arXiv 1704.07724): shapes, and how sparse the input is."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from zeroskip.concepts import Layer, ShapeRow
from zeroskip.graph import Given, Inputs, layers
from zeroskip.measure.activation_zeros import Zeros


def table(model: nn.Module, example: Given | Inputs, zeros: Mapping[str, Zeros]) -> list[ShapeRow]:
    """A row for every weight that is multiplied when `model` sees `example`, in the order of running.

    One that runs several times on the same shapes, as an LSTM's at each step, has one row.
    example  a batch of inputs, for the shapes only;  zeros: what `activations` found

    >>> from zeroskip import measure
    >>> [(row.layer, row.channels, row.filters) for row in table(model, x, measure.activations(model, [x]))]
    [('fc1', 6, 8), ('fc2', 8, 4)]
    """
    rows = (_row(layer, zeros[layer.name]) for layer in layers(model, example) if layer.name in zeros)
    return list(dict.fromkeys(rows))


def _row(layer: Layer, zeros: Zeros) -> ShapeRow:
    *places, channels = layer.input_shape
    kernel: tuple[int, ...] = (1, 1)
    if layer.op.startswith("conv"):
        channels, *places = layer.input_shape
        kernel = tuple(layer.weight.shape[2:])
    *depths, height, width = (1, 1, *places)
    rows, columns = layer.weight.shape[
        :2
    ]  # (out, in / groups), of a transposed convolution (in, out / groups)
    return ShapeRow(
        layer=layer.name,
        op=layer.op,
        channels=channels,
        height=height,
        width=width,
        filters=columns * layer.groups if layer.transposed else rows,
        kernel=kernel,
        padding=layer.padding,
        stride=layer.stride,
        groups=layer.groups,
        before=zeros.input,
        after=zeros.output,
        depth=math.prod(depths),
    )
