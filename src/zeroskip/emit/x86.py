"""The few x86-64 instructions of which kernels with baked-in patterns consist, as arrays of bytes.

Vector registers are zmm0 to zmm31, numbered; the others are numbered as the processor does (RAX to R15 below).
Arguments may be arrays: a call then encodes as many instructions, which is how a layer of a million non-zeros
becomes code in a second. EVEX instructions: Intel SDM volume 2, section 2.7; memory operands are [base + offset],
in the shortest form that fits; RSP and R12 cannot be a base. Every form is compared with LLVM's assembler, byte for
byte, in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
LONGEST = 12  # bytes of the longest instruction here

Ints = int | np.ndarray


@dataclass(frozen=True)
class Code:
    """Instructions in order: `rows` (count, LONGEST) uint8, of which the first `lengths` (count,) bytes count."""

    rows: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, order: np.ndarray) -> Code:
        return Code(self.rows[order], self.lengths[order])

    def bytes(self) -> bytes:
        """The machine code."""
        return self.rows[np.arange(self.rows.shape[1]) < self.lengths[:, None]].tobytes()


@dataclass(frozen=True)
class Evex:
    """The form of an instruction on 512-bit vectors, in the terms of Intel's manual.

    map        of opcodes (mmm): 1 0F, 2 0F38, 5 and 6 those of AVX512-FP16
    prefix     pp: 0 none, 1 66, 3 F2
    wide       W
    broadcast  b: the memory operand is one number for all lanes
    masked     lanes outside k1 become 0
    unit       bytes in whose steps an offset of 8 bits counts (disp8*N)
    """

    opcode: int
    map: int = 1
    prefix: int = 0
    wide: int = 0
    broadcast: int = 0
    masked: bool = False
    unit: int = 64


def join(*codes: Code) -> Code:
    """The instructions of several codes, one after the other.

    >>> join(load(0, RDI, 0), ret()).bytes().hex()
    '62f17c481007c3'
    """
    return Code(np.concatenate([c.rows for c in codes]), np.concatenate([c.lengths for c in codes]))


def load(register: Ints, base: Ints, offset: Ints) -> Code:
    """vmovups zmm, [base + offset]: 64 bytes, of any type.

    >>> load(0, RDI, 64).bytes().hex()
    '62f17c48104701'
    """
    return _memory(Evex(0x10), register, 0, base, offset)


def store(register: Ints, base: Ints, offset: Ints) -> Code:
    """vmovups [base + offset], zmm."""
    return _memory(Evex(0x11), register, 0, base, offset)


def broadcast(register: Ints, base: Ints, offset: Ints, *, size: int = 4) -> Code:
    """vbroadcastss zmm, [base + offset], or vpbroadcastw: one number in every lane."""
    form = Evex(0x79 if size == 2 else 0x18, map=2, prefix=1, unit=size)
    return _memory(form, register, 0, base, offset)


def multiply_add(total: Ints, x: Ints, base: Ints, offset: Ints, *, size: int = 4) -> Code:
    """vfmadd231ps total, x, [base + offset]{1to16}, or vfmadd231ph {1to32}: total += x x one number in memory.

    >>> multiply_add(2, 28, RSI, -8).bytes().hex()
    '62f21d50b856fe'
    """
    form = Evex(0xB8, map=6 if size == 2 else 2, prefix=1, broadcast=1, unit=size)
    return _memory(form, total, x, base, offset)


def add(total: Ints, base: Ints, offset: Ints, *, size: int = 4) -> Code:
    """vaddps total, total, [base + offset], or vaddph."""
    return _memory(Evex(0x58, map=5 if size == 2 else 1), total, total, base, offset)


def multiply(register: Ints, base: Ints, offset: Ints) -> Code:
    """vmulps register, register, [base + offset]{1to16}."""
    return _memory(Evex(0x59, broadcast=1, unit=4), register, register, base, offset)


def times(register: Ints, x: Ints, other: Ints) -> Code:
    """vmulps register, x, other."""
    return _registers(Evex(0x59), register, x, other)


def add_product(total: Ints, x: Ints, other: Ints) -> Code:
    """vfmadd231ps total, x, other: total += x x other, rounded once."""
    return _registers(Evex(0xB8, map=2, prefix=1), total, x, other)


def at_most(register: Ints, base: Ints, offset: Ints) -> Code:
    """vminps register, register, [base + offset]{1to16}: NaN becomes the bound."""
    return _memory(Evex(0x5D, broadcast=1, unit=4), register, register, base, offset)


def scaled(register: Ints, factor: Ints, base: Ints, offset: Ints) -> Code:
    """vfmadd213ps register, factor, [base + offset]{1to16}: register x factor + one number, rounded once."""
    return _memory(Evex(0xA8, map=2, prefix=1, broadcast=1, unit=4), register, factor, base, offset)


def dot(total: Ints, x: Ints, base: Ints, offset: Ints) -> Code:
    """vpdpbusd total, x, [base + offset]{1to16}: each lane adds four unsigned bytes x four signed ones (AVX512-VNNI).

    >>> dot(2, 28, RSI, -8).bytes().hex()
    '62f21d505056fe'
    """
    return _memory(Evex(0x50, map=2, prefix=1, broadcast=1, unit=4), total, x, base, offset)


def only_bits(register: Ints, x: Ints, base: Ints, offset: Ints) -> Code:
    """vpandd register, x, [base + offset]{1to16}."""
    return _memory(Evex(0xDB, prefix=1, broadcast=1, unit=4), register, x, base, offset)


def common_bits(register: Ints, x: Ints, other: Ints) -> Code:
    """vpandd register, x, other."""
    return _registers(Evex(0xDB, prefix=1), register, x, other)


def flip_bits(register: Ints, base: Ints, offset: Ints) -> Code:
    """vpxord register, register, [base + offset]{1to16}."""
    return _memory(Evex(0xEF, prefix=1, broadcast=1, unit=4), register, register, base, offset)


def broadcast_16(register: Ints, base: Ints, offset: Ints) -> Code:
    """vbroadcasti32x4 zmm, [base + offset]: the same 16 bytes in each quarter."""
    return _memory(Evex(0x5A, map=2, prefix=1, unit=16), register, 0, base, offset)


def float_of(register: Ints, x: Ints) -> Code:
    """vcvtdq2ps register, x: signed 32-bit integers as floats, rounded to the nearest."""
    return _registers(Evex(0x5B), register, 0, x)


def float_of_unsigned(register: Ints, x: Ints) -> Code:
    """vcvtudq2ps register, x."""
    return _registers(Evex(0x7A, prefix=3), register, 0, x)


def nearest_integer(register: Ints) -> Code:
    """vcvtps2dq register{k1}{z}, register: ties go to the even one; lanes outside the mask k1 become 0.

    What a signed 32-bit integer cannot hold, and NaN, becomes the least one.
    """
    return _registers(Evex(0x5B, prefix=1, masked=True), register, 0, register)


def pack_16(register: Ints, x: Ints, other: Ints) -> Code:
    """vpackssdw register, x, other: saturated to 16 bits; in each quarter four of x, then four of the other."""
    return _registers(Evex(0x6B, prefix=1), register, x, other)


def pack_8(register: Ints, x: Ints, other: Ints, *, signed: bool) -> Code:
    """vpacksswb register, x, other, or vpackuswb: 16-bit integers saturated to 8 bits, as `pack_16` orders them."""
    return _registers(Evex(0x63 if signed else 0x67, prefix=1), register, x, other)


def shuffle_bytes(register: Ints, x: Ints, order: Ints) -> Code:
    """vpshufb register, x, order: in each quarter, the bytes of x that the bytes of `order` number."""
    return _registers(Evex(0x00, map=2, prefix=1), register, x, order)


def greater(register: Ints, least: Ints, *, size: int = 4) -> Code:
    """vmaxps register{k1}{z}, least, register, or vmaxph: NaN stays NaN, lanes outside the mask k1 become 0."""
    return _registers(Evex(0x5F, map=5 if size == 2 else 1, masked=True), register, least, register)


def smaller(register: Ints, bound: Ints, *, size: int = 4) -> Code:
    """vminps register{k1}{z}, bound, register, or vminph."""
    return _registers(Evex(0x5D, map=5 if size == 2 else 1, masked=True), register, bound, register)


def masked(register: Ints, *, size: int = 4) -> Code:
    """vmovaps register{k1}{z}, register, or vmovdqu16: lanes outside the mask k1 become 0."""
    form = Evex(0x6F, prefix=3, wide=1, masked=True) if size == 2 else Evex(0x28, masked=True)
    return _registers(form, register, 0, register)


def zero(register: Ints) -> Code:
    """vpxord register, register, register: every bit 0."""
    return _registers(Evex(0xEF, prefix=1), register, register, register)


def load_mask(base: int, offset: int, *, size: int = 4) -> Code:
    """kmovw k1, [base + offset], or kmovd: which of 16, or 32, lanes count."""
    last = 0xF9 if size == 2 else 0x78
    return _fixed([0xC4, 0xE1 ^ (base >> 3 << 5), last, 0x90, 0x48 | base & 7, offset])


def read(register: int, base: int, offset: int) -> Code:
    """mov register, [base + offset]: 64 bits, with an offset of 8."""
    return _fixed([_rex(register, base), 0x8B, 0x40 | (register & 7) << 3 | base & 7, offset])


def move(register: int, other: int) -> Code:
    """mov register, other."""
    return _fixed([_rex(other, register), 0x89, 0xC0 | (other & 7) << 3 | register & 7])


def add_register(register: int, other: int) -> Code:
    """add register, other."""
    return _fixed([_rex(other, register), 0x01, 0xC0 | (other & 7) << 3 | register & 7])


def advance(register: int, amount: Ints) -> Code:
    """add register, amount: a constant, always written with 32 bits.

    >>> advance(RBX, 1020).bytes().hex()
    '4881c3fc030000'
    """
    return _with_constants([_rex(0, register), 0x81, 0xC0 | register & 7], amount)


def prefetch(base: int, offset: Ints) -> Code:
    """prefetcht1 [base + offset], offset always of 32 bits: the line will be needed soon, bring it to L2."""
    return _with_constants([0x40 | base >> 3, 0x0F, 0x18, 0x90 | base & 7], offset)


def address(register: int, distance: int) -> Code:
    """lea register, [rip + distance], counted from the end of this instruction."""
    return _fixed([_rex(register, 0), 0x8D, 0x05 | (register & 7) << 3, *_four(distance)])


def count_down(register: int, distance: int) -> Code:
    """dec register, then jnz to `distance` bytes from the end of both.

    >>> count_down(RCX, -9).bytes().hex()
    '48ffc90f85f7ffffff'
    """
    return _fixed([_rex(0, register), 0xFF, 0xC8 | register & 7, 0x0F, 0x85, *_four(distance)])


def push(register: int) -> Code:
    """push register."""
    return _fixed([*([0x41] if register > 7 else []), 0x50 | register & 7])


def pop(register: int) -> Code:
    """pop register."""
    return _fixed([*([0x41] if register > 7 else []), 0x58 | register & 7])


def ret() -> Code:
    """ret."""
    return _fixed([0xC3])


def little_endian(values: np.ndarray) -> np.ndarray:
    """Integers (count,) as (count, 4) bytes."""
    return np.ascontiguousarray(values.astype("<i4")).view(np.uint8).reshape(-1, 4)


def _with_constants(opcode: list[int], constants: Ints) -> Code:
    """One instruction for each of the 32-bit constants that end it."""
    constants = np.atleast_1d(np.asarray(constants, np.int64))
    head = np.tile(np.array(opcode, np.uint8), (len(constants), 1))
    return _padded(np.concatenate([head, little_endian(constants)], axis=1), len(opcode) + 4)


def _memory(form: Evex, register: Ints, other: Ints, base: Ints, offset: Ints) -> Code:
    """Instructions with a memory operand; offsets of 8 bits count in steps of the form's unit."""
    register, other, base, offset = np.broadcast_arrays(*map(np.atleast_1d, (register, other, base, offset)))
    assert (base & 7 != 4).all()  # those codes mean that one more byte follows
    head = _prefix(form, register, other, base, 0 * base)
    steps, rest = np.divmod(offset, form.unit)
    # [rbp] and [r13] cannot go without an offset; those codes mean something else.
    none = (offset == 0) & (base & 7 != 5)
    short = (rest == 0) & (steps >= -128) & (steps < 128)
    mode = np.where(none, 0, np.where(short, 0x40, 0x80))
    modrm = mode | (register & 7) << 3 | base & 7
    displacement = little_endian(np.where(short, steps, offset))
    rows = np.concatenate([head, _column(form.opcode + 0 * base), _column(modrm), displacement], axis=1)
    return _padded(rows, 6 + np.where(none, 0, np.where(short, 1, 4)))


