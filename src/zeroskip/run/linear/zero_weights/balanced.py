"""Linear layers of pattern "n:16" on AVX-512: n weights among each 16 inputs of a row, one row in each lane.

All rows meet the same 16 inputs in the same step. They lie in one register, out of which one instruction (vpermps)
gives each lane the one it needs, named by 4 bits. A weight of 8 bits then costs 1.5 bytes in all, and nothing
but reading them takes time. Blocks with fewer weights are filled up with zeros of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import Function, Vector
from zeroskip.run.argument_block import ArgumentBlock, argument_block, offsets
from zeroskip.run.linear import stored_weights, weight_loads
from zeroskip.run.linear.compiled_linear import CompiledLinear, compiled, compiled_layer, kernel
from zeroskip.run.linear.refusals import without_zeros

LANES = 16
FLOATS = Vector(LANES)
BLOCK = 16  # inputs
MOST = 8  # weights of a block; with more, `bitmask` needs fewer bytes
FILLED = 0.25  # the largest share of stored weights that may be zeros
STEPS = 8  # written one after the other, at least


def accepts(storage: str, layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer is not of this pattern, or the machine lacks the instruction.

    >>> accepts("fp32", layer, machine, Precision())
    '6 inputs are no whole blocks of 16'
    """
    reason = without_zeros(layer) or stored_weights.cannot_be_stored(storage, layer, precision)
    if reason:
        return reason
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
    table = stored_weights.TABLE
    if (
        storage == "codes"
        and zeros
        and stored_weights.distinct_weights(layer.weight).count_nonzero() == table
    ):
        return f"{table} distinct weights leave no code for the zeros of blocks with fewer than {most}"
    return None


def build(storage: str, layer: Layer, machine: Machine, precision: Precision, relu: bool) -> CompiledLinear:
    """The layer as a function of its float32 input (..., in)."""
    most = int(_counts(layer).max())
    rest = layer.weight.shape[1] // BLOCK % _run(most)
    run = compiled(emit, machine, storage, most, rest, relu)
    return compiled_layer(layer, machine, run, _slices(storage, layer, most))


def _counts(layer: Layer) -> np.ndarray:
    """Non-zero weights of each block (out, inputs / 16)."""
    weight = layer.weight.detach().numpy()
    return np.count_nonzero(weight.reshape(len(weight), -1, BLOCK), axis=2)


