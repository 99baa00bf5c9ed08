"""What the weights of convolutions that skip zeros are stored and summed in.

"fp32"  as they are
"bf16"  the upper half of a float32, rounded: half the bytes, multiplied and summed in float32
"fp16"  half precision, inputs and products too: twice as many lanes where the processor has arithmetic in fp16. After
        every 32 products sums go over into float32, so that they neither round much nor reach fp16's end soon
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from zeroskip.emit import Function, Vector

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}  # of a weight
FLUSH = 32  # products summed in fp16
LINE = 64  # bytes of a cache line


def stored(storage: str, weights: np.ndarray, lanes: int) -> np.ndarray:
    """Float32 weights (..., outputs), whole vectors and for 16 bits pairs of them, as machine code reads them.

    Of two vectors of bf16 the first one lies in the lower halves of `lanes` words, the second one in the upper ones.
    """
    if storage == "fp32":
        return weights
    if storage == "fp16":
        return weights.astype(np.float16)
    half = torch.from_numpy(weights).bfloat16().view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
    pairs = half.reshape(*weights.shape[:-1], -1, 2, lanes)
    return (pairs[..., 0, :] | pairs[..., 1, :] << 16).reshape(*weights.shape[:-1], -1)


def listed(f: Function, storage: str, v: Vector, values: str) -> str:
    """Inputs as a list holds them, 32 bits each: themselves, or twice the same fp16."""
    if storage != "fp16":
        return values
    halves, words = f.converted(v, values, "half"), v.of("i32")
    bits = f.value(f"bitcast {v.of('half')} {halves} to {v.of('i16')}")
    wide = f.value(f"zext {v.of('i16')} {bits} to {words}")
    twice = f.value(f"mul {words} {wide}, {f.splat(words, str(0x10001))}")
    return f.value(f"bitcast {words} {twice} to {v}")


def summed(storage: str, v: Vector) -> Vector:
    """The vectors that products are summed in, for lists of vectors of as many floats.

    >>> str(summed("fp16", Vector(16)))
    '<32 x half>'
    """
    return Vector(2 * v.lanes, "half") if storage == "fp16" else v


def emit_products(f: Function, storage: str, v: Vector, value: str, row: str, sums: Sequence[str]) -> None:
    """Add the listed value behind one pointer, times the weights behind another, to sums: slots with vectors."""
    wide, words = summed(storage, v), v.of("i32")
    factor = f.splat(words, f.load("i32", value))
    factor = f.value(f"bitcast {words} {factor} to {wide}")
    for total, weight in zip(sums, _weights(f, storage, v, row, len(sums)), strict=True):
        before = f.load(wide, total)
        f.store(wide, f.multiply_add(wide, factor, weight, before), total)


def _weights(f: Function, storage: str, v: Vector, row: str, count: int) -> list[str]:
    """So many vectors of weights, as floats, or as halves of fp16."""
    if storage != "bf16":
        wide = summed(storage, v)
        return [f.load(wide, f.at(row, wide.lanes * each, wide.element)) for each in range(count)]
    words, vectors = v.of("i32"), []
    for each in range(0, count, 2):
        both = f.load(words, f.at(row, v.lanes * each // 2))
        lower = f.value(f"shl {words} {both}, {f.splat(words, '16')}")
        upper = f.value(f"and {words} {both}, {f.splat(words, '-65536')}")
        vectors += [f.value(f"bitcast {words} {half} to {v}") for half in (lower, upper)]
    return vectors


def emit_flush(f: Function, v: Vector, halves: Sequence[str], sums: Sequence[str]) -> None:
    """Add slots of twice as many halves to twice as many slots of floats."""
    wide = summed("fp16", v)
    for number, total in enumerate(sums):
        part = f.part(wide, f.load(wide, halves[number // 2]), number % 2 * v.lanes, v.lanes)
        floats = f.converted(v.of("half"), part, "float")
        f.store(v, f.value(f"fadd {v} {f.load(v, total)}, {floats}"), total)
