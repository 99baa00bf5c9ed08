"""Kernels as text: a small writer of LLVM IR, and LLVM turning the text into a function of this process."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit.code_cache import cached
from zeroskip.emit.python_call import function

POINTER = "ptr"
INTEGER = "i64"
SHORT = {
    "float": "f32",
    "half": "f16",
    "double": "f64",
}  # in the names of intrinsics; integers are called as they are


@dataclass(frozen=True)
class Vector:
    """A vector type of LLVM: `lanes` numbers of the type `element`.

    >>> v = Vector(16)
    >>> f"{v} {v.mask} {v.of('i8')} {v.suffix}"
    '<16 x float> <16 x i1> <16 x i8> v16f32'
    """

    lanes: int
    element: str = "float"

    def __str__(self) -> str:
        return f"<{self.lanes} x {self.element}>"

    @property
    def mask(self) -> Vector:
        """One bit for each lane."""
        return self.of("i1")

    @property
    def suffix(self) -> str:
        """Of the names of intrinsics."""
        return f"v{self.lanes}{SHORT.get(self.element, self.element)}"

    def of(self, element: str) -> Vector:
        """As many lanes of another type."""
        return Vector(self.lanes, element)


class Function:
    """One LLVM function, written line by line; values are names such as "%v7".

    Arguments are given as name -> type and read as "%name". The memory behind different pointers must not
    overlap. Variables that change in loops are stack slots here; LLVM turns them into registers.

    >>> double = Function("double", {"x": POINTER})
    >>> value = double.load("float", "%x")
    >>> double.store("float", double.value(f"fadd float {value}, {value}"), "%x")
    >>> print(double.text(machine))
    define void @double(ptr noalias %x) "prefer-vector-width"="512" {
    entry:
      %v1 = load float, ptr %x, align 4
      %v2 = fadd float %v1, %v1
      store float %v2, ptr %x, align 4
      ret void
    }
    """

    def __init__(self, name: str, arguments: Mapping[str, str]) -> None:
        self.name = name
        self._arguments = arguments
        self._declarations: set[str] = set()
        self._slots: list[str] = []
        self._lines: list[str] = []
        self._count = 0

    def do(self, statement: str) -> None:
        """Add a line that has no value."""
        self._lines.append(f"  {statement}")

    def value(self, expression: str) -> str:
        """Add a line and return the name of its value."""
        name = f"%v{self._number()}"
        self.do(f"{name} = {expression}")
        return name

    def slot(self, kind: str | Vector, start: str) -> str:
        """A pointer to a variable of type `kind` that holds `start` from here on."""
        name = f"%slot{self._number()}"
        self._slots.append(f"  {name} = alloca {kind}, align 64")
        self.store(kind, start, name)
        return name

    def room(self, kind: str | Vector, count: int) -> str:
        """A pointer to so many numbers of this type on the stack, which hold anything."""
        name = f"%room{self._number()}"
        self._slots.append(f"  {name} = alloca {kind}, i64 {count}, align 64")
        return name

    def load(self, kind: str | Vector, pointer: str) -> str:
        """The value at `pointer`; vectors need no more alignment than their elements."""
        return self.value(f"load {kind}, ptr {pointer}, align {_alignment(kind)}")

    def store(self, kind: str | Vector, value: str, pointer: str) -> None:
        """Write `value` to `pointer`."""
        self.do(f"store {kind} {value}, ptr {pointer}, align {_alignment(kind)}")

    def at(self, pointer: str, index: str | int, element: str | Vector = "float") -> str:
        """Pointer to element `index` of the array at `pointer`."""
        return self.value(f"getelementptr {element}, ptr {pointer}, i64 {index}")

    def fields(self, pointer: str, kinds: Sequence[str]) -> list[str]:
        """The 8-byte fields at `pointer`, one for each of the types."""
        return [self.load(kind, self.at(pointer, index, INTEGER)) for index, kind in enumerate(kinds)]

    def add(self, a: str | int, b: str | int) -> str:
        """The integer a + b."""
        return self.value(f"add nsw i64 {a}, {b}")

    def multiply(self, a: str | int, b: str | int) -> str:
        """The integer a x b."""
        return self.value(f"mul nsw i64 {a}, {b}")

    def subtract(self, a: str | int, b: str | int) -> str:
        """The integer a - b."""
        return self.value(f"sub nsw i64 {a}, {b}")

    def bounded(self, a: str | int, low: int, high: int) -> str:
        """The integer from low to high that is nearest to `a`."""
        return self.smaller(self.call(INTEGER, "llvm.smax.i64", f"i64 {a}", f"i64 {low}"), high)

    def smaller(self, a: str | int, b: str | int) -> str:
        """The smaller one of two integers."""
        return self.call(INTEGER, "llvm.smin.i64", f"i64 {a}", f"i64 {b}")

    def multiply_add(self, v: Vector, a: str, b: str, c: str) -> str:
        """Vector a x b + c, in one instruction where the processor has it."""
        return self.call(v, f"llvm.fmuladd.{v.suffix}", f"{v} {a}", f"{v} {b}", f"{v} {c}")

    def relu(self, v: Vector, a: str) -> str:
        """Vector with 0 in place of what is below 0; NaN stays, as in PyTorch."""
        negative = self.value(f"fcmp olt {v} {a}, zeroinitializer")
        return self.value(f"select {v.mask} {negative}, {v} zeroinitializer, {v} {a}")

    def converted(self, v: Vector, a: str, element: str) -> str:
        """Vector `a` of type `v` with elements of another type, rounded to the nearest; as it is where types agree."""
        if v.element == element:
            return a
        operation = "fptrunc" if element == "half" else "fpext"
        return self.value(f"{operation} {v} {a} to {v.of(element)}")

    def from_bf16(self, v: Vector, a: str) -> str:
        """Vector of the floats whose upper halves, as 16-bit integers, are `a`."""
        words = v.of("i32")
        wide = self.value(f"zext {v.of('i16')} {a} to {words}")
        upper = self.value(f"shl {words} {wide}, {self.splat(words, '16')}")
        return self.value(f"bitcast {words} {upper} to {v}")

    def splat(self, v: Vector, value: str) -> str:
        """Vector that holds `value` in every lane."""
        single = self.value(f"insertelement {v} poison, {v.element} {value}, i32 0")
        return self.value(f"shufflevector {v} {single}, {v} poison, {v.of('i32')} zeroinitializer")

    def constant(self, v: Vector, value: float) -> str:
        """Vector of floats or halves that holds the number in every lane."""
        if v.element == "half":
            return self.splat(v, f"0xH{np.float16(value).view(np.uint16):04X}")
        # LLVM writes a float as the bits of the double that is equal to it.
        bits = struct.unpack("<Q", struct.pack("<d", float(np.float32(value))))[0]
        return self.splat(v, f"0x{bits:016X}")

    def below(self, lanes: int, count: str) -> str:
        """Mask whose first `count` lanes are true."""
        v = Vector(lanes, INTEGER)
        numbers = ", ".join(f"i64 {lane}" for lane in range(lanes))
        return self.value(f"icmp slt {v} <{numbers}>, {self.splat(v, count)}")

    def load_masked(self, v: Vector, mask: str, pointer: str, *, other: str = "zeroinitializer") -> str:
        """Numbers at `pointer` where the mask is true, without touching the others; `other`'s elsewhere."""
        align = f"i32 {_alignment(v)}"
        return self.call(
            v, f"llvm.masked.load.{v.suffix}.p0", f"ptr {pointer}", align, f"{v.mask} {mask}", f"{v} {other}"
        )

    def store_masked(self, v: Vector, mask: str, value: str, pointer: str) -> None:
        """Write the lanes of `value` where the mask is true, without touching the others."""
        align = f"i32 {_alignment(v)}"
        self.perform(
            f"llvm.masked.store.{v.suffix}.p0", f"{v} {value}", f"ptr {pointer}", align, f"{v.mask} {mask}"
        )

    def larger(self, v: Vector, a: str, b: str) -> str:
        """Vector of the larger of two numbers; NaN where either is NaN, and either of 0 and -0."""
        name = f"llvm.maximum.{v.suffix}"
        self._declarations.add(f"declare {v} @{name}({v}, {v})")
        return self.value(f"call nsz {v} @{name}({v} {a}, {v} {b})")

    def sum(self, v: Vector, a: str) -> str:
        """The sum of all lanes, in whatever order is fastest."""
        name, element = f"llvm.vector.reduce.fadd.{v.suffix}", v.element
        self._declarations.add(f"declare {element} @{name}({element}, {v})")
        return self.value(f"call reassoc {element} @{name}({element} -0.0, {v} {a})")

    def gather(self, v: Vector, mask: str, pointer: str, places: str, other: str) -> str:
        """Numbers at the 32-bit places counted from `pointer` where the mask is true, `other`'s elsewhere."""
        at = self.value(f"getelementptr {v.element}, ptr {pointer}, {v.of('i32')} {places}")
        name, pointers = f"llvm.masked.gather.{v.suffix}.v{v.lanes}p0", f"{v.of(POINTER)} {at}"
        return self.call(v, name, pointers, f"i32 {_alignment(v)}", f"{v.mask} {mask}", f"{v} {other}")

    def compressed(self, v: Vector, mask: str, a: str) -> str:
        """Vector that begins with the lanes of `a` where the mask is true, in their order; the rest is anything."""
        name = f"llvm.experimental.vector.compress.{v.suffix}"
        return self.call(v, name, f"{v} {a}", f"{v.mask} {mask}", f"{v} poison")

    def count(self, lanes: int, mask: str) -> str:
        """How many lanes of the mask are true."""
        bits = self.value(f"bitcast {Vector(lanes, 'i1')} {mask} to i{lanes}")
        ones = self.call(f"i{lanes}", f"llvm.ctpop.i{lanes}", f"i{lanes} {bits}")
        return ones if lanes == 64 else self.value(f"zext i{lanes} {ones} to i64")

    def prefetch(self, pointer: str, *, level: int = 1) -> None:
        """Ask for the cache line at `pointer`, wherever that is, to be brought into a cache of that level."""
        self.perform("llvm.prefetch.p0", f"ptr {pointer}", "i32 0", f"i32 {4 - level}", "i32 1")

    def part(self, v: Vector, a: str, start: int, count: int) -> str:
        """The lanes start, start + 1, ... of a vector, `count` of them; those past its end hold anything."""
        lanes = (f"i32 {lane}" if lane < v.lanes else "i32 poison" for lane in range(start, start + count))
        return self.value(f"shufflevector {v} {a}, {v} poison, {Vector(count, 'i32')} <{', '.join(lanes)}>")

    def transposed(self, v: Vector, vectors: Sequence[str]) -> list[str]:
        """As many vectors as each has lanes, seen as a square, with rows and columns exchanged."""
        rows, lanes, step = list(vectors), v.lanes, 1
        while step < lanes:
            # Exchange the off-diagonal quarters of every square of 2 x step rows and lanes.
            for top in (row for row in range(lanes) if not row & step):
                pair = rows[top], rows[top + step]
                left = [i + lanes - step if i & step else i for i in range(lanes)]
                right = [i + lanes if i & step else i + step for i in range(lanes)]
                rows[top], rows[top + step] = (self._shuffle(v, *pair, order) for order in (left, right))
            step *= 2
        return rows

    def call(self, kind: str | Vector, intrinsic: str, *arguments: str) -> str:
        """Value of an LLVM intrinsic; each argument is written "type value"."""
        return self.value(self._called(kind, intrinsic, *arguments))

    def perform(self, intrinsic: str, *arguments: str) -> None:
        """Call an LLVM intrinsic that has no value; arguments as in `call`."""
        self.do(self._called("void", intrinsic, *arguments))

    @contextmanager
    def loop(self, start: str | int, stop: str | int, step: str | int = 1) -> Iterator[str]:
        """What is written inside runs with the yielded index = start, start + step, ... below stop."""
        number = self._number()
        counter = self.slot(INTEGER, str(start))
        self.do(f"br label %test{number}")
        self._lines.append(f"test{number}:")
        index = self.load(INTEGER, counter)
        inside = self.value(f"icmp slt i64 {index}, {stop}")
        self.do(f"br i1 {inside}, label %body{number}, label %done{number}")
        self._lines.append(f"body{number}:")
        yield index
        self.store(INTEGER, self.add(index, step), counter)
        self.do(f"br label %test{number}")
        self._lines.append(f"done{number}:")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is written inside runs where the condition, an i1, is true."""
        number = self._number()
        self.do(f"br i1 {condition}, label %then{number}, label %after{number}")
        self._lines.append(f"then{number}:")
        yield
        self.do(f"br label %after{number}")
        self._lines.append(f"after{number}:")

    def text(self, machine: Machine) -> str:
        """The finished module, with vectors as wide as the machine's."""
        kinds = {POINTER: f"{POINTER} noalias", INTEGER: INTEGER}
        arguments = ", ".join(f"{kinds[kind]} %{name}" for name, kind in self._arguments.items())
        # Without the attribute LLVM may halve 64-byte vectors on processors that it believes to slow down.
        attribute = f'"prefer-vector-width"="{8 * machine.vector_bytes}"'
        head = f"define void @{self.name}({arguments}) {attribute} {{\nentry:"
        lines = [*sorted(self._declarations), head, *self._slots, *self._lines, "  ret void", "}"]
        return "\n".join(lines) + "\n"

    def _shuffle(self, v: Vector, a: str, b: str, lanes: Sequence[int]) -> str:
        order = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.value(f"shufflevector {v} {a}, {v} {b}, {v.of('i32')} <{order}>")

    def _called(self, kind: str | Vector, intrinsic: str, *arguments: str) -> str:
        types = ", ".join(argument.rsplit(" ", 1)[0] for argument in arguments)
        self._declarations.add(f"declare {kind} @{intrinsic}({types})")
        return f"call {kind} @{intrinsic}({', '.join(arguments)})"

    def _number(self) -> int:
        self._count += 1
        return self._count


