"""Linear layers whose inputs have zeros: weights are read for inputs that are not zero, and for no others.

The weight is stored input by input: what one input sends to all outputs lies together, as a row. Each call lists
the inputs that are not zero, then sweeps several of their rows at a time over the outputs, whose sums stay in the
first-level cache. While some rows are in use the next ones are asked for, so that a layer beyond the caches takes as
long as reading that share of it. Weights of 0 are multiplied like others.

Of a batch, four examples share the rows that any of them needs, where that saves reading: the more, the fewer zeros
they have. So nothing is lost on inputs without zeros, which took at most as long as in PyTorch (Zen 5, up to eight
examples of any layer and 64 of one that the caches hold). Larger batches fall back to it where they have too few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import INTEGER, Function, Vector
from zeroskip.emit.executable_memory import allocate
from zeroskip.run.argument_block import ArgumentBlock, argument_block
from zeroskip.run.dense import pytorch
from zeroskip.run.linear import stored_weights
from zeroskip.run.linear.compiled_linear import (
    CompiledLinear,
    DenseFallback,
    compiled,
    compiled_layer,
    kernel,
)
from zeroskip.run.linear.weight_loads import StoredVectors, two_vectors
from zeroskip.run.linear.zero_inputs import input_list
from zeroskip.run.linear.zero_inputs.input_list import PAD, InputList, LinearEpilogue

TOGETHER = 4
# By the number of examples: rows in one sweep, as many as there are registers for their inputs; vectors of sums that
# are in registers at a time; and the outputs of a sweep, whose sums fill a third of the first-level cache.
ROWS = {1: 8, TOGETHER: 4}
PASS = {1: 4, TOGETHER: 2}
BLOCK = {1: 4096, TOGETHER: 1024}

LINE = 64  # bytes

# A layer of as many bytes in float32 is read from memory once for every four examples here, and once for all in
# PyTorch, which was faster for 16 and 64 examples (11008 -> 4096, Zen 5) if more of the inputs were not zero.
CACHED = 8 << 20
MANY = 16
DENSEST = 0.3


def accepts(storage: str, layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer cannot be stored so, or has nothing to gain; any machine will do."""
    return input_list.refusal(layer) or stored_weights.cannot_be_stored(
        storage, layer, precision, with_zeros=True
    )


def build(
    storage: str, layer: Layer, machine: Machine, precision: Precision, relu: bool
) -> CompiledLinear | DenseFallback:
    """The layer as a function of its float32 input (..., in), with PyTorch to fall back on where it is faster.

    PyTorch computes large batches that have too few zeros, if the layer is beyond the caches and nothing is
    rounded; all else takes no longer here without zeros.
    """
    skipping = without_fallback(storage, layer, machine, relu)
    if storage != "fp32" or 4 * layer.weight.numel() < CACHED:
        return skipping
    return DenseFallback(skipping, pytorch.build(layer, machine, precision, relu), MANY, DENSEST)


def without_fallback(storage: str, layer: Layer, machine: Machine, relu: bool) -> CompiledLinear:
    """The layer with the zeros of its input skipped, however few there are; weights are copied.

    A zero input is skipped, so its product with an infinite or NaN weight is 0 here and NaN in PyTorch, unless
    another of four examples needs the weight.
    """
    length = layer.weight.shape[1] + PAD  # of a list: indices for all examples, and values for each
    scratch = TOGETHER * (_whole(storage, layer.weight.shape[0]) + length) + length
    arguments = _rows(storage, layer, machine)
    return compiled_layer(layer, machine, compiled(emit, machine, storage, relu), arguments, scratch=scratch)


