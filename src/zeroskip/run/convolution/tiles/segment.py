"""Calling a part of a network that runs on tiles, with tensors of any batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.emit.executable_memory import allocate
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.quad_steps import TO_BYTES, TO_FP32
from zeroskip.run.convolution.tiles.segment_code import SegmentCode
from zeroskip.run.convolution.tiles.steps import joined, seconds_by_step
from zeroskip.run.convolution.tiles.tensor_transfer import READ, WRITE


class Segment:
    """(tensors that enter) -> tensors that leave, `images` examples at a time, on several threads at once.

    Every call works in memory that no other call uses at the time, so it may be made from several threads.
    """

    def __init__(self, code: SegmentCode, threads: int) -> None:
        self.code, self._idle = code, list[_Workspace]()
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self._thread_count = threads
        self._inputs = [(name, code.forms[name].shape) for name in code.inputs]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        count, images, given = len(inputs[0]), self.code.images, []
        for tensor, (name, shape) in zip(inputs, self._inputs, strict=True):
            # Machine code trusts its arguments: a wrong size would make it read foreign memory.
            if tensor.shape != (count, *shape) or tensor.dtype is not torch.float32:
                raise EngineError(
                    f"layers on tiles take {shape}, and were given {tensor.dtype} {tuple(tensor.shape)}."
                )
            given.append(self.code.tensor(name, tensor))
        missing = -count % images
        if missing:
            given = [torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) for tensor in given]
        made = [self.code.empty(name, count + missing) for name in self.code.outputs]
        groups = range((count + missing) // images)
        if self._threads is None or len(groups) < 2:
            self._run([*given, *made], groups)
        else:
            parts = [groups[number :: self._thread_count] for number in range(self._thread_count)]
            list(self._threads.map(lambda part: self._run([*given, *made], part), parts))
        made = [tensor[:count] for tensor in made] if missing else made
        return [
            self.code.returned(name, tensor) for name, tensor in zip(self.code.outputs, made, strict=True)
        ]

    def _run(self, tensors: Sequence[Tensor], groups: Sequence[int]) -> None:
        """Work on some of the groups of images."""
        run, images = self.code.chain.run, self.code.images
        places = [(each.data_ptr(), images * each[0].numel() * 4) for each in tensors] if len(groups) else []
        try:
            space = self._idle.pop()
        except IndexError:
            space = _workspace(self.code.bytes, len(tensors))
        try:
            for group in groups:
                space.words[:] = [address + group * step for address, step in places]
                run(space.base)
        finally:
            self._idle.append(space)


class _Workspace(NamedTuple):
    """Memory at the address `base`; its first `words` are the addresses of tensors."""

    memory: np.ndarray
    words: np.ndarray
    base: int


def _workspace(size: int, tensors: int) -> _Workspace:
    memory = allocate(size)
    return _Workspace(memory, memory[: 8 * tensors].view(np.int64), memory.ctypes.data)


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of a segment's steps on a batch, by operation.

    total     of all that is done for it, the others included
    entering  of reading tensors onto tiles for it
    leaving   of writing its value into a tensor
    """

    total: Mapping[str, float]
    entering: Mapping[str, float]
    leaving: Mapping[str, float]


def step_seconds(
    segment: Segment, inputs: Sequence[Tensor], threads: int, clock: Callable[[], float], reading: float
) -> StepSeconds:
    """What the segment's steps take for these inputs, run one by one for as many examples as go through at a time."""
    code, turns = segment.code, -(-len(inputs[0]) // (segment.code.images * threads))
    given = [code.tensor(name, each) for name, each in zip(code.inputs, inputs, strict=True)]
    tensors = [each.repeat(code.images, *[1] * (each.ndim - 1))[: code.images].contiguous() for each in given]
    tensors += [code.empty(name, code.images) for name in code.outputs]
    memory = allocate(code.bytes)
    memory[: 8 * len(tensors)].view(np.int64)[:] = [tensor.data_ptr() for tensor in tensors]
    rounds = [seconds_by_step(code.chain, memory.ctypes.data, clock, reading) for _ in range(3)]
    spent = {key: turns * min(each[key] for each in rounds) for key in rounds[0]}
    total: dict[str, float] = {}
    for (_, node), seconds in spent.items():
        total[node] = total.get(node, 0.0) + seconds
    entering, leaving = (
        {node: seconds for (name, node), seconds in spent.items() if name == kind} for kind in (READ, WRITE)
    )
    return StepSeconds(total, entering, leaving)


def without_layout_conversion(segment: Segment, machine: Machine, *inputs: Tensor) -> Callable[[], None]:
    """What a segment of one layer does to the first of `inputs` on tiles, to be timed.

    Reading and writing tensors is left out, and their conversion to bytes and back: both are done once in a network.
    """
    code = segment.code
    given = [code.tensor(name, each[: code.images]) for name, each in zip(code.inputs, inputs, strict=True)]
    tensors = [*given, *(code.empty(name, code.images) for name in code.outputs)]
    memory = allocate(code.bytes)
    memory[: 8 * len(tensors)].view(np.int64)[:] = [tensor.data_ptr() for tensor in tensors]
    code.chain.run(memory.ctypes.data)
    outer = READ, WRITE, TO_BYTES, TO_FP32
    inner = joined([step for step in code.chain.steps if step.name not in outer], machine)
    alive = memory, tensors

    def run() -> None:
        inner.run(alive[0].ctypes.data)

    return run
