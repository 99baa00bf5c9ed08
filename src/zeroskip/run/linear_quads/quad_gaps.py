"""Linear layers of bytes on any processor: one row in each lane of a vector, quads by gaps of 8 bits.

As in `zero_weights.gaps`: a byte is the distance from one quad of the row to the next, and each lane's place in the
input is a pointer in a register of its own. Steps without a weight multiply with 0. A quad costs 5 bytes.
"""

from __future__ import annotations

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import POINTER, Function
from zeroskip.run.argument_block import ArgumentBlock, offsets
from zeroskip.run.convolution.tiles.quad_products import way_of
from zeroskip.run.linear.weight_loads import prefetch
from zeroskip.run.linear.zero_weights.gaps import ON, gap_bytes, row_gaps
from zeroskip.run.linear.zero_weights.row_slices import by_length
from zeroskip.run.linear_quads.quad_code import SliceCode, emit_products, emitted
from zeroskip.run.linear_quads.quad_layer import QuadLayer, arguments, nonzero_quads


def lanes_of(machine: Machine) -> int:
    """Rows in a slice: there are registers for the places of eight.

    >>> lanes_of(machine)
    8
    """
    return min(8, machine.vector_bytes // 4)


def slices(quads: QuadLayer, machine: Machine) -> ArgumentBlock:
    """The weight cut into slices, in the order in which `emit` reads it."""
    lanes, out = lanes_of(machine), len(quads.words)
    stored = nonzero_quads(quads)
    gaps = row_gaps(stored)
    steps = np.cumsum(gaps // ON + 1)
    lengths = np.bincount(stored.rows, weights=gaps // ON + 1, minlength=out).astype(np.int64)
    entry = steps - 1 - offsets(lengths)[stored.rows]
    rows, lane = by_length(lengths, lanes)
    begin = offsets(lengths[rows].reshape(-1, lanes).max(axis=1))
    place = (begin[lane[stored.rows] // lanes] + entry) * lanes + lane[stored.rows] % lanes
    words = np.zeros(begin[-1] * lanes, np.int32)
    words[place] = stored.numbers
    way = way_of(machine, lanes)
    return arguments(quads, way, begin, rows, words, gap_bytes(gaps, place, begin[-1], lanes))


def emit(machine: Machine, relu: bool) -> Function:
    """The kernel in LLVM IR."""
    return emitted("quad_gaps", machine, lanes_of(machine), relu, 1, _emit_slice)


def _emit_slice(code: SliceCode) -> None:
    f, v, gaps = code.f, code.v, code.own[0]
    places = [f.slot(POINTER, code.x) for _ in range(v.lanes)]
    away = [f.multiply(code.stride, example) for example in range(len(code.totals))]
    with f.loop(code.first, code.stop) as step:
        place = f.multiply(step, v.lanes)
        vectors = ["poison"] * len(away)
        for lane, slot in enumerate(places):
            gap = f.load("i8", f.at(gaps, f.add(place, lane), "i8"))
            pointer = f.at(f.load(POINTER, slot), f.value(f"zext i8 {gap} to i64"), "i32")
            f.store(POINTER, pointer, slot)
            for example, distance in enumerate(away):
                quad = f.load("i32", f.at(pointer, distance, "i32"))
                vectors[example] = f.value(f"insertelement {v} {vectors[example]}, i32 {quad}, i32 {lane}")
        emit_products(code, step, vectors)
        prefetch(f, gaps, place, 8, v.lanes)
