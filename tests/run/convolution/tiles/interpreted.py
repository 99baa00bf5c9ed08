"""The instructions of emit/x86.py, decoded from their bytes and carried out by NumPy, in this process's memory.

Code for AVX512-FP16 can so be run on any processor, and code for AVX-512 be compared with what the processor does.
Intel SDM volume 2, section 2.7, says how an instruction with the prefix EVEX is written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pytest
from quad_reference import fused
from run.drawn import HERE

from zeroskip.concepts import Machine
from zeroskip.emit.python_call import function
from zeroskip.run.convolution.tiles import baked_steps
from zeroskip.run.element import FP32, Element

RUNS_AVX512 = FP32.can_be_baked(HERE) and HERE.vector_bytes == 64  # without being interpreted
RSP = 4
SIZES = {"S": np.float32, "H": np.float16}

# (map, prefix, W, opcode) -> what it does, and in numbers of which size
FORMS = {
    (1, 0, 0, 0x10): ("load", "S"),
    (1, 0, 0, 0x11): ("store", "S"),
    (2, 1, 0, 0x18): ("broadcast", "S"),
    (2, 1, 0, 0x79): ("broadcast", "H"),
    (2, 1, 0, 0xB8): ("fma", "S"),
    (6, 1, 0, 0xB8): ("fma", "H"),
    (1, 0, 0, 0x58): ("add", "S"),
    (5, 0, 0, 0x58): ("add", "H"),
    (1, 0, 0, 0x5F): ("max", "S"),
    (5, 0, 0, 0x5F): ("max", "H"),
    (1, 0, 0, 0x5D): ("min", "S"),
    (5, 0, 0, 0x5D): ("min", "H"),
    (1, 0, 0, 0x28): ("move", "S"),
    (1, 3, 1, 0x6F): ("move", "H"),
    (1, 1, 0, 0xEF): ("xor", "S"),
    (2, 1, 0, 0x50): ("dot", "S"),
    (2, 1, 0, 0xA8): ("scaled", "S"),
    (1, 0, 0, 0x59): ("multiply", "S"),
    (1, 1, 0, 0xDB): ("and", "S"),
    (2, 1, 0, 0x5A): ("broadcast 16", "S"),
    (1, 0, 0, 0x5B): ("float", "S"),
    (1, 3, 0, 0x7A): ("unsigned float", "S"),
    (1, 1, 0, 0x5B): ("nearest", "S"),
    (1, 1, 0, 0x6B): ("pack 16", "S"),
    (1, 1, 0, 0x63): ("pack signed 8", "S"),
    (1, 1, 0, 0x67): ("pack 8", "S"),
    (2, 1, 0, 0x00): ("shuffle", "S"),
}


@dataclass
class Processor:
    """Registers; zmm as 64 bytes each, so that both sizes of numbers are views of them."""

    general: list[int] = field(default_factory=lambda: [0] * 16)
    zmm: np.ndarray = field(default_factory=lambda: np.zeros((32, 64), np.uint8))
    stack: list[int] = field(default_factory=list)
    mask: int = 0
    zero: bool = False
    at: int | None = 0


Act = Callable[[Processor], None]


def run(code: int, *arguments: int) -> Processor:
    """Call the code at an address with six integer arguments, as Linux passes them."""
    cpu = Processor()
    for register, value in zip((7, 6, 2, 1, 8, 9), arguments, strict=True):
        cpu.general[register] = value
    saved, cpu.at = list(cpu.general), code
    while cpu.at is not None:
        act, length = decoded(cpu.at)
        cpu.at += length
        act(cpu)
    assert not cpu.stack
    assert [cpu.general[each] for each in (3, 12, 13, 14, 15)] == [
        saved[each] for each in (3, 12, 13, 14, 15)
    ]
    return cpu


@contextmanager
def interpreting() -> Iterator[Machine]:
    """Baked code of any element is interpreted; all other steps run on this processor, on vectors of 64 bytes."""
    if HERE.vector_bytes < 32:
        pytest.skip("LLVM takes minutes to compile vectors of 64 bytes for registers of 16")
    with (
        mock.patch.object(baked_steps, "_driver", driver),
        mock.patch.object(Element, "can_be_baked", return_value=True),
    ):
        yield replace(HERE, vector_bytes=64)


def baking() -> AbstractContextManager[Machine]:
    """Baked code in fp32 runs on the machine that this yields, interpreted where this processor has no AVX-512."""
    return nullcontext(HERE) if RUNS_AVX512 else interpreting()


def driver(*_: object) -> Callable[..., None]:
    """In place of `baked_steps._driver`: bands of vectors, all chunks of code for each, interpreted."""
    return _driver


def _drive(arguments: int, base: int) -> None:
    decoded.cache_clear()  # other code may have been at these addresses before
    count, width, chunks, x, y, residual, places, codes = words(arguments, 8)
    for start in range(0, count, width):
        for number in range(chunks):
            code, weights, more_x, more_y = words(codes + 32 * number, 4)
            bases = base + x + more_x, weights, base + y + more_y
            run(code, *bases, min(width, count - start), base + residual + more_y, places + 32 * start)


_callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(_drive)
_driver = function(ctypes.cast(_callback, ctypes.c_void_p).value or 0, 2, _callback)


def words(address: int, count: int) -> list[int]:
    """64-bit integers in memory."""
    return list((ctypes.c_int64 * count).from_address(address))


@cache
def decoded(at: int) -> tuple[Act, int]:
    """What the instruction at an address does, and how many bytes it has."""
    code = ctypes.string_at(at, 16)
    decode: dict[int, Any] = {0x62: _vector, 0xC4: _mask}
    if code[0] in decode:
        return decode[code[0]](code)
    rex = code[0] if code[0] & 0xF0 == 0x40 else 0
    rest = code[1:] if rex else code
    act, length = _general(rest, rex >> 2 & 1, rex & 1)
    return act, length + bool(rex)


def _general(code: bytes, r: int, b: int) -> tuple[Act, int]:
    opcode, modrm = code[0], code[1]
    register, other = modrm >> 3 & 7 | r << 3, modrm & 7 | b << 3
    four = lambda position: int.from_bytes(code[position : position + 4], "little", signed=True)
    if opcode == 0xC3:
        return lambda cpu: setattr(cpu, "at", None), 1
    if opcode >> 3 == 0x50 >> 3:
        return lambda cpu: cpu.stack.append(cpu.general[opcode & 7 | b << 3]), 1
    if opcode >> 3 == 0x58 >> 3:
        return lambda cpu: cpu.general.__setitem__(opcode & 7 | b << 3, cpu.stack.pop()), 1
    if opcode == 0x8B and modrm >> 6 == 1:
        offset = int.from_bytes(code[2:3], "little", signed=True)
        return lambda cpu: _set(cpu, register, words(cpu.general[other] + offset, 1)[0]), 3
    if opcode == 0x89 and modrm >> 6 == 3:
        return lambda cpu: _set(cpu, other, cpu.general[register]), 2
    if opcode == 0x01 and modrm >> 6 == 3:
        return lambda cpu: _set(cpu, other, cpu.general[other] + cpu.general[register]), 2
    if opcode == 0x81 and modrm >> 3 == 0xC0 >> 3:
        return lambda cpu: _set(cpu, other, cpu.general[other] + four(2)), 6
    if opcode == 0x8D and modrm & 0xC7 == 5:
        return lambda cpu: _set(cpu, register, (cpu.at or 0) + four(2)), 6
    if opcode == 0xFF and modrm >> 3 == 0xC8 >> 3:
        return lambda cpu: _set(cpu, other, cpu.general[other] - 1), 2
    if (opcode, modrm) == (0x0F, 0x85):
        return lambda cpu: None if cpu.zero else setattr(cpu, "at", (cpu.at or 0) + four(2)), 6
    assert (opcode, modrm) == (0x0F, 0x18), code.hex()
    assert code[2] & 0xF8 == 0x90, code.hex()
    return lambda cpu: None, 7  # a prefetch may look anywhere


def _set(cpu: Processor, register: int, value: int) -> None:
    cpu.general[register], cpu.zero = value, value == 0


def _mask(code: bytes) -> tuple[Act, int]:
    assert code[1] & 0xDF == 0xC1, code.hex()
    assert code[3] == 0x90, code.hex()
    size = {0x78: 2, 0xF9: 4}[code[2]]
    base, offset = code[4] & 7 | (~code[1] >> 5 & 1) << 3, code[5]
    assert code[4] & 0xF8 == 0x48

    def act(cpu: Processor) -> None:
        cpu.mask = int.from_bytes(ctypes.string_at(cpu.general[base] + offset, size), "little")

    return act, 6


def _vector(code: bytes) -> tuple[Act, int]:
    first, second, third, opcode, modrm = code[1:6]
    what, size = FORMS[first & 7, second & 3, second >> 7, opcode]
    assert (first & 8, second & 4, third >> 5 & 3) == (0, 4, 2)  # 512 bits
    dtype = np.dtype(SIZES[size])
    register = modrm >> 3 & 7 | (~first >> 7 & 1) << 3 | (~first >> 4 & 1) << 4
    other = (~second >> 3 & 15) | (~third >> 3 & 1) << 4
    base, single, masked = modrm & 7 | (~first >> 5 & 1) << 3, third >> 4 & 1, third >> 7
    assert third & 7 == masked  # k1 or none
    mode = modrm >> 6
    if mode == 3:
        last = base | (~first >> 6 & 1) << 4
        source = lambda cpu: cpu.zmm[last]
    else:
        assert base & 7 != RSP
        assert first >> 6 & 1
        assert mode or base & 7 != 5
        unit = dtype.itemsize if single or what == "broadcast" else 16 if what == "broadcast 16" else 64
        held = int.from_bytes(code[6:7] if mode == 1 else code[6:10], "little", signed=True)
        offset = {0: 0, 1: held * unit, 2: held}[mode]
        source = lambda cpu: np.frombuffer(ctypes.string_at(cpu.general[base] + offset, unit), np.uint8)
        if what == "store":
            return lambda cpu: _store(cpu.general[base] + offset, cpu.zmm[register]), 6 + (0, 1, 4)[mode]
    compute = COMPUTED[what]

    def act(cpu: Processor) -> None:
        target, with_it, given = (
            each.view(dtype) for each in (cpu.zmm[register], cpu.zmm[other], source(cpu))
        )
        with np.errstate(all="ignore"):
            result = np.broadcast_to(compute(target, with_it, given), target.shape)
        if masked:
            result = np.where(cpu.mask >> np.arange(len(target)) & 1, result, dtype.type(0))
        target[:] = result

    return act, 6 + (0, 1, 4, 0)[mode]


def _store(address: int, value: np.ndarray) -> None:
    ctypes.memmove(address, value.tobytes(), 64)


def _last(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return given


def _fma(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    if target.dtype == np.float32:
        return fused(other, given, target)
    # Products are exact in float64, and sums nearly so: rounding is as good as once.
    return (other.astype(np.float64) * given + target).astype(target.dtype)


def _add(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return other + given


def _max(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return np.where(other > given, other, given)


def _min(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return np.where(other < given, other, given)


def _xor(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return (other.view(np.uint32) ^ given.view(np.uint32)).view(target.dtype)


def _scaled(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return fused(other, target, given)


def _multiply(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return other * given


def _and(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return (other.view(np.uint32) & given.view(np.uint32)).view(np.float32)


def _dot(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    x, weights = other.view(np.uint8).reshape(-1, 4), given.view(np.int8).reshape(-1, 4)
    return (target.view(np.int32) + (x.astype(np.int32) * weights).sum(1, dtype=np.int32)).view(np.float32)


def _four_times(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return np.tile(given, 4)


def _float(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return given.view(np.int32).astype(np.float32)


def _unsigned_float(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    return given.view(np.uint32).astype(np.float32)


def _nearest(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    inside = (given >= -(2.0**31)) & (given < 2.0**31)  # NaN is not
    return np.where(inside, np.rint(given), -(2.0**31)).astype(np.int64).astype(np.int32).view(np.float32)


def _packed(kind: type, narrow: type) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """In each quarter the numbers of one vector, then those of the other, as saturated narrower ones."""
    ends = np.iinfo(narrow)

    def pack(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
        both = np.concatenate([each.view(kind).reshape(4, -1) for each in (other, given)], 1)
        return np.clip(both, ends.min, ends.max).astype(narrow).view(np.float32).ravel()

    return pack


def _shuffle(target: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    quarters, order = other.view(np.uint8).reshape(4, 16), given.view(np.uint8).reshape(4, 16)
    return np.take_along_axis(quarters, order.astype(np.intp) & 15, 1).view(np.float32).ravel()


COMPUTED = {
    **dict.fromkeys(("load", "broadcast", "move"), _last),
    "fma": _fma,
    "add": _add,
    "max": _max,
    "min": _min,
    "xor": _xor,
    "dot": _dot,
    "scaled": _scaled,
    "multiply": _multiply,
    "and": _and,
    "broadcast 16": _four_times,
    "float": _float,
    "unsigned float": _unsigned_float,
    "nearest": _nearest,
    "pack 16": _packed(np.int32, np.int16),
    "pack signed 8": _packed(np.int16, np.int8),
    "pack 8": _packed(np.int16, np.uint8),
    "shuffle": _shuffle,
}
