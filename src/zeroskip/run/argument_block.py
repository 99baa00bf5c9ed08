"""The argument block of a compiled kernel: numbers, and arrays behind addresses, that its code reads from memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zeroskip.emit.executable_memory import allocate


@dataclass(frozen=True)
class ArgumentBlock:
    """Numbers and arrays that machine code finds behind one address.

    address  of a table with 8 bytes for each: the number, or the address of the array
    alive    the memory behind it, which lives as long as the block
    """

    address: int
    alive: tuple[object, ...]


def argument_block(*parts: int | np.ndarray, alive: Sequence[object] = ()) -> ArgumentBlock:
    """The block that holds `parts` in this order, arrays as copies; `alive` is kept besides.

    >>> import ctypes
    >>> block = argument_block(300, np.array([1.5, 2.5], np.float32))
    >>> number, pointer = (ctypes.c_int64 * 2).from_address(block.address)
    >>> number, list((ctypes.c_float * 2).from_address(pointer))
    (300, [1.5, 2.5])
    """
    arrays = [np.ascontiguousarray(part) for part in parts if not isinstance(part, int)]
    # Whole cache lines: a vector then seldom lies across two of them.
    begin = 64 * offsets([-(-array.nbytes // 64) for array in arrays])
    memory = allocate(int(begin[-1]) + 8 * len(parts))
    for array, start in zip(arrays, begin, strict=False):
        memory[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    addresses = iter((memory.ctypes.data + begin).tolist())
    fields = [part if isinstance(part, int) else next(addresses) for part in parts]
    memory[begin[-1] :].view(np.int64)[:] = fields
    return ArgumentBlock(memory.ctypes.data + int(begin[-1]), (memory, *alive))


def addresses(block: ArgumentBlock, count: int) -> list[int]:
    """The first `count` fields of the block: of arrays, their addresses.

    >>> addresses(argument_block(7, 8), 2)
    [7, 8]
    """
    return list((ctypes.c_int64 * count).from_address(block.address))


def offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each of several arrays begins when they lie one after the other, and where the last one ends.

    >>> offsets([3, 0, 2])
    array([0, 3, 3, 5])
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
