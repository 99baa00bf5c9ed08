"""Convolutions whose zeros were never there: machine code written for one pattern of weights.

The code of a *group* of up to 28 output channels keeps their sums in zmm0 to zmm27, for the pixels of one vector.
Every row k (input channel and tap) that any of them needs is loaded once, and every non-zero weight is one
instruction: multiply the row by the weight, which stands next in a stream, and add. Zeros cost nothing at all.

Code has to stay in the first-level cache while it works, as data must: a *chunk* holds the groups' instructions
for a block of some hundred rows, runs over a band of vectors, and meanwhile fetches the chunk that follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.emit import x86
from zeroskip.run.convolution.tiles.baked_frame import (
    FIRST,
    HALF_WINDOW,
    LAST,
    RESIDUAL_AT,
    STORE,
    SUMS,
    TABLE,
    TABLE_MASK,
    VECTOR,
    WEIGHT_AT,
    Y_AT,
    Baked,
    Blocking,
    Cut,
    Keyed,
    Reads,
    assembled,
    cells,
    frame,
    input_register,
    key,
    middles,
    product_keys,
    row_loads,
    streamed_reads,
)
from zeroskip.run.convolution.tiles.convolution_job import RowWeights
from zeroskip.run.convolution.tiles.steps import Epilogue
from zeroskip.run.element import Element

ZERO, BOUND = SUMS, SUMS + 1  # zmm registers of the epilogue, when inputs are no longer needed

PER_SUM = 4  # places of a sum in FIRST, LAST and STORE
FROM_Y, BIAS, ADD_RESIDUAL = 0, 1, 2  # in FIRST, from PER_SUM * sum on
LOAD_MASK, MAKE_ZERO, LOAD_BOUND, EPILOGUE = 0, 2, 5, 8  # in LAST; sums begin at EPILOGUE
RELU_OR_MASK, CUT_OFF = 0, 2  # in LAST, from EPILOGUE + PER_SUM * sum on


@dataclass(frozen=True)
class _Shape:
    """How a layer is cut, what is done to its sums, and what they are."""

    cut: Cut
    epilogue: Epilogue
    element: Element

    @property
    def size(self) -> int:
        return self.element.bytes


def bake(weights: RowWeights, epilogue: Epilogue, blocking: Blocking, element: Element) -> Baked:
    """Machine code for a convolution.

    >>> from zeroskip.run.convolution.tiles.activation import RELU
    >>> from zeroskip.run.element import FP32
    >>> weights = RowWeights(np.eye(4, 64, dtype=np.float32), np.zeros(4, np.float32), np.arange(64) * 64)
    >>> baked = bake(weights, Epilogue(activation=RELU), Blocking(band=14), FP32)
    >>> len(baked.weights), baked.chunks.shape  # four biases and four weights
    (8, (1, 4))
    """
    (out, inputs), taps, groups = weights.weight.shape, weights.taps, blocking.groups
    count = -(-out // SUMS)
    blocks = max(1, -(-inputs // blocking.rows))
    channels = max(1, inputs // taps)
    block = -(-channels // blocks) * taps  # whole channels, about equally many in each block
    blocks = max(1, -(-inputs // block))
    cut = Cut(
        sums=-(-out // count), groups=groups, rows=block, blocks=blocks, chunks=-(-count // groups),
        size=element.bytes,
    )  # fmt: skip
    shape = _Shape(cut, epilogue, element)
    values, reads, starts = streamed_reads(_reads(weights, shape), cut)
    middle = middles(weights.offsets, block, blocks)
    near = weights.offsets - np.repeat(middle, block)[:inputs]
    codes = [*reads, row_loads(weights.weight != 0, near, cut), *_edges(out, shape), *_epilogue(out, shape)]
    codes += frame(cut)
    chunks = np.zeros((len(starts), 4), np.int64)
    chunks[:, 1] = (starts + HALF_WINDOW) * cut.size
    chunks[:, 2] = np.repeat(middle, cut.chunks)
    chunks[:, 3] = np.tile(np.arange(cut.chunks), blocks) * groups * cut.sums * VECTOR
    lengths = np.diff(np.append(starts, len(values))) * cut.size
    code, chunks[:, 0] = assembled(codes, lengths, cut, blocking.band)
    return Baked(code, values.astype(element.dtype), chunks)


def _reads(weights: RowWeights, shape: _Shape) -> list[Reads]:
    """Products, biases, and the upper bound, which stands among the weights of every group's last block."""
    cut, size = shape.cut, shape.size

    def loaded(keys: np.ndarray, register: np.ndarray, values: np.ndarray) -> Reads:
        return Reads(keys, values, lambda steps: x86.broadcast(register, WEIGHT_AT, steps, size=size))

    outs, ks = np.nonzero(weights.weight)
    total, inputs = outs % cut.sums, input_register(ks)
    products = Reads(
        product_keys(outs, ks, cut),
        weights.weight[outs, ks],
        lambda steps: x86.multiply_add(total, inputs, WEIGHT_AT, steps, size=size),
    )
    every = np.arange(len(weights.bias))
    start = key(cells(every, 0 * every, cut), FIRST, PER_SUM * (every % cut.sums) + BIAS)
    bound = _bound(shape)
    firsts = np.arange(0, len(every) if bound is not None else 0, cut.sums)
    bounds = key(cells(firsts, 0 * firsts + cut.blocks - 1, cut), LAST, LOAD_BOUND)
    return [
        products,
        loaded(start, every % cut.sums, weights.bias),
        loaded(bounds, 0 * firsts + BOUND, np.full(len(firsts), bound or 0.0, np.float32)),
    ]


