"""Calling a part of a network that runs on tiles, with tensors of any batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.emit.executable_memory import room
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.lowering import Lowered
from zeroskip.run.convolution.tiles.steps import joined


class Segment:
    """(tensors that enter) -> tensors that leave, `images` examples at a time, on several threads at once.

    Every call works in memory that no other call uses at the time, so it may be made from several threads.
    """

    def __init__(self, lowered: Lowered, threads: int) -> None:
        self.lowered, self._idle = lowered, list[np.ndarray]()
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self._share = threads

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        given = [each.contiguous() for each in inputs]
        count, images = len(given[0]), self.lowered.images
        for each, shape in zip(given, self.lowered.needs, strict=True):
            # Machine code believes what it is told: a wrong size would make it read foreign memory.
            if each.shape != (count, *shape) or each.dtype is not torch.float32:
                raise EngineError(
                    f"layers on tiles take {shape}, and were given {each.dtype} {tuple(each.shape)}."
                )
        missing = -count % images
        if missing:
            given = [torch.cat([each, each.new_zeros(missing, *each.shape[1:])]) for each in given]
        made = [torch.empty(count + missing, *shape) for shape in self.lowered.shapes]
        groups = range((count + missing) // images)
        if self._threads is None or len(groups) < 2:
            self._run([*given, *made], groups)
        else:
            parts = [groups[number :: self._share] for number in range(self._share)]
            list(self._threads.map(lambda part: self._run([*given, *made], part), parts))
        return [each[:count] for each in made] if missing else made

    def _run(self, tensors: Sequence[Tensor], groups: Sequence[int]) -> None:
        """Work on some of the groups of images."""
        run = self.lowered.chain.run
        images = self.lowered.images
        places = [(each.data_ptr(), images * each[0].numel() * 4) for each in tensors] if len(groups) else []
        with self._workspace() as memory:
            words, base = memory[: 8 * len(tensors)].view(np.int64), memory.ctypes.data
            for group in groups:
                words[:] = [address + group * step for address, step in places]
                run(base)

    @contextmanager
    def _workspace(self) -> Iterator[np.ndarray]:
        try:
            memory = self._idle.pop()
        except IndexError:
            memory = room(self.lowered.bytes)
        try:
            yield memory
        finally:
            self._idle.append(memory)


def between_doors(segment: Segment, machine: Machine, *inputs: Tensor) -> Callable[[], None]:
    """What the segment does to the first of `inputs` on tiles, without the way onto them and back, to be timed.

    >>> between_doors(segment, detect(), x)()
    """
    lowered = segment.lowered
    given = [each[: lowered.images].contiguous() for each in inputs]
    tensors = [*given, *(torch.empty(lowered.images, *shape) for shape in lowered.shapes)]
    memory = room(lowered.bytes)
    memory[: 8 * len(tensors)].view(np.int64)[:] = [each.data_ptr() for each in tensors]
    lowered.chain.run(memory.ctypes.data)
    steps = [step for step in lowered.chain.steps if step.name not in ("enter", "leave")]
    inner = joined(steps, machine)
    alive = memory, tensors

    def run() -> None:
        inner.run(alive[0].ctypes.data)

    return run
