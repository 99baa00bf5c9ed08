"""Every instruction form, byte for byte against LLVM's assembler; those that this processor has are also run."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.emit import x86
from zeroskip.emit.executable_memory import executable
from zeroskip.emit.x86 import RAX, RBX, RDI, RSI, Code
from zeroskip.run.convolution.tiles.activation import RELU
from zeroskip.run.convolution.tiles.baked_code import bake
from zeroskip.run.convolution.tiles.baked_frame import Blocking
from zeroskip.run.convolution.tiles.baked_quads import bake_quads
from zeroskip.run.convolution.tiles.convolution_job import RowWeights
from zeroskip.run.convolution.tiles.quad_job import IntegerWeights, QuadEpilogue, quad_weights
from zeroskip.run.convolution.tiles.steps import Epilogue
from zeroskip.run.element import FP32, Scaling

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="LLVM brings this machine's assembler only"
)

NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *[f"r{number}" for number in range(8, 16)]]
BASES = st.sampled_from([base for base in range(16) if base & 7 != 4])  # rsp and r12 are no bases
GENERAL = st.integers(0, 15)
ZMM = st.integers(0, 31)
FAR = st.integers(-(2**31), 2**31 - 1)
# Near enough for one byte, and just not: one byte counts in steps of what is read, 2, 4 or 64 bytes.
OFFSETS = st.one_of(
    FAR, st.just(0), *[st.integers(-130, 130).map(lambda n, unit=unit: n * unit) for unit in (1, 2, 4, 64)]
)

MANY = settings(max_examples=60, deadline=None)
QUICK = settings(deadline=None)

Text = Callable[..., str]


def one(base: str, offset: int) -> str:
    """One number of 32 bits in memory, for all lanes."""
    return f"dword ptr [{base}+{offset}]{{1to16}}"


VECTORS: dict[str, tuple[Callable[..., Code], Text]] = {
    "load": (x86.load, lambda r, b, o: f"vmovups zmm{r}, [{b}+{o}]"),
    "store": (x86.store, lambda r, b, o: f"vmovups [{b}+{o}], zmm{r}"),
    "broadcast": (x86.broadcast, lambda r, b, o: f"vbroadcastss zmm{r}, dword ptr [{b}+{o}]"),
    "add": (x86.add, lambda r, b, o: f"vaddps zmm{r}, zmm{r}, zmmword ptr [{b}+{o}]"),
    "multiply": (x86.multiply, lambda r, b, o: f"vmulps zmm{r}, zmm{r}, {one(b, o)}"),
    "at most": (x86.at_most, lambda r, b, o: f"vminps zmm{r}, zmm{r}, {one(b, o)}"),
    "flip bits": (x86.flip_bits, lambda r, b, o: f"vpxord zmm{r}, zmm{r}, {one(b, o)}"),
    "broadcast 16": (x86.broadcast_16, lambda r, b, o: f"vbroadcasti32x4 zmm{r}, xmmword ptr [{b}+{o}]"),
}
PAIRS: dict[str, tuple[Callable[..., Code], str]] = {
    "multiply, add": (x86.multiply_add, "vfmadd231ps"),
    "scaled": (x86.scaled, "vfmadd213ps"),
    "dot": (x86.dot, "vpdpbusd"),
    "only bits": (x86.only_bits, "vpandd"),
}
HALVES: dict[str, tuple[Callable[..., Code], Text]] = {
    "broadcast": (x86.broadcast, lambda r, b, o: f"vpbroadcastw zmm{r}, word ptr [{b}+{o}]"),
    "add": (x86.add, lambda r, b, o: f"vaddph zmm{r}, zmm{r}, zmmword ptr [{b}+{o}]"),
}
LIMITS: dict[str, tuple[Callable[..., Code], str, str]] = {
    "greater": (x86.greater, "vmaxps", "vmaxph"),
    "smaller": (x86.smaller, "vminps", "vminph"),
}


def assembled(lines: Iterable[str]) -> bytes:
    """The lines of Intel syntax as LLVM encodes them."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    triple = "x86_64-unknown-linux-gnu"
    features = "+avx512f,+avx512bw,+avx512dq,+avx512fp16,+avx512vnni"
    target = llvm.Target.from_triple(triple).create_target_machine(features=features)
    text = "\n".join(f'module asm "{line}"' for line in [".intel_syntax noprefix", *lines])
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{text}\n')
    return text_section(target.emit_object(module))