def compile_function(ir: str, name: str, machine: Machine, arguments: int) -> Callable[..., None]:
    """The function `name` of the module `ir`, callable with `arguments` addresses or 64-bit integers.

    It may use the features of `machine` and no others. The call releases Python's lock. What lies behind an
    address is the caller's to keep alive and large enough.

    >>> import numpy as np
    >>> from zeroskip.emit import detect
    >>> double, x = Function("double", {"x": POINTER}), np.array([1.5], np.float32)
    >>> value = double.load("float", "%x")
    >>> double.store("float", double.value(f"fadd float {value}, {value}"), "%x")
    >>> compile_function(double.text(detect()), "double", detect(), 1)(x.ctypes.data), x
    (0, array([3.], dtype=float32))
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    code = cached([__file__], [ir.encode()], machine, lambda: _object(ir, machine))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(machine, llvm.get_process_triple()))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return function(engine.get_function_address(name), arguments, engine)


def assembly(ir: str, machine: Machine, *, triple: str | None = None) -> str:
    """The machine code of `ir` as text, for this kind of processor or the one that `triple` names.

    >>> square, v = Function("square", {"x": POINTER}), Vector(16)
    >>> x = square.load(v, "%x")
    >>> square.store(v, square.value(f"fmul {v} {x}, {x}"), "%x")
    >>> "vmulps" in assembly(square.text(machine), machine, triple="x86_64-unknown-linux-gnu")
    True
    """
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module, target = _optimised(ir, machine, triple or llvm.get_process_triple())
    return target.emit_assembly(module)


def _alignment(kind: str | Vector) -> int:
    element = str(kind).strip("<>").split(" x ")[-1]
    return {"i8": 1, "i16": 2, "i32": 4, "half": 2, "float": 4, INTEGER: 8, POINTER: 8}[element]


def _object(ir: str, machine: Machine) -> bytes:
    """The machine code of `ir` for this kind of processor, as a file to be linked."""
    module, target = _optimised(ir, machine, llvm.get_process_triple())
    return target.emit_object(module)


def _target(machine: Machine, triple: str) -> llvm.TargetMachine:
    features = ",".join(f"+{feature}" for feature in sorted(machine.features))
    return llvm.Target.from_triple(triple).create_target_machine(features=features, opt=3)


def _optimised(ir: str, machine: Machine, triple: str) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    target = _target(machine, triple)
    module = llvm.parse_assembly(ir)
    module.triple, module.data_layout = triple, str(target.target_data)
    module.verify()
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    return module, target
