"""Weights in 32, 16, 8 or 4 bits: how they are rounded and stored, and how machine code reads them back.

"fp32"   as they are
"bf16"   the upper half of a float32, rounded: a weight moves by at most 2^-8 of itself
"int8"   multiples of a 127th of the row's largest weight: a weight moves by at most half of such a step
"codes"  the number of the weight in a table of 16, exact: for layers with no more distinct non-zero weights

Arithmetic is that of float32 for all of them: only weights are rounded, never inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import Function, vector
from zeroskip.run.dense import pytorch
from zeroskip.run.machine_code import Compiled, accepts

KINDS = ("fp32", "bf16", "int8", "codes")
ELEMENT = {"fp32": "float", "bf16": "i16", "int8": "i8", "codes": "i8"}
BITS = {"fp32": 32, "bf16": 16, "int8": 8, "codes": 4}
TABLE = 16
AHEAD = 2048  # bytes before their use that weights are asked for: page ends stop the processor's own guess

Accepts = Callable[[str, Layer, Machine], str | None]
Build = Callable[[str, Layer, Machine, Precision, bool], Compiled]


@dataclass(frozen=True)
class Nonzeros:
    """The non-zero weights of a layer, row by row.

    rows, columns  (count,) where they are
    numbers        (count,) what is stored of each: float32, the bits of a bfloat16, int8, or its place in `table`
    scale          (out,) what a row's sum of numbers x inputs is multiplied with; 1 but for int8
    table          (16,) the distinct weights, for codes
    """

    rows: np.ndarray
    columns: np.ndarray
    numbers: np.ndarray
    scale: np.ndarray
    table: np.ndarray


def nonzeros(kind: str, layer: Layer) -> Nonzeros:
    """The layer's non-zero weights, as they are stored.

    >>> nonzeros("int8", layer).numbers.dtype
    dtype('int8')
    """
    weight = layer.weight.detach()
    rows, columns = np.nonzero(weight.numpy())
    values = weight.numpy()[rows, columns]
    scale, table = np.ones(len(weight), np.float32), np.zeros(TABLE, np.float32)
    numbers = values
    if kind == "bf16":
        numbers = torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
    if kind == "int8":
        scale = _scale(weight).numpy()
        numbers = np.round(values / scale[rows]).astype(np.int8)
    if kind == "codes":
        # Zero is a weight of the table where there is room: kernels fill gaps with it.
        distinct = np.unique(values) if len(np.unique(values)) == TABLE else np.unique(np.append(values, 0.0))
        table[: len(distinct)] = distinct
        numbers = np.searchsorted(distinct, values).astype(np.uint8)
    return Nonzeros(rows, columns, numbers, scale, table)


def rounded(kind: str, weight: Tensor) -> Tensor:
    """The weights (out, in) that a kernel multiplies with, as float32.

    >>> rounded("int8", torch.tensor([[127.0, 1.4]]))
    tensor([[127., 1.]])
    """
    if kind == "bf16":
        return weight.bfloat16().to(weight.dtype)
    if kind == "int8":
        scale = _scale(weight)[:, None]
        return (weight / scale).round() * scale
    return weight


def kernels(name: str, kinds: tuple[str, ...], accepts: Accepts, build: Build) -> tuple[Kernel, ...]:
    """A kernel for each way to store weights, called after both: "gaps_int8".

    accepts  (kind, layer, machine) -> None, or why this machine or pattern does not do
    build    (kind, layer, machine, precision, relu) -> function of the input

    >>> [kernel.name for kernel in kernels("gaps", ("fp32", "int8"), accepts, build)]
    ['gaps_fp32', 'gaps_int8']
    """
    return tuple(
        Kernel(
            f"{name}_{kind}",
            name,
            partial(_accepts, kind, accepts),
            partial(build, kind),
            # Those that round nothing have the reference of the others, which marks them as exact.
            partial(_reference, kind) if kind in ("bf16", "int8") else pytorch.reference,
            weights=kind,
        )
        for kind in kinds
    )


def pair(
    f: Function, machine: Machine, kind: str, lanes: int, numbers: str, place: str, table: str
) -> list[str]:
    """Two vectors of weights, whose numbers begin at the element `place` of the array.

    Codes lie in the lower halves of `lanes` bytes and, those of the second vector, in the upper ones.
    `table` is a pointer to the 16 weights.

    >>> [first, second] = pair(f, machine, "int8", 16, numbers, place, table)
    """
    if kind == "codes":
        look_up = _permuted if machine.vector_bytes == 64 else _looked_up
        return [look_up(f, lanes, table, codes) for codes in halves(f, lanes, numbers, place)]
    places = [place, f.add(place, lanes)]
    element = ELEMENT[kind]
    raw = [f.load(vector(lanes, element), f.at(numbers, each, element)) for each in places]
    return [as_floats(f, kind, lanes, each) for each in raw]


def ask(f: Function, array: str, place: str, bits: int, count: int) -> None:
    """Ask early for the cache lines of `count` numbers of so many bits, which begin at element `place`.

    >>> ask(f, numbers, place, 8, 32)
    """
    begin = f.value(f"lshr i64 {f.multiply(place, bits)}, 3")
    for line in range(0, max(1, count * bits // 8), 64):
        f.prefetch(f.at(array, f.add(begin, AHEAD + line), "i8"))


def met(f: Function, kind: str, lanes: int, inputs: str, values: str, present: str, step: str | int) -> str:
    """The inputs where there is a weight, and 0 elsewhere: an infinite one is not multiplied with a filler.

    A weight of 0 says that there is none, but for codes a bit of the array `present`: all codes may be in use.

    >>> fetched = met(f, "int8", 16, inputs, values, present, step)
    """
    if kind == "codes":
        whole = f"i{max(lanes, 8)}"
        bits = f.load(whole, f.at(present, step, whole))
        narrow = bits if lanes >= 8 else f.value(f"trunc i8 {bits} to i{lanes}")
        there = f.value(f"bitcast i{lanes} {narrow} to {vector(lanes, 'i1')}")
    else:
        there = f.value(f"fcmp une {vector(lanes)} {values}, zeroinitializer")
    floats = vector(lanes)
    return f.value(f"select {vector(lanes, 'i1')} {there}, {floats} {inputs}, {floats} zeroinitializer")


def by_steps(kind: str, stored: Nonzeros, place: np.ndarray, steps: int, lanes: int) -> list[np.ndarray]:
    """The stored weights, each at its place in (steps, lanes), as `pair` reads them, and the bits for `met`.

    >>> [numbers, present] = by_steps("int8", stored, place, 12, 8)
    """
    numbers = np.zeros(steps * lanes, stored.numbers.dtype)
    numbers[place] = stored.numbers
    if kind != "codes":
        return [numbers, np.zeros(0, np.uint8)]
    present = np.zeros((steps, lanes), bool)
    present.reshape(-1)[place] = True
    return [packed_halves(numbers.reshape(-1, lanes)), np.packbits(present, axis=1, bitorder="little")]


def as_floats(f: Function, kind: str, lanes: int, raw: str) -> str:
    """Vector of the float32 that stored numbers mean (of int8: before scaling).

    >>> as_floats(f, "fp32", 16, "%v1")
    '%v1'
    """
    if kind == "bf16":
        wide = f.value(f"zext {vector(lanes, 'i16')} {raw} to {vector(lanes, 'i32')}")
        upper = f.value(f"shl {vector(lanes, 'i32')} {wide}, {f.splat(lanes, '16', 'i32')}")
        return f.value(f"bitcast {vector(lanes, 'i32')} {upper} to {vector(lanes)}")
    if kind == "int8":
        return f.value(f"sitofp {vector(lanes, 'i8')} {raw} to {vector(lanes)}")
    return raw


def halves(f: Function, lanes: int, numbers: str, place: str) -> list[str]:
    """Two vectors (i32) of numbers of 4 bits, the first one with other bits above them.

    >>> [low, high] = halves(f, 16, "%indices", place)
    """
    kind = vector(lanes, "i32")
    both = f.load(vector(lanes, "i8"), f.at(numbers, f.value(f"lshr i64 {place}, 1"), "i8"))
    low = f.value(f"zext {vector(lanes, 'i8')} {both} to {kind}")
    return [low, f.value(f"lshr {kind} {low}, {f.splat(lanes, '4', 'i32')}")]


def packed_halves(numbers: np.ndarray) -> np.ndarray:
    """Numbers below 16 (steps, lanes), steps being even, as `halves` reads them.

    >>> packed_halves(np.array([[1, 2], [3, 4]], np.uint8))
    array([[49, 66]], dtype=uint8)
    """
    return numbers[0::2] | numbers[1::2] << 4


def permuted(f: Function, values: str, numbers: str) -> str:
    """Vector of those of 16 floats that 16 numbers (i32, of which the lowest 4 bits count) name; AVX-512 only.

    >>> fetched = permuted(f, inputs, picks)
    """
    name = "llvm.x86.avx512.permvar.sf.512"
    return f.call(vector(16), name, f"{vector(16)} {values}", f"{vector(16, 'i32')} {numbers}")


def _permuted(f: Function, lanes: int, table: str, codes: str) -> str:
    wide = f.part(codes, "i32", lanes, 0, TABLE)
    return f.part(permuted(f, f.load(vector(TABLE), table), wide), "float", TABLE, 0, lanes)


def _looked_up(f: Function, lanes: int, table: str, codes: str) -> str:
    low = f.value(f"and {vector(lanes, 'i32')} {codes}, {f.splat(lanes, '15', 'i32')}")
    found = "poison"
    for lane in range(lanes):
        code = f.value(f"extractelement {vector(lanes, 'i32')} {low}, i32 {lane}")
        weight = f.load("float", f.at(table, f.value(f"zext i32 {code} to i64")))
        found = f.value(f"insertelement {vector(lanes)} {found}, float {weight}, i32 {lane}")
    return found


def _accepts(kind: str, also: Accepts, layer: Layer, machine: Machine, precision: Precision) -> str | None:
    reason = accepts(layer, machine, precision)
    if reason is None and kind not in ("fp32", precision.weights):
        reason = f"{precision.weights} weights were asked for"
    if reason is None and kind in ("int8", "codes") and not bool(layer.weight.isfinite().all()):
        reason = "weights that are not finite have neither a scale nor a code"
    if reason is None and kind == "codes":
        count = len(layer.weight[layer.weight != 0].unique())
        reason = f"{count} distinct weights, and 4 bits number {TABLE}" if count > TABLE else None
    return reason or also(kind, layer, machine)


def _reference(kind: str, layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in plain PyTorch, of rounded weights."""
    return pytorch.reference(replace(layer, weight=rounded(kind, layer.weight)), x, relu)


def _scale(weight: Tensor) -> Tensor:
    # A row of zeros has any scale but 0.
    return (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(weight.dtype).tiny)
