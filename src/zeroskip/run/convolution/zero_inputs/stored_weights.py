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

from zeroskip.emit import Function, vector

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}  # of a weight
FLUSH = 32  # products summed in fp16


def stored(kind: str, weights: np.ndarray, lanes: int) -> np.ndarray:
    """Float32 weights (..., outputs), whole vectors and for 16 bits pairs of them, as machine code reads them.

    Of two vectors of bf16 the first one lies in the lower halves of `lanes` words, the second one in the upper ones.

    >>> stored("bf16", np.ones((9, 64), np.float32), 16).shape
    (9, 32)
    """
    if kind == "fp32":
        return weights
    if kind == "fp16":
        return weights.astype(np.float16)
    half = torch.from_numpy(weights).bfloat16().view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
    pairs = half.reshape(*weights.shape[:-1], -1, 2, lanes)
    return (pairs[..., 0, :] | pairs[..., 1, :] << 16).reshape(*weights.shape[:-1], -1)


def listed(f: Function, kind: str, lanes: int, values: str) -> str:
    """Inputs as a list holds them, 32 bits each: themselves, or twice the same fp16.

    >>> listed(f, "fp32", 16, "%v1")
    '%v1'
    """
    if kind != "fp16":
        return values
    halves, words = f.converted(lanes, values, "float", "half"), vector(lanes, "i32")
    bits = f.value(f"bitcast {vector(lanes, 'half')} {halves} to {vector(lanes, 'i16')}")
    wide = f.value(f"zext {vector(lanes, 'i16')} {bits} to {words}")
    twice = f.value(f"mul {words} {wide}, {f.splat(lanes, str(0x10001), 'i32')}")
    return f.value(f"bitcast {words} {twice} to {vector(lanes)}")


def emit_products(f: Function, kind: str, lanes: int, value: str, row: str, sums: Sequence[str]) -> None:
    """Add the listed value behind one pointer, times the weights behind another, to sums: slots with vectors.

    Sums of fp16 have 2 x lanes halves; of the other kinds, lanes floats.

    >>> emit_products(f, "bf16", 16, "%value", "%row", sums)
    """
    element, width = ("half", 2 * lanes) if kind == "fp16" else ("float", lanes)
    factor = f.splat(lanes, f.load("i32", value), "i32")
    factor = f.value(f"bitcast {vector(lanes, 'i32')} {factor} to {vector(width, element)}")
    for total, weight in zip(sums, _weights(f, kind, lanes, row, len(sums)), strict=True):
        before = f.load(vector(width, element), total)
        f.store(vector(width, element), f.multiply_add(width, factor, weight, before, element=element), total)


def _weights(f: Function, kind: str, lanes: int, row: str, count: int) -> list[str]:
    """So many vectors of weights, as floats, or as halves of fp16."""
    if kind == "fp32":
        return [f.load(vector(lanes), f.at(row, lanes * each)) for each in range(count)]
    if kind == "fp16":
        wide = vector(2 * lanes, "half")
        return [f.load(wide, f.at(row, 2 * lanes * each, "half")) for each in range(count)]
    words, found = vector(lanes, "i32"), []
    for each in range(0, count, 2):
        both = f.load(words, f.at(row, lanes * each // 2))
        lower = f.value(f"shl {words} {both}, {f.splat(lanes, '16', 'i32')}")
        upper = f.value(f"and {words} {both}, {f.splat(lanes, '-65536', 'i32')}")
        found += [f.value(f"bitcast {words} {one} to {vector(lanes)}") for one in (lower, upper)]
    return found


def emit_flush(f: Function, lanes: int, halves: Sequence[str], sums: Sequence[str]) -> None:
    """Add slots of 2 x lanes halves to twice as many slots of floats.

    >>> emit_flush(f, 16, halves, sums)
    """
    wide, kind = vector(2 * lanes, "half"), vector(lanes)
    for number, total in enumerate(sums):
        part = f.part(f.load(wide, halves[number // 2]), "half", 2 * lanes, number % 2 * lanes, lanes)
        some = f.converted(lanes, part, "half", "float")
        f.store(kind, f.value(f"fadd {kind} {f.load(kind, total)}, {some}"), total)
