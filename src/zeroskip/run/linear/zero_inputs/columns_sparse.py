"""Linear layers with zeros on both sides: only weights that are not zero are read, for inputs that are not zero.

As in `columns`, the weight is stored input by input and swept over the outputs, several non-zero inputs at a time.
What an input sends to 64 outputs is stored as a mask of 64 bits, followed by the weights that are not zero. One
instruction (vexpandps) spreads 16 of them over their lanes. Where the next ones begin follows from the mask alone,
so that no load waits for another. That takes three times as long as multiplying 16 weights in the caches would: it
pays by what it does not read. On Zen 5, at 90 % zero inputs, 11008 -> 4096 took half as long as with `columns` where
90 % of the weights are zero as well, three quarters where 70 % are, and as long where half of them are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.emit.executable_memory import allocate
from zeroskip.run.argument_block import ArgumentBlock, argument_block, offsets
from zeroskip.run.dense import pytorch
from zeroskip.run.linear.compiled_linear import (
    CompiledLinear,
    DenseFallback,
    compiled,
    compiled_layer,
    kernel,
)
from zeroskip.run.linear.stored_weights import arrays
from zeroskip.run.linear.zero_inputs import input_list
from zeroskip.run.linear.zero_inputs.input_list import PAD, InputList, LinearEpilogue

LANES = 16
FLOATS = Vector(LANES)
GROUP = 64  # outputs under one mask
ROWS = 4  # inputs in one sweep: more were no faster
LINES = 2  # that are asked for in each group: as many as it fills at half of the weights
LEAST = 0.6  # share of zero weights from which masks are worth their bytes
# Examples from which PyTorch is faster where a larger share of the inputs is not zero.
MANY, DENSEST = 16, 0.5
BLOCK = 256  # inputs that are stored at a time, to need little memory beside the result


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why skipping zeros on both sides gains nothing for this layer and machine."""
    reason = input_list.refusal(layer)
    if reason is None and machine.vector_bytes != 64:
        reason = "needs the expansion of AVX-512"
    if reason is None and (sparsity := layer.sparsity) < LEAST:
        reason = f"{sparsity:.0%} zeros in the weight: masks are worth their bytes from {LEAST:.0%} on"
    return reason


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> DenseFallback:
    """The layer as a function of its float32 input (..., in); PyTorch computes batches that have too few zeros."""
    whole = pytorch.build(layer, machine, precision, relu)
    return DenseFallback(without_fallback(layer, machine, relu), whole, MANY, DENSEST)


def without_fallback(layer: Layer, machine: Machine, relu: bool) -> CompiledLinear:
    """The layer with the zeros of its input skipped, however few there are.

    A zero input is skipped, so its product with an infinite or NaN weight is 0 here and NaN in PyTorch. A zero weight
    is not read, but multiplied: an infinite input does to it what it does in PyTorch.
    """
    out, inputs = layer.weight.shape
    scratch = _whole(out) + 2 * (inputs + PAD)
    return compiled_layer(layer, machine, compiled(emit, machine, relu), _streams(layer), scratch=scratch)


