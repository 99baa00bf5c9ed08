"""Attention between layers in eight bits: its products are of bytes, whose scales are found for each token and head.

As in `attention`, a lane is a query, and numbers of keys and values are given to all lanes; here these are four bytes.
A query, a key and a value of a head each have a scale of their own, the largest magnitude / 127, so nothing is
calibrated. e^score has 16 bits, two products: bytes would lose what many small ones add up to. Four keys lie in a lane
then, so the bytes of values are turned, within quarters of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.emit import activations as emitted
from zeroskip.emit.activation_tables import LANES, two_to_avx512
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.attention import (
    AttentionForm,
    AttentionMaps,
    AttentionPlan,
    QueryVector,
    attention_arguments,
    mask_pointer,
    masked,
    of_head,
    or_nothing_seen,
)
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.quad_numbers import (
    MAGIC,
    ByteEnds,
    ends_of,
    halves,
    interleaved,
    mixed,
    rounding_way,
    turned,
    write_quad,
)
from zeroskip.run.convolution.tiles.quad_products import product, way_of
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at
from zeroskip.run.element import Scaling

LARGEST = 127.0
TINY = 2.0**-100  # the least scale of queries: minus infinity times it is that
WEIGHT = 255 * 256.0  # what the largest e^score becomes
SIGNS = -0x7F7F7F80  # turns signed bytes into unsigned ones, 128 higher, and back


def has_products_of_bytes(machine: Machine, lanes: int, sizes: tuple[int, int]) -> bool:
    """Whether attention of heads with so many features of keys, and of values, computes in bytes.

    >>> has_products_of_bytes(any_machine, 16, (64, 64))
    False
    """
    return way_of(machine, lanes) == "vnni" and not any(size % QUAD for size in sizes)


def scratch_vectors(places: int, lanes: int, sizes: tuple[int, int]) -> int:
    """Vectors of memory for keys and values of a head, and for the scores of a vector of queries.

    >>> scratch_vectors(8, 16, (64, 64))
    488
    """
    keys, values = (-(-size // QUAD) for size in sizes)
    return places * (keys + values + 3) + keys + places * lanes * 3 // 2


def attention_of_bytes(
    operation: Operation, maps: AttentionMaps, output: Scaling | None, machine: Machine
) -> Step:
    """As `attention`, of maps in fp32, into a map of bytes with the scaling `output`, or of fp32."""
    arguments, form = attention_arguments(operation, maps)
    word = 0 if output is None else output.word & 0xFFFFFFFF
    block = argument_block(*arguments, word, np.array(ends_of(output), np.float32))
    v = maps.queries.layout.vector
    code = _code(machine, v, form, None if output is None else rounding_way(machine, v, output))
    return Step("attention", operation.name, code, block)


@dataclass(frozen=True)
class _Scratch:
    """Names of values: memory for a head's keys and values, and for what becomes of a vector of queries.

    keys, values    a vector for each place and quad
    starts          for each key minus 128 times the sum of its bytes
    key_scales, value_scales  for each key; those of values times what the weights are made whole numbers by
    queries, scores, high, low  the quads of queries; a vector for each key, and for each four of them
    """

    keys: str
    starts: str
    key_scales: str
    values: str
    value_scales: str
    queries: str
    scores: str
    high: str
    low: str


@dataclass(frozen=True)
class _Kernel:
    """What the parts of the code have in common."""

    machine: Machine
    v: Vector
    form: AttentionForm
    plan: AttentionPlan
    scratch: _Scratch
    word: str
    ends: str
    way: str | None

    @property
    def words(self) -> Vector:
        return self.v.of("i32")

    def dot(self, f: Function, total: str, unsigned: str, signed: str) -> str:
        way = way_of(self.machine, self.v.lanes)
        return product(f, self.words, way, total, [unsigned], [signed])

    def two_to(self, f: Function, x: str) -> str:
        """2^x, for x up to 0."""
        return (two_to_avx512 if self.v.lanes == LANES else emitted.two_to)(f, self.v, x)

    def vector(self, f: Function, pointer: str, number: str | int) -> str:
        """Pointer to the vector with that number."""
        return f.at(pointer, f.multiply(number, self.v.lanes))


@cache
def _code(machine: Machine, v: Vector, form: AttentionForm, way: str | None) -> Callable[..., None]:
    f, fields = function("attention", [INTEGER] * 8 + [POINTER] * 12 + [INTEGER, POINTER])
    plan = AttentionPlan(*fields[:-2])
    word, ends = fields[-2:]
    kernel = _Kernel(machine, v, form, plan, _scratch(f, v, plan, form.features), word, ends, way)
    with (
        f.loop(0, plan.images) as image,
        f.loop(0, f.value(f"sdiv i64 {plan.heads}, {plan.group}")) as key_head,
    ):
        first = f.multiply(key_head, plan.group)
        largest = _write_keys_values(f, kernel, QueryVector(image, first, "", "", ""))
        with f.loop(first, f.add(first, plan.group)) as head, f.loop(0, plan.queries) as place:
            number = f.add(f.multiply(image, plan.queries), place)
            features = f.multiply(f.multiply(head, plan.size), v.lanes)
            query = f.at(at_offset(f, plan.query_at, number), features)
            at = QueryVector(image, head, place, number, query)
            total = _write_weights(f, kernel, _write_scores(f, kernel, at))
            _write_result(f, kernel, at, f.value(f"fmul {v} {total}, {largest}"))
    return compiled(f, machine)


def _scratch(f: Function, v: Vector, plan: AttentionPlan, features: int) -> _Scratch:
    """The parts of the memory for scores, one behind the other."""
    quads = f.value(f"sdiv i64 {plan.size}, {QUAD}")
    keys = f.multiply(plan.keys, v.lanes)
    counts = (
        f.multiply(plan.keys, quads), plan.keys, plan.keys, f.multiply(plan.keys, features // QUAD), plan.keys, quads,
        keys, f.value(f"sdiv i64 {keys}, {QUAD}"),
    )  # fmt: skip
    pointers = [f.at("%base", plan.scores, "i8")]
    for count in counts:
        pointers.append(f.at(pointers[-1], f.multiply(count, v.lanes)))
    return _Scratch(*pointers)


def _scale(f: Function, v: Vector, source: str, size: str | int) -> tuple[str, str]:
    """For each lane its largest magnitude / 127, and 1 over that; 0 where all numbers are 0."""
    slot = f.slot(v, "zeroinitializer")
    with f.loop(0, size) as number:
        value = f.load(v, f.at(source, f.multiply(number, v.lanes)))
        f.store(v, _larger(f, v, f.call(v, f"llvm.fabs.{v.suffix}", f"{v} {value}"), f.load(v, slot)), slot)
    most = f.load(v, slot)
    none = f.value(f"fcmp oeq {v} {most}, zeroinitializer")
    inverse = kept(f, v, none, "zeroinitializer", f.value(f"fdiv {v} {f.constant(v, LARGEST)}, {most}"))
    return f.value(f"fmul {v} {most}, {f.constant(v, 1 / LARGEST)}"), inverse


def _larger(f: Function, v: Vector, a: str, b: str) -> str:
    """The larger number in each lane; b where a is NaN."""
    return kept(f, v, f.value(f"fcmp ogt {v} {a}, {b}"), a, b)


def _quad(f: Function, v: Vector, source: str, number: str, inverse: str) -> str:
    """Four features of each lane as signed bytes."""
    words, parts = v.of("i32"), []
    for part in range(QUAD):
        at = f.at(source, f.multiply(f.add(f.multiply(number, QUAD), part), v.lanes))
        whole = f.multiply_add(v, f.load(v, at), inverse, f.constant(v, MAGIC))
        parts.append(f.value(f"bitcast {v} {whole} to {words}"))
    return interleaved(f, words, parts)


def _write_keys_values(f: Function, k: _Kernel, at: QueryVector) -> str:
    """Keys and values of a head as bytes; returns for all lanes what makes sums of weights x bytes values again."""
    v, words, plan, scratch = k.v, k.words, k.plan, k.scratch
    ones, quads = f.splat(words, str(0x01010101)), f.value(f"sdiv i64 {plan.size}, {QUAD}")
    largest = f.slot(v, "zeroinitializer")
    with f.loop(0, plan.keys) as place:
        key = of_head(f, v, plan, at, (plan.key_at, place, plan.size))
        scale, inverse = _scale(f, v, key, plan.size)
        f.store(v, scale, k.vector(f, scratch.key_scales, place))
        total = f.slot(words, "zeroinitializer")
        with f.loop(0, quads) as number:
            word = _quad(f, v, key, number, inverse)
            f.store(words, word, k.vector(f, scratch.keys, f.add(f.multiply(place, quads), number)))
            f.store(words, k.dot(f, f.load(words, total), ones, word), total)
        start = f.value(f"mul {words} {f.load(words, total)}, {f.splat(words, '-128')}")
        f.store(words, start, k.vector(f, scratch.starts, place))
        value = of_head(f, v, plan, at, (plan.value_at, place, str(k.form.features)))
        scale, inverse = _scale(f, v, value, k.form.features)
        f.store(v, scale, k.vector(f, scratch.value_scales, place))
        f.store(v, _larger(f, v, scale, f.load(v, largest)), largest)
        with f.loop(0, k.form.features // QUAD) as number:
            four_keys = turned(f, words, _quad(f, v, value, number, inverse))
            to = f.add(f.multiply(place, k.form.features // QUAD), number)
            f.store(words, four_keys, k.vector(f, scratch.values, to))
    name = f"llvm.vector.reduce.fmax.{v.suffix}"
    most = f.splat(v, f.call("float", name, f"{v} {f.load(v, largest)}"))
    none = f.value(f"fcmp oeq {v} {most}, zeroinitializer")
    whole = kept(f, v, none, "zeroinitializer", f.value(f"fdiv {v} {f.constant(v, WEIGHT)}, {most}"))
    with f.loop(0, plan.keys) as place:
        pointer = k.vector(f, scratch.value_scales, place)
        f.store(v, f.value(f"fmul {v} {f.load(v, pointer)}, {whole}"), pointer)
    return f.value(f"fmul {v} {most}, {f.constant(v, 1 / WEIGHT)}")


@dataclass(frozen=True)
class _Scores:
    """Names of values, for each lane: the largest score, and by what differences are multiplied to be powers of 2."""

    most: str
    factor: str


def _write_scores(f: Function, k: _Kernel, at: QueryVector) -> _Scores:
    """The scores of a vector of queries, a vector for each key."""
    v, words, plan, scratch = k.v, k.words, k.plan, k.scratch
    scale, inverse = _scale(f, v, at.query, plan.size)
    scale = f.value(f"fmul {v} {scale}, {f.splat(v, f.load('float', plan.scale))}")
    scale = _larger(f, v, scale, f.constant(v, TINY))
    quads = f.value(f"sdiv i64 {plan.size}, {QUAD}")
    with f.loop(0, quads) as number:
        quad = f.value(f"xor {words} {_quad(f, v, at.query, number, inverse)}, {f.splat(words, str(SIGNS))}")
        f.store(words, quad, k.vector(f, scratch.queries, number))
    most = f.slot(v, f.constant(v, -np.inf))
    added = mask_pointer(f, v, k.form, plan, at)
    with f.loop(0, plan.keys) as place:
        scores = []
        for lane, total in enumerate(_sums(f, k, place, quads)):
            number = f.add(f.multiply(place, v.lanes), lane)
            theirs, missing = (
                f.splat(v, f.load("float", f.at(each, number))) for each in (scratch.key_scales, plan.missing)
            )
            real = f.value(f"sitofp {words} {total} to {v}")
            if added is not None:
                real = f.value(f"fmul {v} {real}, {scale}")
            score = f.multiply_add(v, real, theirs, missing)
            scores.append(masked(f, v, k.form, plan, (at, added, number), score))
            f.store(v, scores[-1], k.vector(f, scratch.scores, number))
        while len(scores) > 1:
            scores = [_larger(f, v, a, b) for a, b in zip(scores[::2], scores[1::2], strict=True)]
        f.store(v, _larger(f, v, scores[0], f.load(v, most)), most)
    largest = or_nothing_seen(f, v, f.load(v, most))
    log = f.constant(v, emitted.LOG2_E)  # masks are added to what is already scaled
    return _Scores(largest, f.value(f"fmul {v} {scale}, {log}") if added is None else log)


def _sums(f: Function, k: _Kernel, place: str, quads: str) -> list[str]:
    """The queries times each key of a place."""
    words, lanes, scratch = k.words, k.v.lanes, k.scratch
    first = f.multiply(place, lanes)
    sums = [
        f.slot(words, f.splat(words, f.load("i32", f.at(scratch.starts, f.add(first, lane)))))
        for lane in range(lanes)
    ]
    keys = k.vector(f, scratch.keys, f.multiply(place, quads))
    with f.loop(0, quads) as number:
        quad = f.load(words, k.vector(f, scratch.queries, number))
        theirs = k.vector(f, keys, number)
        for lane, total in enumerate(sums):
            key = f.splat(words, f.load("i32", f.at(theirs, lane)))
            f.store(words, k.dot(f, f.load(words, total), quad, key), total)
    return [f.load(words, total) for total in sums]


def _write_weights(f: Function, k: _Kernel, at: _Scores) -> str:
    """e^(score - most) times the scale of each value as bytes of its upper and lower half; 1 / the sum of e^."""
    v, words, scratch = k.v, k.words, k.scratch
    whole = f.slot(v, "zeroinitializer")
    groups = f.multiply(k.plan.keys, v.lanes // QUAD)
    with f.loop(0, groups) as group:
        powers, bits = [], []
        for part in range(QUAD):
            number = f.add(f.multiply(group, QUAD), part)
            score = f.load(v, k.vector(f, scratch.scores, number))
            below = f.value(f"fsub {v} {score}, {at.most}")
            powers.append(k.two_to(f, f.value(f"fmul {v} {below}, {at.factor}")))
            scale = f.splat(v, f.load("float", f.at(scratch.value_scales, number)))
            weight = f.multiply_add(v, powers[-1], scale, f.constant(v, MAGIC))
            bits.append(f.value(f"bitcast {v} {weight} to {words}"))
        pairs = [halves(f, words, *bits[start : start + 2]) for start in (0, 2)]
        for half, lower in ((scratch.high, False), (scratch.low, True)):
            f.store(words, mixed(f, words, *pairs, lower=lower), k.vector(f, half, group))
        sums = [f.value(f"fadd {v} {a}, {b}") for a, b in (powers[:2], powers[2:])]
        total = f.value(f"fadd {v} {sums[0]}, {sums[1]}")
        f.store(v, f.value(f"fadd {v} {f.load(v, whole)}, {total}"), whole)
    total = f.load(v, whole)
    seen = f.value(f"fcmp ogt {v} {total}, {f.constant(v, 0.5)}")  # the largest is 1
    return kept(f, v, seen, f.value(f"fdiv {v} {f.constant(v, 1.0)}, {total}"))


def _write_result(f: Function, k: _Kernel, at: QueryVector, share: str) -> None:
    """The sums of values by weights, times a number for each lane, into the result, some quads at a time."""
    v, quads = k.v, k.form.features // QUAD
    lanes = mask_at(f, v, k.plan.lanes, at.number)
    target = at_offset(f, k.plan.y_at, at.number)
    even = quads - quads % 2
    for start, stop, together in ((0, even, 2), (even, quads, 1))[even == 0 : 1 + quads % 2]:
        with f.loop(start, stop, together) as first:
            for part, sums in enumerate(_weighted(f, k, first, together)):
                values = [
                    f.value(f"fmul {v} {f.multiply_add(v, high, f.constant(v, 256.0), low)}, {share}")
                    for high, low in sums
                ]
                number = f.add(f.multiply(at.head, quads), f.add(first, part))
                _store(f, k, values, lanes, (target, number))


def _weighted(f: Function, k: _Kernel, first: str, together: int) -> list[list[tuple[str, str]]]:
    """For each quad and feature the sums by the upper and lower halves of weights, as floats."""
    v, words, scratch, quads = k.v, k.words, k.scratch, k.form.features // QUAD
    sums = [[f.slot(words, "zeroinitializer") for _ in range(2)] for _ in range(QUAD * together)]
    quarters = v.lanes // QUAD
    with f.loop(0, k.plan.keys) as place, f.loop(0, quarters) as quarter:
        values = k.vector(f, scratch.values, f.add(f.multiply(place, quads), first))
        values = f.at(values, f.multiply(quarter, QUAD))
        group = f.add(f.multiply(place, quarters), quarter)
        weights = [f.load(words, k.vector(f, each, group)) for each in (scratch.high, scratch.low)]
        for number, totals in enumerate(sums):
            quad, feature = divmod(number, QUAD)
            value = f.splat(words, f.load("i32", f.at(values, quad * v.lanes + feature)))
            for total, weight in zip(totals, weights, strict=True):
                f.store(words, k.dot(f, f.load(words, total), weight, value), total)
    floats = [
        tuple(f.value(f"sitofp {words} {f.load(words, total)} to {v}") for total in totals) for totals in sums
    ]
    return [[(high, low) for high, low in floats[at : at + QUAD]] for at in range(0, len(floats), QUAD)]


def _store(f: Function, k: _Kernel, values: Sequence[str], lanes: str, where: tuple[str, str]) -> None:
    """A quad of the result at (pointer, its number), as bytes or fp32."""
    v, (target, number) = k.v, where
    if k.way is None:
        for part, value in enumerate(values):
            to = f.add(f.multiply(number, QUAD), part)
            f.store(v, kept(f, v, lanes, value), k.vector(f, target, to))
        return
    ends = ByteEnds.read(f, v, k.ends, k.word, k.way)
    write_quad(f, v, ends, values, (lanes, target, f.multiply(number, QUAD)))
