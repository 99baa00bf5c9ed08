"""A recurrent operation in machine code, as Python calls it: all its layers and directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.graph.recurrent import Recurrent, batch_of, state_shapes
from zeroskip.run.recurrent.steps import Steps

Product = Callable[[Tensor], Tensor]
"""(..., in) -> (..., gates x units): the input matrix at all steps, and what else the gates begin with."""


class Walked(NamedTuple):
    """Where the first step's numbers lie, and how many floats one step and one example lie behind another."""

    address: int
    step: int
    example: int

    def backward(self, steps: int) -> Walked:
        """The same from the last step to the first."""
        return Walked(self.address + 4 * (steps - 1) * self.step, -self.step, self.example)


class Span(NamedTuple):
    """Steps of packed sequences during which none ends: the row where they begin, and how many sequences go on."""

    first: int
    steps: int
    batch: int

    def walked(self, rows: Walked) -> Walked:
        """These steps of numbers whose rows lie one `example` behind another."""
        return Walked(rows.address + 4 * self.first * rows.example, self.batch * rows.example, rows.example)


@dataclass(frozen=True)
class CompiledCell:
    """One layer in one direction.

    fused, bias  steps that make the products of the input matrix themselves, and what the gates begin with
    steps        those that find them made, by `product`
    few          from as many rows (steps x examples) on they are made beforehand
    """

    fused: Steps
    bias: Tensor
    steps: Steps | None = None
    product: Product | None = None
    few: int = 0

    def sequence(
        self, x: Tensor, axes: tuple[int, int], y: Walked, h: int, c: int, *, backward: bool
    ) -> None:
        """Write the outputs of `x` to `y`, the last states over the first; `axes` are those of steps and examples."""
        code, begun = self._begun(x)
        given = _walked(x, axes), self._sums(begun, axes), y
        _run(code, given, (h, c), (x.shape[axes[0]], x.shape[axes[1]]), backward=backward)

    def packed(self, x: Tensor, spans: Sequence[Span], y: Walked, h: int, c: int, *, backward: bool) -> None:
        """The same of packed sequences. One that is over, or backward has not begun, keeps its states."""
        code, begun = self._begun(x)
        rows = _walked(x, (0, 0)), self._sums(begun, (0, 0)), y
        for span in reversed(spans) if backward else spans:
            given = [span.walked(each) for each in rows]
            _run(code, given, (h, c), (span.steps, span.batch), backward=backward)

    def _begun(self, x: Tensor) -> tuple[Steps, Tensor | None]:
        """The code for so many rows, and the products of the input matrix where it finds them made."""
        if self.steps is None or self.product is None or x.numel() < self.few * x.shape[-1]:
            return self.fused, None
        return self.steps, self.product(x)

    def _sums(self, begun: Tensor | None, axes: tuple[int, int]) -> Walked:
        return Walked(self.bias.data_ptr(), 0, 0) if begun is None else _walked(begun, axes)


def _run(
    code: Steps, given: Sequence[Walked], states: tuple[int, int], sizes: tuple[int, int], *, backward: bool
) -> None:
    """So many steps of so many sequences of x, sums and y, where they lie."""
    if backward:
        given = [each.backward(sizes[0]) for each in given]
    scratch = torch.empty(code.scratch)
    (x_at, *x_by), (sums_at, *sums_by), (y_at, *y_by) = given
    code.run(
        *(code.arguments.address, x_at, sums_at, y_at, *states, scratch.data_ptr(), *sizes),
        *(*x_by, *sums_by, *y_by),
    )


@dataclass(frozen=True)
class CompiledStep:
    """One step of a cell as a function of the input (batch, inputs), and of the states, where they are given.

    A step takes microseconds, so that the way to its code is short.

    spare  working memory of calls that are over
    """

    recurrent: Recurrent
    cell: CompiledCell
    inputs: int
    units: int
    spare: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor, *states: Tensor) -> Tensor | tuple[Tensor, ...]:
        batch, units, count = x.shape[0] if x.ndim else 0, self.units, 1 + (self.recurrent.kind == "lstm")
        if not self._fits(x, states, (batch, units), count):
            _check(self.recurrent, x, 2, states, [(batch, units)] * count)
        x = x if x.is_contiguous() else x.contiguous()
        own = [torch.empty(batch, units) for _ in range(count)]
        for number, each in enumerate(own):
            _ = each.copy_(states[number]) if states else each.zero_()
        h, c = own[0], own[-1]
        code = self.cell.fused
        scratch = self._scratch(code.scratch + batch * units)  # the outputs, which are the states, at its end
        at = scratch.data_ptr()
        code.run(
            *(code.arguments.address, x.data_ptr(), self.cell.bias.data_ptr(), at + 4 * code.scratch),
            *(h.data_ptr(), c.data_ptr(), at, 1, batch, 0, self.inputs, 0, 0, 0, units),
        )
        self.spare.append(scratch)
        return (h, c) if count == 2 else h

    def _fits(self, x: Tensor, states: Sequence[Tensor], shape: tuple[int, int], count: int) -> bool:
        """The same as `_check`, in a microsecond."""
        if x.ndim != 2 or x.shape[1] != self.inputs or x.dtype is not torch.float32:
            return False
        if not self.recurrent.given:
            return not states
        return len(states) == count and states[0].shape == shape and states[-1].shape == shape

    def _scratch(self, count: int) -> Tensor:
        """Working memory that no other call has."""
        try:
            spare = self.spare.pop()
        except IndexError:
            return torch.empty(count)
        return spare if spare.numel() == count else torch.empty(count)


