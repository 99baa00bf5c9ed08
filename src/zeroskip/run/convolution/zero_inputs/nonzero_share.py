"""The non-zero share of an input, estimated quickly, and the share from which on PyTorch is faster."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector, compile_function
from zeroskip.run.timing import Clock, stop_watch

PIECE = 256  # floats looked at in a row
PIECES = 256  # of them, spread over an input: larger ones are sampled
TRIED = (0.2, 0.6)  # shares that are timed
ROUNDS = 3


def nonzero_share(x: Tensor, machine: Machine) -> float:
    """Share of the values of a contiguous float32 tensor that are not 0, estimated; NaN counts as one.

    >>> nonzero_share(torch.tensor([0.0, 1.0]).repeat(256), any_machine)
    0.5
    """
    pieces = x.numel() // PIECE
    if not pieces:
        return int(torch.count_nonzero(x)) / max(1, x.numel())
    # An odd step meets all channels, of which there often is a power of two.
    step = -(-pieces // PIECES) | 1
    nonzeros = ctypes.c_int64()
    _counter(machine)(x.data_ptr(), pieces, step, ctypes.addressof(nonzeros))
    return nonzeros.value / (PIECE * -(-pieces // step))


@cache
def _counter(machine: Machine) -> Callable[..., None]:
    f = Function("density", {"x": POINTER, "pieces": INTEGER, "step": INTEGER, "found": POINTER})
    v = Vector(machine.vector_bytes // 4)
    total = f.slot(INTEGER, "0")
    with f.loop(0, "%pieces", "%step") as piece:
        for start in range(0, PIECE, v.lanes):
            values = f.load(v, f.at("%x", f.add(f.multiply(piece, PIECE), start)))
            mask = f.value(f"fcmp une {v} {values}, zeroinitializer")
            f.store(INTEGER, f.add(f.load(INTEGER, total), f.count(v.lanes, mask)), total)
    f.store(INTEGER, f.load(INTEGER, total), "%found")
    return compile_function(f.text(machine), "density", machine, 4)


def break_even(
    skipping: Callable[[Tensor], Tensor], dense: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> float:
    """The non-zero share of an input (batch, channels, height, width) above which `dense` is faster, 0..1.

    Both are timed on random inputs: the time of one grows with the share, that of the other does not.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(shape, generator=generator).contiguous(memory_format=torch.channels_last)
    sparse, denser = (torch.where(drawn < share, drawn, 0.0) for share in TRIED)
    calls = (lambda: dense(denser), lambda: skipping(sparse), lambda: skipping(denser))
    clock = stop_watch()
    rounds = [[_seconds(call, clock) for call in calls] for _ in range(ROUNDS)]
    return meeting(*(min(times) for times in zip(*rounds, strict=True)))


def meeting(limit: float, low: float, high: float) -> float:
    """The share, 0..1, at which what takes `low` and `high` seconds at the two of `TRIED` takes `limit`.

    >>> meeting(2.0, 1.0, 3.0)
    0.4
    """
    more = max(high - low, 1e-9) / (TRIED[1] - TRIED[0])
    return min(1.0, max(0.0, TRIED[0] + (limit - low) / more))


def _seconds(call: Callable[[], Tensor], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
