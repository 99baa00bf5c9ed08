"""What the kernels in machine code have in common: their memory, how they are called, and calling several at once.

Such a kernel is a function (plan, x (rows, in), y (rows, out), scratch, rows) of four addresses and a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine, Precision, weight_sparsity
from zeroskip.emit import INTEGER, POINTER, Function, compile_function
from zeroskip.emit.executable_memory import room
from zeroskip.emit.python_call import address
from zeroskip.errors import EngineError

ARGUMENTS = {"plan": POINTER, "x": POINTER, "y": POINTER, "scratch": POINTER, "rows": INTEGER}

# Column numbers are stored in 16 bits: half the memory traffic of 32, and wide enough for all but giants.
WIDEST = 1 << 16

FEW, LARGE = 0.01, 1 << 20


@dataclass(frozen=True)
class Plan:
    """Numbers and arrays that machine code finds behind one address.

    address  of a table with 8 bytes for each: the number, or the address of the array
    alive    the memory behind it, which lives as long as the plan
    """

    address: int
    alive: tuple[object, ...]


@dataclass(frozen=True)
class Compiled:
    """Linear layers in machine code: a float32 tensor (..., inputs) -> (..., outputs).

    scratch          floats of working memory that a call needs,
    scratch_per_row  and as many more for each row of the input
    spare            working memory of calls that are over, where all calls need as much
    """

    run: Callable[..., None]
    plan: Plan
    inputs: int
    outputs: int
    machine: Machine
    scratch: int = 0
    scratch_per_row: int = 0
    spare: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        shape = x.shape
        # Machine code believes what it is told: a wrong size would make it read foreign memory.
        if shape[-1] != self.inputs or x.dtype is not torch.float32:
            raise EngineError(
                f"the layer takes float32 (..., {self.inputs}), and was given {x.dtype} {tuple(shape)}."
            )
        x = x if x.is_contiguous() else x.contiguous()
        rows = x.numel() // self.inputs
        y = torch.empty(*shape[:-1], self.outputs)
        scratch = self._scratch(rows)
        self.run(self.plan.address, x.data_ptr(), y.data_ptr(), scratch.data_ptr(), rows)
        if not self.scratch_per_row:
            self.spare.append(scratch)
        return y

    def _scratch(self, rows: int) -> Tensor:
        """Working memory that no other call has: several threads may run the same layer."""
        if self.scratch_per_row:
            return torch.empty(self.scratch + self.scratch_per_row * rows)
        try:
            return self.spare.pop()
        except IndexError:
            return torch.empty(self.scratch)


def plan(*parts: int | np.ndarray, alive: Sequence[object] = ()) -> Plan:
    """The plan that holds `parts` in this order, and keeps `alive` besides.

    >>> len(plan(300, np.zeros(4, np.float32)).alive)
    1
    """
    arrays = [np.ascontiguousarray(part) for part in parts if not isinstance(part, int)]
    begin = 64 * starts(
        [-(-array.nbytes // 64) for array in arrays]
    )  # seldom does a vector lie across two lines
    memory = room(int(begin[-1]) + 8 * len(parts))
    for array, start in zip(arrays, begin, strict=False):
        memory[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    addresses = iter((memory.ctypes.data + begin).tolist())
    fields = [part if isinstance(part, int) else next(addresses) for part in parts]
    memory[begin[-1] :].view(np.int64)[:] = fields
    return Plan(memory.ctypes.data + int(begin[-1]), (memory, *alive))


def sequence(layers: Sequence[Compiled]) -> Compiled:
    """The layers one after the other, in one call: for small networks a call costs more than its arithmetic.

    >>> sequence([fc1, fc2, fc3])(torch.zeros(1, 784)).shape
    torch.Size([1, 10])
    """
    machine, widest = layers[0].machine, max(layer.outputs for layer in layers)
    scratch = max(layer.scratch for layer in layers)
    calls = [each for layer in layers for each in (address(layer.run), layer.plan.address)]
    weights = plan(len(layers), scratch, widest, *calls, alive=layers)
    run = _compiled(machine)
    return Compiled(run, weights, layers[0].inputs, layers[-1].outputs, machine, scratch, 2 * widest)


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why a kernel for sparse float32 linear layers cannot run the layer; any machine will do.

    >>> accepts(layer_without_zeros, detect(), Precision())
    '0 % zeros: nothing to skip'
    """
    if layer.op != "linear":
        return f"computes linear layers, not {layer.op}"
    if layer.weight.dtype is not torch.float32:
        return f"computes float32 weights, not {str(layer.weight.dtype).removeprefix('torch.')}"
    sparsity = weight_sparsity(layer.weight)
    if not sparsity:
        return "0 % zeros: nothing to skip"
    # Random numbers hold a few exact zeros, for which nobody waits until a large layer is built in every way.
    few = sparsity < FEW and layer.weight.numel() >= LARGE
    return f"{100 * sparsity:.2g} % zeros: too few to skip" if few else None


