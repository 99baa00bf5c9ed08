"""Large sparse linear layers on AVX-512: one row in each lane, inputs picked from a window of 32 that moves along.

As in `sell`, rows sorted by their number of non-zeros are cut into slices of 16. A step looks at 32 inputs in a row,
held by two registers, out of which one instruction (vpermi2ps) gives each lane the one it needs: no address is
computed and nothing is gathered. The window begins where the slowest row goes on. Rows whose next non-zero lies
behind it wait: a step is filled by two thirds at 9 % non-zeros, which costs bytes but less than gathering costs time.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import INTEGER, Function, Vector
from zeroskip.run.argument_block import ArgumentBlock, argument_block, offsets
from zeroskip.run.linear.compiled_linear import CompiledLinear, compiled, compiled_layer, kernel
from zeroskip.run.linear.refusals import without_zeros
from zeroskip.run.linear.stored_weights import Nonzeros, arrays, by_steps, cannot_be_stored, kernels, nonzeros
from zeroskip.run.linear.weight_loads import StoredVectors, prefetch, prefetch_two
from zeroskip.run.linear.zero_weights.row_slices import by_length, emit_scatter, emit_two_steps

LANES = 16
FLOATS = Vector(LANES)
WINDOW = 2 * LANES
TOGETHER = 4  # examples of a batch that a weight is unpacked for at once


def accepts(storage: str, layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why there are no windows for this layer and machine.

    >>> accepts("fp32", layer, machine, Precision())
    '6 inputs: windows begin at 0 to 65535 and hold 32'
    """
    reason = without_zeros(layer) or cannot_be_stored(storage, layer, precision)
    if reason:
        return reason
    if machine.vector_bytes != 64:
        return "needs the permutations of AVX-512"
    inputs = layer.weight.shape[1]
    fits = WINDOW <= inputs < 1 << 16
    return None if fits else f"{inputs} inputs: windows begin at 0 to 65535 and hold {WINDOW}"


def build(storage: str, layer: Layer, machine: Machine, precision: Precision, relu: bool) -> CompiledLinear:
    """The layer as a function of its float32 input (..., in)."""
    return compiled_layer(layer, machine, compiled(emit, machine, storage, relu), _slices(storage, layer))


