"""Lists of the inputs that are not zero, as machine code makes them, and outputs as it ends them.

Shared by the kernels that store weights input by input: `columns`, and `columns_sparse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroskip.concepts import Layer
from zeroskip.emit import INTEGER, Function, vector

SMALLEST = 1 << 14  # weights: PyTorch multiplies fewer in the time that one call of a function takes
PAD = 16  # entries behind a list's last one: the lanes of a vector, the rest of a sweep and the rows it asks for


@dataclass(frozen=True)
class List:
    """Inputs that are not zero in one of several examples.

    places, values  pointers to their numbers (i32), and for each example to its floats
    count, single   how many they are, and how many they were if each example had a list of its own
    """

    places: str
    values: list[str]
    count: str
    single: str


def refusal(layer: Layer) -> str | None:
    """None, or why looking for zeros among the inputs of the layer gains nothing.

    >>> refusal(layer_of_100_weights)
    '100 weights are multiplied faster than zeros are found'
    """
    weight = layer.weight
    if layer.op != "linear":
        return f"computes linear layers, not {layer.op}"
    if str(weight.dtype) != "torch.float32":
        return f"computes float32 weights, not {str(weight.dtype).removeprefix('torch.')}"
    small = f"{weight.numel()} weights are multiplied faster than zeros are found"
    return small if weight.numel() < SMALLEST else None


def listed(f: Function, lanes: int, begin: str, inputs: str, xs: Sequence[str]) -> List:
    """The list of examples that begin at the pointers `xs`, written to `begin`: (1 + examples) x (inputs + PAD).

    Behind its last entry follow some of input number `inputs`, one more than there are, whose value is 0.

    >>> found = listed(f, 16, scratch, inputs, [x])
    """
    places, *values = [f.at(begin, f.multiply(f.add(inputs, PAD), each)) for each in range(len(xs) + 1)]
    found, single = f.slot(INTEGER, "0"), f.slot(INTEGER, "0")
    with f.loop(0, inputs, lanes) as column:
        mask = f.below(lanes, f.subtract(inputs, column))
        vectors = [f.load_masked(lanes, mask, f.at(x, column)) for x in xs]
        # Unordered: what is not a number is not zero.
        present = [f.value(f"fcmp une {vector(lanes)} {each}, zeroinitializer") for each in vectors]
        needed = present[0]
        for each in present[1:]:
            needed = f.value(f"or {vector(lanes, 'i1')} {needed}, {each}")
        count = f.load(INTEGER, found)
        numbers = f.compressed(lanes, needed, _numbers(f, lanes, column), element="i32")
        f.store(vector(lanes, "i32"), numbers, f.at(places, count))
        for one, target in zip(vectors, values, strict=True):
            f.store(vector(lanes), f.compressed(lanes, needed, one), f.at(target, count))
        for total, some in ((found, [needed]), (single, present)):
            for each in some:
                f.store(INTEGER, f.add(f.load(INTEGER, total), f.count(lanes, each)), total)
    count = f.load(INTEGER, found)
    for offset in range(0, PAD, lanes):
        f.store(vector(lanes, "i32"), _splat(f, lanes, inputs), f.at(places, f.add(count, offset)))
        for target in values:
            f.store(vector(lanes), "zeroinitializer", f.at(target, f.add(count, offset)))
    return List(places, values, count, f.load(INTEGER, single))


def place_of(f: Function, found: List, entry: str) -> str:
    """The input number of an entry of the list, as a 64-bit integer.

    >>> number = place_of(f, found, entry)
    """
    return f.value(f"zext i32 {f.load('i32', f.at(found.places, entry))} to i64")


def clear(f: Function, lanes: int, sums: str, count: str) -> None:
    """Write `count` zeros, a multiple of the lanes.

    >>> clear(f, 16, "%scratch", whole)
    """
    with f.loop(0, count, lanes) as place:
        f.store(vector(lanes), "zeroinitializer", f.at(sums, place))


def finish(
    f: Function, lanes: int, sums: str, y: str, out: str, scale: str, bias: str, *, relu: bool
) -> None:
    """The outputs of one example: sums x scale + bias, and 0 in place of what is below it where `relu` is asked for.

    >>> finish(f, 16, "%scratch", y, out, scale, bias, relu=True)
    """
    with f.loop(0, out, lanes) as place:
        mask = f.below(lanes, f.subtract(out, place))
        total = f.load(vector(lanes), f.at(sums, place))
        factor, shift = (f.load_masked(lanes, mask, f.at(each, place)) for each in (scale, bias))
        result = f.multiply_add(lanes, total, factor, shift)
        f.store_masked(lanes, mask, f.relu(lanes, result) if relu else result, f.at(y, place))


def _numbers(f: Function, lanes: int, first: str) -> str:
    """Vector (i32) of first, first + 1, ..."""
    offsets = ", ".join(f"i32 {lane}" for lane in range(lanes))
    return f.value(f"add {vector(lanes, 'i32')} {_splat(f, lanes, first)}, <{offsets}>")


def _splat(f: Function, lanes: int, number: str) -> str:
    return f.splat(lanes, f.value(f"trunc i64 {number} to i32"), "i32")
