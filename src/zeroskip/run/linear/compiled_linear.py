"""Linear layers in machine code: one signature, one way to be called from Python, alone or several in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, POINTER, Function, compile_function
from zeroskip.emit.python_call import address
from zeroskip.errors import EngineError
from zeroskip.run.argument_block import ArgumentBlock, argument_block

# Of every kernel: its argument block, input (rows, in), output (rows, out), working memory, number of rows.
PARAMETERS = {"plan": POINTER, "x": POINTER, "y": POINTER, "scratch": POINTER, "rows": INTEGER}
ARGUMENTS = "%plan"  # the argument block


@dataclass(frozen=True)
class CompiledLinear:
    """Linear layers in machine code: a float32 tensor (..., inputs) -> (..., outputs).

    scratch          floats of working memory that a call needs,
    scratch_per_row  and as many more for each row of the input
    spare            working memory of calls that are over, where all calls need as much
    """

    run: Callable[..., None]
    arguments: ArgumentBlock
    inputs: int
    outputs: int
    machine: Machine
    scratch: int = 0
    scratch_per_row: int = 0
    spare: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        shape = x.shape
        # Machine code checks nothing: of a wrong size it would read foreign memory.
        if shape[-1] != self.inputs or x.dtype is not torch.float32:
            raise EngineError(
                f"the layer takes float32 (..., {self.inputs}), and was given {x.dtype} {tuple(shape)}."
            )
        x = x if x.is_contiguous() else x.contiguous()
        rows = x.numel() // self.inputs
        y = torch.empty(*shape[:-1], self.outputs)
        scratch = self._scratch(rows)
        self.run(self.arguments.address, x.data_ptr(), y.data_ptr(), scratch.data_ptr(), rows)
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


@dataclass(frozen=True)
class DenseFallback:
    """A layer that skips zero inputs, but for batches of `rows` and more with a larger `share` of non-zeros.

    For fewer examples reading the weights is what takes time, which PyTorch does no faster.
    """

    skipping: CompiledLinear
    dense: Callable[[Tensor], Tensor]
    rows: int
    share: float

    def __call__(self, x: Tensor) -> Tensor:
        many = x.numel() >= self.rows * self.skipping.inputs and x.dtype is torch.float32
        if many and x.shape[-1] == self.skipping.inputs and torch.count_nonzero(x) > self.share * x.numel():
            return self.dense(x)
        return self.skipping(x)


def compiled_layer(
    layer: Layer, machine: Machine, run: Callable[..., None], arguments: ArgumentBlock, *, scratch: int = 0
) -> CompiledLinear:
    """One layer whose code is `run`."""
    outputs, inputs = layer.weight.shape
    return CompiledLinear(run, arguments, inputs, outputs, machine, scratch)


def kernel(name: str, integers: int, pointers: int) -> tuple[Function, list[str]]:
    """A function with the parameters of every kernel for linear layers, and the fields of its argument block."""
    f = Function(name, PARAMETERS)
    return f, f.fields(ARGUMENTS, [INTEGER] * integers + [POINTER] * pointers)


@cache
def compiled(emit: Callable[..., Function], machine: Machine, *form: str | int) -> Callable[..., None]:
    """What `emit(machine, *form)` writes, begun with `kernel`, as machine code; the same form is compiled once."""
    f = emit(machine, *form)
    return compile_function(f.text(machine), f.name, machine, len(PARAMETERS))


def sequence(layers: Sequence[CompiledLinear]) -> CompiledLinear:
    """The layers one after the other; the output of each is the input of the next."""
    machine, widest = layers[0].machine, max(layer.outputs for layer in layers)
    scratch = max(layer.scratch for layer in layers)
    calls = [word for layer in layers for word in (address(layer.run), layer.arguments.address)]
    arguments = argument_block(len(layers), scratch, widest, *calls, alive=layers)
    return CompiledLinear(
        run=compiled(emit_sequence, machine),
        arguments=arguments,
        inputs=layers[0].inputs,
        outputs=layers[-1].outputs,
        machine=machine,
        scratch=scratch,
        scratch_per_row=2 * widest,
    )


def emit_sequence(machine: Machine) -> Function:
    """The function that calls others in turn, passing results through two buffers behind their scratch."""
    f, (count, scratch, widest) = kernel("sequence", 3, 0)
    even = f.at("%scratch", scratch)
    odd = f.at(even, f.multiply(widest, "%rows"))
    last = f.add(count, -1)
    with f.loop(0, count) as number:
        code, arguments = f.fields(f.at(ARGUMENTS, f.add(f.multiply(number, 2), 3), INTEGER), [POINTER] * 2)
        is_odd = f.value(f"trunc i64 {number} to i1")
        before, after = (f"select i1 {is_odd}, ptr {a}, ptr {b}" for a, b in ((even, odd), (odd, even)))
        source = _select(f, f"eq i64 {number}, 0", "%x", f.value(before))
        target = _select(f, f"eq i64 {number}, {last}", "%y", f.value(after))
        f.do(f"call void {code}(ptr {arguments}, ptr {source}, ptr {target}, ptr %scratch, i64 %rows)")
    return f


def _select(f: Function, condition: str, yes: str, no: str) -> str:
    return f.value(f"select i1 {f.value(f'icmp {condition}')}, ptr {yes}, ptr {no}")
