"""Attention on tiles: a lane is a query, whose scores, softmax and weighted sum of values need no other lane.

The features of a token lie in consecutive vectors of its lane. A score is a sum over features of the vector of
queries times one number of a key, which the processor reads from where it lies and gives to all lanes; the sum of
values likewise. Keys are taken in the order in which they lie, the lanes of a vector one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.emit import activations as emitted
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.operations import Attention, Operation
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at

TOGETHER = 16  # features of values whose sums are in registers at a time


@dataclass(frozen=True)
class AttentionMaps:
    """What attention reads and makes.

    scores  memory for those of one vector of queries: as many vectors as there are lanes of keys
    mask    is added to them: a number for each query and key, or one for each key; for each head, or for all
    """

    queries: Map
    keys: Map
    values: Map
    scores: Map
    y: Map
    mask: Map | None = None


@dataclass(frozen=True)
class AttentionForm:
    """What the code depends on.

    features  of a value, for each head
    mask      what is added to scores: "nothing", "constant", "map" (for each query and key), "row" (for each key)
    by_head   the mask has numbers of its own for each head
    causal    keys behind the query are not seen
    """

    features: int
    mask: str
    by_head: bool
    causal: bool


def attention(operation: Operation, maps: AttentionMaps, machine: Machine) -> Step:
    """softmax(scale x queries keys^T + mask) values, for each head; 0 where a query sees no key (Vaswani 2017)."""
    arguments, form = attention_arguments(operation, maps)
    code = _attention_code(machine, maps.y.layout.vector, form)
    return Step("attention", operation.name, code, argument_block(*arguments))


def attention_arguments(
    operation: Operation, maps: AttentionMaps
) -> tuple[list[int | np.ndarray], AttentionForm]:
    """What the argument block of attention holds, as `AttentionPlan` names it, and what the code depends on."""
    given, layout, keys = operation.attention, maps.y.layout, maps.keys.layout
    assert given is not None
    places, tokens = layout.inside(), _tokens(keys)
    mask, by_head = _constant_mask(given, layout, tokens), given.mask is not None and len(given.mask) > 1
    kind = "nothing" if given.mask is None else "constant"
    added = maps.y  # of which nothing is read where there is no map of a mask
    if maps.mask is not None:
        added, kind = maps.mask, "row" if _is_pixel(maps.mask.layout) and not _is_pixel(layout) else "map"
        by_head = len(maps.mask.channels) > keys.height * keys.width
        assert len(maps.mask.channels) == keys.height * keys.width * (given.heads if by_head else 1)
    where = places * (1, 0, 0) if kind == "row" else places
    offsets = [
        each.first + each.layout.offset(*at.T)
        for each, at in (
            (maps.queries, places), (maps.y, places), (maps.keys, keys.inside()),
            (maps.values, maps.values.layout.inside()), (added, where),
        )
    ]  # fmt: skip
    size, features = len(maps.queries.channels) // given.heads, len(maps.values.channels) // given.key_heads
    counts = (
        layout.slots, given.heads, given.heads // given.key_heads, len(places) // layout.slots, len(tokens), size,
        keys.height * keys.width, maps.scores.first,
    )  # fmt: skip
    missing = np.where(tokens < 0, -math.inf, 0).astype(np.float32)
    numbers = [array.astype(np.float32) for array in (tokens, _tokens(layout))]
    arguments = [
        *counts, *offsets, layout.masks(places), missing, np.maximum(tokens, 0), *numbers, mask,
        np.array([given.scale], np.float32),
    ]  # fmt: skip
    return arguments, AttentionForm(features, kind, by_head, given.causal)


def _tokens(layout: Layout) -> np.ndarray:
    """(places of an image, lanes) number of the token that lies there, row by row; -1: none."""
    pixels = layout.pixels(layout.inside()[: layout.tile[0] * layout.tile[1]])  # (places, lanes, 3)
    return np.where(pixels[:, :, 0] >= 0, pixels[:, :, 1] * layout.width + pixels[:, :, 2], -1)


def _is_pixel(layout: Layout) -> bool:
    return (layout.height, layout.width) == (1, 1)


def _constant_mask(given: Attention, layout: Layout, keys: np.ndarray) -> np.ndarray:
    """(places, heads or 1, lanes of keys, lanes) float32: what is added to the scores of each vector of queries."""
    if given.mask is None:
        return np.zeros(0, np.float32)
    queries = np.maximum(_tokens(layout), 0)
    mask = given.mask.numpy()[:, queries][..., np.maximum(keys, 0).ravel()]  # (heads, places, lanes, keys)
    return np.ascontiguousarray(mask.transpose(1, 0, 3, 2))


@dataclass(frozen=True)
class AttentionPlan:
    """Names of values: the fields of the argument block, in their order there."""

    images: str
    heads: str
    group: str
    queries: str
    keys: str
    size: str
    tokens: str
    scores: str
    query_at: str
    y_at: str
    key_at: str
    value_at: str
    mask_at: str
    lanes: str
    missing: str
    token: str
    key_number: str
    query_number: str
    mask: str
    scale: str


@dataclass(frozen=True)
class QueryVector:
    """Names of values: which vector of queries is worked on, of which head, and where its features lie."""

    image: str
    head: str
    place: str
    number: str
    query: str


@cache
def _attention_code(machine: Machine, v: Vector, form: AttentionForm) -> Callable[..., None]:
    f, fields = function("attention", [INTEGER] * 8 + [POINTER] * 12)
    plan = AttentionPlan(*fields)
    scores = f.at("%base", plan.scores, "i8")
    with (
        f.loop(0, plan.images) as image,
        f.loop(0, plan.heads) as head,
        f.loop(0, plan.queries) as place,
    ):
        number = f.add(f.multiply(image, plan.queries), place)
        features = f.multiply(f.multiply(head, plan.size), v.lanes)
        vector = QueryVector(
            image, head, place, number, f.at(at_offset(f, plan.query_at, number), features, v.element)
        )
        most = _write_scores(f, v, form, plan, vector, scores)
        share = _softmax(f, v.of("float"), scores, plan.keys, most)
        _write_values(f, v, form, plan, vector, (scores, share))
    return compiled(f, machine)


def _write_scores(
    f: Function, v: Vector, form: AttentionForm, plan: AttentionPlan, at: QueryVector, scores: str
) -> str:
    """The scores of a vector of queries, a vector for each key; the largest of each lane."""
    wide = v.of("float")
    most = f.slot(wide, f.constant(wide, -math.inf))
    added = mask_pointer(f, v, form, plan, at)
    scale = f.splat(wide, f.load("float", plan.scale))
    with f.loop(0, plan.keys) as place:
        key = of_head(f, v, plan, at, (plan.key_at, place, plan.size))
        for lane, product in enumerate(_products(f, v, at.query, key, plan.size)):
            number = f.add(f.multiply(place, v.lanes), lane)
            missing = f.splat(wide, f.load("float", f.at(plan.missing, number)))
            score = f.multiply_add(wide, product, scale, missing)
            score = masked(f, v, form, plan, (at, added, number), score)
            f.store(wide, score, f.at(scores, f.multiply(number, v.lanes)))
            before = f.load(wide, most)
            above = f.value(f"fcmp ogt {wide} {score}, {before}")
            f.store(wide, kept(f, wide, above, score, before), most)
    return f.load(wide, most)


def masked(
    f: Function, v: Vector, form: AttentionForm, plan: AttentionPlan, where: tuple[QueryVector, str | None, str],
    score: str,
) -> str:  # fmt: skip
    """The score after its mask; `where`: the queries, what `mask_pointer` says, and the number of the key."""
    wide, (at, added, number) = v.of("float"), where
    if added is not None:
        score = f.value(f"fadd {wide} {score}, {mask_of(f, v, form, plan, added, number)}")
    if form.causal:
        theirs = f.splat(wide, f.load("float", f.at(plan.key_number, number)))
        mine = f.load(wide, f.at(plan.query_number, f.multiply(at.place, v.lanes)))
        later = f.value(f"fcmp ogt {wide} {theirs}, {mine}")
        score = kept(f, wide, later, f.constant(wide, -math.inf), score)
    return score


def of_head(f: Function, v: Vector, plan: AttentionPlan, at: QueryVector, where: tuple[str, str, str]) -> str:
    """Pointer to the head's features of a vector of keys or values: (offsets, number of the vector, features)."""
    offsets, place, features = where
    head = f.value(f"sdiv i64 {at.head}, {plan.group}")
    pointer = at_offset(f, offsets, f.add(f.multiply(at.image, plan.keys), place))
    return f.at(pointer, f.multiply(f.multiply(head, features), v.lanes), v.element)


