"""Calling a part of a network that runs on tiles, with tensors of any batch size."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from zeroskip.run.tiles.lower import Lowered

HUGE = 1 << 21


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
            memory = workspace(self.lowered.bytes)
        try:
            yield memory
        finally:
            self._idle.append(memory)


def workspace(size: int) -> np.ndarray:
    """Zeroed memory for one call at a time, on large pages where the system has them.

    >>> workspace(4096).nbytes
    2097152
    """
    memory = mmap.mmap(-1, -(-size // HUGE) * HUGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
