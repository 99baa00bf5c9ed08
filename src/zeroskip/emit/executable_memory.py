"""Memory that machine code runs from: written first, then made executable and never writable again."""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass

import numpy as np

from zeroskip.errors import EngineError

HUGE = 1 << 21  # code, weights and maps spread over small pages would miss in the table of pages


@dataclass(frozen=True)
class Executable:
    """Machine code in memory from `address` on; it lives as long as this object."""

    address: int
    alive: object


def allocate(size: int) -> np.ndarray:
    """`size` bytes of zeros, (size,) uint8, aligned to cache lines, and on large pages where they would fill some.

    >>> allocate(100).ctypes.data % 64
    0
    """
    if size < HUGE:
        memory = np.zeros(size + 64, np.uint8)
        return memory[-memory.ctypes.data % 64 :][:size]
    mapped = mmap.mmap(-1, size + HUGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(mapped, np.uint8)
    return memory[-memory.ctypes.data % HUGE :][:size]


def executable(code: bytes) -> Executable:
    """A copy of `code` that can be called, and that cannot be written to any more.

    Raises EngineError where the operating system does not allow it.

    >>> code = executable(bytes.fromhex("c3"))  # ret
    >>> code.address % 64, ctypes.string_at(code.address, 1)
    (0, b'\xc3')
    """
    if not sys.platform.startswith("linux"):
        raise EngineError(
            f"machine code of our own runs on Linux, and this is {sys.platform}. Leave out the kernel baked."
        )
    size = -(-max(1, len(code)) // HUGE) * HUGE
    memory = mmap.mmap(
        -1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
    )
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    address = -(-start // HUGE) * HUGE
    memory.seek(address - start)
    memory.write(code)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if protect(address, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise EngineError(
            "the operating system does not allow memory to become executable "
            f"({ctypes.get_errno()}). Leave out the kernel baked."
        )
    return Executable(address, memory)
