"""A convolution that skips the zeros of its input, as a function of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import compile_function
from zeroskip.emit.executable_memory import HUGE, room
from zeroskip.errors import EngineError
from zeroskip.run.convolution.zero_inputs import gather
from zeroskip.run.convolution.zero_inputs.density import break_even, density
from zeroskip.run.convolution.zero_inputs.shape import cut, shape


@dataclass(frozen=True)
class Skipping:
    """A convolution (batch, *takes) -> (batch, *gives), float32, both stored pixel by pixel.

    fixed    addresses of the weights and of the biases, which `alive` holds
    strides  of the output
    scratch  floats of working memory that a call needs
    spare    working memory of calls that are over, which the caches know already
    dense    what computes inputs of which more than the share `most` is not zero; None: nobody does
    """

    run: Callable[..., None]
    fixed: tuple[int, int]
    alive: tuple[np.ndarray, ...]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    strides: tuple[int, ...]
    scratch: int
    machine: Machine
    dense: Callable[[Tensor], Tensor] | None = None
    most: float = 1.0
    spare: list[_Scratch] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        shape = x.shape
        # Machine code believes what it is told: a wrong size would make it read foreign memory.
        if shape[1:] != self.takes or x.dtype is not torch.float32:
            raise EngineError(
                f"the layer takes float32 (batch, {', '.join(map(str, self.takes))}), and was given "
                f"{x.dtype} {tuple(x.shape)}."
            )
        x = x.contiguous(memory_format=torch.channels_last)
        if self.dense is not None and density(x, self.machine) > self.most:
            return self.dense(x)
        images = shape[0]
        y = torch.empty_strided((images, *self.gives), self.strides)
        try:
            scratch = self.spare.pop()  # nobody else's: several threads may run the same layer
        except IndexError:
            scratch = _scratch(self.scratch)
        self.run(*self.fixed, x.data_ptr(), y.data_ptr(), scratch.address, images)
        self.spare.append(scratch)
        return y


@dataclass(frozen=True)
class _Scratch:
    """Working memory of one call, on large pages: lists spread over small ones cost a third more time."""

    address: int
    alive: np.ndarray


def _scratch(floats: int) -> _Scratch:
    memory = room(max(4 * floats, HUGE))
    return _Scratch(memory.ctypes.data, memory)


def build(layer: Layer, machine: Machine, relu: bool, *, near: bool = False, kind: str = "fp32") -> Skipping:
    """The layer with the zeros of its input skipped, however few there are; `near` and `kind` as in `shape.cut`.

    >>> build(conv, detect(), True)(torch.zeros(2, 64, 14, 14)).shape
    torch.Size([2, 128, 14, 14])
    """
    how = cut(shape(layer), machine, near=near, kind=kind)
    text = gather.emit(how, relu=relu).text(machine)
    run = compile_function(text, "gather", machine, len(gather.ARGUMENTS))
    weights, bias = gather.weights(layer, how)
    outputs, height, width = layer.output_shape
    return Skipping(
        run,
        (weights.ctypes.data, bias.ctypes.data),
        (weights, bias),
        tuple(layer.input_shape),
        (outputs, height, width),
        (height * width * outputs, 1, width * outputs, outputs),
        gather.rooms(how)["end"],
        machine,
    )


def falling_back(skipping: Skipping, dense: Callable[[Tensor], Tensor]) -> Skipping:
    """The same with `dense` for inputs so dense that it is faster; where that begins is measured here.

    >>> falling_back(build(conv, detect(), True), dense).most
    0.47
    """
    most = break_even(skipping, dense, (1, *skipping.takes))
    return replace(skipping, dense=dense, most=most)