def _whole(out: int) -> int:
    return -(-out // GROUP) * GROUP


def _streams(layer: Layer) -> ArgumentBlock:
    """What each input sends, one stream after the other, and that of an input which sends nothing."""
    (out, inputs), (weight, bias) = layer.weight.shape, arrays(layer)
    groups = _whole(out) // GROUP
    counts = np.count_nonzero(weight, axis=0)
    begin = offsets([*(2 * groups + counts), 2 * groups])  # in words of 4 bytes
    memory = allocate(4 * int(begin[-1] + LANES)).view(np.uint32)  # a vector is read from the last weights on
    for first in range(0, inputs, BLOCK):
        words = _streamed(weight[:, first : first + BLOCK].T)
        memory[begin[first] :][: len(words)] = words
    parts = out, _whole(out), inputs, begin, memory.ctypes.data, bias, np.ones_like(bias)
    return argument_block(*parts, alive=(memory,))


def _streamed(columns: np.ndarray) -> np.ndarray:
    """The streams of inputs (inputs, out) as words of 4 bytes: for each group its mask, then its weights."""
    padded = np.zeros((len(columns), _whole(columns.shape[1])), np.float32)
    padded[:, : columns.shape[1]] = columns
    grouped = padded.reshape(-1, GROUP)
    present = grouped != 0
    place = offsets(2 + present.sum(axis=1))
    words = np.zeros(place[-1], np.uint32)
    masks = np.packbits(present, axis=1, bitorder="little").view(np.uint32)
    words[place[:-1, None] + np.arange(2)] = masks
    is_weight = np.ones(len(words), bool)
    is_weight[place[:-1]] = is_weight[place[:-1] + 1] = False
    words[is_weight] = grouped[present].view(np.uint32)
    return words


def emit(machine: Machine, relu: bool) -> Function:
    """The kernel in LLVM IR: outputs over the lanes."""
    f, (out, whole, inputs, begin, words, bias, ones) = kernel("columns_sparse", 3, 4)
    v = FLOATS
    with f.loop(0, "%rows") as example:
        x, y = f.at("%x", f.multiply(example, inputs)), f.at("%y", f.multiply(example, out))
        listed = input_list.emit_input_list(f, v, f.at("%scratch", whole), inputs, [x])
        input_list.emit_zeros(f, v, "%scratch", whole)
        with f.loop(0, listed.count, ROWS) as entry:
            _sweep(f, whole, entry, listed, begin, words)
        input_list.emit_epilogue(f, v, LinearEpilogue(out, ones, bias, relu), "%scratch", y)
    return f


def _sweep(f: Function, whole: str, entry: str, listed: InputList, begin: str, words: str) -> None:
    """Add what the inputs from `entry` on send, times their values, to all sums."""
    v, entries = FLOATS, [f.add(entry, each) for each in range(2 * ROWS)]
    places = [
        f.load(INTEGER, f.at(begin, input_list.load_index(f, listed, each), INTEGER)) for each in entries
    ]
    factors = [f.splat(v, f.load("float", f.at(listed.values[0], each))) for each in entries[:ROWS]]
    # Streams of about the same length: the next ones are asked for as far on as those in use have come.
    ahead = [f.value(f"sub i64 {places[each + ROWS]}, {places[each]}") for each in range(ROWS)]
    streams = [f.slot(POINTER, f.at(words, place)) for place in places[:ROWS]]
    with f.loop(0, whole, GROUP) as place:
        spots = [f.at("%scratch", f.add(place, offset)) for offset in range(0, GROUP, LANES)]
        totals = [f.load(v, spot) for spot in spots]
        for stream, factor, way in zip(streams, factors, ahead, strict=True):
            group = f.load(POINTER, stream)
            for line in range(LINES):
                f.prefetch(f.at(f.at(group, way), 64 * line, "i8"), level=2)
            weights, after = _group(f, group)
            totals = [
                f.multiply_add(v, each, factor, total) for each, total in zip(weights, totals, strict=True)
            ]
            f.store(POINTER, after, stream)
        for spot, total in zip(spots, totals, strict=True):
            f.store(v, total, spot)


def _group(f: Function, group: str) -> tuple[Sequence[str], str]:
    """The vectors of weights under one mask, with their zeros, and a pointer to what follows them."""
    v = FLOATS
    mask = f.value(f"load i64, ptr {group}, align 4")
    first = f.at(group, 2)
    after, weights = first, []
    for part in range(GROUP // LANES):
        bits = f.value(f"bitcast i16 {f.load('i16', f.at(group, part, 'i16'))} to {v.mask}")
        name = f"llvm.masked.expandload.{v.suffix}"
        weights.append(f.call(v, name, f"ptr {after}", f"{v.mask} {bits}", f"{v} zeroinitializer"))
        before = f.value(f"and i64 {mask}, {(1 << LANES * (part + 1)) - 1}")
        after = f.at(first, f.call(INTEGER, "llvm.ctpop.i64", f"i64 {before}"))
    return weights, after


KERNEL = Kernel("columns_sparse", "columns_sparse", accepts, build, pytorch.reference, skips="both")
