"""What happens to sums before they are stored: a residual, an activation, zeros in lanes without pixels."""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.emit import Function, Vector
from zeroskip.run.convolution.tiles.steps import constant, kept


@dataclass(frozen=True)
class Epilogue:
    """What is done to a sum, in this order; the bias is no part of it, since sums begin with it.

    residual  the number at the same pixel of another map is added
    relu      what is below 0 becomes 0
    bound     what is above becomes the bound, as in ReLU6; None: there is none
    """

    residual: bool = False
    relu: bool = False
    bound: float | None = None


def finished(f: Function, v: Vector, epilogue: Epilogue, sums: str, residual: str | None, mask: str) -> str:
    """The sums after the epilogue, 0 in lanes outside `mask`; `residual` is a pointer. NaN stays NaN."""
    if epilogue.residual:
        sums = f.value(f"fadd {v} {sums}, {f.load(v, str(residual))}")
    if epilogue.relu:
        sums = f.relu(v, sums)
    if epilogue.bound is not None:
        bound = constant(f, v, epilogue.bound)
        above = f.value(f"fcmp ogt {v} {sums}, {bound}")
        sums = f.value(f"select {v.mask} {above}, {v} {bound}, {v} {sums}")
    return kept(f, v, mask, sums)
