"""Linear layers of bytes on AVX-512: one row in each lane, quads picked from a window of 64 that moves along.

As in `zero_weights.windows`, where a window holds 32 numbers: a step looks at 64 quads in a row, held by four
registers, out of which two permutations and a choice between them give each lane the one it needs. A step is filled
by four fifths at 10 % quads, and a quad then costs 6.2 bytes.
"""

from __future__ import annotations

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import Function, Vector
from zeroskip.run.argument_block import ArgumentBlock, offsets
from zeroskip.run.convolution.tiles.quad_products import way_of
from zeroskip.run.linear.weight_loads import prefetch
from zeroskip.run.linear.zero_weights.row_slices import by_length
from zeroskip.run.linear.zero_weights.windows import LANES, windows_of
from zeroskip.run.linear_quads.quad_code import SliceCode, emit_products, emitted
from zeroskip.run.linear_quads.quad_layer import QuadLayer, arguments, nonzero_quads

WINDOW = 4 * LANES
MOST = 1 << 16  # quads of an input: windows are numbered with 16 bits


def slices(quads: QuadLayer, machine: Machine) -> ArgumentBlock:
    """The weight cut into slices, in the order in which `emit` reads it."""
    out, count = quads.words.shape
    stored = nonzero_quads(quads)
    rows, lane = by_length(np.bincount(stored.rows, minlength=out), LANES)
    windows, step = windows_of(stored, lane, max(count, WINDOW), WINDOW)
    begin = offsets([len(each) for each in windows])
    window = np.concatenate([np.zeros(0, np.int64), *windows]).astype(np.uint16)
    step = begin[lane[stored.rows] // LANES] + step
    place = step * LANES + lane[stored.rows] % LANES
    picks, words = np.zeros(begin[-1] * LANES, np.uint8), np.zeros(begin[-1] * LANES, np.int32)
    picks[place], words[place] = stored.columns - window[step], stored.numbers
    return arguments(quads, way_of(machine, LANES), begin, rows, words, window, picks)


def emit(machine: Machine, relu: bool) -> Function:
    """The kernel in LLVM IR."""
    return emitted("quad_windows", machine, LANES, relu, 2, _emit_slice)


def _emit_slice(code: SliceCode) -> None:
    f, v, (windows, picks) = code.f, code.v, code.own
    away = [f.multiply(code.stride, example) for example in range(len(code.totals))]
    with f.loop(code.first, code.stop) as step:
        begin = f.value(f"zext i16 {f.load('i16', f.at(windows, step, 'i16'))} to i64")
        place = f.multiply(step, LANES)
        pick = f.value(f"zext {v.of('i8')} {f.load(v.of('i8'), f.at(picks, place, 'i8'))} to {v}")
        window = f.at(code.x, begin, "i32")
        emit_products(code, step, [_picked(f, v, f.at(window, distance, "i32"), pick) for distance in away])
        prefetch(f, picks, place, 8, LANES)


def _picked(f: Function, v: Vector, window: str, pick: str) -> str:
    """Vector of those of the 64 words at `window` that 16 numbers name."""
    parts = [f.load(v, f.at(window, LANES * part, "i32")) for part in range(4)]
    name = "llvm.x86.avx512.vpermi2var.d.512"
    low, high = (f.call(v, name, f"{v} {a}", f"{v} {pick}", f"{v} {b}") for a, b in (parts[:2], parts[2:]))
    bit = f.value(f"and {v} {pick}, {f.splat(v, '32')}")
    above = f.value(f"icmp ne {v} {bit}, zeroinitializer")
    return f.value(f"select {v.mask} {above}, {v} {high}, {v} {low}")
