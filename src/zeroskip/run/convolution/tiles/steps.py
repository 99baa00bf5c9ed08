"""What a compiled part of a network consists of: steps in machine code that work on one block of memory.

Every step is a function (plan, base) of two addresses: what it does lies in its plan, and all feature maps lie in
the *workspace* that starts at `base`. Code and plans never change, so several threads may run the same steps, each
in a workspace of its own. The first words of a workspace hold the addresses of the network's own tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, vector
from zeroskip.emit.python_call import address
from zeroskip.run.machine_code import Plan, plan

ARGUMENTS = {"plan": POINTER, "base": POINTER}


@dataclass(frozen=True)
class Step:
    """One piece of work: the function at an address, and its plan. `name` is for people, `node` for the choice."""

    name: str
    node: str
    code: Callable[..., None]
    plan: Plan


@dataclass(frozen=True)
class Chain:
    """Steps in running order, ready for one call (base); `run` works only as long as the chain lives."""

    run: Callable[[int], None]
    steps: tuple[Step, ...]
    alive: tuple[object, ...]


def step(name: str, node: str, code: Callable[..., None], *parts: int | np.ndarray) -> Step:
    """A step whose plan holds `parts`.

    >>> step("halo", "conv1", compiled, len(rows), rows).name
    'halo'
    """
    return Step(name, node, code, plan(*parts))


def joined(steps: Sequence[Step], machine: Machine) -> Chain:
    """All steps in one call.

    >>> chain = joined(steps, detect())
    >>> chain.run(base)
    """
    table = np.array([[address(each.code), each.plan.address] for each in steps], np.int64).reshape(-1, 2)
    whole = plan(len(steps), table)
    return Chain(partial(_runner(machine), whole.address), tuple(steps), (whole, *steps))


def function(name: str) -> Function:
    """An empty step, to be written.

    >>> function("halo").name
    'halo'
    """
    return Function(name, ARGUMENTS)


def compiled(f: Function, machine: Machine) -> Callable[..., None]:
    """A step's code for this machine.

    >>> compiled(f, detect())(plan.address, base)
    """
    return compile_function(f.text(machine), f.name, machine, len(ARGUMENTS))


def lanes_of(f: Function, lanes: int, bits: str) -> str:
    """The mask (i1 for each lane) of the low bits of a 64-bit integer.

    >>> lanes_of(f, 16, "%v1")
    '%v3'
    """
    few = f.value(f"trunc i64 {bits} to i{lanes}")
    return f.value(f"bitcast i{lanes} {few} to {vector(lanes, 'i1')}")


def kept(
    f: Function, lanes: int, mask: str, value: str, other: str = "zeroinitializer", *, element: str = "float"
) -> str:
    """`value` in the lanes of the mask, `other` elsewhere.

    >>> kept(f, 16, mask, value)
    '%v9'
    """
    kind = vector(lanes, element)
    return f.value(f"select {vector(lanes, 'i1')} {mask}, {kind} {value}, {kind} {other}")


def activated(
    f: Function, lanes: int, value: str, relu: bool, most: float | None, *, element: str = "float"
) -> str:
    """`value` after a ReLU and an upper bound, where there are; NaN stays NaN.

    >>> activated(f, 16, value, True, 6.0)
    '%v12'
    """
    kind = vector(lanes, element)
    value = f.relu(lanes, value, element=element) if relu else value
    if most is None:
        return value
    bound = constant(f, lanes, most, element=element)
    above = f.value(f"fcmp ogt {kind} {value}, {bound}")
    return f.value(f"select {vector(lanes, 'i1')} {above}, {kind} {bound}, {kind} {value}")


def constant(f: Function, lanes: int, value: float, *, element: str = "float") -> str:
    """The vector with `value` in every lane.

    >>> constant(f, 16, 6.0)
    '%v4'
    """
    if element == "half":
        return f.splat(lanes, f"0xH{np.float16(value).view(np.uint16):04X}", element)
    # LLVM writes a float as the bits of the double that is equal to it.
    bits = struct.unpack("<Q", struct.pack("<d", float(np.float32(value))))[0]
    return f.splat(lanes, f"0x{bits:016X}")


def seconds_by_node(sequence: Chain, base: int, clock: Callable[[], float]) -> Mapping[str, float]:
    """Seconds that the steps of each node take, run one by one.

    >>> seconds_by_node(sequence, base, time.perf_counter)
    {'conv1': 0.00012}
    """
    spent: dict[str, float] = {}
    for each in sequence.steps:
        start = clock()
        each.code(each.plan.address, base)
        spent[each.node] = spent.get(each.node, 0.0) + clock() - start
    return spent


@cache
def _runner(machine: Machine) -> Callable[..., None]:
    f = function("steps")
    count, table = f.fields("%plan", [INTEGER, POINTER])
    with f.loop(0, count) as number:
        code, arguments = f.fields(f.at(table, f.multiply(number, 2), INTEGER), [POINTER] * 2)
        f.do(f"call void {code}(ptr {arguments}, ptr %base)")
    return compiled(f, machine)
