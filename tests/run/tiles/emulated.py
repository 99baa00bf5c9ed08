"""AMX without AMX: the same step, whose operations on tiles are plain loops, for any processor."""

from __future__ import annotations

from run.drawn import HERE

from zeroskip.emit import Function, vector
from zeroskip.run.tiles.amx import AMX, HELD, LANES, Unit

ROWS = 16
FLOATS, NUMBERS, SHORT = vector(LANES), vector(LANES, "i32"), vector(LANES, "i16")


def _multiply_add(f: Function, c: str, a: str, b: str) -> str:
    """c[row] += low(a[row, pair]) low(b[pair]) + high(a[row, pair]) high(b[pair])"""
    sums, weights, inputs = (f.slot(HELD, each) for each in (c, a, b))
    with f.loop(0, ROWS) as row, f.loop(0, ROWS) as pair:
        weight = f.load("i32", f.at(weights, f.add(f.multiply(row, ROWS), pair), "i32"))
        both = [f.splat(LANES, weight, "i32"), f.load(NUMBERS, f.at(inputs, f.multiply(pair, LANES)))]
        low = [f.value(f"shl {NUMBERS} {each}, {f.splat(LANES, '16', 'i32')}") for each in both]
        high = [f.value(f"and {NUMBERS} {each}, {f.splat(LANES, '-65536', 'i32')}") for each in both]
        at = f.at(sums, f.multiply(row, LANES))
        total = f.load(FLOATS, at)
        for factors in (low, high):
            a, b = (f.value(f"bitcast {NUMBERS} {each} to {FLOATS}") for each in factors)
            total = f.multiply_add(LANES, a, b, total)
        f.store(FLOATS, total, at)
    return f.load(HELD, sums)


def _rounded(f: Function, value: str) -> str:
    """To the nearest, of two as near to the one whose last bit is 0; NaN becomes a quiet one."""
    constant = lambda number: f.splat(LANES, str(number), "i32")
    bits = f.value(f"bitcast {FLOATS} {value} to {NUMBERS}")
    upper = f.value(f"lshr {NUMBERS} {bits}, {constant(16)}")
    odd = f.value(f"and {NUMBERS} {upper}, {constant(1)}")
    more = f.value(f"add {NUMBERS} {odd}, {constant(0x7FFF)}")
    near = f.value(f"lshr {NUMBERS} {f.value(f'add {NUMBERS} {bits}, {more}')}, {constant(16)}")
    quiet = f.value(f"or {NUMBERS} {upper}, {constant(0x40)}")
    unordered = f.value(f"fcmp uno {FLOATS} {value}, {value}")
    chosen = f.value(f"select {vector(LANES, 'i1')} {unordered}, {NUMBERS} {quiet}, {NUMBERS} {near}")
    return f.value(f"trunc {NUMBERS} {chosen} to {SHORT}")


EMULATED = Unit(
    permit=lambda: None,
    zero=lambda f: "zeroinitializer",
    load=lambda f, pointer: f.load(HELD, pointer),
    multiply_add=_multiply_add,
    store=lambda f, tile, pointer: f.store(HELD, tile, pointer),
    rounded=AMX.rounded if "avx512bf16" in HERE.features else _rounded,
)
BY_HAND = Unit(**{**vars(EMULATED), "rounded": _rounded})
