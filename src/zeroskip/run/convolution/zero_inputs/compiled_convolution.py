"""A convolution that skips the zeros of its input, in machine code, as a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, POINTER, Function, compile_function
from zeroskip.emit.executable_memory import HUGE, allocate
from zeroskip.errors import EngineError
from zeroskip.run.convolution.zero_inputs.nonzero_share import nonzero_share

PARAMETERS = {**dict.fromkeys(("weights", "bias", "x", "y", "scratch"), POINTER), "images": INTEGER}
VECTOR = 16  # floats: whole vectors are written, so each piece of the scratch has one more behind it


@dataclass(frozen=True)
class CompiledConvolution:
    """A convolution (batch, *input_shape) -> (batch, *output_shape), float32, both stored pixel by pixel.

    arrays   weights as the code reads them, and biases, one for each output of every block of weights
    fixed    addresses of the arrays
    strides  of the output
    scratch  floats of working memory that a call needs
    dense    computes inputs of which more than the share `most` is not zero; None: they are computed here too
    spare    working memory of calls that are over, which the caches know already
    """

    run: Callable[..., None]
    arrays: tuple[np.ndarray, np.ndarray]
    fixed: tuple[int, int]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    strides: tuple[int, ...]
    scratch: int
    machine: Machine
    dense: Callable[[Tensor], Tensor] | None = None
    most: float = 1.0
    spare: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        shape = x.shape
        # Machine code checks nothing: of a wrong size it would read foreign memory.
        if shape[1:] != self.input_shape or x.dtype is not torch.float32:
            raise EngineError(
                f"the layer takes float32 (batch, {', '.join(map(str, self.input_shape))}), and was given "
                f"{x.dtype} {tuple(x.shape)}."
            )
        x = x.contiguous(memory_format=torch.channels_last)
        if self.dense is not None and nonzero_share(x, self.machine) > self.most:
            return self.dense(x)
        images = shape[0]
        y = torch.empty_strided((images, *self.output_shape), self.strides)
        try:
            scratch = self.spare.pop()  # no other call's: several threads may run the same layer
        except IndexError:
            # On large pages: lists spread over small ones cost a third more time.
            scratch = torch.from_numpy(allocate(max(4 * self.scratch, HUGE)))
        self.run(*self.fixed, x.data_ptr(), y.data_ptr(), scratch.data_ptr(), images)
        self.spare.append(scratch)
        return y


def compiled_convolution(
    layer: Layer, machine: Machine, f: Function, weights: np.ndarray, *, outputs: int, scratch: int
) -> CompiledConvolution:
    """The layer computed by the finished function `f`; blocks of `weights` have so many outputs in all."""
    bias = allocate(4 * outputs).view(np.float32)
    if layer.bias is not None:
        bias[: len(layer.bias)] = layer.bias.detach().numpy()
    out, height, width = layer.output_shape[-3:]
    return CompiledConvolution(
        run=compile_function(f.text(machine), f.name, machine, len(PARAMETERS)),
        arrays=(weights, bias),
        fixed=(weights.ctypes.data, bias.ctypes.data),
        input_shape=tuple(layer.input_shape[-3:]),
        output_shape=(out, height, width),
        strides=(height * width * out, 1, width * out, out),
        scratch=scratch,
        machine=machine,
    )


def scratch_offsets(sizes: Mapping[str, int]) -> dict[str, int]:
    """Where pieces of so many floats begin, in floats; "end" is how many there are in all."""
    begin, offsets = 0, {}
    for name, size in sizes.items():
        offsets[name] = begin
        begin += -(-size // VECTOR) * VECTOR + VECTOR
    return offsets | {"end": begin}