def text_section(elf: bytes) -> bytes:
    """The section .text of a 64-bit ELF file: what its table of sections says of the names and places."""
    table = int.from_bytes(elf[40:48], "little")
    size, count, names = (int.from_bytes(elf[at : at + 2], "little") for at in (58, 60, 62))
    sections = np.frombuffer(elf, "<u8", count * size // 8, table).reshape(count, -1)
    strings = int(sections[names, 3])
    for name, _, _, offset, length in sections[:, :5].tolist():
        if elf[strings + (name & 0xFFFFFFFF) :].startswith(b".text\0"):
            return elf[offset : offset + length]
    raise AssertionError("no .text")


def assert_same(ours: Code, lines: list[str]) -> None:
    """Instruction by instruction, cut where ours end."""
    ends = np.cumsum(ours.lengths)
    theirs = assembled(lines)
    cut = [theirs[end - length : end].hex() for end, length in zip(ends, ours.lengths, strict=True)]
    mine = [ours[np.array([number])].bytes().hex() for number in range(len(ours))]
    assert dict(zip(lines, mine, strict=True)) == dict(zip(lines, cut, strict=True))
    assert ours.bytes() == theirs


def columns(rows: list[tuple[int, ...]]) -> list[np.ndarray]:
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
@pytest.mark.parametrize("name", VECTORS)
@MANY
@given(rows=st.lists(st.tuples(ZMM, BASES, OFFSETS), min_size=1, max_size=40, unique=True))
def test_one_vector_and_memory(name: str, half: bool, rows: list[tuple[int, int, int]]) -> None:
    if half and name not in HALVES:  # a load of 64 bytes is the same for any type
        return
    encode, text = (HALVES if half else VECTORS)[name]
    ours = encode(*columns(rows), size=2) if half else encode(*columns(rows))
    assert_same(ours, [text(register, NAMES[base], offset) for register, base, offset in rows])


@pytest.mark.parametrize("name", PAIRS)
@MANY
@given(rows=st.lists(st.tuples(ZMM, ZMM, BASES, OFFSETS), min_size=1, max_size=40, unique=True))
def test_two_vectors_and_one_number_in_memory(name: str, rows: list[tuple[int, int, int, int]]) -> None:
    encode, word = PAIRS[name]
    lines = [f"{word} zmm{total}, zmm{x}, {one(NAMES[base], offset)}" for total, x, base, offset in rows]
    assert_same(encode(*columns(rows)), lines)


@MANY
@given(rows=st.lists(st.tuples(ZMM, ZMM, BASES, OFFSETS), min_size=1, max_size=40, unique=True))
def test_two_vectors_and_one_half_in_memory(rows: list[tuple[int, int, int, int]]) -> None:
    form = "vfmadd231ph zmm{}, zmm{}, word ptr [{}+{}]{{1to32}}"
    lines = [form.format(total, x, NAMES[base], offset) for total, x, base, offset in rows]
    assert_same(x86.multiply_add(*columns(rows), size=2), lines)


@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
def test_all_1024_pairs_of_registers_in_greater_and_smaller(half: bool) -> None:
    register, limit = (axis.ravel() for axis in np.mgrid[:32, :32])
    for encode, *names in LIMITS.values():
        lines = [
            f"{names[half]} zmm{r} {{k1}} {{z}}, zmm{m}, zmm{r}" for r, m in zip(register, limit, strict=True)
        ]
        assert_same(encode(register, limit, size=2 if half else 4), lines)


def test_all_1024_pairs_of_registers_in_conversions_packing_shuffles_and_products() -> None:
    a, b = (axis.ravel() for axis in np.mgrid[:32, :32])
    c = (5 * a + b) % 32
    conversions = {"vcvtdq2ps": x86.float_of, "vcvtudq2ps": x86.float_of_unsigned}
    for name, convert in conversions.items():
        assert_same(convert(a, b), [f"{name} zmm{x}, zmm{y}" for x, y in zip(a, b, strict=True)])
    joins: dict[str, Code] = {
        "vpackssdw": x86.pack_16(a, b, c),
        "vpacksswb": x86.pack_8(a, b, c, signed=True),
        "vpackuswb": x86.pack_8(a, b, c, signed=False),
        "vpshufb": x86.shuffle_bytes(a, b, c),
        "vmulps": x86.times(a, b, c),
        "vfmadd231ps": x86.add_product(a, b, c),
        "vpandd": x86.common_bits(a, b, c),
    }
    for name, code in joins.items():
        lines = [f"{name} zmm{x}, zmm{y}, zmm{z}" for x, y, z in zip(a, b, c, strict=True)]
        assert_same(code, lines)
    every = np.arange(32)
    assert_same(x86.nearest_integer(every), [f"vcvtps2dq zmm{r} {{k1}} {{z}}, zmm{r}" for r in every])


def test_masked_and_zero_of_all_32_registers() -> None:
    every = np.arange(32)
    assert_same(x86.masked(every), [f"vmovaps zmm{r} {{k1}} {{z}}, zmm{r}" for r in every])
    assert_same(x86.masked(every, size=2), [f"vmovdqu16 zmm{r} {{k1}} {{z}}, zmm{r}" for r in every])
    assert_same(x86.zero(every), [f"vpxord zmm{r}, zmm{r}, zmm{r}" for r in every])


@QUICK
@given(base=BASES, offset=st.integers(1, 127), register=GENERAL)
def test_masks_and_64_bit_reads_with_an_offset_of_one_byte(base: int, offset: int, register: int) -> None:
    at = f"[{NAMES[base]}+{offset}]"
    code = x86.join(
        x86.load_mask(base, offset), x86.load_mask(base, offset, size=2), x86.read(register, base, offset)
    )
    lines = [f"{{vex3}} kmovw k1, word ptr {at}", f"{{vex3}} kmovd k1, dword ptr {at}"]
    assert_same(code, [*lines, f"mov {NAMES[register]}, {at}"])


def test_all_256_pairs_of_general_registers() -> None:
    pairs = [(a, b) for a in range(16) for b in range(16)]
    for encode, name in ((x86.move, "mov"), (x86.add_register, "add")):
        code = x86.join(*[encode(*pair) for pair in pairs])
        assert_same(code, [f"{name} {NAMES[a]}, {NAMES[b]}" for a, b in pairs])


def test_push_pop_and_ret() -> None:
    code = x86.join(*[encode(each) for each in range(16) for encode in (x86.push, x86.pop)], x86.ret())
    assert_same(code, [*[f"{word} {name}" for name in NAMES for word in ("push", "pop")], "ret"])


@QUICK
@given(base=BASES, offsets=st.lists(FAR, min_size=1, max_size=9, unique=True))
def test_prefetches_always_have_a_prefix_and_an_offset_of_four_bytes(base: int, offsets: list[int]) -> None:
    lines = [f"{{rex}} {{disp32}} prefetcht1 byte ptr [{NAMES[base]}+{offset}]" for offset in offsets]
    assert_same(x86.prefetch(base, np.array(offsets)), lines)


@QUICK
@given(register=GENERAL, distance=FAR)
def test_addresses_counted_from_here(register: int, distance: int) -> None:
    assert_same(x86.address(register, distance), [f"lea {NAMES[register]}, [rip+{distance}]"])


@QUICK
@given(register=st.integers(1, 15), amount=FAR.filter(lambda amount: not -128 <= amount < 128))
def test_large_constants_are_added_as_llvm_does(register: int, amount: int) -> None:
    assert_same(x86.advance(register, amount), [f"add {NAMES[register]}, {amount}"])


@QUICK
@given(register=GENERAL, back=st.integers(0, 2000))
def test_a_jump_back_counts_from_the_end_of_the_jump(register: int, back: int) -> None:
    code = x86.count_down(register, -back - len(x86.count_down(0, 0).bytes()))
    lines = ["start:", f".fill {back}, 1, 0x90", f"dec {NAMES[register]}", "{disp32} jnz start"]
    assert b"\x90" * back + code.bytes() == assembled(lines)


@QUICK
@given(amount=FAR, x=st.integers(-(2**40), 2**40))
def test_advance_adds_small_constants_too(amount: int, x: int) -> None:
    code = executable(x86.join(x86.move(RAX, RDI), x86.advance(RAX, amount), x86.ret()).bytes())
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address)(x) == x + amount