def _whole(storage: str, out: int) -> int:
    """Outputs in a stored row, rounded up to whole steps of the kernel and whole cache lines."""
    step = max(64, 8 * LINE // stored_weights.BITS[storage])
    return -(-out // step) * step


def _rows(storage: str, layer: Layer, machine: Machine) -> ArgumentBlock:
    """The weight input by input, and one row of zeros, in the order in which `emit` reads it."""
    (out, inputs), (_, bias) = layer.weight.shape, stored_weights.arrays(layer)
    whole = _whole(storage, out)
    # One line more: rows of a power of two bytes would all compete for the same few sets of the caches.
    stride = whole * stored_weights.BITS[storage] // 8 + LINE
    memory = allocate((inputs + 1) * stride).reshape(inputs + 1, stride)
    weight = layer.weight.detach()
    scale, table = np.ones(out, np.float32), np.zeros(stored_weights.TABLE, np.float32)
    if storage == "fp32":
        _view(memory, np.float32, out)[:] = weight.T
    if storage == "bf16":
        _view(memory, np.int16, out)[:] = weight.bfloat16().view(torch.int16).T
    if storage == "int8":
        scales = stored_weights.int8_scale(weight)
        _view(memory, np.int8, out)[:] = (weight / scales[:, None]).round().T
        scale = scales.numpy()
    if storage == "codes":
        distinct = stored_weights.distinct_weights(weight)
        table[: len(distinct)] = distinct.numpy()
        numbers = np.zeros((inputs, whole), np.uint8)
        torch.from_numpy(numbers)[:, :out] = torch.searchsorted(distinct, weight).T
        lanes = machine.vector_bytes // 4
        packed = stored_weights.packed_nibbles(numbers.reshape(-1, lanes))
        memory[:-1, : whole // 2] = packed.reshape(inputs, -1)
    parts = out, whole, stride, inputs, memory.ctypes.data, scale, bias, table
    return argument_block(*parts, alive=(memory,))


def _view(memory: np.ndarray, dtype: type, out: int) -> Tensor:
    """The numbers in the rows of all inputs (in, out), to be written."""
    return torch.from_numpy(memory[:-1].view(dtype)[:, :out])


@dataclass(frozen=True)
class _Body:
    """The function being written, and the values that its argument block holds.

    stored  the weights; their numbers begin with the row of input 0, rows being `stride` bytes apart
    whole   outputs in a row
    """

    stored: StoredVectors
    whole: str
    stride: str
    inputs: str
    epilogue: LinearEpilogue

    @property
    def f(self) -> Function:
        return self.stored.f

    @property
    def v(self) -> Vector:
        return self.stored.v


def emit(machine: Machine, storage: str, relu: bool) -> Function:
    """The kernel in LLVM IR: outputs over the lanes."""
    f, (out, whole, stride, inputs, numbers, scale, bias, table) = kernel("columns", 4, 4)
    stored = StoredVectors(f, machine, Vector(machine.vector_bytes // 4), storage, numbers, table)
    k = _Body(stored, whole, stride, inputs, LinearEpilogue(out, scale, bias, relu))
    with f.loop(0, "%rows", TOGETHER) as first:
        left = f.smaller(TOGETHER, f.value(f"sub i64 %rows, {first}"))
        done = f.slot(INTEGER, "0")
        with f.loop(0, f.value(f"udiv i64 {left}, {TOGETHER}")):
            shared = _listed(k, first, TOGETHER)
            saves = _saves_reading(f, shared)
            with f.loop(0, saves):
                _compute(k, first, shared)
            f.store(INTEGER, f.multiply(saves, TOGETHER), done)
        with f.loop(f.load(INTEGER, done), left) as offset:
            example = f.add(first, offset)
            _compute(k, example, _listed(k, example, 1))
    return f


def _listed(k: _Body, first: str, examples: int) -> InputList:
    """The list of so many examples from `first` on, behind the sums in scratch."""
    xs = [k.f.at("%x", k.f.multiply(k.f.add(first, each), k.inputs)) for each in range(examples)]
    begin = k.f.at("%scratch", k.f.multiply(k.whole, examples))
    return input_list.emit_input_list(k.f, k.v, begin, k.inputs, xs)


def _saves_reading(f: Function, listed: InputList) -> str:
    """1 if sharing rows saves a fifth of reading them, which pays for multiplying a few with zeros; otherwise 0."""
    shorter = f.value(f"icmp sle i64 {f.multiply(listed.count, 5)}, {f.multiply(listed.single, 4)}")
    return f.value(f"zext i1 {shorter} to i64")


def _compute(k: _Body, first: str, listed: InputList) -> None:
    """The outputs of the examples of a list, from `first` on."""
    f, examples = k.f, len(listed.values)
    sums = [f.at("%scratch", f.multiply(k.whole, each)) for each in range(examples)]
    input_list.emit_zeros(f, k.v, "%scratch", f.multiply(k.whole, examples))
    with f.loop(0, k.whole, BLOCK[examples]) as start:
        stop = f.smaller(k.whole, f.add(start, BLOCK[examples]))
        with f.loop(0, listed.count, ROWS[examples]) as entry:
            _sweep(k, start, stop, entry, listed, sums)
    for each, total in enumerate(sums):
        y = f.at("%y", f.multiply(f.add(first, each), k.epilogue.out))
        input_list.emit_epilogue(f, k.v, k.epilogue, total, y)


def _sweep(k: _Body, start: str, stop: str, entry: str, listed: InputList, sums: list[str]) -> None:
    """Add the rows from `entry` on, times their inputs, to the sums of the outputs from `start` to `stop`."""
    f, count = k.f, ROWS[len(sums)]
    entries = [f.add(entry, each) for each in range(2 * count)]
    rows = [_row(k, listed, each) for each in entries]
    inputs = [
        [f.splat(k.v, f.load("float", f.at(values, each))) for values in listed.values]
        for each in entries[:count]
    ]
    width = PASS[len(sums)] * k.v.lanes
    with f.loop(start, stop, width) as place:
        for offset in range(0, width, 2 * k.v.lanes):
            _two_vectors(k, f.add(place, offset), rows[:count], inputs, sums)
        for row in rows[count:]:
            _prefetch(k, row, place, width)


def _row(k: _Body, listed: InputList, entry: str) -> str:
    """Pointer to the weights of an entry of the list."""
    return k.f.at(k.stored.numbers, k.f.multiply(input_list.load_index(k.f, listed, entry), k.stride), "i8")


def _two_vectors(k: _Body, place: str, rows: list[str], inputs: list[list[str]], sums: list[str]) -> None:
    """Add what the rows send to two vectors of outputs, the first of which begins at `place`."""
    f, v = k.f, k.v
    spots = [[f.at(each, f.add(place, offset)) for offset in (0, v.lanes)] for each in sums]
    totals = [[f.load(v, spot) for spot in two] for two in spots]  # by example and vector
    for row, factors in zip(rows, inputs, strict=True):
        weights = two_vectors(replace(k.stored, numbers=row), place)
        totals = [
            [f.multiply_add(v, a, factor, total) for a, total in zip(weights, two, strict=True)]
            for factor, two in zip(factors, totals, strict=True)
        ]
    for two, results in zip(spots, totals, strict=True):
        for spot, result in zip(two, results, strict=True):
            f.store(v, result, spot)


def _prefetch(k: _Body, row: str, place: str, outputs: int) -> None:
    """Ask for the weights of so many outputs of a row."""
    bits = stored_weights.BITS[k.stored.storage]
    begin = k.f.value(f"lshr i64 {k.f.multiply(place, bits)}, 3")
    for offset in range(0, max(1, outputs * bits // 8), LINE):
        k.f.prefetch(k.f.at(row, k.f.add(begin, offset), "i8"), level=2)


KERNELS = stored_weights.kernels("columns", accepts, build, skips="inputs")
