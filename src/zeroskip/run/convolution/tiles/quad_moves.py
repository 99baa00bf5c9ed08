"""Maps of 8-bit numbers put into other places: as `rearrange`, but a vector holds four channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.operations import Movement
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.rearrange import SourceTable, source_tables
from zeroskip.run.convolution.tiles.relayout import INDEX, permuted
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at
from zeroskip.run.element import Scaling

NOTHING = -1  # in place of a channel


def moved_quads(
    node: str, sources: Sequence[tuple[Map, Movement]], y: Map, scaling: Scaling, machine: Machine
) -> list[Step]:
    """Each movement of a map in turn, all without weights; what none of them reaches holds the zero point."""
    started: set[int] = set()
    steps = []
    for x, movement in sources:
        groups: dict[tuple[bool, bool], list[int]] = {}
        bytes_ = _sources_of_bytes(movement)
        for quad, channels in bytes_.items():
            groups.setdefault((quad not in started, _is_whole(channels)), []).append(quad)
        for (begins, whole), quads in groups.items():
            part = _Part(movement, {quad: bytes_[quad] for quad in quads}, begins, whole)
            steps.append(_step(node, (x, y), part, scaling, machine))
        started |= {*bytes_}
    return steps


def _sources_of_bytes(movement: Movement) -> dict[int, list[int]]:
    """Quad of the target -> the channel from which each of its bytes comes."""
    found: dict[int, list[int]] = {}
    for target, source in zip(movement.targets, movement.sources, strict=True):
        found.setdefault(target // QUAD, [NOTHING] * QUAD)[target % QUAD] = source
    return found


def _is_whole(channels: Sequence[int]) -> bool:
    """Whether these channels are those of a quad, in order."""
    return channels[0] % QUAD == 0 and list(channels) == list(range(channels[0], channels[0] + QUAD))


def side_by_side(maps: Sequence[tuple[Map, int]]) -> list[tuple[Map, Movement]]:
    """Maps of so many channels each behind each other, as movements of whole maps."""
    start, sources = 0, []
    for x, channels in maps:
        rows, columns = (tuple(range(size)) for size in (x.layout.height, x.layout.width))
        to = tuple(range(start, start + channels))
        sources.append((x, Movement(to, tuple(range(channels)), rows, columns)))
        start += channels
    return sources


@dataclass(frozen=True)
class _Part:
    """Some quads of a movement's target, with the sources of their bytes; whether they begin, and are whole."""

    movement: Movement
    channels: dict[int, list[int]]
    begins: bool
    whole: bool


def _step(node: str, maps: tuple[Map, Map], part: _Part, scaling: Scaling, machine: Machine) -> Step:
    x, y = maps
    size, channels = y.layout.vector_bytes, np.array([*part.channels.values()])  # (quads, 4)
    there = channels != NOTHING
    kept_bytes = np.where(there, 0, 255).astype(np.uint8).view(np.int32)
    quads, places = np.divmod(np.where(there, channels, 0), QUAD)
    tables = source_tables(x.layout, y.layout, part.movement, part.begins)
    arrays: list[int | np.ndarray] = []
    for table in tables:
        arrays += [len(table.places), table.places + y.first, table.offsets + x.first]
        arrays += [table.lanes.astype(np.int32), table.masks]
    code = _code(machine, y.layout.vector, _Ways(tuple(map(_way, tables)), part.begins, part.whole))
    block = argument_block(
        *(len(channels), scaling.word & 0xFFFFFFFF, size * np.array([*part.channels]), size * quads),
        *((8 * places).astype(np.int32), kept_bytes, *arrays),
    )
    return Step("rearrange", node, code, block)


def _way(table: SourceTable) -> tuple[int, bool]:
    """How many source vectors a place needs, and whether lanes stay where they are."""
    return table.number, bool((table.lanes == np.arange(table.lanes.shape[-1])).all())


