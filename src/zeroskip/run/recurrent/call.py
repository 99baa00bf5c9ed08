"""A recurrent operation in machine code, as Python calls it: all its layers and directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.graph.recurrent import Recurrent, state_shapes
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
        steps, batch = (x.shape[axis] for axis in axes)
        code, sums = self.fused, Walked(self.bias.data_ptr(), 0, 0)
        if self.steps is not None and self.product is not None and steps * batch >= self.few:
            made = self.product(x)
            code, sums = self.steps, _walked(made, axes)
        given = [_walked(x, axes), sums, y]
        if backward:
            given = [each.backward(steps) for each in given]
        scratch = torch.empty(code.scratch)
        (x_at, *x_by), (sums_at, *sums_by), (y_at, *y_by) = given
        code.run(
            code.arguments.address,
            x_at,
            sums_at,
            y_at,
            h,
            c,
            scratch.data_ptr(),
            steps,
            batch,
            *x_by,
            *sums_by,
            *y_by,
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
        size, directions = states[0].shape[-1], self.recurrent.directions
        y = torch.empty(*x.shape[:2], directions * size)
        outputs = _walked(y, axes)
        for direction in range(directions):
            cell = start + direction
            mine = outputs._replace(address=outputs.address + 4 * direction * size)
            h, c = (each.data_ptr() + 4 * cell * each.stride(0) for each in (states[0], states[-1]))
            self.cells[cell].sequence(x, axes, mine, h, c, backward=direction == 1)
        return y


def compiled(recurrent: Recurrent, cells: Sequence[CompiledCell]) -> CompiledStep | CompiledSequence:
    """The operation whose cells these are."""
    if recurrent.is_step:
        cell = recurrent.cells[0]
        return CompiledStep(recurrent, cells[0], cell.inputs.weight.shape[1], cell.units)
    return CompiledSequence(recurrent, tuple(cells))


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