def _registers(form: Evex, register: Ints, other: Ints, last: Ints) -> Code:
    """Instructions on registers alone."""
    register, other, last = np.broadcast_arrays(*map(np.atleast_1d, (register, other, last)))
    head = _prefix(form, register, other, last, last >> 4)
    modrm = 0xC0 | (register & 7) << 3 | last & 7
    return _padded(np.concatenate([head, _column(form.opcode + 0 * last), _column(modrm)], axis=1), 6)


def _prefix(
    form: Evex, register: np.ndarray, other: np.ndarray, base: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """(count, 4) bytes; high bits of register numbers are stored inverted."""
    first = (~register >> 3 & 1) << 7 | (~index & 1) << 6 | (~base >> 3 & 1) << 5 | (~register >> 4 & 1) << 4
    second = form.wide << 7 | (~other & 15) << 3 | 4 | form.prefix
    third = (0x81 if form.masked else 0) | 2 << 5 | form.broadcast << 4 | (~other >> 4 & 1) << 3
    return np.stack([0 * register + 0x62, first | form.map, second, third], axis=1).astype(np.uint8)


def _rex(register: int, base: int) -> int:
    return 0x48 | register >> 3 << 2 | base >> 3


def _four(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8)[:, None]


def _fixed(values: list[int]) -> Code:
    return _padded(np.array([values], np.uint8), len(values))


def _padded(rows: np.ndarray, lengths: Ints) -> Code:
    """Code of rows whose length is the same for all, or given one by one."""
    padded = np.zeros((len(rows), LONGEST), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return Code(padded, np.broadcast_to(np.asarray(lengths, np.int64), len(rows)))
