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

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, vector
from zeroskip.emit.executable_memory import room
from zeroskip.run.dense import pytorch
from zeroskip.run.linear.stored_weights import BITS, KINDS, TABLE, packed_halves, pair, rounded
from zeroskip.run.linear.zero_inputs.dense_fallback import FallingBack
from zeroskip.run.linear.zero_inputs.input_list import PAD, List, clear, finish, listed, place_of, refusal
from zeroskip.run.machine_code import ARGUMENTS, Compiled, Plan, arrays, plan

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


def accepts(kind: str, layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer cannot be stored as `kind` says, or has nothing to gain; any machine will do.

    >>> accepts("fp32", layer_of_100_weights, detect(), Precision())
    '100 weights are multiplied faster than zeros are found'
    """
    reason = refusal(layer)
    if reason is None and kind not in ("fp32", precision.weights):
        reason = f"{precision.weights} weights were asked for"
    if reason is None and kind in ("int8", "codes") and not bool(layer.weight.isfinite().all()):
        reason = "weights that are not finite have neither a scale nor a code"
    if reason is None and kind == "codes" and len(_distinct(layer.weight)) > TABLE:
        reason = f"more than {TABLE} distinct weights, zero among them, and 4 bits number {TABLE}"
    return reason


def build(
    kind: str, layer: Layer, machine: Machine, precision: Precision, relu: bool, *, fall_back: bool = True
) -> Compiled | FallingBack:
    """The layer as a function of its float32 input (..., in); weights are copied, and stored as `kind` says.

    A zero input is skipped, so its product with an infinite or NaN weight is 0 here and NaN in PyTorch, unless
    another of four examples needs the weight. With `fall_back`, PyTorch computes large batches that have too few
    zeros, if the layer is beyond the caches and nothing is rounded; all else takes no longer here without zeros.

    >>> build("int8", layer, detect(), Precision(weights="int8"), True)(torch.zeros(2, 64)).shape
    torch.Size([2, 300])
    """
    out, inputs = layer.weight.shape
    length = inputs + PAD  # of a list: places for all examples, and values for each
    scratch = TOGETHER * (_whole(kind, out) + length) + length
    run, weights = _compiled(machine, kind, relu), _rows(kind, layer, machine)
    skipping = Compiled(run, weights, inputs, out, machine, scratch)
    if not fall_back or kind != "fp32" or 4 * layer.weight.numel() < CACHED:
        return skipping
    return FallingBack(skipping, pytorch.build(layer, machine, precision, relu), MANY, DENSEST)


def _whole(kind: str, out: int) -> int:
    """Outputs in a stored row, of which the last ones may be nobody's: whole steps of the kernel and cache lines."""
    step = max(64, 8 * LINE // BITS[kind])
    return -(-out // step) * step


def _rows(kind: str, layer: Layer, machine: Machine) -> Plan:
    """The weight input by input, and one row of zeros, in the order in which `emit` reads it."""
    (out, inputs), (_, bias) = layer.weight.shape, arrays(layer)
    whole = _whole(kind, out)
    # One line more: rows of a power of two bytes would all compete for the same few places of the caches.
    stride = whole * BITS[kind] // 8 + LINE
    memory = room((inputs + 1) * stride).reshape(inputs + 1, stride)
    weight = layer.weight.detach()
    scale, table = np.ones(out, np.float32), np.zeros(TABLE, np.float32)
    if kind == "fp32":
        _view(memory, np.float32, out)[:] = weight.T
    if kind == "bf16":
        _view(memory, np.int16, out)[:] = weight.bfloat16().view(torch.int16).T
    if kind == "int8":
        # A row of zeros has any scale but 0.
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(weight.dtype).tiny)
        _view(memory, np.int8, out)[:] = (weight / scales[:, None]).round().T
        scale = scales.numpy()
    if kind == "codes":
        distinct = _distinct(weight)
        table[: len(distinct)] = distinct.numpy()
        numbers = np.zeros((inputs, whole), np.uint8)
        torch.from_numpy(numbers)[:, :out] = torch.searchsorted(distinct, weight).T
        lanes = machine.vector_bytes // 4
        memory[:-1, : whole // 2] = packed_halves(numbers.reshape(-1, lanes)).reshape(inputs, -1)
    return plan(out, whole, stride, inputs, memory.ctypes.data, scale, bias, table, alive=(memory,))


def _view(memory: np.ndarray, dtype: type, out: int) -> Tensor:
    """The numbers in the rows of all inputs (in, out), to be written."""
    return torch.from_numpy(memory[:-1].view(dtype)[:, :out])


def _distinct(weight: Tensor) -> Tensor:
    """The distinct weights in ascending order, or some of them if they are too many for codes."""
    found = weight.new_empty(0)
    for row in weight.detach():
        if len(found) <= TABLE:
            found = torch.cat([found, row]).unique()
    return found


def _reference(kind: str, layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in plain PyTorch, of weights as they are stored."""
    return pytorch.reference(replace(layer, weight=rounded(kind, layer.weight)), x, relu)


@cache
def _compiled(machine: Machine, kind: str, relu: bool) -> Callable[..., None]:
    return compile_function(emit(machine, kind, relu=relu).text(machine), "columns", machine, len(ARGUMENTS))


@dataclass(frozen=True)
class _Kernel:
    """The function being written, what it is written for, and the values that its plan holds."""

    f: Function
    machine: Machine
    kind: str
    relu: bool
    out: str
    whole: str
    stride: str
    inputs: str
    numbers: str
    scale: str
    bias: str
    table: str

    @property
    def lanes(self) -> int:
        return self.machine.vector_bytes // 4


def emit(machine: Machine, kind: str, *, relu: bool) -> Function:
    """The kernel in LLVM IR: outputs over the lanes.

    >>> emit(detect(), "int8", relu=False).name
    'columns'
    """
    f = Function("columns", ARGUMENTS)
    k = _Kernel(f, machine, kind, relu, *f.fields("%plan", [INTEGER] * 4 + [POINTER] * 4))
    with f.loop(0, "%rows", TOGETHER) as first:
        left = f.smaller(TOGETHER, f.value(f"sub i64 %rows, {first}"))
        done = f.slot(INTEGER, "0")
        with f.loop(0, f.value(f"udiv i64 {left}, {TOGETHER}")):
            found = _listed(k, first, TOGETHER)
            saved = _saved(f, found)
            with f.loop(0, saved):
                _compute(k, first, found)
            f.store(INTEGER, f.multiply(saved, TOGETHER), done)
        with f.loop(f.load(INTEGER, done), left) as offset:
            example = f.add(first, offset)
            _compute(k, example, _listed(k, example, 1))
    return f


def _listed(k: _Kernel, first: str, examples: int) -> List:
    """The list of so many examples from `first` on, behind the sums in scratch."""
    xs = [k.f.at("%x", k.f.multiply(k.f.add(first, each), k.inputs)) for each in range(examples)]
    return listed(k.f, k.lanes, k.f.at("%scratch", k.f.multiply(k.whole, examples)), k.inputs, xs)


def _saved(f: Function, found: List) -> str:
    """1 if sharing rows saves a fifth of reading them, which pays for multiplying some with zeros; otherwise 0."""
    shorter = f.value(f"icmp sle i64 {f.multiply(found.count, 5)}, {f.multiply(found.single, 4)}")
    return f.value(f"zext i1 {shorter} to i64")


def _compute(k: _Kernel, first: str, found: List) -> None:
    """The outputs of the examples of a list, from `first` on."""
    f, examples = k.f, len(found.values)
    sums = [f.at("%scratch", f.multiply(k.whole, each)) for each in range(examples)]
    clear(f, k.lanes, "%scratch", f.multiply(k.whole, examples))
    with f.loop(0, k.whole, BLOCK[examples]) as start:
        stop = f.smaller(k.whole, f.add(start, BLOCK[examples]))
        with f.loop(0, found.count, ROWS[examples]) as entry:
            _sweep(k, start, stop, entry, found, sums)
    for each, total in enumerate(sums):
        y = f.at("%y", f.multiply(f.add(first, each), k.out))
        finish(f, k.lanes, total, y, k.out, k.scale, k.bias, relu=k.relu)


def _sweep(k: _Kernel, start: str, stop: str, entry: str, found: List, sums: list[str]) -> None:
    """Add the rows from `entry` on, times their inputs, to the sums of the outputs from `start` to `stop`."""
    f, count = k.f, ROWS[len(sums)]
    entries = [f.add(entry, each) for each in range(2 * count)]
    rows = [_row(k, found, each) for each in entries]
    inputs = [
        [f.splat(k.lanes, f.load("float", f.at(values, each))) for values in found.values]
        for each in entries[:count]
    ]
    outputs = PASS[len(sums)] * k.lanes
    with f.loop(start, stop, outputs) as place:
        for offset in range(0, outputs, 2 * k.lanes):
            _two_vectors(k, f.add(place, offset), rows[:count], inputs, sums)
        for row in rows[count:]:
            _ask(k, row, place, outputs)


def _row(k: _Kernel, found: List, entry: str) -> str:
    """Pointer to the weights of an entry of the list."""
    return k.f.at(k.numbers, k.f.multiply(place_of(k.f, found, entry), k.stride), "i8")


def _two_vectors(k: _Kernel, place: str, rows: list[str], inputs: list[list[str]], sums: list[str]) -> None:
    """Add what the rows send to two vectors of outputs, the first of which begins at `place`."""
    f, kind = k.f, vector(k.lanes)
    spots = [[f.at(each, f.add(place, offset)) for offset in (0, k.lanes)] for each in sums]
    totals = [[f.load(kind, spot) for spot in two] for two in spots]  # by example and vector
    for row, factors in zip(rows, inputs, strict=True):
        weights = pair(f, k.machine, k.kind, k.lanes, row, place, k.table)
        totals = [
            [f.multiply_add(k.lanes, a, factor, total) for a, total in zip(weights, two, strict=True)]
            for factor, two in zip(factors, totals, strict=True)
        ]
    for two, results in zip(spots, totals, strict=True):
        for spot, result in zip(two, results, strict=True):
            f.store(kind, result, spot)


def _ask(k: _Kernel, row: str, place: str, outputs: int) -> None:
    """Ask for the weights of so many outputs of a row."""
    begin = k.f.value(f"lshr i64 {k.f.multiply(place, BITS[k.kind])}, 3")
    for offset in range(0, max(1, outputs * BITS[k.kind] // 8), LINE):
        k.f.prefetch(k.f.at(row, k.f.add(begin, offset), "i8"), level=2)


KERNELS = tuple(
    Kernel(
        f"columns_{kind}",
        "columns",
        partial(accepts, kind),
        partial(build, kind),
        # Those that round nothing have the reference of the others, which marks them as exact.
        partial(_reference, kind) if kind in ("bf16", "int8") else pytorch.reference,
        weights=kind,
        skips="inputs",
    )
    for kind in KINDS
)
