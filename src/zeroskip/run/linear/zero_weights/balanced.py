"""Linear layers of pattern "n:16" on AVX-512: n weights among each 16 inputs of a row, one row in each lane.

All rows meet the same 16 inputs in the same step. They lie in one register, out of which one instruction (vpermps)
gives each lane the one it needs, named by 4 bits. A weight of 8 bits then costs 1.5 bytes in all, and nothing
but reading them takes time. Blocks with fewer weights are filled up with zeros of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, vector
from zeroskip.run.linear.stored_weights import (
    BITS,
    KINDS,
    TABLE,
    ask,
    halves,
    kernels,
    nonzeros,
    packed_halves,
    pair,
    permuted,
)
from zeroskip.run.machine_code import ARGUMENTS, Compiled, Plan, arrays, plan, starts

LANES = 16
BLOCK = 16  # inputs
MOST = 8  # weights of a block; with more, `bitmask` needs fewer bytes
FILLED = 0.25  # the largest share of stored weights that may be zeros
STEPS = 8  # written one after the other, at least


def accepts(kind: str, layer: Layer, machine: Machine) -> str | None:
    """None, or why the layer is not of this pattern, or the machine lacks the instruction.

    >>> accepts("int8", drawn_at_random, detect())
    'n:16 with n = 7 would store 63 % zeros, and 25 % are allowed'
    """
    if machine.vector_bytes != 64:
        return "needs the permutations of AVX-512"
    if layer.weight.shape[1] % BLOCK:
        return f"{layer.weight.shape[1]} inputs are no whole blocks of {BLOCK}"
    counts = _counts(layer)
    most, places = int(counts.max()), int(counts.max()) * counts.size
    zeros = 1 - int(counts.sum()) / max(places, 1)
    if not 1 <= most <= MOST:
        return f"up to {most} weights in {BLOCK} inputs, and 1 to {MOST} can be"
    if zeros > FILLED:
        return f"n:{BLOCK} with n = {most} would store {zeros:.0%} zeros, and {FILLED:.0%} are allowed"
    if kind == "codes" and zeros and len(layer.weight[layer.weight != 0].unique()) == TABLE:
        return f"{TABLE} distinct weights leave no code for the zeros of blocks with fewer than {most}"
    return None


def build(kind: str, layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Compiled:
    """The layer as a function of its float32 input (..., in); weights are stored as `kind` says.

    A zero weight is skipped, so its product with an infinite or NaN input is 0 here and NaN in PyTorch.

    >>> build("int8", layer, detect(), Precision(weights="int8"), True)(torch.zeros(2, 64)).shape
    torch.Size([2, 300])
    """
    (out, inputs), most = layer.weight.shape, int(_counts(layer).max())
    rest = inputs // BLOCK % _blocks(most)
    return Compiled(
        _compiled(machine, kind, most, rest, relu), _slices(kind, layer, most), inputs, out, machine
    )


def _counts(layer: Layer) -> np.ndarray:
    """Non-zero weights of each block (out, inputs / 16)."""
    weight = layer.weight.detach().numpy()
    return np.count_nonzero(weight.reshape(len(weight), -1, BLOCK), axis=2)


def _blocks(most: int) -> int:
    """How many blocks are written one after the other: an even number of steps, since codes are stored in pairs."""
    return max(2, STEPS // most)


def _slices(kind: str, layer: Layer, most: int) -> Plan:
    """The weight in slices of 16 rows, in the order in which `emit` reads it: (slices, steps, lanes)."""
    (out, inputs), (weight, bias) = layer.weight.shape, arrays(layer)
    slices, blocks = -(-out // LANES), inputs // BLOCK
    steps = blocks * most + blocks * most % 2
    stored, counts = nonzeros(kind, layer), _counts(layer)
    block = stored.rows * blocks + stored.columns // BLOCK
    rank = np.arange(len(block)) - starts(counts.reshape(-1))[block]
    place = _place(stored.rows, stored.columns // BLOCK * most + rank, steps)
    zero = int(np.searchsorted(stored.table, 0.0)) if kind == "codes" and not stored.table.all() else 0
    numbers = np.full(slices * steps * LANES, zero, stored.numbers.dtype)
    picks = np.zeros(len(numbers), np.uint8)
    numbers[place], picks[place] = stored.numbers, stored.columns % BLOCK
    # A zero stands at an input where the row has one, so that an infinite input does what it does in PyTorch.
    rows, short = np.nonzero(counts < most)
    free = np.argmin(weight.reshape(out, blocks, BLOCK)[rows, short] != 0, axis=1)
    for rank_of_zero in range(most):
        missing = counts[rows, short] <= rank_of_zero
        picks[_place(rows, short * most + rank_of_zero, steps)[missing]] = free[missing]
    if kind == "codes":
        numbers = packed_halves(numbers.reshape(-1, LANES))
    filled = -out % LANES
    return plan(
        *(out, inputs, slices, steps, packed_halves(picks.reshape(-1, LANES)), numbers, stored.table),
        *(np.pad(stored.scale, (0, filled)), np.pad(bias, (0, filled))),
    )


def _place(rows: np.ndarray, step: np.ndarray, steps: int) -> np.ndarray:
    return (rows // LANES * steps + step) * LANES + rows % LANES


@cache
def _compiled(machine: Machine, kind: str, most: int, rest: int, relu: bool) -> Callable[..., None]:
    text = emit(machine, kind, most, rest, relu=relu).text(machine)
    return compile_function(text, "balanced", machine, len(ARGUMENTS))


def emit(machine: Machine, kind: str, most: int, rest: int, *, relu: bool) -> Function:
    """The kernel in LLVM IR, for `most` weights in each block and `rest` blocks behind the last whole run of them.

    >>> emit(detect(), "int8", 2, 0, relu=False).name
    'balanced'
    """
    f = Function("balanced", ARGUMENTS)
    out, inputs, slices, steps, *weights, scale, bias = f.fields("%plan", [INTEGER] * 4 + [POINTER] * 5)
    run = _blocks(most)
    blocks = f.value(f"sdiv i64 {inputs}, {BLOCK}")
    whole = f.add(blocks, -rest)
    with f.loop(0, slices) as number:
        row, first = f.multiply(number, LANES), f.multiply(number, steps)
        # Examples inside, so that a slice of the weights is read from memory once for all of them.
        with f.loop(0, "%rows") as example:
            x, y = f.at("%x", f.multiply(example, inputs)), f.at("%y", f.multiply(example, out))
            sums = [f.slot(vector(LANES), "zeroinitializer") for _ in range(4)]
            with f.loop(0, whole, run) as block:
                _blocks_of(f, machine, kind, most, (x, block, first, run), sums, weights)
            if rest:
                _blocks_of(f, machine, kind, most, (x, whole, first, rest), sums, weights)
            total = f.load(vector(LANES), sums[0])
            for other in sums[1:]:
                total = f.value(f"fadd {vector(LANES)} {total}, {f.load(vector(LANES), other)}")
            factor, shift = (f.load(vector(LANES), f.at(each, row)) for each in (scale, bias))
            result = f.multiply_add(LANES, total, factor, shift)
            below = f.below(LANES, f.value(f"sub i64 {out}, {row}"))
            f.store_masked(LANES, below, f.relu(LANES, result) if relu else result, f.at(y, row))
    return f


def _blocks_of(
    f: Function,
    machine: Machine,
    kind: str,
    most: int,
    where: tuple[str, str, str, int],
    sums: list[str],
    weights: list[str],
) -> None:
    """Add the weights of some blocks, times their inputs, to the slots in turn; (x, block, first step, count)."""
    (x, block, first, count), (picks, numbers, table) = where, weights
    place = f.multiply(f.add(first, f.multiply(block, most)), LANES)
    inputs = [f.load(vector(LANES), f.at(x, f.multiply(f.add(block, each), BLOCK))) for each in range(count)]
    for step in range(0, count * most, 2):
        here = f.add(place, step * LANES)
        both = zip(
            halves(f, LANES, picks, here), pair(f, machine, kind, LANES, numbers, here, table), strict=True
        )
        for offset, (pick, values) in enumerate(both):
            if step + offset < count * most:
                total = sums[(step + offset) % len(sums)]
                fetched = permuted(f, inputs[(step + offset) // most], pick)
                added = f.multiply_add(LANES, values, fetched, f.load(vector(LANES), total))
                f.store(vector(LANES), added, total)
        ask(f, picks, here, 4, 2 * LANES)
        ask(f, numbers, here, BITS[kind], 2 * LANES)


KERNELS = kernels("balanced", KINDS, accepts, build)
