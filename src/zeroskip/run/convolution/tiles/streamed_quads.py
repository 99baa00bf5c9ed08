"""Convolutions of quads that read their pattern as data: for every processor that LLVM knows, equal in every bit.

As in `streamed`, the sums of one output channel at a rectangle of places stay in registers while its list of weights
goes by; then four channels, one after the other, become the bytes of each lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import addresses, argument_block, offsets
from zeroskip.run.convolution.tiles.activation import Activation, activated_on
from zeroskip.run.convolution.tiles.listed_quads import is_few, listed_quads
from zeroskip.run.convolution.tiles.quad_job import QUAD, QuadEpilogue, QuadJob
from zeroskip.run.convolution.tiles.quad_numbers import fused, nearest
from zeroskip.run.convolution.tiles.quad_products import (
    arranged,
    byte,
    moved_start,
    prepared,
    product,
    way_of,
)
from zeroskip.run.convolution.tiles.shared_weights import in_memory
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept
from zeroskip.run.convolution.tiles.streamed import RectangleSums, corners, flags, sums_of

PLACES = {16: 14, 8: 7, 4: 7}  # sums at a time, by lanes
FLOATS = 4  # numbers of an epilogue: scale of the residual, 1 / scale, least and most


@dataclass(frozen=True)
class _Form:
    """What code depends on, besides the machine; scales are read as data.

    count  words of a quad's weights
    bits   of the numbers of rows in lists
    """

    sums: RectangleSums
    way: str
    count: int
    bits: int
    residual: bool
    activation: Activation | None
    quantised: bool


def streamed_quads(job: QuadJob, machine: Machine) -> Step:
    """The job with its pattern as data."""
    if is_few(job):
        return listed_quads(job, machine)
    lanes, epilogue = job.x.layout.lanes, job.epilogue
    sums, way = sums_of(job, PLACES[lanes], 1), way_of(machine, lanes)
    out = len(job.weights.words)
    more = -out % QUAD if epilogue.output is not None else 0  # channels that fill up the last quad
    held = in_memory(job.sharing, job.weights, ("streamed", way, more), lambda: _lists(job, way, more))
    count, bits, *lists = held.fields
    assert isinstance(count, int)
    assert isinstance(bits, int)
    form = _Form(
        sums,
        way,
        count,
        bits,
        epilogue.residual is not None,
        epilogue.activation,
        epilogue.output is not None,
    )
    zero_point = 0 if epilogue.output is None else epilogue.output.zero_point
    made = argument_block(
        *corners(job, sums, least=int(job.weights.offsets.min(initial=0))),
        *(out, out + more, zero_point, *lists, _floats(epilogue)),
        alive=held.alive,
    )
    return Step("streamed", job.node, _code(machine, form), made, held)


def _lists(job: QuadJob, way: str, more: int) -> tuple[tuple[int, ...], tuple[object, ...]]:
    """Words of a quad, bits of a row's number, and the weights of `more` channels in memory, as fields of arguments."""
    weights = job.weights
    outs, ks = np.nonzero(weights.words)
    counts = np.bincount(outs, minlength=len(weights.words) + more)
    places = (weights.offsets - weights.offsets.min(initial=0)) // job.x.layout.vector_bytes
    narrow = np.dtype(np.uint16 if places.max(initial=0) < 1 << 16 else np.uint32)
    words = arranged(way, weights.words[outs, ks])
    start = moved_start(way, weights.words, weights.start)
    numbers = [np.pad(each, (0, more)) for each in (start, weights.factor, weights.bias)]
    parts = [offsets(counts), places[ks].astype(narrow), words, *numbers]
    held = argument_block(*parts)
    return (words.shape[-1], 8 * narrow.itemsize, *addresses(held, len(parts))), held.alive


def _floats(epilogue: QuadEpilogue) -> np.ndarray:
    output = epilogue.output
    residual = 0.0 if epilogue.residual is None else epilogue.residual.scale
    rest = (0.0, 0.0, 0.0) if output is None else (output.inverse, -output.zero_point, output.most)
    return np.array([residual, *rest], np.float32)


@dataclass(frozen=True)
class _Fields:
    """Names of values: the fields of the argument block."""

    count: str
    x: str
    y: str
    other: str
    masks: str
    out: str
    whole: str
    zero_point: str
    begin: str
    rows: str
    words: str
    starts: str
    factors: str
    biases: str
    floats: str


KINDS = [INTEGER, *[POINTER] * 4, *[INTEGER] * 3, *[POINTER] * 7]


