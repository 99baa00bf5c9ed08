"""The steps of one layer in one direction, in machine code: one signature for all kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, compile_function
from zeroskip.run.argument_block import ArgumentBlock

# plan     the argument block
# x        (steps, batch, in) or the other way round; of no use where `sums` holds the products
# sums     what the gates begin with: the products of the input matrix, or its bias at all steps
# y        the outputs
# h, c     (batch, states), (batch, units): the first states, which become the last
# scratch  working memory
# The others are numbers: how many, and by how many floats one step or example lies behind another.
PARAMETERS = {
    **dict.fromkeys(("plan", "x", "sums", "y", "h", "c", "scratch"), POINTER),
    **dict.fromkeys(("steps", "batch"), INTEGER),
    **dict.fromkeys(("x_step", "x_example", "sums_step", "sums_example", "y_step", "y_example"), INTEGER),
}


@dataclass(frozen=True)
class Steps:
    """The steps as code, its argument block, and the floats of working memory that a call needs."""

    run: Callable[..., None]
    arguments: ArgumentBlock
    scratch: int


@cache
def compiled(emit: Callable[..., Function], machine: Machine, *form: str | int) -> Callable[..., None]:
    """What `emit(machine, *form)` writes as machine code; the same form is compiled once."""
    f = emit(machine, *form)
    return compile_function(f.text(machine), f.name, machine, len(PARAMETERS))


def at(f: Function, pointer: str, step: str | int, example: str | int) -> str:
    """Where the numbers of an example at a step begin in "x", "sums" or "y"."""
    first = f.at(f"%{pointer}", f.multiply(f"%{pointer}_step", step))
    return f.at(first, f.multiply(f"%{pointer}_example", example))
