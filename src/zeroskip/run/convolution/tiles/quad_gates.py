"""Products of two maps of 8-bit numbers, such as those of squeeze and excite, where one has a pixel for all places."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.activation import Activation, activated
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.quad_numbers import nearest
from zeroskip.run.convolution.tiles.quad_products import byte
from zeroskip.run.convolution.tiles.steps import Step, at_offset, compiled, function, kept, mask_at
from zeroskip.run.element import Scaling


def multiplied_quads(
    node: str, maps: tuple[Map, Map, Map], scalings: tuple[Scaling, Scaling, Scaling], after: Activation | None,
    machine: Machine,
) -> Step:  # fmt: skip
    """y = activation(x other), `maps` and `scalings` of x, other and y; an `other` of one pixel goes to all places.

    The product of both bytes, counted from their zero points, times the product of the scales, rounded once.
    """
    (x, other, y), (first, second, made) = maps, scalings
    places, layout = y.layout.inside(), y.layout
    single = (other.layout.height, other.layout.width) == (1, 1)
    where = places * (1, 0, 0) if single else places
    numbers = np.array(
        [first.zero_point, second.zero_point, np.float32(first.scale) * np.float32(second.scale), made.inverse,
         made.least, made.most], np.float32,
    )  # fmt: skip
    block = argument_block(
        *(len(places), len(y.channels), made.word & 0xFFFFFFFF),
        *(x.first + x.layout.offset(*places.T), other.first + other.layout.offset(*where.T)),
        *(y.first + layout.offset(*places.T), layout.masks(places), numbers),
    )
    return Step("multiply", node, _code(machine, layout.vector, single, after), block)


@cache
def _code(machine: Machine, v: Vector, single: bool, after: Activation | None) -> Callable[..., None]:
    f, (count, quads, word, xs, others, ys, masks, numbers) = function(
        "multiply", [INTEGER] * 3 + [POINTER] * 5
    )
    w, fill = v.of("float"), f.splat(v, f.value(f"trunc i64 {word} to i32"))
    zero, second_zero, factor, *ends = (f.splat(w, f.load("float", f.at(numbers, at))) for at in range(6))
    with f.loop(0, count) as number:
        x, other, y = (at_offset(f, each, number) for each in (xs, others, ys))
        mask = mask_at(f, v, masks, number)
        with f.loop(0, quads) as quad:
            at, woven = f.multiply(quad, v.lanes), "zeroinitializer"
            place = f.at(other, at, "i32")
            second = f.splat(v, f.load("i32", place)) if single else f.load(v, place)
            pairs = (f.load(v, f.at(x, at, "i32")), zero), (second, second_zero)
            for part in range(QUAD):
                one, two = (
                    f.value(
                        f"fsub {w} {f.value(f'uitofp {v} {byte(f, v, each, str(part))} to {w}')}, {middle}"
                    )
                    for each, middle in pairs
                )
                value = f.value(f"fmul {w} {f.value(f'fmul {w} {one}, {two}')}, {factor}")
                value = value if after is None else activated(f, w, after, value)
                whole = nearest(f, w, f.value(f"fmul {w} {value}, {ends[0]}"), ends[1], ends[2])
                low = f.value(f"and {v} {whole}, {f.splat(v, '255')}")
                woven = f.value(f"or {v} {woven}, {f.value(f'shl {v} {low}, {f.splat(v, str(8 * part))}')}")
            signed = f.value(f"xor {v} {woven}, {fill}")
            f.store(v, kept(f, v, mask, signed, fill), f.at(y, at, "i32"))
    return compiled(f, machine)