@cache
def _code(machine: Machine, form: _Form) -> Callable[..., None]:
    f, names = function("streamed_quads", KINDS)
    fields, v, sums = _Fields(*names), form.sums.v.of("i32"), form.sums
    floats = [f.splat(v.of("float"), f.load("float", f.at(fields.floats, at))) for at in range(FLOATS)]
    with f.loop(0, fields.count) as number:
        x, y, other = (at_offset(f, each, number) for each in (fields.x, fields.y, fields.other))
        held = flags(f, sums, fields.masks, number)
        with f.loop(0, fields.whole, QUAD if form.quantised else 1) as first:
            woven = [f.slot(v, "zeroinitializer") for _ in sums.steps]
            with f.loop(first, f.add(first, QUAD if form.quantised else 1)) as out:
                totals = _summed(f, form, fields, x, out)
                place = f.value(f"trunc i64 {f.value(f'urem i64 {out}, {QUAD}')} to i32")
                channel = _Channel(out, place, f.at(other, f.multiply(_divided(f, out), v.lanes), "i32"))
                for at, total in enumerate(totals):
                    value = _scaled(f, machine, form, fields, channel, (f.load(v, total), floats[0], at))
                    if form.quantised:
                        _weave_(f, v, value, woven[at], _Rounding(fields, channel, floats))
                    else:
                        w = v.of("float")
                        to = f.at(f.at(y, f.multiply(out, v.lanes)), sums.steps[at][1], "i8")
                        f.store(w, kept(f, w, held[at], value), to)
            if form.quantised:
                target = f.at(y, f.multiply(_divided(f, first), v.lanes), "i32")
                word = f.value(f"mul i32 {f.value(f'trunc i64 {fields.zero_point} to i32')}, {0x01010101}")
                fill = f.splat(v, word)
                for slot, mask, (_, step, _) in zip(woven, held, sums.steps, strict=True):
                    signed = f.value(f"xor {v} {f.load(v, slot)}, {fill}")
                    f.store(v, kept(f, v, mask, signed, fill), f.at(target, step, "i8"))
    return compiled(f, machine)


@dataclass(frozen=True)
class _Channel:
    """Names of values: the output channel, its place in its quad (i32), and where the residual's quad lies."""

    out: str
    place: str
    added: str


@dataclass(frozen=True)
class _Rounding:
    """What bytes are made by."""

    fields: _Fields
    channel: _Channel
    floats: Sequence[str]


def _divided(f: Function, out: str) -> str:
    return f.value(f"udiv i64 {out}, {QUAD}")


def _summed(f: Function, form: _Form, fields: _Fields, x: str, out: str) -> list[str]:
    """Slots with the sums of an output channel at all places."""
    v, steps = form.sums.v.of("i32"), form.sums.steps
    start = f.splat(v, f.load("i32", f.at(fields.starts, out, "i32")))
    totals = [f.slot(v, start) for _ in steps]
    begin, stop = (f.load(INTEGER, f.at(fields.begin, end, INTEGER)) for end in (out, f.add(out, 1)))
    with f.loop(begin, stop) as at:
        narrow = f.load(f"i{form.bits}", f.at(fields.rows, at, f"i{form.bits}"))
        source = f.at(x, f.value(f"zext i{form.bits} {narrow} to i64"), v)
        first = f.at(fields.words, f.multiply(at, form.count), "i32")
        weights = [f.splat(v, f.load("i32", f.at(first, word, "i32"))) for word in range(form.count)]
        for total, (step, _, _) in zip(totals, steps, strict=True):
            inputs = prepared(f, v, form.way, f.load(v, f.at(source, step, "i8")))
            f.store(v, product(f, v, form.way, f.load(v, total), inputs, weights), total)
    return totals


def _scaled(
    f: Function, machine: Machine, form: _Form, fields: _Fields, channel: _Channel, sums: tuple[str, str, int]
) -> str:
    """y as a vector of floats; `sums`: the sums, the residual's scale, and the number of the place."""
    v = form.sums.v.of("float")
    total, scale, place = sums
    factor, bias = (
        f.splat(v, f.load("float", f.at(each, channel.out))) for each in (fields.factors, fields.biases)
    )
    words = v.of("i32")
    value = fused(f, v, machine, f.value(f"sitofp {words} {total} to {v}"), factor, bias)
    if form.residual:
        quad = f.load(words, f.at(channel.added, form.sums.steps[place][2], "i8"))
        added = f.value(f"uitofp {words} {byte(f, words, quad, channel.place)} to {v}")
        value = fused(f, v, machine, added, scale, value)
    return value if form.activation is None else activated_on(machine, f, v, form.activation, value)


def _weave_(f: Function, v: Vector, value: str, slot: str, rounding: _Rounding) -> None:
    """Put y, as bytes counted from the zero point, into the lanes' bytes; 0 for channels that are not there."""
    w, (_, inverse, least, most) = v.of("float"), rounding.floats
    whole = nearest(f, w, f.value(f"fmul {w} {value}, {inverse}"), least, most)
    real = f.value(f"icmp slt i64 {rounding.channel.out}, {rounding.fields.out}")
    whole = f.value(f"select i1 {real}, {v} {whole}, {v} zeroinitializer")
    low = f.value(f"and {v} {whole}, {f.splat(v, '255')}")
    moved = f.value(f"shl {v} {low}, {f.splat(v, f.value(f'shl i32 {rounding.channel.place}, 3'))}")
    f.store(v, f.value(f"or {v} {f.load(v, slot)}, {moved}"), slot)
