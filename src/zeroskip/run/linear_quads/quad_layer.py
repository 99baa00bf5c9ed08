"""A linear layer in eight bits as data: its quads that are not zero, and the numbers around their sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.run import integer_reference as reference
from zeroskip.run.argument_block import ArgumentBlock, argument_block
from zeroskip.run.convolution.tiles.activation import RELU
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.quad_products import moved_start
from zeroskip.run.element import Scaling, weight_scales, whole_bias
from zeroskip.run.integer_reference import ByteEpilogue
from zeroskip.run.linear.stored_weights import Nonzeros

STRIDE = 16  # quads of an example are a multiple of it: whole vectors are written


@dataclass(frozen=True)
class RowScales:
    """What the bytes of a layer's input mean, and the scale of each output's weights (out,)."""

    x: Scaling
    weights: Tensor


@dataclass(frozen=True)
class QuadLayer:
    """A linear layer of bytes: y = (start + words . quads of the input) x factor + bias.

    inputs   numbers of an example
    words    (out, quads) int32: four signed bytes each
    start    (out,) int32: it takes the zero point of x out of the sum
    factor, bias  (out,) float32
    x        what the bytes of the input mean
    """

    inputs: int
    words: np.ndarray
    start: np.ndarray
    factor: np.ndarray
    bias: np.ndarray
    x: Scaling


def quad_layer(layer: Layer, scales: RowScales) -> QuadLayer:
    """The layer with its weights in bytes.

    >>> one = replace(layer, weight=torch.tensor([[1.0, 0.0, 0.0, 0.0, 2.0]]), bias=None)
    >>> quad_layer(one, RowScales(Scaling(0.5, 0), torch.ones(1))).words
    array([[1, 2]], dtype=int32)
    """
    weight = reference.byte_weight(layer.weight, scales.weights)
    out, inputs = layer.weight.shape
    numbers = np.zeros((out, -(-inputs // QUAD) * QUAD), np.int8)
    numbers[:, :inputs] = weight.numbers.numpy()
    start = -scales.x.zero_point * numbers.sum(1, dtype=np.int64)
    factor = (reference.single(scales.x.scale) * weight.scales).numpy()
    bias = _bias(layer, scales.x, weight.scales)
    shift = np.zeros(out, np.float32) if bias is None else bias.numpy()
    return QuadLayer(inputs, numbers.view(np.int32), start.astype(np.int32), factor, shift, scales.x)


def _bias(layer: Layer, x: Scaling, weights: Tensor) -> Tensor | None:
    return None if layer.bias is None else whole_bias(layer.bias.detach(), x, weights)


def nonzero_quads(quads: QuadLayer) -> Nonzeros:
    """The quads that hold a weight other than 0, row by row; their numbers are words.

    >>> one = replace(layer, weight=torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]]), bias=None)
    >>> nonzero_quads(quad_layer(one, RowScales(Scaling(0.5, 0), torch.ones(1)))).columns
    array([0, 1])
    """
    rows, columns = np.nonzero(quads.words)
    return Nonzeros(rows, columns, quads.words[rows, columns], quads.factor, np.zeros(0, np.float32))


def arguments(
    quads: QuadLayer, way: str, begin: np.ndarray, rows: np.ndarray, words: np.ndarray, *own: np.ndarray
) -> ArgumentBlock:
    """What `quad_code.emitted` reads.

    way    of multiplying quads, which moves where sums begin
    begin  (slices + 1,) the steps of each slice
    rows   (slices x lanes,) the row of each lane
    words  (steps, lanes)
    own    further arrays of the kernel
    """
    out, count = quads.words.shape
    start = moved_start(way, quads.words, quads.start)
    x = quads.x
    numbers = np.array([x.inverse, x.least, x.most, x.zero_point], np.float32)
    return argument_block(
        *(out, quads.inputs, stride(count), len(begin) - 1, begin, words, rows),
        *(start[rows], quads.factor[rows], quads.bias[rows], numbers, *own),
    )


def stride(count: int) -> int:
    """How many words lie between the quads of two examples, of `count` quads each.

    >>> stride(5)
    16
    """
    return max(1, -(-count // STRIDE)) * STRIDE


def computed(scales: RowScales, layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in plain PyTorch, bit for bit what its code computes; NaN in the input is 0.

    >>> one = replace(layer, weight=torch.tensor([[1.0]]), bias=None)
    >>> computed(RowScales(Scaling(0.5, 0), torch.ones(1)), one, torch.tensor([[0.8], [torch.nan]]), False)
    tensor([[1.],
            [0.]])
    """
    weight = reference.byte_weight(layer.weight, scales.weights)
    sums = reference.sums_of_rows(reference.byte_map(x, scales.x), weight)
    after = ByteEpilogue(_bias(layer, scales.x, weight.scales), None, RELU if relu else None)
    return reference.finished(sums, scales.x, weight, after, axis=-1)


def own_scales(layer: Layer, x: Scaling) -> RowScales:
    """Scales that follow from the layer's weights, and a scale of the input.

    >>> own_scales(replace(layer, weight=torch.tensor([[127.0]])), Scaling(0.5, 0)).weights
    tensor([1.])
    """
    return RowScales(x, weight_scales(layer.weight))
