"""Working memory of kernels that skip zero inputs: where its pieces begin, and memory that calls take and give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zeroskip.emit.executable_memory import HUGE, room

VECTOR = 16  # floats: whole vectors are written, so each piece has one more behind it


@dataclass(frozen=True)
class Scratch:
    """Working memory of one call, on large pages: lists spread over small ones cost a third more time."""

    address: int
    alive: np.ndarray


def scratch_of(floats: int) -> Scratch:
    """Fresh working memory of at least so many floats."""
    memory = room(max(4 * floats, HUGE))
    return Scratch(memory.ctypes.data, memory)


def scratch_offsets(sizes: Mapping[str, int]) -> dict[str, int]:
    """Where pieces of so many floats begin, in floats; "end" is how many there are in all."""
    begin, offsets = 0, {}
    for name, size in sizes.items():
        offsets[name] = begin
        begin += -(-size // VECTOR) * VECTOR + VECTOR
    return offsets | {"end": begin}
