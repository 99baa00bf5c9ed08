"""Large sparse linear layers on AVX-512: one row in each lane, inputs picked from a window of 32 that moves along.

As in `sell`, rows sorted by their number of non-zeros are cut into slices of 16. A step looks at 32 inputs in a row,
held by two registers, out of which one instruction (vpermi2ps) gives each lane the one it needs: no address is
computed and nothing is gathered. The window begins where the slowest row goes on. Rows whose next non-zero lies
behind it wait: a step is filled by two thirds at 9 % non-zeros, which costs bytes but less than gathering costs time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, vector
from zeroskip.run.linear.stored_weights import (
    BITS,
    KINDS,
    Nonzeros,
    ask,
    by_steps,
    kernels,
    met,
    nonzeros,
    pair,
)
from zeroskip.run.linear.zero_weights.sell import scatter
from zeroskip.run.machine_code import ARGUMENTS, Compiled, Plan, arrays, by_length, plan, starts

LANES = 16
WINDOW = 2 * LANES
TOGETHER = 4  # examples of a batch that a weight is unpacked for at once


def accepts(kind: str, layer: Layer, machine: Machine) -> str | None:
    """None, or why there are no windows for this layer and machine.

    >>> accepts("int8", layer, replace(detect(), vector_bytes=32))
    'needs the permutations of AVX-512'
    """
    if machine.vector_bytes != 64:
        return "needs the permutations of AVX-512"
    inputs = layer.weight.shape[1]
    return (
        None
        if WINDOW <= inputs < 1 << 16
        else f"{inputs} inputs: windows begin at 0 to 65535 and hold {WINDOW}"
    )


def build(kind: str, layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Compiled:
    """The layer as a function of its float32 input (..., in); weights are stored as `kind` says.

    A zero weight is skipped, so its product with an infinite or NaN input is 0 here and NaN in PyTorch.

    >>> build("int8", layer, detect(), Precision(weights="int8"), True)(torch.zeros(2, 64)).shape
    torch.Size([2, 300])
    """
    out, inputs = layer.weight.shape
    return Compiled(_compiled(machine, kind, relu), _slices(kind, layer), inputs, out, machine)


def _slices(kind: str, layer: Layer) -> Plan:
    """The weight cut into slices, in the order in which `emit` reads it."""
    (out, inputs), (_, bias) = layer.weight.shape, arrays(layer)
    stored = nonzeros(kind, layer)
    rows, lane = by_length(np.bincount(stored.rows, minlength=out), LANES)
    windows, step = _windows(stored, lane, inputs, len(rows) // LANES)
    counts = np.array([len(each) for each in windows])
    begin = starts(counts + counts % 2)  # an even number of steps, since codes are stored in pairs
    window = np.zeros(begin[-1], np.uint16)
    for first, each in zip(begin, windows, strict=False):
        window[first : first + len(each)] = each
    step = begin[lane[stored.rows] // LANES] + step
    place = step * LANES + lane[stored.rows] % LANES
    picks = np.zeros(begin[-1] * LANES, np.uint8)
    picks[place] = stored.columns - window[step]
    return plan(
        *(out, inputs, len(counts), begin, window, picks),
        *by_steps(kind, stored, place, begin[-1], LANES),
        *(rows, stored.scale[rows], bias[rows], stored.table),
    )


def _windows(
    stored: Nonzeros, lane: np.ndarray, inputs: int, slices: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Where the windows of each slice begin, and in which step of its slice each non-zero is (count,)."""
    done = np.iinfo(np.int64).max
    # The columns of each lane with a mark at their end; `next` is where a lane has come to.
    ends = starts(np.bincount(lane[stored.rows], minlength=slices * LANES) + 1)
    columns = np.full(ends[-1], done)
    rank = np.arange(len(stored.rows)) - starts(np.bincount(stored.rows, minlength=len(lane)))[stored.rows]
    place = ends[lane[stored.rows]] + rank
    columns[place] = stored.columns
    step, following = np.zeros(ends[-1], np.int64), ends[:-1].copy()
    begun: list[np.ndarray] = []
    while True:
        column = columns[following]
        first = column.reshape(slices, LANES).min(axis=1)
        if (first == done).all():
            break
        begin = np.where(first == done, -1, np.minimum(first, inputs - WINDOW))
        taken = column < np.repeat(begin + WINDOW, LANES)
        step[following[taken]] = len(begun)
        following += taken
        begun.append(begin)
    table = np.stack(begun, axis=1) if begun else np.zeros((slices, 0), np.int64)
    return [each[each >= 0] for each in table], step[place]


