"""A program where a network is expected."""

from __future__ import annotations

from torch import nn

from zeroskip.run.program import Program


def as_module(program: Program, model: nn.Module) -> nn.Module:
    """A module that runs `program` where `model` would run, so that a task's `evaluate` can take it.

    It has the model's parameters and answers to `eval()`; training it is of no use.

    >>> module = as_module(run.compile(model, x), model)
    >>> module(x).shape, len(list(module.parameters()))
    (torch.Size([3, 4]), 4)
    """
    return _Running(program, model)


class _Running(nn.Module):
    def __init__(self, program: Program, model: nn.Module) -> None:
        super().__init__()
        self.model = model  # for evaluate functions that ask for parameters() or their device
        self._program = program

    def forward(self, *args: object, **kwargs: object) -> object:
        return self._program(*args, **kwargs)
