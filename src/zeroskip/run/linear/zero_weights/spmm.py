"""Sparse linear layers, one example of the batch in each lane of a vector: for batches.

For each vector of examples the input is transposed to (in, lanes), so that a non-zero weight meets all of them
with one load and one multiply-add. The weight is stored by rows (CSR). Outputs are gathered in square tiles,
which are transposed back. The last examples of a batch are repeated where they do not fill a vector.
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

# Sums kept apart, since a multiply-add takes four cycles: 4 were faster than 1 and 2 at every size tried.
SUMS = 4


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> CompiledLinear:
    """The layer as a function of its float32 input (..., in)."""
    lanes = machine.vector_bytes // 4
    tiles = -(-layer.weight.shape[1] // lanes) + 1  # lanes x lanes: the transposed input, and one for outputs
    run, scratch = compiled(emit, machine, relu), tiles * lanes * lanes
    return compiled_layer(layer, machine, run, _rows(layer), scratch=scratch)


def _rows(layer: Layer) -> ArgumentBlock:
    """The weight by rows, in the order in which `emit` reads it."""
    weight, bias = arrays(layer)
    rows, columns = np.nonzero(weight)
    begin = offsets(np.bincount(rows, minlength=len(weight)))
    return argument_block(*weight.shape, begin, columns.astype(np.uint16), weight[rows, columns], bias)


def emit(machine: Machine, relu: bool) -> Function:
    """The kernel in LLVM IR: examples over the lanes."""
    v = Vector(machine.vector_bytes // 4)
    f, (out, inputs, *weights) = kernel("spmm", 2, 4)
    whole = f.value(f"and i64 {f.add(inputs, v.lanes - 1)}, {-v.lanes}")
    tile = f.at("%scratch", f.multiply(whole, v.lanes))
    last = f.add("%rows", -1)
    with f.loop(0, "%rows", v.lanes) as example:
        examples = [f.smaller(f.add(example, lane), last) for lane in range(v.lanes)]
        sources = [f.at("%x", f.multiply(each, inputs)) for each in examples]
        targets = [f.at("%y", f.multiply(each, out)) for each in examples]
        with f.loop(0, inputs, v.lanes) as column:
            _transpose_input(f, sources, column, f.value(f"sub i64 {inputs}, {column}"))
        with f.loop(0, out, v.lanes) as row:
            count = f.smaller(v.lanes, f.value(f"sub i64 {out}, {row}"))
            with f.loop(0, count) as offset:
                total = _row(f, v, f.add(row, offset), weights)
                result = f.relu(v, total) if relu else total
                f.store(v, result, f.at(tile, f.multiply(offset, v.lanes)))
            _transpose_output(f, tile, targets, row, count)
    return f


def _transpose_input(f: Function, sources: list[str], column: str, left: str) -> None:
    """One square of the input, `left` columns wide at most, into scratch as (column, example)."""
    v = Vector(len(sources))
    mask = f.below(v.lanes, left)
    square = [f.load_masked(v, mask, f.at(source, column)) for source in sources]
    for offset, examples in enumerate(f.transposed(v, square)):
        f.store(v, examples, f.at("%scratch", f.multiply(f.add(column, offset), v.lanes)))


def _transpose_output(f: Function, tile: str, targets: list[str], row: str, count: str) -> None:
    """The first `count` rows of the tile (row, example) into the outputs of the examples."""
    v = Vector(len(targets))
    mask = f.below(v.lanes, count)
    square = [f.load(v, f.at(tile, offset * v.lanes)) for offset in range(v.lanes)]
    for target, rows in zip(targets, f.transposed(v, square), strict=True):
        f.store_masked(v, mask, rows, f.at(target, row))


def _row(f: Function, v: Vector, row: str, weights: list[str]) -> str:
    """Vector of one output for all examples."""
    begin, columns, values, bias = weights
    first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (row, f.add(row, 1)))
    length = f.value(f"sub i64 {stop}, {first}")
    middle = f.add(first, f.value(f"and i64 {length}, {-SUMS}"))
    shift = f.splat(v, f.load("float", f.at(bias, row)))
    sums = [f.slot(v, shift), *(f.slot(v, "zeroinitializer") for _ in range(SUMS - 1))]
    for start, end, used in ((first, middle, sums), (middle, stop, sums[:1])):
        with f.loop(start, end, len(used)) as place:
            for offset, slot in enumerate(used):
                weight, inputs = _nonzero(f, v, f.add(place, offset), columns, values)
                f.store(v, f.multiply_add(v, weight, inputs, f.load(v, slot)), slot)
    total = f.load(v, sums[0])
    for other in sums[1:]:
        total = f.value(f"fadd {v} {total}, {f.load(v, other)}")
    return total


def _nonzero(f: Function, v: Vector, place: str, columns: str, values: str) -> tuple[str, str]:
    """The weight at `place` in all lanes, and its input in every example."""
    column = f.value(f"zext i16 {f.load('i16', f.at(columns, place, 'i16'))} to i64")
    weight = f.splat(v, f.load("float", f.at(values, place)))
    return weight, f.load(v, f.at("%scratch", f.multiply(column, v.lanes)))


KERNEL = Kernel("spmm", "spmm", accepts_16_bit_columns, build, reference)