@cache
def _compiled(machine: Machine, kind: str, relu: bool) -> Callable[..., None]:
    return compile_function(emit(machine, kind, relu=relu).text(machine), "windows", machine, len(ARGUMENTS))


def emit(machine: Machine, kind: str, *, relu: bool) -> Function:
    """The kernel in LLVM IR: rows of the weight over the lanes.

    >>> emit(detect(), "int8", relu=False).name
    'windows'
    """
    f = Function("windows", ARGUMENTS)
    out, inputs, slices, begin, *weights, rows, scale, bias, table = f.fields(
        "%plan", [INTEGER] * 3 + [POINTER] * 9
    )
    whole = f.value(f"and i64 %rows, {-TOGETHER}")
    with f.loop(0, slices) as number:
        first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (number, f.add(number, 1)))
        lane = f.multiply(number, LANES)
        factor, shift = (f.load(vector(LANES), f.at(each, lane)) for each in (scale, bias))
        # Examples inside, so that a slice of the weights is read from memory once for all of them.
        for start, end, count in ((0, whole, TOGETHER), (whole, "%rows", 1)):
            with f.loop(start, end, count) as first_of_some:
                some = [f.add(first_of_some, each) for each in range(count)]
                xs = [f.at("%x", f.multiply(each, inputs)) for each in some]
                sums = [[f.slot(vector(LANES), "zeroinitializer") for _ in range(2)] for _ in some]
                with f.loop(first, stop, 2) as step:
                    _two_steps(f, machine, kind, step, xs, sums, [*weights, table])
                for example, (even, odd) in zip(some, sums, strict=True):
                    both = f"{f.load(vector(LANES), even)}, {f.load(vector(LANES), odd)}"
                    total = f.value(f"fadd {vector(LANES)} {both}")
                    result = f.multiply_add(LANES, total, factor, shift)
                    y = f.at("%y", f.multiply(example, out))
                    scatter(f, LANES, f.relu(LANES, result) if relu else result, y, f.at(rows, lane, INTEGER))
    return f


def _two_steps(
    f: Function,
    machine: Machine,
    kind: str,
    step: str,
    xs: list[str],
    sums: list[list[str]],
    weights: list[str],
) -> None:
    """Add two steps' non-zeros, times the inputs of each example, to two slots of the example."""
    windows, picks, numbers, present, table = weights
    place = f.multiply(step, LANES)
    for offset, values in enumerate(pair(f, machine, kind, LANES, numbers, place, table)):
        begin = f.value(f"zext i16 {f.load('i16', f.at(windows, f.add(step, offset), 'i16'))} to i64")
        pick = f.load(vector(LANES, "i8"), f.at(picks, f.add(place, offset * LANES), "i8"))
        for x, slots in zip(xs, sums, strict=True):
            inputs = _picked(f, f.at(x, begin), pick)
            fetched = met(f, kind, LANES, inputs, values, present, f.add(step, offset))
            total = f.load(vector(LANES), slots[offset])
            f.store(vector(LANES), f.multiply_add(LANES, values, fetched, total), slots[offset])
    ask(f, picks, place, 8, 2 * LANES)
    ask(f, numbers, place, BITS[kind], 2 * LANES)


def _picked(f: Function, window: str, pick: str) -> str:
    """Vector of those of the 32 floats at `window` that the 16 bytes of `pick` name."""
    kind = vector(LANES)
    low, high = (f.load(kind, f.at(window, offset)) for offset in (0, LANES))
    wide = f.value(f"zext {vector(LANES, 'i8')} {pick} to {vector(LANES, 'i32')}")
    name = "llvm.x86.avx512.vpermi2var.ps.512"
    return f.call(kind, name, f"{kind} {low}", f"{vector(LANES, 'i32')} {wide}", f"{kind} {high}")


KERNELS = kernels("windows", KINDS, accepts, build)