def _bound(shape: _Shape) -> float | None:
    activation = shape.epilogue.activation
    return None if activation is None else activation.bound


def _edges(out: int, shape: _Shape) -> list[Keyed]:
    """Where sums come from and go to: the residual, the block of rows before, and y."""
    outs = np.arange(out)
    total = outs % shape.cut.sums
    group = outs // shape.cut.sums % shape.cut.groups
    offset = (group * shape.cut.sums + total) * VECTOR  # from the chunk's first channel
    codes: list[Keyed] = []
    if shape.epilogue.residual:
        keys = key(cells(outs, 0 * outs, shape.cut), FIRST, PER_SUM * total + ADD_RESIDUAL)
        codes.append((keys, x86.add(total, RESIDUAL_AT, offset, size=shape.size)))
    for block in range(shape.cut.blocks):
        cell = cells(outs, 0 * outs + block, shape.cut)
        if block:
            codes.append((key(cell, FIRST, PER_SUM * total + FROM_Y), x86.load(total, Y_AT, offset)))
        codes.append((key(cell, STORE, PER_SUM * total), x86.store(total, Y_AT, offset)))
    return codes


def _epilogue(out: int, shape: _Shape) -> list[Keyed]:
    """ReLU and bound, with 0 in lanes without pixels."""
    outs = np.arange(out)
    total, cell = outs % shape.cut.sums, cells(outs, 0 * outs + shape.cut.blocks - 1, shape.cut)
    groups, place = np.unique(cell), EPILOGUE + PER_SUM * total
    mask = x86.load_mask(TABLE, TABLE_MASK, size=shape.size)
    codes: list[Keyed] = [(key(groups, LAST, LOAD_MASK), mask[np.zeros(len(groups), int)])]
    if shape.epilogue.activation is not None:
        codes.append((key(groups, LAST, MAKE_ZERO), x86.zero(0 * groups + ZERO)))
        relu = x86.greater(total, ZERO, size=shape.size)
    else:
        relu = x86.masked(total, size=shape.size)
    codes.append((key(cell, LAST, place + RELU_OR_MASK), relu))
    if _bound(shape) is not None:
        codes.append((key(cell, LAST, place + CUT_OFF), x86.smaller(total, BOUND, size=shape.size)))
    return codes