@dataclass(frozen=True)
class _Ways:
    """By table: source vectors of a place, and whether lanes stay; then whether quads begin, and are whole."""

    tables: tuple[tuple[int, bool], ...]
    begins: bool
    whole: bool


@cache
def _code(machine: Machine, v: Vector, ways: _Ways) -> Callable[..., None]:
    kinds = [INTEGER] * 2 + [POINTER] * 4 + [INTEGER, *[POINTER] * 4] * len(ways.tables)
    f, (quads, word, targets, *by_byte) = function("rearrange", kinds)
    fill = f.splat(v, f.value(f"trunc i64 {word} to i32"))
    for turn, (number, still) in enumerate(ways.tables):
        count, to, at, order, masks = by_byte[3 + 5 * turn : 8 + 5 * turn]
        with f.loop(0, count) as place:
            first = f.multiply(place, number)
            indices = [f.add(first, index) for index in range(number)]
            vectors = _Vectors(
                [at_offset(f, at, index) for index in indices],
                [f.at(order, f.multiply(index, v.lanes), INDEX[v.element]) for index in indices],
                [mask_at(f, v, masks, index) for index in indices],
                still,
            )
            target = at_offset(f, to, place)
            with f.loop(0, quads) as quad:
                there = f.at(target, f.load(INTEGER, f.at(targets, quad, INTEGER)), "i8")
                before = fill if ways.begins else f.load(v, there)
                moved = (_whole if ways.whole else _woven)(
                    f, v, machine, vectors, (quad, before, *by_byte[:3])
                )
                f.store(v, kept(f, v, vectors.any(f, v), moved, before), there)
    return compiled(f, machine)


@dataclass(frozen=True)
class _Vectors:
    """A place's source vectors: where they lie, in which order lanes are taken (`still`: as they are), and which."""

    at: list[str]
    orders: list[str]
    flags: list[str]
    still: bool

    def any(self, f: Function, v: Vector) -> str:
        """The lanes that something moves to."""
        first, *others = self.flags
        for flag in others:
            first = f.value(f"or {v.mask} {first}, {flag}")
        return first

    def read(self, f: Function, v: Vector, machine: Machine, offset: str) -> str:
        """The pixels of the quad at that offset, in their new lanes."""
        value = ""
        for source, order, flag in zip(self.at, self.orders, self.flags, strict=True):
            at = f.at(source, offset, "i8")
            pixels = f.load(v, at) if self.still else permuted(f, v, machine, at, order)
            value = kept(f, v, flag, pixels, value) if value else pixels
        return value


def _whole(f: Function, v: Vector, machine: Machine, vectors: _Vectors, names: Sequence[str]) -> str:
    """A quad that comes from one quad; `names`: the quad, what is there, and what is known of bytes."""
    return vectors.read(f, v, machine, f.load(INTEGER, f.at(names[2], f.multiply(names[0], QUAD), INTEGER)))


def _woven(f: Function, v: Vector, machine: Machine, vectors: _Vectors, names: Sequence[str]) -> str:
    """A quad whose bytes come from several ones, or stay."""
    quad, before, sources, shifts, kept_bytes = names
    stay = f.splat(v, f.load("i32", f.at(kept_bytes, quad, "i32")))
    total = f.value(f"and {v} {before}, {stay}")
    new = f.value(f"xor {v} {stay}, {f.splat(v, '-1')}")
    for part in range(QUAD):
        number = f.add(f.multiply(quad, QUAD), part)
        value = vectors.read(f, v, machine, f.load(INTEGER, f.at(sources, number, INTEGER)))
        shift = f.splat(v, f.load("i32", f.at(shifts, number, "i32")))
        low = f.value(f"and {v} {f.value(f'lshr {v} {value}, {shift}')}, {f.splat(v, '255')}")
        moved = f.value(f"shl {v} {low}, {f.splat(v, str(8 * part))}")
        total = f.value(f"or {v} {total}, {f.value(f'and {v} {moved}, {new}')}")
    return total
