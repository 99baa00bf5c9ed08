"""GELU and SiLU by polynomials whose coefficients are looked up, a third of the instructions; for AVX-512.

All three are max(x, 0) - h(|x|), and h soon is nothing. Below that, |x| is rounded to a multiple of a step; the number
of the multiple selects the coefficients, one permutation each, of a polynomial in what is left. They are within 2e-7 x
max(1, |x|) of the functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from zeroskip.emit.activations import ROUNDER
from zeroskip.emit.llvm import Function, Vector

LANES = 16
DOWNWARDS = 9  # what is left above the next lower whole number, with no exception
# 2^y for 0 <= y < 1; its error is 2.6e-6 of it.
SHORT_POWER = (
    1.0000025932711352,
    0.6930038356016118,
    0.24144275391205866,
    0.052011462771403144,
    0.01353416786920078,
)
COEFFICIENTS = 6
Real = Callable[[float], float]


class _Table(NamedTuple):
    """h, the step between its polynomials, and how many of them there are: 16 or 32."""

    below: Real
    step: float
    polynomials: int


TABLES = {
    "gelu": _Table(lambda a: a * math.erfc(a * math.sqrt(0.5)) / 2, 0.375, LANES),
    "gelu_tanh": _Table(
        lambda a: a / (1 + math.exp(math.sqrt(8 / math.pi) * (a + 0.044715 * a**3))), 0.375, LANES
    ),
    "silu": _Table(lambda a: a / (1 + math.exp(a)), 0.625, 2 * LANES),
}
"""By kind of activation."""


def looked_up(f: Function, v: Vector, kind: str, x: str) -> str:
    """The activation of a vector of 16 floats; NaN stays NaN.

    >>> f = Function("y", {"x": "ptr"})
    >>> looked_up(f, Vector(16), "gelu", f.load(Vector(16), "%x")).startswith("%")
    True
    """
    table, words = TABLES[kind], v.of("i32")
    size = f.call(v, f"llvm.fabs.{v.suffix}", f"{v} {x}")
    most = f.constant(v, (table.polynomials - 0.5) * table.step * (1 - 2**-20))
    near = f.value(f"fcmp olt {v} {size}, {most}")
    size = f.value(f"select {v.mask} {near}, {v} {size}, {v} {most}")
    shifted = f.multiply_add(v, size, f.constant(v, 1 / table.step), f.constant(v, ROUNDER))
    number = f.value(f"bitcast {v} {shifted} to {words}")
    whole = f.value(f"fneg {v} {f.value(f'fsub {v} {shifted}, {f.constant(v, ROUNDER)}')}")
    rest = f.multiply_add(v, whole, f.constant(v, table.step), size)
    *lower, below = (_taken(f, v, column, number) for column in _coefficients(kind))
    for coefficient in reversed(lower):
        below = f.multiply_add(v, below, rest, coefficient)
    return f.value(f"fsub {v} {f.relu(v, x)}, {below}")


@cache
def _coefficients(kind: str) -> np.ndarray:
    """(6, count) float32, those of powers 0, 1, ... for each multiple of the step."""
    table = TABLES[kind]
    nodes = np.cos((np.arange(COEFFICIENTS) + 0.5) * math.pi / COEFFICIENTS) * table.step / 2
    powers = np.vander(nodes, increasing=True)
    values = [[table.below(number * table.step + at) for at in nodes] for number in range(table.polynomials)]
    return np.linalg.solve(powers, np.array(values).T).astype(np.float32)


def _taken(f: Function, v: Vector, column: np.ndarray, number: str) -> str:
    """The coefficients that the lowest bits of integers select."""
    words = v.of("i32")
    parts = [f"{v} {_constants(f, v, part)}" for part in column.reshape(-1, LANES)]
    if len(parts) == 1:
        return f.call(v, "llvm.x86.avx512.permvar.sf.512", parts[0], f"{words} {number}")
    return f.call(v, "llvm.x86.avx512.vpermi2var.ps.512", parts[0], f"{words} {number}", parts[1])


def _constants(f: Function, v: Vector, values: np.ndarray) -> str:
    """A vector of these floats."""
    words, bits = v.of("i32"), values.view(np.int32).tolist()
    return f.value(f"bitcast {words} <{', '.join(f'i32 {each}' for each in bits)}> to {v}")


def two_to_avx512(f: Function, v: Vector, x: str) -> str:
    """2^x of 16 floats, within 4e-6 of it; 0 where that is too small, as of minus infinity."""
    every = (1 << LANES) - 1
    rest = f.call(
        v, "llvm.x86.avx512.mask.reduce.ps.512", f"{v} {x}", f"i32 {DOWNWARDS}", f"{v} zeroinitializer", f"i16 {every}",
        "i32 4",
    )  # fmt: skip
    *lower, power = (f.constant(v, coefficient) for coefficient in SHORT_POWER)
    for coefficient in reversed(lower):
        power = f.multiply_add(v, power, rest, coefficient)
    name = "llvm.x86.avx512.mask.scalef.ps.512"
    return f.call(v, name, f"{v} {power}", f"{v} {x}", f"{v} zeroinitializer", f"i16 {every}", "i32 4")
