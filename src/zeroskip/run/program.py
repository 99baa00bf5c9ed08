"""A compiled network."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.concepts import Choice, Machine
from zeroskip.errors import EngineError
from zeroskip.run.origin import Origin
from zeroskip.run.schedule import Runner

WIDE = 120  # columns of a printed program
TIED = "\xa0"  # a space at which no line is broken


class Program:
    """A network compiled for this machine: call it with a batch of any size, also from several threads.

    It answers as the network does in evaluation mode, up to rounding and to one documented difference: a zero
    weight is skipped, so its product with an infinite or NaN input is 0 here and NaN in PyTorch (not so where it
    was compiled with strict=True). Inputs in any memory layout are taken, and copied where a kernel needs another;
    gradients do not pass: an input that asks for them is detached. Everything else is refused with an EngineError:
    another dtype, shape or device, sparse tensors, subclasses of Tensor. It was tuned for `batch` examples at once
    and `threads` threads. `print(program)` shows which kernel runs each layer.

    seconds, dense_seconds  of one call on the example batch; the latter with every layer dense, measured in turns
    error                   0 where no layer is rounded; otherwise the largest difference from the network on the
                            example batch, as share of its largest output
    changed                 tells whether the network was changed after it was compiled
    scratch                 bytes of working memory of one call, for layers on tiles
    through                 what PyTorch computes between the layers, e.g. ("flatten", "softmax")
    origin                  what it was made from, which `run.save` keeps
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
        error: float = 0.0,
        scratch: int = 0,
        through: tuple[str, ...] = (),
        origin: Origin | None = None,
    ) -> None:
        self._run, self._rebuild = run, rebuild
        self._dtype, self._shape = example.dtype, example.shape[1:]
        self.changed, self.choices, self.machine = changed, choices, machine
        self.precision, self.threads, self.error = precision, threads, error
        self.batch, self.seconds, self.dense_seconds = len(example), seconds, dense_seconds
        self.scratch, self.through, self.origin = scratch, through, origin

    def __call__(self, x: Tensor) -> Any:
        """What the network returns for `x`. EngineError for an input that is refused, or changed weights."""
        if not self._fits(x):
            raise EngineError(self.refusal(x))
        if self.changed():
            raise EngineError(
                "the network was changed after it was compiled: a parameter, buffer or module is another one or "
                "was written to, so the program's answers would be old. Compile again with run.compile."
            )
        return self._rebuild(self._run(_plain(x)))

    def __str__(self) -> str:
        return table(self)

    def refusal(self, x: Any) -> str | None:
        """None where the program takes `x`; otherwise why not, and the line that converts it.

        >>> program.refusal(torch.zeros(2, 784))
        """
        if self._fits(x):
            return None
        shape = ", ".join(["batch", *map(str, self._shape)])
        wanted = f"a dense tensor ({shape}) of {self._dtype} on the cpu"
        given = f"a {type(x).__name__}"
        if isinstance(x, Tensor):
            kind = "" if type(x) in PLAIN else f"{given} "
            layout = "" if x.layout is torch.strided else f", stored as {x.layout}"
            given = f"{kind}{tuple(x.shape)} of {x.dtype} on {x.device}{layout}"
        return f"the program was compiled for {wanted}, and was given {given}. {self._remedy(x)}"

    def _fits(self, x: Any) -> bool:
        return (
            type(x) in PLAIN
            and x.dtype is self._dtype
            and x.shape[1:] == self._shape
            and x.ndim > 0
            and x.is_cpu
            and x.layout is torch.strided
        )

    def _remedy(self, x: Any) -> str:
        if not isinstance(x, Tensor):
            return "Convert it with torch.as_tensor(x)."
        if type(x) not in PLAIN:
            return "Convert it with x.as_subclass(torch.Tensor) if it holds plain numbers."
        if x.layout is not torch.strided:
            return "Convert it with x.to_dense()."
        if not x.is_cpu:
            return "Move it with x.cpu()."
        if x.dtype.is_complex and not self._dtype.is_complex:
            return "Convert it with x.real or x.abs(), whichever is meant."
        if x.dtype is not self._dtype:
            return f"Convert it with x.to({self._dtype})."
        return "Give examples of that shape, the batch first, or compile again with one of the new shape."


