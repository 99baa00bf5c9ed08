"""Baked sums of quads that an activation follows, chunk by chunk, while they are in the first-level cache.

Baked code has no room for a GELU: its registers hold sums. So a chunk writes its sums as fp32 to the stack, and code by
LLVM makes them bytes of y, or fp32 where y holds that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.activation import Activation, activated_on
from zeroskip.run.convolution.tiles.baked_frame import SUMS, TABLE_MASK, TABLE_ROW, VECTOR
from zeroskip.run.convolution.tiles.convolution_job import table
from zeroskip.run.convolution.tiles.quad_job import QUAD, QuadJob
from zeroskip.run.convolution.tiles.quad_numbers import ByteEnds, ends_of, quad_of, rounding_way
from zeroskip.run.convolution.tiles.shared_weights import SharedWeights
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, lanes_of

BAND = 8  # vectors whose sums lie on the stack at a time, at most
ROOM = 1 << 16  # bytes of the stack for sums
MOST_GROUPS = ROOM // (
    BAND * SUMS * VECTOR
)  # of sums in a chunk, whatever the size of maps, which share code


def activated_quads(job: QuadJob, placed: SharedWeights, cut: tuple[int, int], machine: Machine) -> Step:
    """The job as a step by its code in memory; `cut`: vectors of a band, and channels of a chunk."""
    (band, channels), output, active = cut, job.epilogue.output, job.epilogue.activation
    (chunks,) = placed.fields
    assert active is not None
    assert isinstance(chunks, np.ndarray)
    rows, out = table(job), len(job.weights.words)
    places = job.y.first + rows[:, 1]
    rows[:, 1] = np.arange(len(rows)) % band * channels * VECTOR
    word = 0 if output is None else output.word & 0xFFFFFFFF
    numbers = len(rows), band, len(chunks), job.x.first, job.added.first, out, channels, word
    block = argument_block(
        *numbers, rows, chunks, places, np.array(ends_of(output), np.float32), alive=placed.alive
    )
    v = job.y.layout.vector.of("float")
    form = _Form(active, output is not None, out % QUAD == 0, rounding_way(machine, v, output))
    return Step("baked", job.node, _code(machine, v, form), block, placed)


@dataclass(frozen=True)
class _Form:
    """What the code depends on; `whole`: the last quad has four channels; `way`: `rounding_way`."""

    activation: Activation
    quantised: bool
    whole: bool
    way: str


@dataclass(frozen=True)
class _Fields:
    """Names of values: the fields of the argument block."""

    count: str
    band: str
    chunks: str
    x: str
    residual: str
    out: str
    channels: str
    word: str
    rows: str
    codes: str
    places: str
    ends: str


@cache
def _code(machine: Machine, v: Vector, form: _Form) -> Callable[..., None]:
    f, names = function("baked", [INTEGER] * 8 + [POINTER] * 4)
    fields, sums = _Fields(*names), f.room(v, ROOM // VECTOR)
    ends = ByteEnds.read(f, v, fields.ends, fields.word, form.way)
    x, residual = (f.at("%base", each, "i8") for each in (fields.x, fields.residual))
    with f.loop(0, fields.count, fields.band) as start:
        vectors = f.smaller(fields.band, f.subtract(fields.count, start))
        rows = f.at(fields.rows, f.multiply(start, TABLE_ROW), "i8")
        with f.loop(0, fields.chunks) as number:
            chunk = f.at(fields.codes, f.multiply(number, 4), INTEGER)
            code, weights, more = f.fields(chunk, [POINTER, POINTER, INTEGER])
            pointers = f"ptr {f.at(x, more, 'i8')}, ptr {weights}, ptr {sums}"
            f.do(f"call void {code}({pointers}, i64 {vectors}, ptr {residual}, ptr {rows})")
            first = f.multiply(number, fields.channels)
            count = f.smaller(fields.channels, f.subtract(fields.out, first))
            with f.loop(0, vectors) as vector:
                place = f.add(start, vector)
                bits = f.load(
                    INTEGER, f.at(fields.rows, f.add(f.multiply(place, TABLE_ROW), TABLE_MASK), "i8")
                )
                at = _Place(
                    f.at(sums, f.multiply(f.multiply(vector, fields.channels), v.lanes)),
                    at_offset(f, fields.places, place), lanes_of(f, v, bits), first, count,
                )  # fmt: skip
                if form.quantised:
                    _write_quads(f, v, (machine, form), ends, at)
                else:
                    _write_floats(f, v, (machine, form), at)
    return compiled(f, machine)


@dataclass(frozen=True)
class _Place:
    """Names of values: where the sums of a vector lie and where y does, its lanes, its channels in the chunk."""

    sums: str
    y: str
    mask: str
    first: str
    count: str


def _write_quads(f: Function, v: Vector, kind: tuple[Machine, _Form], ends: ByteEnds, at: _Place) -> None:
    """The chunk's channels as bytes."""
    words, (machine, form) = v.of("i32"), kind
    target = f.at(at.y, f.multiply(f.value(f"udiv i64 {at.first}, {QUAD}"), v.lanes))
    with f.loop(0, at.count, QUAD) as channel:
        values = []
        for part in range(QUAD):
            number = f.add(channel, part)
            value = f.load(v, f.at(at.sums, f.multiply(number, v.lanes)))
            value = activated_on(machine, f, v, form.activation, value)
            if not form.whole:
                real = f.value(f"icmp slt i64 {number}, {at.count}")
                value = f.value(f"select i1 {real}, {v} {value}, {v} zeroinitializer")
            values.append(value)
        place = f.multiply(f.value(f"udiv i64 {channel}, {QUAD}"), v.lanes)
        f.store(words, kept(f, words, at.mask, quad_of(f, v, ends, values), ends.fill), f.at(target, place))


def _write_floats(f: Function, v: Vector, kind: tuple[Machine, _Form], at: _Place) -> None:
    machine, form = kind
    with f.loop(0, at.count) as channel:
        place = f.multiply(channel, v.lanes)
        value = activated_on(machine, f, v, form.activation, f.load(v, f.at(at.sums, place)))
        to = f.at(at.y, f.multiply(f.add(at.first, channel), v.lanes))
        f.store(v, kept(f, v, at.mask, value), to)
