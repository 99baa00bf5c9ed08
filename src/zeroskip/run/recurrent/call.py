"""A recurrent operation in machine code, as Python calls it: all its layers and directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.graph.recurrent import Recurrent, state_shapes
from zeroskip.run.recurrent.steps import Steps

Product = Callable[[Tensor], Tensor]
"""(..., in) -> (..., gates x units): the input matrix at all steps, and what else the gates begin with."""


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

    def __call__(
        self, x: Tensor, y: Tensor, h: Tensor, c: Tensor, axes: tuple[int, int], *, backward: bool
    ) -> None:
        """Write the outputs of `x` to `y`, and the last states over the first; `axes` are those of steps and examples."""
        steps, batch = (x.shape[axis] for axis in axes)
        code, sums, strides = self.fused, self.bias, (0, 0)
        if self.steps is not None and self.product is not None and steps * batch >= self.few:
            code, sums = self.steps, self.product(x)
            strides = sums.stride(axes[0]), sums.stride(axes[1])
        strides = (x.stride(axes[0]), x.stride(axes[1]), *strides, y.stride(axes[0]), y.stride(axes[1]))
        starts = [x.data_ptr(), sums.data_ptr(), y.data_ptr()]
        if backward:
            starts = [at + 4 * (steps - 1) * stride for at, stride in zip(starts, strides[::2], strict=True)]
            strides = tuple(-each if place % 2 == 0 else each for place, each in enumerate(strides))
        scratch = torch.empty(code.scratch)
        code.run(
            code.arguments.address, *starts, h.data_ptr(), c.data_ptr(), scratch.data_ptr(), steps, batch, *strides
        )


@dataclass(frozen=True)
class CompiledRecurrent:
    """The operation as a function of the sequence and of the first states, where they are given."""

    recurrent: Recurrent
    cells: tuple[CompiledCell, ...]

    def __call__(self, x: Tensor, *states: Tensor) -> Tensor | tuple[Tensor, ...]:
        recurrent = self.recurrent
        value = x[None] if recurrent.is_step else x
        axes = (1, 0) if recurrent.batch_first and not recurrent.is_step else (0, 1)
        batch = value.shape[axes[1]] if value.ndim == 3 else 0
        shapes = state_shapes(recurrent, batch)
        self._check(x, value, states, shapes)
        states = states or (None,) * len(shapes)
        first = [_first(state, shape) for state, shape in zip(states, shapes, strict=True)]
        h, c = first[0], first[-1]
        for start in range(0, len(self.cells), recurrent.directions):
            value = self._layer(value.contiguous(), start, h, c, axes)
        if recurrent.is_step:
            return (h[0], c[0]) if len(first) > 1 else h[0]
        return (value, *first)

    def _layer(self, x: Tensor, start: int, h: Tensor, c: Tensor, axes: tuple[int, int]) -> Tensor:
        size, directions = h.shape[-1], self.recurrent.directions
        y = torch.empty(*x.shape[:2], directions * size)
        for direction in range(directions):
            cell = start + direction
            part = y[..., direction * size :]
            self.cells[cell](x, part, h[cell], c[cell], axes, backward=direction == 1)
        return y

    def _check(
        self, x: Tensor, value: Tensor, states: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        """EngineError where machine code, which checks nothing, would read foreign memory."""
        recurrent = self.recurrent
        inputs = recurrent.cells[0].inputs.weight.shape[1]
        if value.ndim != 3 or value.shape[-1] != inputs or x.dtype is not torch.float32:
            raise EngineError(
                f"{recurrent.name or recurrent.kind} takes float32 of {inputs} features, and was given "
                f"{tuple(x.shape)} of {x.dtype}."
            )
        expected = [shape[1:] if recurrent.is_step else shape for shape in shapes] if recurrent.given else []
        if [tuple(state.shape) for state in states] != expected:
            raise EngineError(
                f"{recurrent.name or recurrent.kind} takes first states of {' and '.join(map(str, expected)) or 'zeros'}, "
                f"and was given {' and '.join(str(tuple(state.shape)) for state in states)}."
            )


def _first(state: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """A state that steps write over."""
    own = torch.empty(shape)
    return own.zero_() if state is None else own.copy_(state.reshape(shape))
