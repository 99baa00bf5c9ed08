"""From sums of quads to fp32 and back to bytes, as code for any processor: the steps that `quad_job` fixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zeroskip.concepts import Machine
from zeroskip.emit import Function, Vector
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.quad_products import NEON
from zeroskip.run.convolution.tiles.steps import kept
from zeroskip.run.element import Scaling

MAGIC = 1.5 * 2**23  # floats from here on are whole numbers, and their last bits count
MAGIC_BITS = 0x4B400000
MIXED_ORDER = (0, 2, 1, 3)  # of the four numbers whose bytes `mixed` puts into a lane
PACKED_LANES = 16  # of vectors for whose packing there are instructions here


def fused(f: Function, v: Vector, machine: Machine, a: str, b: str, c: str) -> str:
    """a x b + c of vectors of floats, rounded once, also where the processor has no instruction for it.

    Then the product is exact in doubles, and the sum is rounded to odd there: the second rounding does no harm
    (Boldo and Melquiond 2008).
    """
    if machine.arch in NEON or "fma" in machine.features:
        return f.call(v, f"llvm.fma.{v.suffix}", f"{v} {a}", f"{v} {b}", f"{v} {c}")
    wide, words = v.of("double"), v.of("i64")
    x, y, z = (f.value(f"fpext {v} {each} to {wide}") for each in (a, b, c))
    exact = f.value(f"fmul {wide} {x}, {y}")
    total = f.value(f"fadd {wide} {exact}, {z}")
    part = f.value(f"fsub {wide} {total}, {exact}")
    rest = f.value(f"fsub {wide} {total}, {part}")
    lost = f.value(f"fsub {wide} {exact}, {rest}")
    lost = f.value(f"fadd {wide} {lost}, {f.value(f'fsub {wide} {z}, {part}')}")
    bits = f.value(f"bitcast {wide} {total} to {words}")
    last = f.value(f"and {words} {bits}, {f.splat(words, '1')}")
    even = f.value(f"icmp eq {words} {last}, zeroinitializer")
    inexact = f.value(f"fcmp one {wide} {lost}, zeroinitializer")
    signs = f.value(f"xor {words} {f.value(f'bitcast {wide} {lost} to {words}')}, {bits}")
    towards = f.value(f"ashr {words} {signs}, {f.splat(words, '63')}")  # -1 where it was rounded away from 0
    step = f.value(f"or {words} {towards}, {f.splat(words, '1')}")
    odd = f.value(f"add {words} {bits}, {step}")
    moved = f.value(f"and {v.mask} {even}, {inexact}")
    chosen = f.value(f"select {v.mask} {moved}, {words} {odd}, {words} {bits}")
    return f.value(f"fptrunc {wide} {f.value(f'bitcast {words} {chosen} to {wide}')} to {v}")


def nearest(f: Function, v: Vector, scaled: str, least: str, most: str) -> str:
    """Vector of the integers nearest to floats, ties to the even one, from `least` to `most` (vectors); NaN: least."""
    above = f.value(f"fcmp ogt {v} {scaled}, {least}")
    low = f.value(f"select {v.mask} {above}, {v} {scaled}, {v} {least}")
    below = f.value(f"fcmp olt {v} {low}, {most}")
    bounded = f.value(f"select {v.mask} {below}, {v} {low}, {v} {most}")
    words = v.of("i32")
    whole = f.value(f"fadd {v} {bounded}, {f.constant(v, MAGIC)}")
    bits = f.value(f"bitcast {v} {whole} to {words}")
    return f.value(f"sub {words} {bits}, {f.splat(words, str(MAGIC_BITS))}")


def byte_of(f: Function, v: Vector, value: str, numbers: Sequence[str]) -> str:
    """Vector of integers for floats: value x (1 / scale), rounded and cut off; NaN is 0.

    `numbers`: vectors of 1 / scale and the least and the most that a byte can hold, from the zero point.
    """
    inverse, least, most = numbers
    nan = f.value(f"fcmp uno {v} {value}, {value}")
    value = f.value(f"select {v.mask} {nan}, {v} zeroinitializer, {v} {value}")
    return nearest(f, v, f.value(f"fmul {v} {value}, {inverse}"), least, most)


def interleaved(f: Function, v: Vector, numbers: Sequence[str]) -> str:
    """Vector of quads whose bytes are the low ones of vectors of integers; 0 where there are fewer than four."""
    woven = "zeroinitializer"
    for place, number in enumerate(numbers):
        low = f.value(f"and {v} {number}, {f.splat(v, '255')}")
        woven = f.value(f"or {v} {woven}, {f.value(f'shl {v} {low}, {f.splat(v, str(8 * place))}')}")
    return woven


def ends_of(scaling: Scaling | None) -> tuple[float, float, float]:
    """1 / scale, and the least and the most of a byte, from the zero point; 0 where there is no scaling."""
    if scaling is None:
        return 0.0, 0.0, 0.0
    return float(scaling.inverse), float(-scaling.zero_point), float(scaling.most)


def rounding_way(machine: Machine, v: Vector, scaling: Scaling | None) -> str:
    """How four vectors of floats become bytes: "signed" or "unsigned" by instructions that saturate, or "shifts".

    >>> rounding_way(any_machine, Vector(4), None)
    'shifts'
    """
    if scaling is None or v.lanes != PACKED_LANES or not {"avx512f", "avx512bw"} <= machine.features:
        return "shifts"
    return "signed" if scaling.zero_point else "unsigned"


@dataclass(frozen=True)
class ByteEnds:
    """Names of values: vectors of 1 / scale, least and most, and of the zero points in a lane; `rounding_way`."""

    floats: list[str]
    fill: str
    way: str

    @staticmethod
    def read(f: Function, v: Vector, numbers: str, word: str, way: str) -> ByteEnds:
        """The first three `numbers`; `word`: four zero points."""
        floats = [f.splat(v, f.load("float", f.at(numbers, place))) for place in range(3)]
        return ByteEnds(floats, f.splat(v.of("i32"), f.value(f"trunc i64 {word} to i32")), way)


def quad_of(f: Function, v: Vector, ends: ByteEnds, values: Sequence[str]) -> str:
    """Up to four vectors of floats as a vector of quads, as `nearest` rounds; channels that lack are the zero point."""
    words, (inverse, least, most) = v.of("i32"), ends.floats
    scaled = [f.value(f"fmul {v} {value}, {inverse}") for value in values]
    if ends.way == "shifts":
        woven = interleaved(f, words, [nearest(f, v, each, least, most) for each in scaled])
    else:
        whole = [_integers(f, v, each, most) for each in scaled]
        woven = _packed(f, words, [*whole, *["zeroinitializer"] * (QUAD - len(whole))], ends.way)
    return f.value(f"xor {words} {woven}, {ends.fill}")


def _integers(f: Function, v: Vector, scaled: str, most: str) -> str:
    """The nearest integers; of NaN and what is far below 0 the least one there is."""
    above = f.value(f"fcmp ogt {v} {scaled}, {most}")
    bounded = f.value(f"select {v.mask} {above}, {v} {most}, {v} {scaled}")
    words, every = v.of("i32"), (1 << v.lanes) - 1
    name = "llvm.x86.avx512.mask.cvtps2dq.512"
    return f.call(words, name, f"{v} {bounded}", f"{words} zeroinitializer", f"i16 {every}", "i32 4")


def _packed(f: Function, words: Vector, whole: Sequence[str], way: str) -> str:
    """Four vectors of integers as bytes that saturate, those of a lane in one lane."""
    half, bytes_ = Vector(2 * words.lanes, "i16"), Vector(4 * words.lanes, "i8")
    pairs = [
        f.call(half, "llvm.x86.avx512.packssdw.512", f"{words} {a}", f"{words} {b}")
        for a, b in (whole[:2], whole[2:])
    ]
    name = "llvm.x86.avx512.packsswb.512" if way == "signed" else "llvm.x86.avx512.packuswb.512"
    packed = f.call(bytes_, name, *(f"{half} {each}" for each in pairs))
    order = [
        quarter + QUAD * part + lane
        for quarter in range(0, bytes_.lanes, QUAD * QUAD)
        for lane in range(QUAD)
        for part in range(QUAD)
    ]
    numbers = ", ".join(f"i32 {each}" for each in order)
    kind = Vector(bytes_.lanes, "i32")
    moved = f.value(f"shufflevector {bytes_} {packed}, {bytes_} poison, {kind} <{numbers}>")
    return f.value(f"bitcast {bytes_} {moved} to {words}")


def write_quads(
    f: Function, v: Vector, ends: ByteEnds, made: Callable[[str], str], where: tuple[str, str, str]
) -> None:
    """Channels (`made` of their number) as quads; `where`: how many, the lanes, and where the first quad lies."""
    channels, mask, target = where
    rest = f.value(f"urem i64 {channels}, {QUAD}")
    even = f.subtract(channels, rest)
    with f.loop(0, even, QUAD) as channel:
        write_quad(f, v, ends, [made(f.add(channel, part)) for part in range(QUAD)], (mask, target, channel))
    for count in range(1, QUAD):
        with f.when(f.value(f"icmp eq i64 {rest}, {count}")):
            write_quad(f, v, ends, [made(f.add(even, part)) for part in range(count)], (mask, target, even))


def write_quad(
    f: Function, v: Vector, ends: ByteEnds, values: Sequence[str], where: tuple[str, str, str]
) -> None:
    """Up to four channels as a quad, NaN as 0; `where`: lanes, the pointer to quads, and the first channel."""
    words, (mask, target, channel) = v.of("i32"), where
    numbers = [
        kept(f, v, f.value(f"fcmp uno {v} {each}, {each}"), "zeroinitializer", each) for each in values
    ]
    at = f.at(target, f.multiply(f.value(f"sdiv i64 {channel}, {QUAD}"), v.lanes))
    f.store(words, kept(f, words, mask, quad_of(f, v, ends, numbers), ends.fill), at)


def turned(f: Function, words: Vector, quad: str) -> str:
    """Bytes of four lanes, a lane for each of four features: in lane f of each quarter the feature f of its keys."""
    bytes_ = Vector(QUAD * words.lanes, "i8")
    order = [
        quarter + QUAD * key + feature
        for quarter in range(0, bytes_.lanes, QUAD * QUAD)
        for feature in range(QUAD)
        for key in MIXED_ORDER
    ]
    numbers = ", ".join(f"i32 {each}" for each in order)
    cast = f.value(f"bitcast {words} {quad} to {bytes_}")
    moved = f.value(
        f"shufflevector {bytes_} {cast}, {bytes_} poison, {Vector(bytes_.lanes, 'i32')} <{numbers}>"
    )
    return f.value(f"bitcast {bytes_} {moved} to {words}")


def halves(f: Function, words: Vector, low: str, high: str) -> str:
    """The lower 16 bits of each, side by side."""
    low = f.value(f"and {words} {low}, {f.splat(words, str(0xFFFF))}")
    return f.value(f"or {words} {low}, {f.value(f'shl {words} {high}, {f.splat(words, str(16))}')}")


def mixed(f: Function, words: Vector, first: str, second: str, *, lower: bool) -> str:
    """The lower or upper bytes of the first's halves, and between them those of the second's."""
    eight, even, odd = (f.splat(words, str(each)) for each in (8, 0x00FF00FF, -0x00FF0100))
    if lower:
        second = f.value(f"shl {words} {second}, {eight}")
    else:
        first = f.value(f"lshr {words} {first}, {eight}")
    parts = f.value(f"and {words} {first}, {even}"), f.value(f"and {words} {second}, {odd}")
    return f.value(f"or {words} {parts[0]}, {parts[1]}")
