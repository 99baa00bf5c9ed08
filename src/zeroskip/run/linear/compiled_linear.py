"""Linear layers in machine code: one signature, one way to be called from Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, POINTER, Function, compile_function
from zeroskip.errors import EngineError
from zeroskip.run.argument_block import ArgumentBlock

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


def compiled_layer(
    layer: Layer, machine: Machine, run: Callable[..., None], arguments: ArgumentBlock, *, scratch: int = 0
) -> CompiledLinear:
    """One layer whose code is `run`."""
    outputs, inputs = layer.weight.shape
    return CompiledLinear(run, arguments, inputs, outputs, machine, scratch)


def kernel(name: str) -> Function:
    """An empty function with the parameters of every kernel for linear layers."""
    return Function(name, PARAMETERS)


@cache
def compiled(emit: Callable[..., Function], machine: Machine, *form: str | int) -> Callable[..., None]:
    """What `emit(machine, *form)` writes, begun with `kernel`, as machine code; the same form is compiled once."""
    f = emit(machine, *form)
    return compile_function(f.text(machine), f.name, machine, len(PARAMETERS))
