"""a * b + c of float32 tensors, rounded once, as a loop in machine code: in PyTorch it takes ten times as long."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from zeroskip.emit import INTEGER, POINTER, Function, Vector, compile_function, detect
from zeroskip.run.convolution.tiles.quad_numbers import fused

SHORTEST = 8  # numbers in a row below which b and c are written out


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c of float32 numbers, rounded to float32 once, as a fused multiply-add does.

    >>> one = torch.tensor([1.0])
    >>> fma(one + 2**-12, one - 2**-12, -one)  # a product and a sum give 0
    tensor([-5.9605e-08])
    """
    shape = torch.broadcast_shapes(a.shape, b.shape, c.shape)
    total = math.prod(shape)
    counts = [_constant_axes(each, shape) for each in (b, c)]
    axes = min((count for count in counts if count), default=0)
    columns = math.prod(shape[len(shape) - axes :]) if axes else total
    x, y = a.expand(shape).contiguous(), torch.empty(shape)
    others = [
        _first_of_rows(each, shape, axes) if count else each.expand(shape).contiguous()
        for each, count in zip((b, c), counts, strict=True)
    ]
    if total:
        _code(bool(counts[0]), bool(counts[1]))(
            total // columns, columns, *(each.data_ptr() for each in (x, *others, y))
        )
    return y


def _constant_axes(x: Tensor, shape: torch.Size) -> int:
    """How many of the last axes x has one number for; 0 where those are too few numbers."""
    strides = x.expand(shape).stride()
    count = 0
    while count < len(shape) and (strides[-1 - count] == 0 or shape[-1 - count] == 1):
        count += 1
    return count if math.prod(shape[len(shape) - count :]) >= SHORTEST else 0


def _first_of_rows(x: Tensor, shape: torch.Size, axes: int) -> Tensor:
    whole = x.expand(shape)
    for _ in range(axes):
        whole = whole.select(-1, 0)
    return whole.contiguous()


@cache
def _code(b_by_row: bool, c_by_row: bool) -> Callable[..., None]:
    machine = detect()
    v, columns = Vector(machine.vector_bytes // 4, "float"), "%columns"
    f = Function("fma", {"rows": INTEGER, "columns": INTEGER, **dict.fromkeys("xbcy", POINTER)})
    x, b, c, y = (f"%{name}" for name in "xbcy")
    with f.loop(0, "%rows") as row:
        first = f.multiply(row, columns)
        by_row = [f.splat(v, f.load("float", f.at(each, row))) if is_by_row else ""
                  for each, is_by_row in ((b, b_by_row), (c, c_by_row))]  # fmt: skip
        with f.loop(0, columns, v.lanes) as column:
            at, mask = f.add(first, column), f.below(v.lanes, f.subtract(columns, column))
            one, other = (
                known or f.load_masked(v, mask, f.at(each, at))
                for known, each in zip(by_row, (b, c), strict=True)
            )
            value = fused(f, v, machine, f.load_masked(v, mask, f.at(x, at)), one, other)
            f.store_masked(v, mask, value, f.at(y, at))
    return compile_function(f.text(machine), f.name, machine, 6)