def _products(f: Function, v: Vector, query: str, key: str, size: str) -> list[str]:
    """The queries times each key of a vector, summed over `size` features."""
    wide = v.of("float")
    sums = [f.slot(wide, "zeroinitializer") for _ in range(v.lanes)]
    with f.loop(0, size) as feature:
        at = f.multiply(feature, v.lanes)
        numbers = f.converted(v, f.load(v, f.at(query, at, v.element)), "float")
        theirs = f.at(key, at, v.element)
        for lane, total in enumerate(sums):
            other = _broadcast(f, v, f.at(theirs, lane, v.element))
            f.store(wide, f.multiply_add(wide, numbers, other, f.load(wide, total)), total)
    return [f.load(wide, total) for total in sums]


def mask_pointer(
    f: Function, v: Vector, form: AttentionForm, plan: AttentionPlan, at: QueryVector
) -> str | None:
    """Where the mask of a vector of queries begins."""
    if form.mask == "nothing":
        return None
    if form.mask == "constant":
        number = f.add(f.multiply(at.place, plan.heads), at.head) if form.by_head else at.place
        keys = f.multiply(plan.keys, v.lanes)
        return f.at(plan.mask, f.multiply(f.multiply(number, keys), v.lanes))
    pointer = at_offset(f, plan.mask_at, at.number)
    first = f.multiply(f.multiply(at.head, plan.tokens), v.lanes)
    return f.at(pointer, first, v.element) if form.by_head else pointer