@dataclass(frozen=True)
class CompiledSequence:
    """The operation as a function of a sequence, and of the first states, where they are given."""

    recurrent: Recurrent
    cells: tuple[CompiledCell, ...]

    def __call__(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        recurrent = self.recurrent
        axes = (1, 0) if recurrent.batch_first else (0, 1)
        batch = x.shape[axes[1]] if x.ndim == 3 else 0
        shapes = state_shapes(recurrent, batch)
        _check(recurrent, x, 3, states, shapes)
        first = _first_states(states, shapes)
        for start in range(0, len(self.cells), recurrent.directions):
            x = self._layer(x.contiguous(), axes, start, first)
        return (x, *first)

    def _layer(self, x: Tensor, axes: tuple[int, int], start: int, states: Sequence[Tensor]) -> Tensor:
        """The outputs of the layer whose first cell is that with the number `start`."""
        y = torch.empty(*x.shape[:2], self.recurrent.directions * states[0].shape[-1])
        for cell, outputs, h, c in _ways(self.recurrent, start, _walked(y, axes), states):
            self.cells[cell].sequence(x, axes, outputs, h, c, backward=cell > start)
        return y


@dataclass(frozen=True)
class CompiledPacked:
    """The operation as a function of packed sequences: their steps, how many have each step, and the first states."""

    recurrent: Recurrent
    cells: tuple[CompiledCell, ...]

    def __call__(self, x: Tensor, sizes: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        batch = batch_of(self.recurrent, x, sizes, states)
        if x.dtype is not torch.float32:
            name = self.recurrent.name or self.recurrent.kind
            raise EngineError(f"{name} takes float32, and was given {x.dtype}.")
        first = _first_states(states, state_shapes(self.recurrent, batch))
        spans = _spans(sizes.tolist())
        for start in range(0, len(self.cells), self.recurrent.directions):
            x = self._layer(x.contiguous(), spans, start, first)
        return (x, *first)

    def _layer(self, x: Tensor, spans: Sequence[Span], start: int, states: Sequence[Tensor]) -> Tensor:
        """The outputs of the layer whose first cell is that with the number `start`."""
        y = torch.empty(len(x), self.recurrent.directions * states[0].shape[-1])
        for cell, outputs, h, c in _ways(self.recurrent, start, _walked(y, (0, 0)), states):
            self.cells[cell].packed(x, spans, outputs, h, c, backward=cell > start)
        return y


def _spans(sizes: Sequence[int]) -> list[Span]:
    """The steps with as many sequences each together."""
    spans: list[Span] = []
    first = 0
    for batch, steps in groupby(sizes):
        spans.append(Span(first, len(list(steps)), batch))
        first += spans[-1].steps * batch
    return spans


def _ways(
    recurrent: Recurrent, start: int, y: Walked, states: Sequence[Tensor]
) -> Iterator[tuple[int, Walked, int, int]]:
    """Of each direction of a layer its cell, where its part of the outputs begins, and where its states lie."""
    size = states[0].shape[-1]
    for direction in range(recurrent.directions):
        cell = start + direction
        h, c = (each.data_ptr() + 4 * cell * each.stride(0) for each in (states[0], states[-1]))
        yield cell, y._replace(address=y.address + 4 * direction * size), h, c


def compiled(recurrent: Recurrent, cells: Sequence[CompiledCell]) -> Compiled:
    """The operation whose cells these are."""
    if recurrent.is_packed:
        return CompiledPacked(recurrent, tuple(cells))
    if recurrent.is_step:
        cell = recurrent.cells[0]
        return CompiledStep(recurrent, cells[0], cell.inputs.weight.shape[1], cell.units)
    return CompiledSequence(recurrent, tuple(cells))


Compiled: TypeAlias = CompiledStep | CompiledSequence | CompiledPacked
"""A recurrent operation as a function."""


def _walked(tensor: Tensor, axes: tuple[int, int]) -> Walked:
    return Walked(tensor.data_ptr(), tensor.stride(axes[0]), tensor.stride(axes[1]))


def _first_states(states: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """States that steps write over: copies, or zeros."""
    own = [torch.empty(shape) for shape in shapes]
    for place, each in enumerate(own):
        if states:
            each.copy_(states[place])
        else:
            each.zero_()
    return own


def _check(
    recurrent: Recurrent, x: Tensor, axes: int, states: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]
) -> None:
    """EngineError where machine code, which checks nothing, would read foreign memory."""
    inputs, expected = recurrent.cells[0].inputs.weight.shape[1], shapes if recurrent.given else []
    fits = x.ndim == axes and x.shape[-1] == inputs and x.dtype is torch.float32
    fits = fits and (axes == 2 or x.shape[1 if recurrent.batch_first else 0] > 0)
    if fits and [state.shape for state in states] == expected:
        return
    name = recurrent.name or recurrent.kind
    if not fits:
        raise EngineError(
            f"{name} takes float32 of {axes} axes,{' one step at least,' if axes == 3 else ''} and {inputs} features. "
            f"It was given {tuple(x.shape)} of {x.dtype}."
        )
    given = " and ".join(str(tuple(state.shape)) for state in states)
    wanted = " and ".join(map(str, expected))
    raise EngineError(f"{name} begins with states of {wanted or 'zeros'}, and was given {given or 'none'}.")
