"""Memory that machine code runs from: written first, then made executable and never writable again."""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass

from zeroskip.errors import EngineError

HUGE = 1 << 21  # code and weights spread over hundreds of small pages would miss in the table of pages


@dataclass(frozen=True)
class Executable:
    """Machine code in memory from `address` on; it lives as long as this object."""

    address: int
    alive: object


def executable(code: bytes) -> Executable:
    """A copy of `code` that can be called, and that nobody can write to any more.

    Raises EngineError where the operating system does not allow it.

    >>> executable(ret().bytes()).address % 64
    0
    """
    if not sys.platform.startswith("linux"):
        raise EngineError(
            f"machine code of our own runs on Linux, and this is {sys.platform}. Leave out the kernel baked."
        )
    size = -(-max(1, len(code)) // HUGE) * HUGE if len(code) >= HUGE // 2 else max(1, len(code))
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if protect(address, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise EngineError(
            "the operating system does not allow memory to become executable "
            f"({ctypes.get_errno()}). Leave out the kernel baked."
        )
    return Executable(address, memory)