def test_a_loop_that_counts_down_from_7_adds_7_times() -> None:
    turn = x86.join(x86.add_register(RAX, RSI), x86.count_down(RDI, 0))
    turn = x86.join(x86.add_register(RAX, RSI), x86.count_down(RDI, -len(turn.bytes())))
    start = x86.join(x86.push(RBX), x86.move(RBX, RSI), x86.move(RAX, RBX))
    code = executable(x86.join(start, turn, x86.pop(RBX), x86.ret()).bytes())
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(code.address)(7, 100) == 800


def test_arrays_encode_as_many_instructions_as_they_are_long() -> None:
    code = x86.load(np.arange(5), RDI, np.arange(5) * 64)
    assert code.bytes() == b"".join(x86.load(n, RDI, 64 * n).bytes() for n in range(5))
    assert code[np.array([3, 1])].bytes() == x86.load(3, RDI, 192).bytes() + x86.load(1, RDI, 64).bytes()


def test_the_kernel_printed_in_the_engine_page_is_what_bake_writes() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "ENGINE.md").read_text()
    listing = page.split("```asm\n")[1].split("```")[0]  # the second one is of 8-bit numbers
    lines = [line.split("#")[0].strip() for line in listing.splitlines()]
    weight = np.array([[0.5, 0, 0, 2], [0, 0, -1, 0]], np.float32)
    weights = RowWeights(weight, np.array([0.25, 0], np.float32), np.arange(4) * 64)
    baked = bake(weights, Epilogue(activation=RELU), Blocking(band=4), FP32)
    assert baked.code.hex(" ") == _as_written(assembled(filter(None, lines))).hex(" ")


