"""How machine code reads stored weights: two vectors at a time, as float32, and what is fetched ahead of them."""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.concepts import Machine
from zeroskip.emit import Function, Vector
from zeroskip.run.linear.stored_weights import BITS, TABLE

AHEAD = 2048  # bytes before their use that weights are asked for: page ends stop the processor's own guess
ELEMENT = {"fp32": "float", "bf16": "i16", "int8": "i8", "codes": "i8"}


@dataclass(frozen=True)
class StoredVectors:
    """Weights in memory, as the function `f` reads them.

    storage  how they are stored (stored_weights.py), and the pointer to their `numbers`
    v        a vector of as many floats as are read together
    table    pointer to the 16 weights that codes number
    present  pointer to bits that say where a weight is; for codes, of which all may be in use
    """

    f: Function
    machine: Machine
    v: Vector
    storage: str
    numbers: str
    table: str
    present: str = ""


def two_vectors(stored: StoredVectors, place: str) -> list[str]:
    """Two vectors of weights (of int8: before scaling), whose numbers begin at the element `place`.

    Codes lie in the lower halves of as many bytes and, those of the second vector, in the upper ones.
    """
    f, v = stored.f, stored.v
    if stored.storage == "codes":
        look_up = _permuted if stored.machine.vector_bytes == 64 else _looked_up
        return [look_up(f, v, stored.table, codes) for codes in nibbles(f, v, stored.numbers, place)]
    return [one_vector(stored, each) for each in (place, f.add(place, v.lanes))]


def one_vector(stored: StoredVectors, place: str) -> str:
    """A vector of weights (of int8: before scaling), whose numbers begin at the element `place`; no codes."""
    f, element = stored.f, ELEMENT[stored.storage]
    return _as_floats(stored, f.load(stored.v.of(element), f.at(stored.numbers, place, element)))


def prefetch_two(stored: StoredVectors, place: str) -> None:
    """Ask early for the numbers behind the two vectors at `place`."""
    prefetch(stored.f, stored.numbers, place, BITS[stored.storage], 2 * stored.v.lanes)


def prefetch(f: Function, array: str, place: str, bits: int, count: int) -> None:
    """Ask early for the cache lines of `count` numbers of so many bits, which begin at element `place`."""
    begin = f.value(f"lshr i64 {f.multiply(place, bits)}, 3")
    for line in range(0, max(1, count * bits // 8), 64):
        f.prefetch(f.at(array, f.add(begin, AHEAD + line), "i8"))


def inputs_of_weights(stored: StoredVectors, inputs: str, values: str, step: str | int) -> str:
    """The inputs where there is a weight, and 0 elsewhere: an infinite one is not multiplied with a filler.

    A weight of 0 says that there is none, but for codes a bit of `present`.
    """
    f, v = stored.f, stored.v
    if stored.storage == "codes":
        whole = f"i{max(v.lanes, 8)}"
        bits = f.load(whole, f.at(stored.present, step, whole))
        narrow = bits if v.lanes >= 8 else f.value(f"trunc i8 {bits} to i{v.lanes}")
        is_there = f.value(f"bitcast i{v.lanes} {narrow} to {v.mask}")
    else:
        is_there = f.value(f"fcmp une {v} {values}, zeroinitializer")
    return f.value(f"select {v.mask} {is_there}, {v} {inputs}, {v} zeroinitializer")


def nibbles(f: Function, v: Vector, numbers: str, place: str) -> list[str]:
    """Two vectors (i32) of numbers of 4 bits, as `packed_nibbles` stores them; the first has other bits above."""
    wide = v.of("i32")
    both = f.load(v.of("i8"), f.at(numbers, f.value(f"lshr i64 {place}, 1"), "i8"))
    low = f.value(f"zext {v.of('i8')} {both} to {wide}")
    return [low, f.value(f"lshr {wide} {low}, {f.splat(wide, '4')}")]


def permuted(f: Function, values: str, numbers: str) -> str:
    """Vector of those of 16 floats that 16 numbers (i32, of which the lowest 4 bits count) name; AVX-512 only."""
    v = Vector(16)
    return f.call(v, "llvm.x86.avx512.permvar.sf.512", f"{v} {values}", f"{v.of('i32')} {numbers}")


def _as_floats(stored: StoredVectors, raw: str) -> str:
    """Vector of the float32 that stored numbers mean."""
    f, v = stored.f, stored.v
    if stored.storage == "bf16":
        return f.from_bf16(v, raw)
    if stored.storage == "int8":
        return f.value(f"sitofp {v.of('i8')} {raw} to {v}")
    return raw


def _permuted(f: Function, v: Vector, table: str, codes: str) -> str:
    whole = Vector(TABLE)
    wide = f.part(v.of("i32"), codes, 0, TABLE)
    return f.part(whole, permuted(f, f.load(whole, table), wide), 0, v.lanes)


def _looked_up(f: Function, v: Vector, table: str, codes: str) -> str:
    wide = v.of("i32")
    low = f.value(f"and {wide} {codes}, {f.splat(wide, '15')}")
    weights = "poison"
    for lane in range(v.lanes):
        code = f.value(f"extractelement {wide} {low}, i32 {lane}")
        weight = f.load("float", f.at(table, f.value(f"zext i32 {code} to i64")))
        weights = f.value(f"insertelement {v} {weights}, float {weight}, i32 {lane}")
    return weights
