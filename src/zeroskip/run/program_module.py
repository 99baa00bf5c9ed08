"""A program in the clothes of the network it was compiled from."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zeroskip.run.program import Program


def as_module(program: Program, model: nn.Module) -> nn.Module:
    """A module that runs `program` where `model` would run, so that a task's `evaluate` can take it.

    It has the model's parameters and answers to `eval()`; training it is of no use.

    >>> task.evaluate(as_module(program, model), "test")
    0.025
    """
    return _Running(program, model)


class _Running(nn.Module):
    def __init__(self, program: Program, model: nn.Module) -> None:
        super().__init__()
        self.model = model  # for evaluate functions that ask for parameters() or their device
        self._program = program

    def forward(self, x: Tensor) -> Any:
        return self._program(x)