def _slices(storage: str, layer: Layer) -> ArgumentBlock:
    """The weight cut into slices, in the order in which `emit` reads it."""
    (out, inputs), (_, bias) = layer.weight.shape, arrays(layer)
    stored = nonzeros(storage, layer)
    rows, lane = by_length(np.bincount(stored.rows, minlength=out), LANES)
    windows, step = windows_of(stored, lane, inputs, WINDOW)
    counts = np.array([len(each) for each in windows])
    begin = offsets(counts + counts % 2)  # an even number of steps, since codes are stored in pairs
    window = np.zeros(begin[-1], np.uint16)
    for first, each in zip(begin, windows, strict=False):
        window[first : first + len(each)] = each
    step = begin[lane[stored.rows] // LANES] + step
    place = step * LANES + lane[stored.rows] % LANES
    picks = np.zeros(begin[-1] * LANES, np.uint8)
    picks[place] = stored.columns - window[step]
    return argument_block(
        *(out, inputs, len(counts), begin, window, picks),
        *by_steps(storage, stored, place, begin[-1], LANES),
        *(rows, stored.scale[rows], bias[rows], stored.table),
    )


def windows_of(
    stored: Nonzeros, lane: np.ndarray, inputs: int, width: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Where the windows of each slice begin, and in which step of its slice each non-zero is (count,).

    lane   (out,) of each row, in whole slices
    width  of a window, at most `inputs`

    >>> stored = nonzeros("fp32", replace(layer, weight=torch.eye(3)))
    >>> windows_of(stored, np.array([13, 14, 15]), 3, 2)
    ([array([0, 1])], array([0, 0, 1]))
    """
    slices = int(lane.max(initial=-1)) // LANES + 1
    done = np.iinfo(np.int64).max
    # The columns of each lane with a mark at their end; `next` is where a lane has come to.
    ends = offsets(np.bincount(lane[stored.rows], minlength=slices * LANES) + 1)
    columns = np.full(ends[-1], done)
    rank = np.arange(len(stored.rows)) - offsets(np.bincount(stored.rows, minlength=len(lane)))[stored.rows]
    place = ends[lane[stored.rows]] + rank
    columns[place] = stored.columns
    step, following = np.zeros(ends[-1], np.int64), ends[:-1].copy()
    begun: list[np.ndarray] = []
    while True:
        column = columns[following]
        first = column.reshape(slices, LANES).min(axis=1)
        if (first == done).all():
            break
        begin = np.where(first == done, -1, np.minimum(first, inputs - width))
        taken = column < np.repeat(begin + width, LANES)
        step[following[taken]] = len(begun)
        following += taken
        begun.append(begin)
    table = np.stack(begun, axis=1) if begun else np.zeros((slices, 0), np.int64)
    return [each[each >= 0] for each in table], step[place]


def emit(machine: Machine, storage: str, relu: bool) -> Function:
    """The kernel in LLVM IR: rows of the weight over the lanes."""
    f, fields = kernel("windows", 3, 9)
    out, inputs, slices, begin, windows, picks, numbers, present, rows, scale, bias, table = fields
    v = FLOATS
    stored = StoredVectors(f, machine, v, storage, numbers, table, present=present)
    whole = f.value(f"and i64 %rows, {-TOGETHER}")
    with f.loop(0, slices) as number:
        first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (number, f.add(number, 1)))
        lane = f.multiply(number, LANES)
        factor, shift = (f.load(v, f.at(each, lane)) for each in (scale, bias))
        # Examples inside, so that a slice of the weights is read from memory once for all of them.
        for start, end, count in ((0, whole, TOGETHER), (whole, "%rows", 1)):
            with f.loop(start, end, count) as first_example:
                examples = [f.add(first_example, each) for each in range(count)]
                xs = [f.at("%x", f.multiply(each, inputs)) for each in examples]
                sums = [[f.slot(v, "zeroinitializer") for _ in range(2)] for _ in examples]
                with f.loop(first, stop, 2) as step:
                    _emit_steps(stored, step, windows, picks, xs, sums)
                for example, (even, odd) in zip(examples, sums, strict=True):
                    total = f.value(f"fadd {v} {f.load(v, even)}, {f.load(v, odd)}")
                    result = f.multiply_add(v, total, factor, shift)
                    y = f.at("%y", f.multiply(example, out))
                    emit_scatter(f, v, f.relu(v, result) if relu else result, y, f.at(rows, lane, INTEGER))
    return f


def _emit_steps(
    stored: StoredVectors, step: str, windows: str, picks: str, xs: list[str], sums: list[list[str]]
) -> None:
    """Add two steps' non-zeros, times the inputs of each example, to two slots of the example."""
    f = stored.f

    def inputs(offset: int, place: str) -> Iterable[str]:
        begin = f.value(f"zext i16 {f.load('i16', f.at(windows, f.add(step, offset), 'i16'))} to i64")
        pick = f.load(FLOATS.of("i8"), f.at(picks, f.add(place, offset * LANES), "i8"))
        for x in xs:
            yield _picked(f, f.at(x, begin), pick)

    place = emit_two_steps(stored, step, inputs, sums)
    prefetch(f, picks, place, 8, 2 * LANES)
    prefetch_two(stored, place)


def _picked(f: Function, window: str, pick: str) -> str:
    """Vector of those of the 32 floats at `window` that the 16 bytes of `pick` name."""
    v, numbers = FLOATS, FLOATS.of("i32")
    low, high = (f.load(v, f.at(window, offset)) for offset in (0, LANES))
    wide = f.value(f"zext {v.of('i8')} {pick} to {numbers}")
    return f.call(v, "llvm.x86.avx512.vpermi2var.ps.512", f"{v} {low}", f"{numbers} {wide}", f"{v} {high}")


KERNELS = kernels("windows", accepts, build)