def test_the_kernel_of_8_bit_numbers_printed_in_the_engine_page_is_what_bake_quads_writes() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "ENGINE.md").read_text()
    listing = page.split("```asm\n")[2].split("```")[0]
    lines = [line.split("#")[0].strip() for line in listing.splitlines()]
    # Bake writes 32 bits where LLVM would write 8, or nothing.
    spelt = {
        "mov r10, [r9]": "{disp8} mov r10, [r9 + 0]",
        "prefetcht1 byte ptr [r14]": "{disp32} prefetcht1 byte ptr [r14 + 0]",
        "prefetcht1 byte ptr [r15]": "{disp32} prefetcht1 byte ptr [r15 + 0]",
        "prefetcht1 byte ptr [r14 + 64]": "{disp32} prefetcht1 byte ptr [r14 + 64]",
        "kmovw k1, word ptr [r9 + 24]": "{vex3} kmovw k1, word ptr [r9 + 24]",
        "add r15, 64": ".byte 0x49, 0x81, 0xc7, 64, 0, 0, 0",
        "add r9, 32": ".byte 0x49, 0x81, 0xc1, 32, 0, 0, 0",
        "jne next": "{disp32} jnz next",
    }
    weight = np.array([1, 2, 3, 4, 0, 0, 0, 0, -1, 0, 5, 0], np.int8).reshape(1, 12, 1)
    given = IntegerWeights(weight, np.ones(1, np.float32), np.zeros(1, np.float32))
    weights = quad_weights(given, np.arange(3) * 64, Scaling(0.25, 128))
    baked = bake_quads(weights, QuadEpilogue(output=Scaling(0.5, 128)), Blocking(band=4))
    written = assembled([spelt.get(line, line) for line in lines if line])
    assert baked.code.hex(" ") == written.hex(" ")


def _as_written(code: bytes) -> bytes:
    """LLVM leaves out what need not be said: offsets of 0, constants of 32 bits, jumps of 32 bits."""
    short = {
        bytes.fromhex("4d8b11"): "4d8b5100",
        bytes.fromhex("410f1816"): "410f189600000000",
        bytes.fromhex("410f1817"): "410f189700000000",
        bytes.fromhex("4983c640"): "4981c640000000",
        bytes.fromhex("4983c740"): "4981c740000000",
        bytes.fromhex("4983c120"): "4981c120000000",
        bytes.fromhex("0f856fffffff"): "0f855dffffff",  # back over what was left out
    }
    for before, after in short.items():
        assert code.count(before) == 1
        code = code.replace(before, bytes.fromhex(after))
    return code
