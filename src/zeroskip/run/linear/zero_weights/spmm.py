"""Sparse linear layers, one example of the batch in each lane of a vector: for batches.

For each vector of examples the input is transposed to (in, lanes), so that a non-zero weight meets all of them
with one load and one multiply-add. The weight is stored by rows (CSR). Outputs are gathered in square tiles,
which are transposed back. The last examples of a batch are repeated where they do not fill a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, vector
from zeroskip.run.dense.pytorch import reference
from zeroskip.run.machine_code import ARGUMENTS, Compiled, Plan, accepts_narrow, arrays, plan, starts

# Sums kept apart, since a multiply-add takes four cycles: 4 were faster than 1 and 2 at every size tried.
SUMS = 4


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Compiled:
    """The layer as a function of its float32 input (..., in).

    A zero weight is skipped, so its product with an infinite or NaN input is 0 here and NaN in PyTorch.

    >>> build(layer, detect(), Precision(), True)(torch.zeros(2, 64)).shape
    torch.Size([2, 300])
    """
    out, inputs = layer.weight.shape
    lanes = machine.vector_bytes // 4
    tiles = -(-inputs // lanes) + 1  # of lanes x lanes: the transposed input, and one for outputs
    return Compiled(
        _compiled(machine, relu), _rows(layer), inputs, out, machine, scratch=tiles * lanes * lanes
    )


def _rows(layer: Layer) -> Plan:
    """The weight by rows, in the order in which `emit` reads it."""
    weight, bias = arrays(layer)
    rows, columns = np.nonzero(weight)
    begin = starts(np.bincount(rows, minlength=len(weight)))
    return plan(*weight.shape, begin, columns.astype(np.uint16), weight[rows, columns], bias)


@cache
def _compiled(machine: Machine, relu: bool) -> Callable[..., None]:
    return compile_function(emit(machine, relu=relu).text(machine), "spmm", machine, len(ARGUMENTS))


def emit(machine: Machine, *, relu: bool) -> Function:
    """The kernel in LLVM IR: examples over the lanes.

    >>> emit(detect(), relu=False).name
    'spmm'
    """
    lanes = machine.vector_bytes // 4
    f = Function("spmm", ARGUMENTS)
    out, inputs, *weights = f.fields("%plan", [INTEGER] * 2 + [POINTER] * 4)
    whole = f.value(f"and i64 {f.add(inputs, lanes - 1)}, {-lanes}")
    tile = f.at("%scratch", f.multiply(whole, lanes))
    last = f.add("%rows", -1)
    with f.loop(0, "%rows", lanes) as example:
        examples = [f.smaller(f.add(example, lane), last) for lane in range(lanes)]
        sources = [f.at("%x", f.multiply(each, inputs)) for each in examples]
        targets = [f.at("%y", f.multiply(each, out)) for each in examples]
        with f.loop(0, inputs, lanes) as column:
            _transpose_input(f, sources, column, f.value(f"sub i64 {inputs}, {column}"))
        with f.loop(0, out, lanes) as row:
            count = f.smaller(lanes, f.value(f"sub i64 {out}, {row}"))
            with f.loop(0, count) as offset:
                total = _row(f, lanes, f.add(row, offset), weights)
                result = f.relu(lanes, total) if relu else total
                f.store(vector(lanes), result, f.at(tile, f.multiply(offset, lanes)))
            _transpose_output(f, tile, targets, row, count)
    return f


def _transpose_input(f: Function, sources: list[str], column: str, left: str) -> None:
    """One square of the input, `left` columns wide at most, into scratch as (column, example)."""
    lanes = len(sources)
    mask = f.below(lanes, left)
    square = [f.load_masked(lanes, mask, f.at(source, column)) for source in sources]
    for offset, examples in enumerate(f.transposed(square)):
        f.store(vector(lanes), examples, f.at("%scratch", f.multiply(f.add(column, offset), lanes)))


def _transpose_output(f: Function, tile: str, targets: list[str], row: str, count: str) -> None:
    """The first `count` rows of the tile (row, example) into the outputs of the examples."""
    lanes = len(targets)
    mask = f.below(lanes, count)
    square = [f.load(vector(lanes), f.at(tile, offset * lanes)) for offset in range(lanes)]
    for target, rows in zip(targets, f.transposed(square), strict=True):
        f.store_masked(lanes, mask, rows, f.at(target, row))


def _row(f: Function, lanes: int, row: str, weights: list[str]) -> str:
    """Vector of one output for all examples."""
    begin, columns, values, bias = weights
    kind = vector(lanes)
    first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (row, f.add(row, 1)))
    length = f.value(f"sub i64 {stop}, {first}")
    middle = f.add(first, f.value(f"and i64 {length}, {-SUMS}"))
    shift = f.splat(lanes, f.load("float", f.at(bias, row)))
    sums = [f.slot(kind, shift), *(f.slot(kind, "zeroinitializer") for _ in range(SUMS - 1))]
    for start, end, used in ((first, middle, sums), (middle, stop, sums[:1])):
        with f.loop(start, end, len(used)) as place:
            for offset, total in enumerate(used):
                _multiply_add(f, lanes, f.add(place, offset), total, columns, values)
    total = f.load(kind, sums[0])
    for other in sums[1:]:
        total = f.value(f"fadd {kind} {total}, {f.load(kind, other)}")
    return total


def _multiply_add(f: Function, lanes: int, place: str, total: str, columns: str, values: str) -> None:
    """Add the non-zero at `place`, times its input in every example, to the slot `total`."""
    column = f.value(f"zext i16 {f.load('i16', f.at(columns, place, 'i16'))} to i64")
    weight = f.splat(lanes, f.load("float", f.at(values, place)))
    inputs = f.load(vector(lanes), f.at("%scratch", f.multiply(column, lanes)))
    f.store(vector(lanes), f.multiply_add(lanes, weight, inputs, f.load(vector(lanes), total)), total)


KERNEL = Kernel("spmm", "spmm", accepts_narrow, build, reference)
