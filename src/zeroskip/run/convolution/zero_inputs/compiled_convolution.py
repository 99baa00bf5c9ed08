"""A convolution that skips the zeros of its input, in machine code, as a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, POINTER, Function, compile_function
from zeroskip.emit.executable_memory import HUGE, room
from zeroskip.errors import EngineError
from zeroskip.run.convolution.zero_inputs.density import break_even, density

PARAMETERS = {**dict.fromkeys(("weights", "bias", "x", "y", "scratch"), POINTER), "images": INTEGER}
VECTOR = 16  # floats: whole vectors are written, so each piece of the scratch has one more behind it


@dataclass(frozen=True)
class CompiledConvolution:
    """A convolution (batch, *takes) -> (batch, *gives), float32, both stored pixel by pixel.

    weights  as the code reads them
    bias     one for each output of every block of weights
    fixed    the addresses of these two
    strides  of the output
    scratch  floats of working memory that a call needs
    dense    what computes inputs of which more than the share `most` is not zero; None: nobody does
    spare    working memory of calls that are over, which the caches know already
    """

    run: Callable[..., None]
    weights: np.ndarray
    bias: np.ndarray
    fixed: tuple[int, int]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    strides: tuple[int, ...]
    scratch: int
    machine: Machine
    dense: Callable[[Tensor], Tensor] | None = None
    most: float = 1.0
    spare: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        shape = x.shape
        # Machine code checks nothing: of a wrong size it would read foreign memory.
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
            # On large pages: lists spread over small ones cost a third more time.
            scratch = torch.from_numpy(room(max(4 * self.scratch, HUGE)))
        self.run(*self.fixed, x.data_ptr(), y.data_ptr(), scratch.data_ptr(), images)
        self.spare.append(scratch)
        return y


def compiled_convolution(
    layer: Layer, machine: Machine, f: Function, weights: np.ndarray, *, outputs: int, scratch: int
) -> CompiledConvolution:
    """The layer computed by the finished function `f`; blocks of `weights` have so many outputs in all."""
    bias = room(4 * outputs).view(np.float32)
    if layer.bias is not None:
        bias[: len(layer.bias)] = layer.bias.detach().numpy()
    out, height, width = layer.output_shape
    return CompiledConvolution(
        run=compile_function(f.text(machine), f.name, machine, len(PARAMETERS)),
        weights=weights,
        bias=bias,
        fixed=(weights.ctypes.data, bias.ctypes.data),
        takes=tuple(layer.input_shape),
        gives=(out, height, width),
        strides=(height * width * out, 1, width * out, out),
        scratch=scratch,
        machine=machine,
    )


def with_dense_fallback(
    skipping: CompiledConvolution, dense: Callable[[Tensor], Tensor]
) -> CompiledConvolution:
    """The same with `dense` for inputs so dense that it is faster; where that begins is measured here."""
    most = break_even(skipping, dense, (1, *skipping.takes))
    return replace(skipping, dense=dense, most=most)


def scratch_offsets(sizes: Mapping[str, int]) -> dict[str, int]:
    """Where pieces of so many floats begin, in floats; "end" is how many there are in all."""
    begin, offsets = 0, {}
    for name, size in sizes.items():
        offsets[name] = begin
        begin += -(-size // VECTOR) * VECTOR + VECTOR
    return offsets | {"end": begin}
