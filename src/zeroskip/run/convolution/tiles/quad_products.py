"""Four unsigned bytes x four signed ones in each 32-bit lane, summed exactly, with what each processor has for it.

way     on                                 weights of a quad
vnni    AVX512-VNNI, AVX-VNNI              one word: the four bytes
usdot   NEON with i8mm                     the same
sdot    NEON with dotprod: x xor 0x80      the same; sums start 128 x the sum of the weights higher
pairs   AVX2, SSE2, AVX512-BW: vpmaddwd    two words: bytes 0 and 2, bytes 1 and 3, as 16 bits each
bytes   any other                          four words
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import Function, Vector

NEON = "aarch64", "arm64"
PAIRS = {
    16: ("llvm.x86.avx512.pmaddw.d.512", "avx512bw"),
    8: ("llvm.x86.avx2.pmadd.wd", "avx2"),
    4: ("llvm.x86.sse2.pmadd.wd", ""),
}


def way_of(machine: Machine, lanes: int) -> str:
    """How the machine multiplies quads in vectors of so many lanes.

    >>> way_of(machine, 8), way_of(machine, 16)
    ('pairs', 'bytes')
    """
    has = machine.features
    if machine.arch in NEON and lanes == 4:
        return "usdot" if "i8mm" in has else "sdot" if "dotprod" in has else "bytes"
    if machine.arch not in ("x86_64", "amd64"):
        return "bytes"
    if ("avx512vnni" in has and (lanes == 16 or "avx512vl" in has)) or ("avxvnni" in has and lanes < 16):
        return "vnni"
    feature = PAIRS.get(lanes, ("", "none"))[1]
    return "pairs" if not feature or feature in has else "bytes"


def arranged(way: str, words: np.ndarray) -> np.ndarray:
    """Weights of quads (...) int32 as words (..., count) int32 for the way.

    >>> arranged("bytes", np.array([0x0102FF04], np.int32))
    array([[ 4, -1,  2,  1]], dtype=int32)
    """
    if way in ("vnni", "usdot", "sdot"):
        return words[..., None]
    each = np.ascontiguousarray(words[..., None]).view(np.int8).astype(np.int32)  # (..., 4)
    if way == "bytes":
        return each
    return np.asarray(each[..., :2] & 0xFFFF | each[..., 2:] << 16)


def moved_start(way: str, words: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Where sums (out,) int32 begin, for weights (out, k)."""
    if way != "sdot":
        return start
    sums = np.ascontiguousarray(words).view(np.int8).sum(1, dtype=np.int64)
    return np.asarray(start + 128 * sums, np.int32)


def prepared(f: Function, v: Vector, way: str, quads: str) -> list[str]:
    """Quads as the products of the way take them, once for all weights."""
    if way in ("vnni", "usdot"):
        return [quads]
    if way == "sdot":
        return [f.value(f"xor {v} {quads}, {f.splat(v, str(-0x7F7F7F80))}")]
    if way == "pairs":
        low = f.value(f"and {v} {quads}, {f.splat(v, str(0x00FF00FF))}")
        high = f.value(f"lshr {v} {quads}, {f.splat(v, '8')}")
        return [low, f.value(f"and {v} {high}, {f.splat(v, str(0x00FF00FF))}")]
    return [byte(f, v, quads, str(number)) for number in range(4)]


def byte(f: Function, v: Vector, quads: str, number: str) -> str:
    """The byte of each lane with that number (i32), from 0 to 255."""
    moved = f.value(f"lshr {v} {quads}, {f.splat(v, f.value(f'shl i32 {number}, 3'))}")
    return f.value(f"and {v} {moved}, {f.splat(v, '255')}")


def product(
    f: Function, v: Vector, way: str, total: str, inputs: Sequence[str], weights: Sequence[str]
) -> str:
    """The sums `total` and the quads `inputs` x `weights`, vectors as wide as they."""
    if way == "vnni":
        name = f"llvm.x86.avx512.vpdpbusd.{32 * v.lanes}"
        return f.call(v, name, f"{v} {total}", f"{v} {inputs[0]}", f"{v} {weights[0]}")
    if way in ("usdot", "sdot"):
        bytes_ = Vector(4 * v.lanes, "i8")
        cast = [f.value(f"bitcast {v} {each} to {bytes_}") for each in (inputs[0], weights[0])]
        name = f"llvm.aarch64.neon.{way}.v4i32.v16i8"
        return f.call(v, name, f"{v} {total}", *(f"{bytes_} {each}" for each in cast))
    for quads, weight in zip(inputs, weights, strict=True):
        if way == "pairs":
            halves = Vector(2 * v.lanes, "i16")
            cast = [f.value(f"bitcast {v} {each} to {halves}") for each in (quads, weight)]
            more = f.call(v, PAIRS[v.lanes][0], *(f"{halves} {each}" for each in cast))
        else:
            more = f.value(f"mul {v} {quads}, {weight}")
        total = f.value(f"add {v} {total}, {more}")
    return total
