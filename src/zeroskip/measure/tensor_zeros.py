"""Zeros of one tensor, by channel, example and position.

Floats are compared as integers of the same bits: one comparison finds zeros, another NaN and Inf. That is 50 times as
fast as torch's own count along axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BITS: dict[torch.dtype, tuple[torch.dtype, type[np.unsignedinteger]]] = {
    torch.float16: (torch.int16, np.uint16),
    torch.bfloat16: (torch.int16, np.uint16),
    torch.float32: (torch.int32, np.uint32),
    torch.float64: (torch.int64, np.uint64),
}

LEAST_COUNTS = 1 << 16  # that CountMemory holds


@dataclass(frozen=True)
class TensorZeros:
    """Zeros of a tensor of n examples, as int64. -0.0 is a zero; NaN and Inf are none.

    by_channel   (channels,);  by_example (n,)
    by_position  (h, w); (1, steps) for a sequence, (1, 1) for plain features; None unless asked for
    elements     of the whole tensor
    nonfinite    how many of them are NaN or Inf
    """

    by_channel: np.ndarray
    by_example: np.ndarray
    by_position: np.ndarray | None
    elements: int
    nonfinite: int


class CountMemory:
    """Memory for counts, allocated before a network runs and used again for each batch.

    Counts that are allocated while it runs, and kept, make holes in the heap that the network's next map does not fit
    into; new memory for the map takes longer than all the counting.
    """

    def __init__(self) -> None:
        self._all, self._used = np.empty(LEAST_COUNTS, np.int64), 0

    def clear(self) -> None:
        """Allow all counts made so far to be overwritten; counts that did not fit before will fit now."""
        if self._used > len(self._all):
            self._all = np.empty(self._used, np.int64)
        self._used = 0

    def zeros(self, count: int) -> np.ndarray:
        """(count,) int64 zeros."""
        start, self._used = self._used, self._used + count
        inside = self._used <= len(self._all)
        part = self._all[start : self._used] if inside else np.empty(count, np.int64)
        part.fill(0)
        return part


def count_zeros(tensor: Tensor, memory: CountMemory, *, maps: bool, positions: bool = False) -> TensorZeros:
    """Count the zeros of `tensor`: (n, channels, h, w) or (channels, h, w) if `maps`, else (n, ..., channels).

    memory     of the counts
    positions  count by position too, which reads the tensor once more

    >>> count_zeros(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), CountMemory(), maps=False).by_channel
    array([2, 1])
    """
    from zeroskip.measure import zero_count_loops  # imports numba, which is slow

    blocks, outside, shape = _blocks(tensor.detach().cpu(), maps)
    bits = _bits(blocks)
    count, channels = len(blocks), blocks.shape[1 if outside else 2]
    over_places, over_channels = zero_count_loops.over_last, zero_count_loops.over_middle
    if not outside:
        over_places, over_channels = over_channels, over_places
    by_channel, by_example = memory.zeros(channels), memory.zeros(count)
    nonfinite = int(over_places(*bits, by_channel, by_example))
    if not positions:
        return TensorZeros(by_channel, by_example, None, tensor.numel(), nonfinite)
    by_position = memory.zeros(math.prod(shape))
    over_channels(*bits, by_position, np.empty_like(by_example))
    return TensorZeros(by_channel, by_example, by_position.reshape(shape), tensor.numel(), nonfinite)


def _blocks(tensor: Tensor, maps: bool) -> tuple[Tensor, bool, tuple[int, int]]:
    """(n, channels, places) and True or (n, places, channels) and False, in memory order; the places' (h, w)."""
    if maps:
        tensor = tensor if tensor.ndim == 4 else tensor[None]  # (n, channels, h, w)
        if tensor.is_contiguous():
            height, width = tensor.shape[2:]
            return tensor.flatten(2), True, (height, width)
        tensor = tensor.movedim(1, -1)  # contiguous where the map is channels_last
    tensor = tensor if tensor.ndim > 1 else tensor[None]
    count, *places, channels = tensor.shape  # (n, ..., channels)
    shape = math.prod(places[:-1]), places[-1] if places else 1
    return tensor.reshape(count, math.prod(places), channels), False, shape


def _bits(blocks: Tensor) -> tuple[np.ndarray, np.unsignedinteger, np.unsignedinteger]:
    """The values as integers, the mask of all bits but the sign, and the integer that is infinity."""
    floats = blocks.contiguous() if blocks.dtype in _BITS else blocks.float().contiguous()
    same_size, unsigned = _BITS[floats.dtype]
    infinity = torch.tensor(math.inf, dtype=floats.dtype).view(same_size).item()
    magnitude = (1 << (8 * floats.element_size() - 1)) - 1
    return floats.view(same_size).numpy().view(unsigned), unsigned(magnitude), unsigned(infinity)