def mask_of(
    f: Function, v: Vector, form: AttentionForm, plan: AttentionPlan, pointer: str, number: str
) -> str:
    """What is added to the scores of the key with this number, in the order in which keys lie."""
    if form.mask == "constant":
        return f.load(v.of("float"), f.at(pointer, f.multiply(number, v.lanes)))
    channel = f.multiply(f.load(INTEGER, f.at(plan.token, number, INTEGER)), v.lanes)
    where = f.at(pointer, channel, v.element)
    return _broadcast(f, v, where) if form.mask == "row" else f.converted(v, f.load(v, where), "float")


def _softmax(f: Function, wide: Vector, scores: str, keys: str, most: str) -> str:
    """Scores become e to their power, less the largest; 1 / the sum of those, or 0 where no key is seen."""
    most = or_nothing_seen(f, wide, most)
    whole = f.slot(wide, "zeroinitializer")
    with f.loop(0, keys) as key:
        row = f.at(scores, f.multiply(key, wide.lanes * wide.lanes))
        powers = []
        for lane in range(wide.lanes):
            at = f.at(row, lane * wide.lanes)
            powers.append(
                emitted.exp_of_negative(f, wide, f.value(f"fsub {wide} {f.load(wide, at)}, {most}"))
            )
            f.store(wide, powers[-1], at)
        f.store(wide, _sum(f, wide, [f.load(wide, whole), _sum(f, wide, powers)]), whole)
    total = f.load(wide, whole)
    zero = f.value(f"fcmp oeq {wide} {total}, zeroinitializer")
    return kept(f, wide, zero, "zeroinitializer", f.value(f"fdiv {wide} {f.constant(wide, 1.0)}, {total}"))


def or_nothing_seen(f: Function, wide: Vector, most: str) -> str:
    """The largest score; 0 where all are minus infinity, since minus infinity less itself is NaN."""
    none = f.value(f"fcmp oeq {wide} {most}, {f.constant(wide, -math.inf)}")
    return kept(f, wide, none, "zeroinitializer", most)


def _sum(f: Function, v: Vector, values: Sequence[str]) -> str:
    """The sum of vectors, in pairs, which loses fewer digits than one after the other."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return f.value(f"fadd {v} {_sum(f, v, values[:half])}, {_sum(f, v, values[half:])}")


def _write_values(
    f: Function,
    v: Vector,
    form: AttentionForm,
    plan: AttentionPlan,
    at: QueryVector,
    weights: tuple[str, str],
) -> None:
    """The sums of values by the scores, times a number for each lane, into the result."""
    wide, (scores, share) = v.of("float"), weights
    lanes = mask_at(f, v, plan.lanes, at.number)
    first = f.multiply(at.head, form.features * v.lanes)
    target = f.at(at_offset(f, plan.y_at, at.number), first, v.element)
    for start in range(0, form.features, TOGETHER):
        sums = [f.slot(wide, "zeroinitializer") for _ in range(start, min(start + TOGETHER, form.features))]
        with f.loop(0, plan.keys) as place:
            value = of_head(f, v, plan, at, (plan.value_at, place, str(form.features)))
            row = f.at(scores, f.multiply(place, v.lanes * v.lanes))
            for lane in range(v.lanes):
                score = f.load(wide, f.at(row, lane * v.lanes))
                for part, total in enumerate(sums, start):
                    number = _broadcast(f, v, f.at(value, part * v.lanes + lane, v.element))
                    f.store(wide, f.multiply_add(wide, score, number, f.load(wide, total)), total)
        for part, total in enumerate(sums, start):
            whole = f.value(f"fmul {wide} {f.load(wide, total)}, {share}")
            whole = kept(f, v, lanes, f.converted(wide, whole, v.element))
            f.store(v, whole, f.at(target, part * v.lanes, v.element))


def _broadcast(f: Function, v: Vector, pointer: str) -> str:
    """The number at `pointer` as float in every lane."""
    number = f.load(v.element, pointer)
    if v.element == "half":
        number = f.value(f"fpext half {number} to float")
    return f.splat(v.of("float"), number)
