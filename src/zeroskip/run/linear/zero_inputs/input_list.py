"""Lists of the inputs that are not zero, as machine code makes them, and outputs as it ends them.

Shared by the kernels that store weights input by input: `columns`, and `columns_sparse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroskip.concepts import Layer
from zeroskip.emit import INTEGER, Function, Vector
from zeroskip.run.dense.pytorch import not_float32

SMALLEST = 1 << 14  # weights: PyTorch multiplies fewer in the time that one call of a function takes
PAD = 16  # entries behind a list's last one: the lanes of a vector, the rest of a sweep and the rows it asks for


@dataclass(frozen=True)
class InputList:
    """Inputs that are not zero in one of several examples.

    indices, values  pointers to their numbers (i32), and for each example to its floats
    count, single    how many they are, and how many they were if each example had a list of its own
    """

    indices: str
    values: list[str]
    count: str
    single: str


def refusal(layer: Layer) -> str | None:
    """None, or why looking for zeros among the inputs of the layer gains nothing.

    >>> refusal(layer)
    '48 weights are multiplied faster than zeros are found'
    """
    count = layer.weight.numel()
    small = f"{count} weights are multiplied faster than zeros are found" if count < SMALLEST else None
    return not_float32(layer, "linear") or small


def emit_input_list(f: Function, v: Vector, begin: str, inputs: str, xs: Sequence[str]) -> InputList:
    """The list of examples that begin at the pointers `xs`, written to `begin`: (1 + examples) x (inputs + PAD).

    Behind its last entry follow a few of input number `inputs`, one more than there are, whose value is 0.
    """
    indices, *values = [f.at(begin, f.multiply(f.add(inputs, PAD), each)) for each in range(len(xs) + 1)]
    union, single = f.slot(INTEGER, "0"), f.slot(INTEGER, "0")
    with f.loop(0, inputs, v.lanes) as column:
        mask = f.below(v.lanes, f.subtract(inputs, column))
        vectors = [f.load_masked(v, mask, f.at(x, column)) for x in xs]
        # Unordered: what is not a number is not zero.
        nonzero = [f.value(f"fcmp une {v} {each}, zeroinitializer") for each in vectors]
        needed = nonzero[0]
        for each in nonzero[1:]:
            needed = f.value(f"or {v.mask} {needed}, {each}")
        count = f.load(INTEGER, union)
        numbers = f.compressed(v.of("i32"), needed, _numbers(f, v.of("i32"), column))
        f.store(v.of("i32"), numbers, f.at(indices, count))
        for vector, target in zip(vectors, values, strict=True):
            f.store(v, f.compressed(v, needed, vector), f.at(target, count))
        for total, masks in ((union, [needed]), (single, nonzero)):
            for each in masks:
                f.store(INTEGER, f.add(f.load(INTEGER, total), f.count(v.lanes, each)), total)
    count = f.load(INTEGER, union)
    for offset in range(0, PAD, v.lanes):
        f.store(v.of("i32"), _splat(f, v.of("i32"), inputs), f.at(indices, f.add(count, offset)))
        for target in values:
            f.store(v, "zeroinitializer", f.at(target, f.add(count, offset)))
    return InputList(indices, values, count, f.load(INTEGER, single))


def load_index(f: Function, listed: InputList, entry: str) -> str:
    """The input number of an entry of the list, as a 64-bit integer."""
    return f.value(f"zext i32 {f.load('i32', f.at(listed.indices, entry))} to i64")


def emit_zeros(f: Function, v: Vector, sums: str, count: str) -> None:
    """Write `count` zeros, a multiple of the lanes."""
    with f.loop(0, count, v.lanes) as place:
        f.store(v, "zeroinitializer", f.at(sums, place))


@dataclass(frozen=True)
class LinearEpilogue:
    """What becomes of the sums of an example: sums x scale + bias, and a ReLU where it is asked for.

    out          how many outputs there are
    scale, bias  pointers to a float for each
    """

    out: str
    scale: str
    bias: str
    relu: bool


def emit_epilogue(f: Function, v: Vector, epilogue: LinearEpilogue, sums: str, y: str) -> None:
    """The outputs of one example, written to `y`."""
    with f.loop(0, epilogue.out, v.lanes) as place:
        mask = f.below(v.lanes, f.subtract(epilogue.out, place))
        total = f.load(v, f.at(sums, place))
        factor, shift = (
            f.load_masked(v, mask, f.at(each, place)) for each in (epilogue.scale, epilogue.bias)
        )
        result = f.multiply_add(v, total, factor, shift)
        f.store_masked(v, mask, f.relu(v, result) if epilogue.relu else result, f.at(y, place))


def _numbers(f: Function, v: Vector, first: str) -> str:
    """Vector (i32) of first, first + 1, ..."""
    offsets = ", ".join(f"i32 {lane}" for lane in range(v.lanes))
    return f.value(f"add {v} {_splat(f, v, first)}, <{offsets}>")


def _splat(f: Function, v: Vector, number: str) -> str:
    return f.splat(v, f.value(f"trunc i64 {number} to i32"))
