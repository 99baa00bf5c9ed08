"""Convolutions of quads for few vectors: as `streamed_quads`, but several outputs go through their lists together.

Where a map has one vector or a few, each weight serves little work: what counts is how fast lists are read, and that no
loop ends by surprise. So outputs are sorted by the length of their lists, four neighbours share a loop, shorter lists
filled up with zeros, and their sums lie in the first-level cache until all of a chunk's outputs are there in order.
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
from zeroskip.run.convolution.tiles.convolution_job import table
from zeroskip.run.convolution.tiles.quad_job import QUAD, QuadEpilogue, QuadJob
from zeroskip.run.convolution.tiles.quad_numbers import ByteEnds, ends_of, fused, quad_of, rounding_way
from zeroskip.run.convolution.tiles.quad_products import (
    arranged,
    byte,
    moved_start,
    prepared,
    product,
    way_of,
)
from zeroskip.run.convolution.tiles.shared_weights import in_memory
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at

FEW = 8  # vectors of a map up to which this is used
TOGETHER = 4  # outputs that share a loop
MOST = 4  # vectors at a time
STEP = 8  # bytes in which rows are counted
NEAR = 1 << 15  # bytes that stay in the first-level cache: of a chunk's sums, and of the input


@dataclass(frozen=True)
class _Form:
    """What code depends on, besides the machine and the way of products.

    count    words of a quad's weights
    vectors  worked on at a time
    whole    the last quad of outputs has four channels
    rounding  `rounding_way`
    """

    v: Vector
    way: str
    count: int
    vectors: int
    residual: bool
    activation: Activation | None
    quantised: bool
    whole: bool
    rounding: str


def is_few(job: QuadJob) -> bool:
    """Whether the map has so few vectors, and rows so near, that lists are read fastest in this way."""
    places = job.weights.offsets // STEP
    return job.y.layout.vectors <= FEW and int(places.max(initial=0) - places.min(initial=0)) < 1 << 16


def listed_quads(job: QuadJob, machine: Machine) -> Step:
    """The job with its pattern as data."""
    v, epilogue, out = job.x.layout.vector.of("i32"), job.epilogue, len(job.weights.words)
    vectors = min(MOST, job.y.layout.vectors, max(1, NEAR // job.x.layout.place_bytes))
    way = way_of(machine, v.lanes)
    chunk = NEAR // (vectors * job.y.layout.vector_bytes) // QUAD * QUAD
    held = in_memory(job.sharing, job.weights, ("listed", way, chunk), lambda: _placed(job, way, chunk))
    count, chunks, *lists = held.fields
    assert isinstance(count, int)
    form = _Form(
        v, way, count, vectors, epilogue.residual is not None, epilogue.activation,
        epilogue.output is not None, out % QUAD == 0,
        rounding_way(machine, v, epilogue.output),
    )  # fmt: skip
    rows, least = table(job), int(job.weights.offsets.min(initial=0))
    places = [
        rows[:, 0] + job.x.first + least,
        rows[:, 1] + job.y.first,
        rows[:, 2] + job.added.first,
        rows[:, 3],
    ]
    word = 0 if epilogue.output is None else epilogue.output.word & 0xFFFFFFFF
    made = argument_block(len(rows), out, chunks, word, *places, *lists, _floats(epilogue), alive=held.alive)
    return Step("streamed", job.node, _code(machine, form), made, held)


def _placed(job: QuadJob, way: str, chunk: int) -> tuple[tuple[int, ...], tuple[object, ...]]:
    """Words of a quad, the number of chunks, and the lists of weights in memory, as fields of arguments."""
    lists, weights = _lists(job, way, chunk), job.weights
    parts = [
        lists.groups, lists.begin, lists.rows, lists.words, lists.starts, lists.order, lists.firsts,
        weights.factor, weights.bias,
    ]  # fmt: skip
    held = argument_block(*parts)
    return (lists.words.shape[-1], len(lists.groups) - 1, *addresses(held, len(parts))), held.alive


def _floats(epilogue: QuadEpilogue) -> np.ndarray:
    scale = 0.0 if epilogue.residual is None else epilogue.residual.scale
    return np.array([*ends_of(epilogue.output), scale], np.float32)


@dataclass(frozen=True)
class _Lists:
    """Groups of outputs, chunk by chunk.

    groups  (chunks + 1,): where the groups of each chunk begin
    begin   (groups + 1,): where the steps of each group begin
    rows    (steps, 4) uint16, words (steps, 4, count) int32
    starts  (groups, 4) int32; order (groups, 4) int64: where among the chunk's outputs sums belong
    firsts  (chunks + 1,): the first output of each chunk
    """

    groups: np.ndarray
    begin: np.ndarray
    rows: np.ndarray
    words: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    firsts: np.ndarray


def _lists(job: QuadJob, way: str, chunk: int) -> _Lists:
    weights = job.weights
    out = len(weights.words)
    places = (weights.offsets - weights.offsets.min(initial=0)) // STEP
    counts = np.count_nonzero(weights.words, axis=1)
    chunks = [np.arange(first, min(first + chunk, out)) for first in range(0, out, chunk)]
    ordered = [_filled(part[np.argsort(-counts[part], kind="stable")]) for part in chunks]
    groups = np.concatenate(ordered).reshape(-1, TOGETHER)  # outputs, of which the last are repeated
    steps = counts[groups].max(1)
    begin = offsets(steps)
    outs, ks = np.nonzero(weights.words)
    number = np.arange(len(outs)) - np.repeat(np.cumsum(counts) - counts, counts)  # in the list of its output
    sparse = np.zeros((int(begin[-1]), TOGETHER), np.int32)
    rows = np.zeros((int(begin[-1]), TOGETHER), np.uint16)
    at, lane = np.zeros(out, np.int64), np.zeros(out, np.int64)
    for position in range(TOGETHER - 1, -1, -1):  # a repeated output has its list where it stands first
        at[groups[:, position]], lane[groups[:, position]] = begin[:-1], position
    sparse[at[outs] + number, lane[outs]] = weights.words[outs, ks]
    rows[at[outs] + number, lane[outs]] = places[ks]
    firsts = np.array([*(part[0] for part in chunks), out], np.int64)
    sizes = [len(part) // TOGETHER for part in ordered]
    order = groups - np.repeat(firsts[:-1], sizes)[:, None]
    again = np.zeros(groups.shape, bool)
    again[:, 1:] = groups[:, 1:] == groups[:, :-1]
    start = moved_start(way, weights.words, weights.start)[groups]
    return _Lists(
        offsets(sizes), begin, rows, arranged(way, sparse), start.astype(np.int32),
        np.where(again, chunk, order).astype(np.int64), firsts,
    )  # fmt: skip


def _filled(outs: np.ndarray) -> np.ndarray:
    """The outputs, of which the last is repeated until they fill groups."""
    return np.append(outs, np.repeat(outs[-1:], -len(outs) % TOGETHER))


@dataclass(frozen=True)
class _Fields:
    """Names of values: the fields of the argument block."""

    count: str
    out: str
    chunks: str
    word: str
    x: str
    y: str
    other: str
    masks: str
    groups: str
    begin: str
    rows: str
    words: str
    starts: str
    order: str
    firsts: str
    factors: str
    biases: str
    floats: str


@cache
def _code(machine: Machine, form: _Form) -> Callable[..., None]:
    f, names = function("listed_quads", [INTEGER] * 4 + [POINTER] * 14)
    fields, v = _Fields(*names), form.v
    sums = f.room(v, NEAR // (QUAD * v.lanes) + MOST)
    even = f.subtract(fields.count, f.value(f"srem i64 {fields.count}, {form.vectors}"))
    ways: list[tuple[str, str, int]] = [("0", even, form.vectors), (even, fields.count, 1)]
    for start, stop, vectors in ways[: 1 if form.vectors == 1 else 2]:
        with f.loop(start, stop, vectors) as first, f.loop(0, fields.chunks) as chunk:
            places = [f.add(first, number) for number in range(vectors)]
            begin, end = (f.load(INTEGER, f.at(fields.groups, f.add(chunk, at), INTEGER)) for at in (0, 1))
            inputs = [at_offset(f, fields.x, place) for place in places]
            with f.loop(begin, end) as group:
                _sum_group(f, form, fields, (inputs, group, sums))
            _finish_chunk(f, machine, form, fields, (places, chunk, sums))
    return compiled(f, machine)


def _sum_group(f: Function, form: _Form, fields: _Fields, where: tuple[Sequence[str], str, str]) -> None:
    """The sums of four outputs at some places, put where they belong; `where`: places of x, the group, the sums."""
    v, (inputs, group, sums) = form.v, where
    four = f.multiply(group, TOGETHER)
    totals = []
    for number in range(TOGETHER):
        start = f.splat(v, f.load("i32", f.at(fields.starts, f.add(four, number), "i32")))
        totals.append([f.slot(v, start) for _ in inputs])
    begin, end = (f.load(INTEGER, f.at(fields.begin, f.add(group, more), INTEGER)) for more in (0, 1))
    with f.loop(begin, end) as step:
        first = f.multiply(step, TOGETHER)
        packed = f.load(INTEGER, f.at(fields.rows, first, "i16"))  # all four, since loads are what takes time
        for out, several in enumerate(totals):
            at = f.add(first, out)
            row = f.value(f"and i64 {f.value(f'lshr i64 {packed}, {16 * out}')}, 65535")
            words = f.at(fields.words, f.multiply(at, form.count), "i32")
            weights = [f.splat(v, f.load("i32", f.at(words, word, "i32"))) for word in range(form.count)]
            for x, slot in zip(inputs, several, strict=True):
                quads = prepared(f, v, form.way, f.load(v, f.at(x, row, INTEGER)))
                f.store(v, product(f, v, form.way, f.load(v, slot), quads, weights), slot)
    for out, several in enumerate(totals):
        to = f.load(INTEGER, f.at(fields.order, f.add(four, out), INTEGER))
        target = f.at(sums, f.multiply(to, len(inputs)), v)
        for place, slot in enumerate(several):
            f.store(v, f.load(v, slot), f.at(target, place, v))


def _finish_chunk(
    f: Function, machine: Machine, form: _Form, fields: _Fields, where: tuple[Sequence[str], str, str]
) -> None:
    """The chunk's outputs at some places as bytes or fp32; `where`: the places, the chunk, its sums."""
    v, w, (places, chunk, sums) = form.v, form.v.of("float"), where
    first, end = (f.load(INTEGER, f.at(fields.firsts, f.add(chunk, at), INTEGER)) for at in (0, 1))
    ends, together = (
        ByteEnds.read(f, w, fields.floats, fields.word, form.rounding),
        QUAD if form.quantised else 1,
    )
    for number, place in enumerate(places):
        y, mask = at_offset(f, fields.y, place), mask_at(f, v, fields.masks, place)
        added = at_offset(f, fields.other, place)
        with f.loop(first, end, together) as out:
            quad = f.multiply(f.value(f"udiv i64 {out}, {QUAD}"), v.lanes)
            last = f.subtract(end, 1)
            at = _Place(f.at(sums, number, v), len(places), first, last, f.at(added, quad, "i32"))
            values = [_finished(f, machine, form, fields, at, f.add(out, part)) for part in range(together)]
            if form.quantised:
                words = kept(f, v, mask, quad_of(f, w, ends, values), ends.fill)
                f.store(v, words, f.at(y, quad, "i32"))
            else:
                f.store(w, kept(f, w, mask, values[0]), f.at(y, f.multiply(out, v.lanes)))