def _run(most: int) -> int:
    """How many blocks are written one after the other: an even number of steps, since codes are stored in pairs."""
    return max(2, STEPS // most)


def _slices(storage: str, layer: Layer, most: int) -> ArgumentBlock:
    """The weight in slices of 16 rows, in the order in which `emit` reads it: (slices, steps, lanes)."""
    (out, inputs), (weight, bias) = layer.weight.shape, stored_weights.arrays(layer)
    slices, blocks = -(-out // LANES), inputs // BLOCK
    steps = blocks * most + blocks * most % 2
    stored, counts = stored_weights.nonzeros(storage, layer), _counts(layer)
    block = stored.rows * blocks + stored.columns // BLOCK
    rank = np.arange(len(block)) - offsets(counts.reshape(-1))[block]
    place = _place(stored.rows, stored.columns // BLOCK * most + rank, steps)
    zero = int(np.searchsorted(stored.table, 0.0)) if storage == "codes" and not stored.table.all() else 0
    numbers = np.full(slices * steps * LANES, zero, stored.numbers.dtype)
    picks = np.zeros(len(numbers), np.uint8)
    numbers[place], picks[place] = stored.numbers, stored.columns % BLOCK
    # A zero stands at an input where the row has one, so that an infinite input does what it does in PyTorch.
    rows, short = np.nonzero(counts < most)
    free = np.argmin(weight.reshape(out, blocks, BLOCK)[rows, short] != 0, axis=1)
    for rank_of_zero in range(most):
        missing = counts[rows, short] <= rank_of_zero
        picks[_place(rows, short * most + rank_of_zero, steps)[missing]] = free[missing]
    if storage == "codes":
        numbers = stored_weights.packed_nibbles(numbers.reshape(-1, LANES))
    packed_picks = stored_weights.packed_nibbles(picks.reshape(-1, LANES))
    padded = [np.pad(numbers_of_rows, (0, -out % LANES)) for numbers_of_rows in (stored.scale, bias)]
    return argument_block(*(out, inputs, slices, steps, packed_picks, numbers, stored.table), *padded)


def _place(rows: np.ndarray, step: np.ndarray, steps: int) -> np.ndarray:
    return (rows // LANES * steps + step) * LANES + rows % LANES


def emit(machine: Machine, storage: str, most: int, rest: int, relu: bool) -> Function:
    """The kernel in LLVM IR, for `most` weights in each block and `rest` blocks behind the last whole run of them."""
    f, (out, inputs, slices, steps, picks, numbers, table, scale, bias) = kernel("balanced", 4, 5)
    v = FLOATS
    stored = weight_loads.StoredVectors(f, machine, v, storage, numbers, table)
    blocks = f.value(f"sdiv i64 {inputs}, {BLOCK}")
    whole = f.add(blocks, -rest)
    with f.loop(0, slices) as number:
        row, first = f.multiply(number, LANES), f.multiply(number, steps)
        # Examples inside, so that a slice of the weights is read from memory once for all of them.
        with f.loop(0, "%rows") as example:
            x, y = f.at("%x", f.multiply(example, inputs)), f.at("%y", f.multiply(example, out))
            part = _Slice(stored, most, picks, first, x, [f.slot(v, "zeroinitializer") for _ in range(4)])
            with f.loop(0, whole, _run(most)) as block:
                _emit_blocks(part, block, _run(most))
            if rest:
                _emit_blocks(part, whole, rest)
            total = f.load(v, part.sums[0])
            for other in part.sums[1:]:
                total = f.value(f"fadd {v} {total}, {f.load(v, other)}")
            factor, shift = (f.load(v, f.at(each, row)) for each in (scale, bias))
            result = f.multiply_add(v, total, factor, shift)
            below = f.below(LANES, f.value(f"sub i64 {out}, {row}"))
            f.store_masked(v, below, f.relu(v, result) if relu else result, f.at(y, row))
    return f


@dataclass(frozen=True)
class _Slice:
    """One slice of the weight and one example, as code meets them.

    most   weights in each block
    picks  pointer to the numbers, of 4 bits, of their inputs in the block
    first  number of the slice's first step
    x      pointer to the example
    sums   slots that products are added to in turn
    """

    stored: weight_loads.StoredVectors
    most: int
    picks: str
    first: str
    x: str
    sums: list[str]


def _emit_blocks(part: _Slice, block: str, count: int) -> None:
    """Add the weights of `count` blocks from `block` on, times their inputs."""
    stored, f, v, most = part.stored, part.stored.f, FLOATS, part.most
    place = f.multiply(f.add(part.first, f.multiply(block, most)), LANES)
    inputs = [f.load(v, f.at(part.x, f.multiply(f.add(block, each), BLOCK))) for each in range(count)]
    for step in range(0, count * most, 2):
        here = f.add(place, step * LANES)
        pairs = zip(
            weight_loads.nibbles(f, v, part.picks, here), weight_loads.two_vectors(stored, here), strict=True
        )
        for offset, (pick, values) in enumerate(pairs):
            if step + offset < count * most:
                total = part.sums[(step + offset) % len(part.sums)]
                fetched = weight_loads.permuted(f, inputs[(step + offset) // most], pick)
                f.store(v, f.multiply_add(v, values, fetched, f.load(v, total)), total)
        weight_loads.prefetch(f, part.picks, here, 4, 2 * LANES)
        weight_loads.prefetch_two(stored, here)


KERNELS = stored_weights.kernels("balanced", accepts, build)