# FakeTensor and others that only look like memory are subclasses; machine code would follow their address.
PLAIN = (Tensor, nn.Parameter)


def _plain(x: Tensor) -> Tensor:
    """The same numbers as they lie in memory: without gradient, row by row, no sign left to be turned."""
    x = x.detach() if x.requires_grad else x
    x = x if x.is_contiguous() else x.contiguous()
    return x.resolve_neg() if x.is_neg() else x


def table(program: Program) -> str:
    """Which kernel runs each layer of a program, how fast, and why not the others.

    >>> print(table(program))
    AMD EPYC, 2 cores, 512-bit vectors; fp32, batch 1, 1 thread: 4.9 us a call, 15.3 us with every layer dense
    through torch: softmax
    layer  weight   zeros  kernel  time    dense    why, and the others
    fc1    300x784  92.0%  sell    6.1 us  15.4 us  fastest; spmm 10.9 us [1]
    fc3    10x100   0.0%   dense   3.0 us  3.0 us   fastest [1,2]
    [1] channels_last: a layout of images, and linear has none
    [2] sell, spmm: 0 % zeros: nothing to skip
    """
    threads = f"{program.threads} thread{'s' if program.threads > 1 else ''}"
    head = f"{program.machine.title}; {program.precision}, batch {program.batch}, {threads}: "
    times = f"{_time(program.seconds)} a call, {_time(program.dense_seconds)} with every layer dense"
    more = [f"through torch: {', '.join(program.through)}"] if program.through else []
    more += [f"scratch {program.scratch / 1e6:.1f} MB a call"] if program.scratch else []
    notes = _footnotes(program.choices)
    titles = ("layer", "weight", "zeros", "kernel", "time", "dense", "why, and the others")
    rows = [titles, *(_row(choice, notes) for choice in program.choices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles) - 1)]
    lines = [_folded(head + times), *map(_folded, ["; ".join(more)] if more else [])]
    lines += [_line(row, widths) for row in rows]
    lines += [_folded(f"[{number}] {', '.join(names)}: {why}") for (names, why), number in notes.items()]
    return "\n".join(lines)


Refusal = tuple[tuple[str, ...], str]
"""Kernels, and why none of them can run a layer."""


def _footnotes(choices: Sequence[Choice]) -> dict[Refusal, int]:
    """Each refusal once, numbered: in a deep network most layers share theirs."""
    refusals = dict.fromkeys(each for choice in choices for each in _refusals(choice))
    return {each: number for number, each in enumerate(refusals, start=1)}


def _refusals(choice: Choice) -> list[Refusal]:
    reasons = dict.fromkeys(choice.refused.values())
    return [(tuple(name for name, each in choice.refused.items() if each == why), why) for why in reasons]


def _row(choice: Choice, notes: Mapping[Refusal, int]) -> tuple[str, ...]:
    others = {name: took for name, took in choice.seconds.items() if name not in ("dense", choice.kernel)}
    rounded = [f"rounds by {choice.error:.2g} of the largest output"] if choice.error else []
    slower = ", ".join(f"{name} {_time(took)}".replace(" ", TIED) for name, took in others.items())
    why = "; ".join([choice.reason, *rounded, *([slower] if slower else [])])
    numbers = ",".join(str(number) for number in sorted(notes[each] for each in _refusals(choice)))
    shape = "x".join(map(str, choice.weight_shape))
    times = _time(choice.seconds[choice.kernel]), _time(choice.seconds["dense"])
    why += f" [{numbers}]" if numbers else ""
    return choice.layer or "(itself)", shape, f"{choice.sparsity:.1%}", choice.kernel, *times, why


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """The row with its columns below each other, the last one folded."""
    *cells, why = row
    start = "".join(f"{cell.ljust(width)}  " for cell, width in zip(cells, widths, strict=True))
    wide, space = max(WIDE, len(start) + 40), " " * len(start)
    folded = textwrap.fill(why, wide, initial_indent=start, subsequent_indent=space, break_long_words=False)
    return folded.replace(TIED, " ")


def _folded(line: str) -> str:
    return textwrap.fill(line, WIDE, subsequent_indent="    ", break_long_words=False)


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"
