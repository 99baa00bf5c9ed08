"""Numbers that are sums of numbers of the same pixel, by weights that differ from pixel to pixel: rotary embeddings."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at


def mix(operation: Operation, x: Map, y: Map, machine: Machine) -> Step:
    """y[channel] = shift[channel] + sum of weights[channel] x x[source of the channel], at each pixel."""
    given, layout = operation.mixing, y.layout
    assert given is not None
    places = layout.inside()
    offsets = [each.first + each.layout.offset(*places.T) for each in (x, y)]
    tables = [*given.weights, *([] if given.shift is None else [given.shift])]
    spread = [_spread(table.numpy(), layout) for table in tables]
    numbers = [np.asarray(each, np.int64) * layout.lanes for each in given.sources]
    counts = (
        layout.slots,
        len(places) // layout.slots,
        len(y.channels),
        *(table.shape[1] for table, _ in spread),
    )
    arrays = [each for table, row in spread for each in (table, row)]
    code = _mix_code(machine, layout.vector, len(given.sources), given.shift is not None)
    return Step(
        "mix",
        operation.name,
        code,
        argument_block(*counts, *offsets, layout.masks(places), *numbers, *arrays),
    )


def _spread(table: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """(places, rows, lanes) float32: the numbers of a table (channels, height, width), each row once.

    And for each channel the number of its row.
    """
    rows, which = np.unique(table.reshape(len(table), -1), axis=0, return_inverse=True)
    pixels = layout.pixels(layout.inside()[: layout.tile[0] * layout.tile[1]])  # (places, lanes, 3)
    number = np.where(pixels[:, :, 0] >= 0, pixels[:, :, 1] * layout.width + pixels[:, :, 2], 0)
    spread = rows[:, number].transpose(1, 0, 2)  # (places, rows, lanes)
    return spread.astype(np.float32), which.reshape(-1).astype(np.int64)


@cache
def _mix_code(machine: Machine, v: Vector, terms: int, shifted: bool) -> Callable[..., None]:
    wide, tables = v.of("float"), terms + shifted
    f, fields = function("mix", [INTEGER] * (3 + tables) + [POINTER] * (3 + terms + 2 * tables))
    (images, places, channels), rows, arrays = fields[:3], fields[3 : 3 + tables], fields[3 + tables :]
    sources, spread = arrays[3 : 3 + terms], arrays[3 + terms :]
    with f.loop(0, images) as image, f.loop(0, places) as place:
        number = f.add(f.multiply(image, places), place)
        source, target = (at_offset(f, array, number) for array in arrays[:2])
        mask = mask_at(f, v, arrays[2], number)
        with f.loop(0, channels) as channel:

            def entry(table: int, place: str = place, channel: str = channel) -> str:
                row = f.load(INTEGER, f.at(spread[2 * table + 1], channel, INTEGER))
                at = f.multiply(f.add(f.multiply(place, rows[table]), row), v.lanes)
                return f.load(wide, f.at(spread[2 * table], at))

            value = entry(terms) if shifted else "zeroinitializer"
            for term in range(terms):
                at = f.load(INTEGER, f.at(sources[term], channel, INTEGER))
                other = f.converted(v, f.load(v, f.at(source, at, v.element)), "float")
                value = f.multiply_add(wide, other, entry(term), value)
            value = kept(f, v, mask, f.converted(wide, value, v.element))
            f.store(v, value, f.at(target, f.multiply(channel, v.lanes), v.element))
    return compiled(f, machine)