@dataclass(frozen=True)
class _Place:
    """Where sums of a place lie: one of `count` places, of a chunk of channels; and the quad that is added."""

    sums: str
    count: int
    first: str
    last: str
    added: str


def _finished(f: Function, machine: Machine, form: _Form, fields: _Fields, at: _Place, channel: str) -> str:
    """y of a channel as floats; 0 of one that is not there."""
    v, w = form.v, form.v.of("float")
    there = channel if form.whole else f.smaller(channel, at.last)
    total = f.load(v, f.at(at.sums, f.multiply(f.subtract(there, at.first), at.count), v))
    factor, bias = (
        f.splat(w, f.load("float", f.at(each, there))) for each in (fields.factors, fields.biases)
    )
    value = fused(f, w, machine, f.value(f"sitofp {v} {total} to {w}"), factor, bias)
    if form.residual:
        part = f.value(f"trunc i64 {f.value(f'urem i64 {channel}, {QUAD}')} to i32")
        added = f.value(f"uitofp {v} {byte(f, v, f.load(v, at.added), part)} to {w}")
        value = fused(f, w, machine, added, f.splat(w, f.load("float", f.at(fields.floats, 3))), value)
    if form.activation is not None:
        value = activated_on(machine, f, w, form.activation, value)
    real = f.value(f"icmp sle i64 {channel}, {at.last}")
    return value if form.whole else f.value(f"select i1 {real}, {w} {value}, {w} zeroinitializer")
