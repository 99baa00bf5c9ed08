"""A network's layers in the form of Shi and Chu 2017 (arXiv 1704.07724): shapes, and how sparse the input is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from zeroskip.concepts import Layer, ShapeRow, pair
from zeroskip.graph import layers
from zeroskip.measure.activation_zeros import Zeros


def table(model: nn.Module, example: Tensor, zeros: Mapping[str, Zeros]) -> list[ShapeRow]:
    """A row for every linear and convolution layer that runs on `example`, in the order of running.

    example  a batch of inputs, for the shapes only;  zeros: what `activations` found

    >>> from zeroskip import measure
    >>> [(row.layer, row.channels, row.filters) for row in table(model, x, measure.activations(model, [x]))]
    [('fc1', 6, 8), ('fc2', 8, 4)]
    """
    return [_row(layer, zeros[layer.name]) for layer in layers(model, example) if layer.name in zeros]


def _row(layer: Layer, zeros: Zeros) -> ShapeRow:
    *places, channels = layer.input_shape
    if layer.op == "conv2d":
        channels, *places = layer.input_shape
    height, width = (1, 1, *places)[-2:]
    filters, _, r, s = (*layer.weight.shape, 1, 1)[:4]
    return ShapeRow(
        layer=layer.name,
        op=layer.op,
        channels=channels,
        height=height,
        width=width,
        filters=filters,
        kernel=(r, s),
        padding=layer.padding if isinstance(layer.padding, str) else pair(layer.padding),
        stride=pair(layer.stride),
        groups=layer.groups,
        before=zeros.input,
        after=zeros.output,
    )
