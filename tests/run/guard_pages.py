"""Memory next to a page that may not be touched: a stray access of machine code ends the process, and the tests.

`guarded` gives such memory; `all_memory_guarded` makes the engine use it for whatever it hands to machine code.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroskip.emit import executable_memory
from zeroskip.run import argument_block as blocks
from zeroskip.run.argument_block import ArgumentBlock
from zeroskip.run.convolution.zero_inputs import compiled_convolution

PAGE = mmap.PAGESIZE
PROT_NONE = 0
by_side = pytest.mark.parametrize("at_end", [True, False], ids=["page after", "page before"])


def guarded(size: int, *, at_end: bool = True) -> np.ndarray:
    """(size,) bytes of zeros right before an untouchable page, or right behind one."""
    inner = max(PAGE, -(-size // PAGE) * PAGE)
    array = np.frombuffer(mmap.mmap(-1, inner + 2 * PAGE), np.uint8)
    for guard in (0, PAGE + inner):
        protect(array.ctypes.data + guard)
    start = PAGE + (inner - size if at_end else 0)
    return array[start : start + size]


def guarded_copy(values: Tensor, *, at_end: bool = True) -> Tensor:
    """The values, stored in the order of their axes."""
    memory = guarded(values.numel() * values.element_size(), at_end=at_end)
    return torch.from_numpy(memory).view(values.dtype).view(values.shape).copy_(values)


@contextmanager
def all_memory_guarded(*, at_end: bool = True) -> Iterator[None]:
    """Argument blocks and each of their arrays, weights, working memory and outputs made inside are guarded.

    What is to be written holds NaN before, so that whatever was left out shows in the result.
    """

    def allocate(size: int) -> np.ndarray:
        return guarded(size, at_end=at_end)

    def argument_block(*parts: int | np.ndarray, alive: Sequence[object] = ()) -> ArgumentBlock:
        table, arrays = guarded(8 * len(parts), at_end=at_end), []
        for number, part in enumerate(parts):
            if not isinstance(part, int):
                arrays.append(guarded(part.nbytes, at_end=at_end))
                arrays[-1][:] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
                part = arrays[-1].ctypes.data
            table.view(np.int64)[number] = part
        return ArgumentBlock(table.ctypes.data, (table, *arrays, *alive))

    def empty(*shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        shape = shape if not shape or isinstance(shape[0], int) else tuple(shape[0])
        return guarded_copy(torch.full(shape, torch.nan, dtype=dtype), at_end=at_end)

    def empty_strided(shape: Sequence[int], strides: Sequence[int]) -> Tensor:
        return empty(int(np.prod(shape))).as_strided(shape, strides)

    replaced = {executable_memory.allocate: allocate, blocks.argument_block: argument_block}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_convolution, "HUGE", 1)
        for name in ("allocate", "argument_block"):
            for module in [one for key, one in sys.modules.items() if key.startswith("zeroskip.run")]:
                if getattr(module, name, None) in replaced:
                    patch.setattr(module, name, replaced[getattr(module, name)])
        with mock.patch("torch.empty", empty), mock.patch("torch.empty_strided", empty_strided):
            yield


def protect(address: int) -> None:
    """Let nobody touch the page at `address`."""
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert mprotect(address, PAGE, PROT_NONE) == 0
