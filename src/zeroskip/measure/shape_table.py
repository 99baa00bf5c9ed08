"""A network's layers in the form of Shi and Chu 2017 (arXiv 1704.07724): shapes, and how sparse the input is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from zeroskip.concepts import Layer
from zeroskip.graph import layers
from zeroskip.measure.activations import Zeros


@dataclass(frozen=True)
class Row:
    """One layer: what it reads is `channels` x `height` x `width`, what it makes has `filters` channels.

    kernel   (r, s); a linear layer is one of 1 x 1 on a map of 1 x 1, and one on several rows has them as places
    padding  in pixels, or "same" and "valid" as torch has them
    before   share of zeros in what the layer reads; after: in what leaves it, after its ReLU and pooling
    """

    layer: str
    op: str
    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]
    padding: tuple[int, int] | str
    stride: tuple[int, int]
    groups: int
    before: float
    after: float


def table(model: nn.Module, example: Tensor, zeros: Mapping[str, Zeros]) -> list[Row]:
    """A row for every linear and convolution layer that runs on `example`, in the order of running.

    example  a batch of inputs, for the shapes only;  zeros: what `activations` found

    >>> table(lenet5, images[:1], activations(lenet5, [images]))[1].channels
    20
    """
    return [_row(layer, zeros[layer.name]) for layer in layers(model, example) if layer.name in zeros]


def _row(layer: Layer, zeros: Zeros) -> Row:
    *places, channels = layer.input_shape
    if layer.op == "conv2d":
        channels, *places = layer.input_shape
    height, width = (1, 1, *places)[-2:]
    filters, _, r, s = (*layer.weight.shape, 1, 1)[:4]
    return Row(
        layer=layer.name,
        op=layer.op,
        channels=channels,
        height=height,
        width=width,
        filters=filters,
        kernel=(r, s),
        padding=layer.padding,
        stride=layer.stride,
        groups=layer.groups,
        before=zeros.input,
        after=zeros.output,
    )