def accepts_narrow(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """The same of a kernel that numbers columns with 16 bits.

    >>> accepts_narrow(layer_of_65537_inputs, detect(), Precision())
    '65537 inputs: column numbers of 16 bits reach 65536'
    """
    if layer.op == "linear" and layer.weight.shape[1] > WIDEST:
        return f"{layer.weight.shape[1]} inputs: column numbers of 16 bits reach {WIDEST}"
    return accepts(layer, machine, precision)


def arrays(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in) and bias (out,) of a linear layer; the bias is zero where it has none.

    >>> [array.shape for array in arrays(layer)]
    [(300, 64), (300,)]
    """
    weight = layer.weight.detach().numpy()
    bias = np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias.detach().numpy()
    return weight, bias


def starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each of several runs begins when they lie one after the other, and where the last one ends.

    >>> starts([3, 0, 2])
    array([0, 3, 3, 5])
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def by_length(lengths: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows by length, longest first, in whole slices of `lanes`: the row of each lane and the lane of each row.

    The first slice is filled up with lanes that belong to no row, before the lane of the row that they name.

    >>> by_length(np.array([3, 9, 5]), 4)
    (array([1, 1, 2, 0]), array([3, 1, 2]))
    """
    order = np.argsort(-lengths, kind="stable")
    rows = np.append(np.repeat(order[:1], -len(order) % lanes), order)
    lane = np.empty(len(order), np.int64)
    lane[order] = np.arange(len(rows) - len(order), len(rows))
    return rows, lane


def emit_sequence() -> Function:
    """The function that calls others in turn, passing results through two buffers behind their scratch.

    >>> emit_sequence().name
    'sequence'
    """
    f = Function("sequence", ARGUMENTS)
    count, scratch, widest = f.fields("%plan", [INTEGER] * 3)
    even = f.at("%scratch", scratch)
    odd = f.at(even, f.multiply(widest, "%rows"))
    last = f.add(count, -1)
    with f.loop(0, count) as number:
        code, weights = f.fields(f.at("%plan", f.add(f.multiply(number, 2), 3), INTEGER), [POINTER] * 2)
        is_odd = f.value(f"trunc i64 {number} to i1")
        before, after = (f"select i1 {is_odd}, ptr {a}, ptr {b}" for a, b in ((even, odd), (odd, even)))
        source = _select(f, f"eq i64 {number}, 0", "%x", f.value(before))
        target = _select(f, f"eq i64 {number}, {last}", "%y", f.value(after))
        f.do(f"call void {code}(ptr {weights}, ptr {source}, ptr {target}, ptr %scratch, i64 %rows)")
    return f


def _select(f: Function, condition: str, yes: str, no: str) -> str:
    return f.value(f"select i1 {f.value(f'icmp {condition}')}, ptr {yes}, ptr {no}")


@cache
def _compiled(machine: Machine) -> Callable[..., None]:
    return compile_function(emit_sequence().text(machine), "sequence", machine, len(ARGUMENTS))
