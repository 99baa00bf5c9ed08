"""Numbers of a map put into other places: slices, padding, upsampling, shuffled channels and pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Layout, Map, bits
from zeroskip.run.convolution.tiles.operations import Movement, Operation
from zeroskip.run.convolution.tiles.relayout import INDEX, permuted
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at


def rearrange(operation: Operation, x: Map, y: Map, machine: Machine) -> list[Step]:
    """Every movement of the operation in turn; the first to reach a channel also fills what it leaves out."""
    started: set[int] = set()
    steps = []
    for movement in operation.movements:
        begins = not started & {*movement.targets}
        started |= {*movement.targets}
        steps.append(_step(operation, movement, (x, y), begins, machine))
    return steps


@dataclass(frozen=True)
class SourceTable:
    """By the number of source vectors that a place needs: (count,) offsets of the places, (count, number) offsets of
    the sources, (count, number, lanes) lanes to take, (count, number) lanes to keep, as bits, (count, lanes) weights,
    (count,) lanes that hold pixels, as bits."""

    number: int
    places: np.ndarray
    offsets: np.ndarray
    lanes: np.ndarray
    masks: np.ndarray
    weights: np.ndarray
    pixels: np.ndarray


def _step(
    operation: Operation, movement: Movement, maps: tuple[Map, Map], begins: bool, machine: Machine
) -> Step:
    x, y = maps
    element, tables = y.layout.element, source_tables(x.layout, y.layout, movement, begins)
    arrays: list[int | np.ndarray] = []
    for table in tables:
        order = table.lanes.astype(f"i{element.bytes}")
        weights = table.weights.astype(element.dtype)
        arrays += [
            len(table.places),
            table.places + y.first,
            table.offsets + x.first,
            order,
            table.masks,
            weights,
        ]
        arrays.append(table.pixels)
    size = y.layout.vector_bytes
    channels = [np.array(numbers, np.int64) * size for numbers in (movement.targets, movement.sources)]
    weighted, numbers = movement.weights is not None, tuple(table.number for table in tables)
    code = _code(machine, y.layout.vector, _Ways(numbers, begins, weighted, operation.fill))
    return Step("rearrange", operation.name, code, argument_block(len(movement.targets), *channels, *arrays))


@dataclass(frozen=True)
class _Place:
    """Where a place of the target has its numbers from: offsets (number,), lanes (number, lanes), masks (number,)."""

    index: int
    offsets: np.ndarray
    lanes: np.ndarray
    masks: np.ndarray


def source_tables(source: Layout, target: Layout, movement: Movement, begins: bool) -> list[SourceTable]:
    """Where the places of the target have their numbers from; `begins`: also those that get none."""
    places = target.inside()
    wanted, there, weights = _wanted(target, movement)
    at, lane = source.find(np.where(there[..., None], wanted, 0))
    groups: dict[int, list[_Place]] = {}
    for index in range(len(places)):
        place = _place(index, at[index], lane[index], there[index])
        if len(place.offsets) or begins:
            # Where nothing comes from, there is one source, of which no lane is taken.
            offsets = place.offsets if len(place.offsets) else np.zeros(1, np.int64)
            groups.setdefault(len(offsets), []).append(replace(place, offsets=offsets))
    tables = []
    for number, several in sorted(groups.items()):
        which = [place.index for place in several]
        arrays = [[place.offsets for place in several], [place.lanes for place in several]]
        offsets, lanes, masks = (np.stack(each) for each in (*arrays, [place.masks for place in several]))
        to = target.offset(*places[which].T)
        tables.append(
            SourceTable(number, to, offsets, lanes, masks, weights[which], target.masks(places[which]))
        )
    return tables


def _wanted(target: Layout, movement: Movement) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each place and lane of the target: image, row and column of the source; whether it has them; the weight."""
    image, row, column = np.moveaxis(target.pixels(target.inside()), -1, 0)  # (places, lanes) each
    rows, columns = (np.array([*numbers, -1]) for numbers in (movement.rows, movement.columns))
    from_row, from_column = rows[np.where(image >= 0, row, -1)], columns[np.where(image >= 0, column, -1)]
    there = (image >= 0) & (from_row >= 0) & (from_column >= 0)
    weights = np.zeros(there.shape)
    if movement.weights is not None:
        by_row, by_column = (np.array([*numbers, 0.0]) for numbers in movement.weights)
        weights = by_row[np.where(there, row, -1)] * by_column[np.where(there, column, -1)]
    return np.stack([image, from_row, from_column], -1), there, weights


def _place(index: int, at: np.ndarray, lane: np.ndarray, there: np.ndarray) -> _Place:
    offsets, which = np.unique(at[there], return_inverse=True)
    lanes = np.zeros((max(1, len(offsets)), len(there)), np.int32)
    flags = np.zeros_like(lanes, bool)
    mine = np.flatnonzero(there)
    lanes[which, mine], flags[which, mine] = lane[mine], True
    return _Place(index, offsets, lanes, bits(flags))


@dataclass(frozen=True)
class _Ways:
    """What the code does: source vectors of a place, whether places start with `fill`, whether numbers are weighted."""

    numbers: tuple[int, ...]
    begins: bool
    weighted: bool
    fill: float


@cache
def _code(machine: Machine, v: Vector, ways: _Ways) -> Callable[..., None]:
    kinds = [INTEGER, POINTER, POINTER] + [INTEGER, *[POINTER] * 6] * len(ways.numbers)
    f, (channels, targets, sources_of, *fields) = function("rearrange", kinds)
    for turn, number in enumerate(ways.numbers):
        count, to, at, order, masks, weights, pixels_ = fields[7 * turn : 7 * turn + 7]
        with f.loop(0, count) as place:
            first = f.multiply(place, number)
            indices = [f.add(first, index) for index in range(number)]
            target, sources = at_offset(f, to, place), [at_offset(f, at, index) for index in indices]
            flags = [mask_at(f, v, masks, index) for index in indices]
            takes = [f.at(order, f.multiply(index, v.lanes), INDEX[v.element]) for index in indices]
            filled = "zeroinitializer"
            if ways.fill:  # lanes without pixels hold 0 all the same
                filled = kept(f, v, mask_at(f, v, pixels_, place), f.constant(v, ways.fill))
            weight = f.load(v, f.at(weights, f.multiply(place, v.lanes), v.element)) if ways.weighted else ""
            with f.loop(0, channels) as channel:
                there = f.at(target, f.load(INTEGER, f.at(targets, channel, INTEGER)), "i8")
                offset = f.load(INTEGER, f.at(sources_of, channel, INTEGER))
                before = filled if ways.begins else f.load(v, there)
                value = "zeroinitializer" if ways.weighted else before
                for source, take, flag in zip(sources, takes, flags, strict=True):
                    pixels = permuted(f, v, machine, f.at(source, offset, "i8"), take)
                    value = kept(f, v, flag, pixels, value)
                f.store(v, f.multiply_add(v, value, weight, before) if ways.weighted else value, there)
    return compiled(f, machine)
