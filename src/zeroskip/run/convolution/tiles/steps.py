"""What a segment consists of: steps in machine code that work on one block of memory, and the epilogue of sums.

Every step is a function (arguments, base) of two addresses: its argument block says what to do, and all feature maps
lie in the *workspace* that starts at `base`. Code and argument blocks never change, so several threads may run the
same steps, each in a workspace of its own. The first words of a workspace hold the addresses of the network's own
tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector, compile_function
from zeroskip.emit.python_call import address
from zeroskip.run.argument_block import ArgumentBlock, argument_block
from zeroskip.run.convolution.tiles.activation import Activation, activated
from zeroskip.run.convolution.tiles.shared_weights import SharedWeights

ARGUMENTS = {"plan": POINTER, "base": POINTER}


@dataclass(frozen=True)
class Step:
    """One piece of work: compiled code and its argument block.

    name  of the kind of work, for people
    node  of the graph that it is done for
    weights  what it has in memory that maps of other sizes can use
    """

    name: str
    node: str
    code: Callable[..., None]
    arguments: ArgumentBlock
    weights: SharedWeights | None = None


@dataclass(frozen=True)
class Chain:
    """Steps in running order, ready for one call (base); `run` works only as long as the chain lives."""

    run: Callable[[int], None]
    steps: tuple[Step, ...]
    alive: tuple[object, ...]


def joined(steps: Sequence[Step], machine: Machine) -> Chain:
    """All steps in one call."""
    table = [(address(step.code), step.arguments.address) for step in steps]
    whole = argument_block(len(steps), np.array(table, np.int64).reshape(-1, 2))
    return Chain(partial(_runner(machine), whole.address), tuple(steps), (whole, *steps))


def seconds_by_node(
    chain: Chain, base: int, clock: Callable[[], float], reading: float = 0.0
) -> Mapping[str, float]:
    """Seconds that the steps of each node take, run one by one; reading the clock takes `reading` seconds of them."""
    spent: dict[str, float] = {}
    for (_, node), seconds in seconds_by_step(chain, base, clock, reading).items():
        spent[node] = spent.get(node, 0.0) + seconds
    return spent


def seconds_by_step(
    chain: Chain, base: int, clock: Callable[[], float], reading: float = 0.0
) -> Mapping[tuple[str, str], float]:
    """(name of the kind of work, node) -> the seconds that these steps take, run one by one."""
    times = [clock()]
    for each in chain.steps:
        each.code(each.arguments.address, base)
        times.append(clock())
    spent: dict[tuple[str, str], float] = {}
    for each, start, end in zip(chain.steps, times, times[1:], strict=False):
        key = each.name, each.node
        spent[key] = spent.get(key, 0.0) + max(0.0, end - start - reading)
    return spent


def function(name: str, kinds: Sequence[str]) -> tuple[Function, list[str]]:
    """A step to be written, and the fields of its argument block, of these types."""
    f = Function(name, ARGUMENTS)
    return f, f.fields("%plan", kinds)


def compiled(f: Function, machine: Machine) -> Callable[..., None]:
    """A step's code for this machine."""
    return compile_function(f.text(machine), f.name, machine, len(ARGUMENTS))


def at_offset(f: Function, offsets: str, index: str) -> str:
    """Pointer into the workspace: the array `offsets` holds its byte offset at `index`."""
    return f.at("%base", f.load(INTEGER, f.at(offsets, index, INTEGER)), "i8")


def mask_at(f: Function, v: Vector, masks: str, index: str) -> str:
    """The mask of lanes whose bits the array `masks` of 64-bit integers holds at `index`."""
    return lanes_of(f, v, f.load(INTEGER, f.at(masks, index, INTEGER)))


def lanes_of(f: Function, v: Vector, bits: str) -> str:
    """The mask (i1 for each lane) of the low bits of a 64-bit integer."""
    few = f.value(f"trunc i64 {bits} to i{v.lanes}")
    return f.value(f"bitcast i{v.lanes} {few} to {v.mask}")


def kept(f: Function, v: Vector, mask: str, value: str, other: str = "zeroinitializer") -> str:
    """`value` in the lanes of the mask, `other` elsewhere."""
    return f.value(f"select {v.mask} {mask}, {v} {value}, {v} {other}")


@dataclass(frozen=True)
class Epilogue:
    """What is done to a sum, in this order; the bias is no part of it, since sums begin with it.

    residual    the number at the same pixel of another map is added
    activation  then follows
    """

    residual: bool = False
    activation: Activation | None = None


def finished(f: Function, v: Vector, epilogue: Epilogue, sums: str, residual: str | None, mask: str) -> str:
    """The sums after the epilogue, 0 in lanes outside `mask`; `residual` is a pointer. NaN stays NaN."""
    if epilogue.residual:
        sums = f.value(f"fadd {v} {sums}, {f.load(v, str(residual))}")
    if epilogue.activation is not None:
        sums = activated(f, v, epilogue.activation, sums)
    return kept(f, v, mask, sums)


@cache
def _runner(machine: Machine) -> Callable[..., None]:
    f, (count, table) = function("steps", [INTEGER, POINTER])
    with f.loop(0, count) as number:
        code, block = f.fields(f.at(table, f.multiply(number, 2), INTEGER), [POINTER] * 2)
        f.do(f"call void {code}(ptr {block}, ptr %base)")
    return compiled(f, machine)
