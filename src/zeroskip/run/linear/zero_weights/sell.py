"""Sparse linear layers, one row of the weight in each lane of a vector: for single examples and small batches.

SELL-W (sliced ELLPACK, Kreutzer et al. 2014): rows sorted by their number of non-zeros are cut into slices of
W = lanes rows, and a slice takes as many steps as its longest row has non-zeros. A step is one multiply-add of
W weights with W inputs, each from the column of its own row.

The inputs are fetched one by one and put together: on Zen 5 that took 4.5 us where the gather instruction took
6.6 (300 x 784, 92 % zeros), and it is what processors without gather need anyway. Columns are absolute and 16
bits wide, which suits layers that stay in the caches; `gaps` and `windows` read fewer bytes for larger ones.
"""

from __future__ import annotations

import numpy as np

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import INTEGER, Function, Vector
from zeroskip.run.argument_block import ArgumentBlock, argument_block, offsets
from zeroskip.run.dense.pytorch import reference
from zeroskip.run.linear.compiled_linear import CompiledLinear, compiled, compiled_layer, kernel
from zeroskip.run.linear.refusals import accepts_16_bit_columns
from zeroskip.run.linear.stored_weights import arrays
from zeroskip.run.linear.zero_weights.row_slices import emit_scatter


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> CompiledLinear:
    """The layer as a function of its float32 input (..., in)."""
    arguments = _slices(layer, machine.vector_bytes // 4)
    return compiled_layer(layer, machine, compiled(emit, machine, relu), arguments)


def _slices(layer: Layer, lanes: int) -> ArgumentBlock:
    """The weight cut into slices, in the order in which `emit` reads it."""
    weight, bias = arrays(layer)
    order = np.argsort(-np.count_nonzero(weight, axis=1), kind="stable")
    # The last slice is filled up with its own last row: computing a row twice is harmless.
    rows = np.append(order, np.repeat(order[-1:], -len(order) % lanes)).astype(np.int64)
    steps = [_steps(weight[rows_of_slice]) for rows_of_slice in rows.reshape(-1, lanes)]
    columns = np.concatenate([each for each, _ in steps])  # (steps, lanes)
    values = np.concatenate([each for _, each in steps])  # (steps, lanes)
    begin = offsets([len(each) for each, _ in steps])
    return argument_block(*weight.shape, len(steps), begin, columns, values, rows, bias[rows])


def _steps(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of the non-zeros of `rows` (lanes, in), each (steps, lanes).

    Shorter rows end with zero weights. These stand at columns where the row has a zero, so that an infinite
    input there does what it does in PyTorch, and no more.
    """
    length = int(np.count_nonzero(rows, axis=1).max())
    columns = np.argsort(rows == 0, axis=1, kind="stable")[:, :length]  # (lanes, steps), non-zeros first
    values = np.take_along_axis(rows, columns, axis=1)
    return columns.T.astype(np.uint16), values.T.astype(np.float32)


def emit(machine: Machine, relu: bool) -> Function:
    """The kernel in LLVM IR: rows of the weight over the lanes."""
    v = Vector(machine.vector_bytes // 4)
    f, (out, inputs, slices, begin, columns, values, rows, bias) = kernel("sell", 3, 5)
    with f.loop(0, slices) as number:
        first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (number, f.add(number, 1)))
        lane = f.multiply(number, v.lanes)
        # Examples inside, so that a slice of the weights is read from memory once for all of them.
        with f.loop(0, "%rows") as example:
            x, y = f.at("%x", f.multiply(example, inputs)), f.at("%y", f.multiply(example, out))
            total = f.slot(v, f.load(v, f.at(bias, lane)))
            with f.loop(first, stop) as step:
                place = f.multiply(step, v.lanes)
                fetched = _fetch(f, v, x, f.at(columns, place, "i16"))
                weights = f.load(v, f.at(values, place))
                f.store(v, f.multiply_add(v, weights, fetched, f.load(v, total)), total)
            result = f.load(v, total)
            emit_scatter(f, v, f.relu(v, result) if relu else result, y, f.at(rows, lane, INTEGER))
    return f


def _fetch(f: Function, v: Vector, x: str, columns: str) -> str:
    """Vector of the inputs in as many columns."""
    fetched = "poison"
    for lane in range(v.lanes):
        column = f.value(f"zext i16 {f.load('i16', f.at(columns, lane, 'i16'))} to i64")
        value = f.load("float", f.at(x, column))
        fetched = f.value(f"insertelement {v} {fetched}, float {value}, i32 {lane}")
    return fetched


KERNEL = Kernel("sell", "sell", accepts_16_bit_columns, build, reference)
