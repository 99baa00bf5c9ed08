"""Large sparse linear layers: one row in each lane of a vector, columns as gaps of 8 bits.

As in `sell`, rows sorted by their number of non-zeros are cut into slices of as many rows as there are lanes.
A byte is the distance from one non-zero of the row to the next; where that is too long, steps of 255 without a weight
lead there, and where a row ends before others of its slice, steps of 0. In these the input meets no weight at all:
a stored zero says so, or for codes, which may all be in use, a bit.

Each lane's place in the input is a pointer in a register of its own, which the gap is added to. On Zen 5 that took
half the time of a vector of columns, whose lanes must be taken out (or gathered) to become addresses. There are
registers for 8 of them. A non-zero costs 5, 3, 2 or 1.6 bytes, which is what counts for layers beyond the caches.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import ArgumentBlock, argument_block, offsets
from zeroskip.run.linear.compiled_linear import CompiledLinear, compiled, compiled_layer, kernel
from zeroskip.run.linear.refusals import without_zeros
from zeroskip.run.linear.stored_weights import Nonzeros, arrays, by_steps, cannot_be_stored, kernels, nonzeros
from zeroskip.run.linear.weight_loads import AHEAD, StoredVectors, prefetch, prefetch_two
from zeroskip.run.linear.zero_weights.row_slices import by_length, emit_scatter, emit_two_steps

ON = 255  # the longest gap that a byte holds, kept for steps without a weight


def accepts(storage: str, layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why not: any machine and any pattern will do.

    >>> accepts("int8", layer, machine, Precision(weights="bf16"))
    'bf16 weights were asked for'
    """
    return without_zeros(layer) or cannot_be_stored(storage, layer, precision)


def build(storage: str, layer: Layer, machine: Machine, precision: Precision, relu: bool) -> CompiledLinear:
    """The layer as a function of its float32 input (..., in)."""
    arguments = _slices(storage, layer, _lanes(machine))
    return compiled_layer(layer, machine, compiled(emit, machine, storage, relu), arguments)


def _lanes(machine: Machine) -> int:
    return min(8, machine.vector_bytes // 4)


def _slices(storage: str, layer: Layer, lanes: int) -> ArgumentBlock:
    """The weight cut into slices, in the order in which `emit` reads it."""
    (out, inputs), (_, bias) = layer.weight.shape, arrays(layer)
    stored = nonzeros(storage, layer)
    gaps = row_gaps(stored)
    # Where each non-zero comes among the steps of its row, and how many steps the rows have.
    steps = np.cumsum(gaps // ON + 1)
    lengths = np.bincount(stored.rows, weights=gaps // ON + 1, minlength=out).astype(np.int64)
    entry = steps - 1 - offsets(lengths)[stored.rows]
    rows, lane = by_length(lengths, lanes)
    longest = lengths[rows].reshape(-1, lanes).max(axis=1)
    begin = offsets(longest + longest % 2)  # an even number of steps, since codes are stored in pairs
    place = (begin[lane[stored.rows] // lanes] + entry) * lanes + lane[stored.rows] % lanes
    return argument_block(
        *(out, inputs, len(longest), begin, gap_bytes(gaps, place, begin[-1], lanes)),
        *by_steps(storage, stored, place, begin[-1], lanes),
        *(rows, stored.scale[rows], bias[rows], stored.table),
    )


def row_gaps(stored: Nonzeros) -> np.ndarray:
    """How many columns each non-zero is behind the one before it in its row; the first, behind column 0.

    >>> row_gaps(nonzeros("fp32", replace(layer, weight=torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]))))
    array([1, 2, 2])
    """
    before = np.append(0, stored.columns[:-1])
    first = np.append(-1, stored.rows[:-1]) != stored.rows
    return stored.columns - np.where(first[: len(stored.rows)], 0, before[: len(stored.rows)])


def gap_bytes(gaps: np.ndarray, place: np.ndarray, steps: int, lanes: int) -> np.ndarray:
    """The gaps as bytes (steps x lanes,), with the steps between non-zeros that are far from each other.

    >>> gap_bytes(np.array([300]), np.array([1]), 2, 1)
    array([255,  45], dtype=uint8)
    """
    numbers = np.zeros(steps * lanes, np.uint8)
    numbers[place] = gaps % ON
    far = gaps >= ON
    count = gaps[far] // ON
    back = 1 + np.arange(count.sum()) - np.repeat(offsets(count)[:-1], count)
    numbers[np.repeat(place[far], count) - back * lanes] = ON
    return numbers


def emit(machine: Machine, storage: str, relu: bool) -> Function:
    """The kernel in LLVM IR: rows of the weight over the lanes."""
    v = Vector(_lanes(machine))
    f, (out, inputs, slices, begin, gaps, numbers, present, rows, scale, bias, table) = kernel("gaps", 3, 8)
    stored = StoredVectors(f, machine, v, storage, numbers, table, present=present)
    with f.loop(0, slices) as number:
        first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (number, f.add(number, 1)))
        lane = f.multiply(number, v.lanes)
        # Examples inside, so that a slice of the weights is read from memory once for all of them.
        with f.loop(0, "%rows") as example:
            x, y = f.at("%x", f.multiply(example, inputs)), f.at("%y", f.multiply(example, out))
            places = [f.slot(POINTER, x) for _ in range(v.lanes)]
            total = f.slot(v, "zeroinitializer")
            with f.loop(first, stop, 2) as step:
                _emit_steps(stored, step, gaps, places, total)
            factor, shift = (f.load(v, f.at(each, lane)) for each in (scale, bias))
            result = f.multiply_add(v, f.load(v, total), factor, shift)
            emit_scatter(f, v, f.relu(v, result) if relu else result, y, f.at(rows, lane, INTEGER))
    return f


def _emit_steps(stored: StoredVectors, step: str, gaps: str, places: list[str], total: str) -> None:
    """Add two non-zeros of each row, times their inputs, to the slot `total`."""
    f, lanes = stored.f, stored.v.lanes

    def inputs(offset: int, place: str) -> Iterable[str]:
        yield _fetch(f, places, f.at(gaps, f.add(place, offset * lanes), "i8"))

    place = emit_two_steps(stored, step, inputs, [[total, total]])
    # The lanes come to about the same columns at the same time, so one of them leads for all.
    f.prefetch(f.at(f.load(POINTER, places[0]), AHEAD, "i8"))
    prefetch(f, gaps, place, 8, 2 * lanes)
    prefetch_two(stored, place)


def _fetch(f: Function, places: list[str], gaps: str) -> str:
    """Vector of the inputs that the lanes come to, after each place has moved by its gap."""
    v, fetched = Vector(len(places)), "poison"
    for lane, slot in enumerate(places):
        gap = f.value(f"zext i8 {f.load('i8', f.at(gaps, lane, 'i8'))} to i64")
        place = f.at(f.load(POINTER, slot), gap)
        f.store(POINTER, place, slot)
        fetched = f.value(f"insertelement {v} {fetched}, float {f.load('float', place)}, i32 {lane}")
    return fetched


KERNELS = kernels("gaps", accepts, build)
