"""Runs a segment on tiles where one byte too far ends the process: guard pages at every map and every tensor.

All memory that a step may write is filled with NaN first, so that whatever was left out shows in the result.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from run.guard_pages import PAGE, protect
from run.guard_pages import guarded_copy as tensor
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.run.convolution.tiles import arrangement
from zeroskip.run.convolution.tiles.lowering import lower
from zeroskip.run.convolution.tiles.operations import Subgraph
from zeroskip.run.convolution.tiles.segment_code import SegmentCode


class GuardedWorkspace:
    """As arrangement._Workspace, but each piece has pages of its own, and an untouchable one next to it.

    The untouchable page follows right after the piece, or comes right before it where `behind` is False.
    """

    def __init__(self, behind: bool) -> None:
        self.bytes, self.guards, self._behind = 2 * PAGE, [PAGE], behind

    def take_(self, size: int, first: int, last: int) -> int:
        start = self.bytes
        self.bytes += -(-size // PAGE) * PAGE + PAGE
        self.guards.append(self.bytes - PAGE)
        return self.bytes - PAGE - size if self._behind else start


def memory(size: int, guards: Sequence[int] = ()) -> np.ndarray:
    """(size,) bytes that begin with a page, with untouchable pages at `guards` and right after the end."""
    whole = -(-size // PAGE) * PAGE
    mapped = mmap.mmap(-1, whole + PAGE)
    array = np.frombuffer(mapped, np.uint8)
    array.view(np.uint32)[:] = 0x7FC07FC0  # NaN in fp32, and two of them in fp16
    for guard in [*guards, whole]:
        protect(array.ctypes.data + guard)
    return array[:size] if guards else array[whole - size : whole]


def lowered(
    subgraph: Subgraph, machine: Machine, *, behind: bool | None = True, **options: Any
) -> tuple[SegmentCode, list[int]]:
    """As `lower`, every map with a guard page next to it; and where in the workspace these are.

    With `behind` None the maps lie as they do otherwise, one in the place of another that is needed no more.
    """
    if behind is None:
        return lower(subgraph, machine, **options), []
    workspace = GuardedWorkspace(behind)
    with mock.patch.object(arrangement, "_Workspace", return_value=workspace):
        return lower(subgraph, machine, **options), workspace.guards


def call(part: SegmentCode, guards: Sequence[int], inputs: Sequence[Tensor]) -> list[Tensor]:
    """One call with as many images as `part` takes, on guarded memory."""
    given = [tensor(each) for each in inputs]
    made = [tensor(part.empty(name, part.images).fill_(torch.nan)) for name in part.outputs]
    work = memory(part.bytes, guards)
    words = [each.data_ptr() for each in [*given, *made]]
    work[: 8 * len(words)].view(np.int64)[:] = words
    part.chain.run(work.ctypes.data)
    for before, after in zip(inputs, given, strict=True):
        assert torch.equal(
            before.view(torch.int32), after.view(torch.int32)
        )  # NaN too: what is given is only read
    return made
