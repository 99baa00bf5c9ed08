"""A compiled network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zeroskip.concepts import Choice, Machine
from zeroskip.errors import EngineError
from zeroskip.run.schedule import Runner


class Program:
    """A network compiled for this machine: call it with a batch of any size, also from several threads.

    It answers as the network does in evaluation mode, up to rounding and to one documented difference: a zero
    weight is skipped, so its product with an infinite or NaN input is 0 here and NaN in PyTorch. It was tuned
    for `batch` examples at once and `threads` threads. `print(program)` shows which kernel runs each layer.

    seconds, dense_seconds  of one call on the example batch; the latter with every layer dense, measured in turns
    """

    def __init__(
        self,
        run: Runner,
        rebuild: Callable[[Sequence[Tensor]], Any],
        example: Tensor,
        changed: Callable[[], bool],
        choices: tuple[Choice, ...],
        machine: Machine,
        *,
        precision: str,
        threads: int,
        seconds: float,
        dense_seconds: float,
    ) -> None:
        self._run, self._rebuild, self._changed = run, rebuild, changed
        self._dtype, self._shape = example.dtype, example.shape[1:]
        self.choices, self.machine, self.precision, self.threads = choices, machine, precision, threads
        self.batch, self.seconds, self.dense_seconds = len(example), seconds, dense_seconds

    def __call__(self, x: Tensor) -> Any:
        """What the network returns for `x`. EngineError for another shape or dtype, or changed weights."""
        if not self._fits(x):
            raise EngineError(self._refusal(x))
        if self._changed():
            raise EngineError(
                "the network was changed after it was compiled: a parameter, buffer or module is another one or "
                "was written to, so the program's answers would be old. Compile again with run.compile."
            )
        if x.requires_grad:
            x = x.detach()
        return self._rebuild(self._run(x if x.is_contiguous() else x.contiguous()))

    def __str__(self) -> str:
        return table(self)

    def _fits(self, x: Any) -> bool:
        return (
            isinstance(x, Tensor)
            and x.dtype is self._dtype
            and x.shape[1:] == self._shape
            and x.is_cpu
            and x.layout is torch.strided
        )

    def _refusal(self, x: Any) -> str:
        shape = ", ".join(["batch", *map(str, self._shape)])
        wanted = f"a dense tensor ({shape}) of {self._dtype} on the cpu"
        given = f"{tuple(x.shape)} of {x.dtype} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
        return f"the program was compiled for {wanted}, and was given {given}. Convert the input or compile again."


def table(program: Program) -> str:
    """Which kernel runs each layer of a program, how fast, and why not the others.

    >>> print(table(program))
    AMD EPYC, 2 cores, 512-bit vectors; fp32, batch 1, 1 thread: 4.9 us a call, 15.3 us with every layer dense
    layer  weight     zeros   kernel  us   dense us  why, and the others
    fc1    300 x 784  92.0 %  sell    6.1  15.4      fastest; spmm 10.9 us
    fc3    10 x 100   0.0 %   dense   3.0  3.0       only one possible; sell: 0 % zeros: nothing to skip
    """
    threads = f"{program.threads} thread{'s' if program.threads > 1 else ''}"
    head = f"{program.machine.title}; {program.precision}, batch {program.batch}, {threads}: "
    times = f"{_us(program.seconds)} us a call, {_us(program.dense_seconds)} us with every layer dense"
    titles = ("layer", "weight", "zeros", "kernel", "us", "dense us", "why, and the others")
    rows = [titles, *map(_row, program.choices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([head + times, *(line.rstrip() for line in lines)])


def _row(choice: Choice) -> tuple[str, ...]:
    others = {name: took for name, took in choice.seconds.items() if name not in ("dense", choice.kernel)}
    refused = [f"{name}: {why}" for name, why in choice.refused.items()]
    shape = " x ".join(map(str, choice.weight_shape))
    times = _us(choice.seconds[choice.kernel]), _us(choice.seconds["dense"])
    why = "; ".join([choice.reason, *(f"{name} {_us(took)} us" for name, took in others.items()), *refused])
    return choice.layer or "(itself)", shape, f"{choice.sparsity:.1%}", choice.kernel, *times, why


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"
