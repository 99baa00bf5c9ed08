"""What kernels for linear layers of bytes share: inputs become bytes, sums become numbers; as code for any processor.

Rows of the weight lie over the lanes of a vector, in slices of as many rows as there are lanes. A step is one product
of a quad of each row with the quad of the input that the row meets, which is each kernel's own matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, Function, Vector
from zeroskip.run.convolution.tiles.quad_numbers import fused, nearest
from zeroskip.run.convolution.tiles.quad_products import prepared, product, way_of
from zeroskip.run.linear.compiled_linear import kernel
from zeroskip.run.linear.weight_loads import prefetch
from zeroskip.run.linear.zero_weights.row_slices import emit_scatter

TOGETHER = 8  # examples whose bytes are in memory at a time: a slice of the weights serves them all
AT_ONCE = 4  # of them a quad of weights is multiplied with in one step
INTEGERS, POINTERS = 4, 7  # of the fields that `quad_layer.arguments` begins with


@dataclass(frozen=True)
class SliceCode:
    """One slice of the weight and several examples, as code meets them.

    words        pointer to the quads of weights (steps, lanes)
    first, stop  the numbers of the slice's steps
    stride       words from one example to the next
    x            pointer to the bytes of the first example
    totals       for each example a slot of its sums
    own          the kernel's own pointers
    """

    f: Function
    v: Vector
    way: str
    words: str
    first: str
    stop: str
    stride: str
    x: str
    totals: Sequence[str]
    own: Sequence[str]


def emitted(
    name: str, machine: Machine, lanes: int, relu: bool, own: int, emit_slice: Callable[[SliceCode], None]
) -> Function:
    """A kernel in LLVM IR: `emit_slice` adds all quads of a slice, times those of examples, to its sums.

    own  how many pointers of its own the kernel has
    """
    v, way = Vector(lanes, "i32"), way_of(machine, lanes)
    f, fields = kernel(name, INTEGERS, POINTERS + own)
    out, inputs, stride, slices, begin, words, rows, start, factor, bias, numbers = fields[:11]
    with f.loop(0, "%rows", TOGETHER) as group:
        count = f.smaller(f.subtract("%rows", group), TOGETHER)
        x, y = f.at("%x", f.multiply(group, inputs)), f.at("%y", f.multiply(group, out))
        with f.loop(0, count) as example:
            target = f.at("%scratch", f.multiply(example, stride), "i32")
            _emit_bytes(f, machine, f.at(x, f.multiply(example, inputs)), target, inputs, numbers)
        whole = f.value(f"and i64 {count}, {-AT_ONCE}")
        with f.loop(0, slices) as number:
            first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (number, f.add(number, 1)))
            lane = f.multiply(number, lanes)
            starts, factors, biases = (
                f.load(kind, f.at(each, lane))
                for kind, each in ((v, start), (v.of("float"), factor), (v.of("float"), bias))
            )
            for begun, end, several in ((0, whole, AT_ONCE), (whole, count, 1)):
                with f.loop(begun, end, several) as example:
                    totals = [f.slot(v, starts) for _ in range(several)]
                    quads = f.at("%scratch", f.multiply(example, stride), "i32")
                    emit_slice(SliceCode(f, v, way, words, first, stop, stride, quads, totals, fields[11:]))
                    for each, total in enumerate(totals):
                        sums = f.value(f"sitofp {v} {f.load(v, total)} to {v.of('float')}")
                        result = fused(f, v.of("float"), machine, sums, factors, biases)
                        result = f.relu(v.of("float"), result) if relu else result
                        line = f.at(y, f.multiply(f.add(example, each), out))
                        emit_scatter(f, v.of("float"), result, line, f.at(rows, lane, INTEGER))
    return f


def emit_products(code: SliceCode, step: str, inputs: Sequence[str]) -> None:
    """Add the quads of a step, times a vector of quads of each example, to the sums."""
    f, v = code.f, code.v
    place = f.multiply(step, v.lanes)
    weights = _unpacked(f, v, code.way, f.load(v, f.at(code.words, place, "i32")))
    for quads, total in zip(inputs, code.totals, strict=True):
        added = product(f, v, code.way, f.load(v, total), prepared(f, v, code.way, quads), weights)
        f.store(v, added, total)
    prefetch(f, code.words, place, 32, v.lanes)


def _unpacked(f: Function, v: Vector, way: str, words: str) -> list[str]:
    """Quads of weights as the products of the way take them, with their signs."""
    if way == "pairs":
        halves = Vector(2 * v.lanes, "i16")
        both = f.value(f"bitcast {v} {words} to {halves}")
        eight = f.splat(halves, "8")
        even = f.value(f"ashr {halves} {f.value(f'shl {halves} {both}, {eight}')}, {eight}")
        odd = f.value(f"ashr {halves} {both}, {eight}")
        return [f.value(f"bitcast {halves} {each} to {v}") for each in (even, odd)]
    if way == "bytes":
        moved = [f.value(f"shl {v} {words}, {f.splat(v, str(24 - 8 * each))}") for each in range(4)]
        return [f.value(f"ashr {v} {each}, {f.splat(v, '24')}") for each in moved]
    return [words]


def _emit_bytes(f: Function, machine: Machine, x: str, target: str, inputs: str, numbers: str) -> None:
    """Write the bytes of an example's floats; behind them come up to a vector of bytes that mean 0."""
    v = Vector(machine.vector_bytes // 4)
    inverse, least, most, zero = (f.splat(v, f.load("float", f.at(numbers, each))) for each in range(4))
    zero_point = f.value(f"fptosi {v} {zero} to {v.of('i32')}")

    def write(floats: str, place: str) -> None:
        scaled = f.value(f"fmul {v} {floats}, {inverse}")
        nan = f.value(f"fcmp uno {v} {scaled}, {scaled}")
        scaled = f.value(f"select {v.mask} {nan}, {v} zeroinitializer, {v} {scaled}")
        whole = f.value(f"add {v.of('i32')} {nearest(f, v, scaled, least, most)}, {zero_point}")
        f.store(
            v.of("i8"), f.value(f"trunc {v.of('i32')} {whole} to {v.of('i8')}"), f.at(target, place, "i8")
        )

    end = f.value(f"and i64 {inputs}, {-v.lanes}")
    with f.loop(0, end, v.lanes) as place:
        write(f.load(v, f.at(x, place)), place)
    with f.when(f.value(f"icmp slt i64 {end}, {inputs}")):
        write(f.load_masked(v, f.below(v.lanes, f.subtract(inputs, end)), f.at(x, end)), end)
