"""Inputs that are mostly zeros, kept as their non-zeros and handed out as dense tensors, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseRows:
    """A matrix (count, width) as compressed rows; an index gives the dense float32 rows, as a tensor would.

    offsets  (count + 1,) int64: row i is entries offsets[i] .. offsets[i + 1] of the two below
    columns  (entries,) int64, each column at most once in a row
    values   (entries,) float32
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor
    width: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        part = self.take(torch.arange(len(self))[index].to(self.values.device))
        dense = torch.zeros(part.shape, device=self.values.device)
        dense[part.rows, part.columns] = part.values
        return dense

    @property
    def shape(self) -> tuple[int, int]:
        """(count, width), as of the dense matrix."""
        return len(self), self.width

    @property
    def rows(self) -> Tensor:
        """The row of each entry. (entries,)"""
        lengths = self.offsets[1:] - self.offsets[:-1]
        return torch.repeat_interleave(torch.arange(len(self), device=lengths.device), lengths)

    def take(self, rows: Tensor) -> SparseRows:
        """Those rows, in that order, still compressed."""
        begins = self.offsets[rows]
        offsets = torch.cat([begins.new_zeros(1), (self.offsets[rows + 1] - begins).cumsum(0)])
        made = SparseRows(offsets, self.columns[:0], self.values[:0], self.width)
        places = (begins - offsets[:-1])[made.rows] + torch.arange(int(offsets[-1]), device=rows.device)
        return replace(made, columns=self.columns[places], values=self.values[places])

    def split(self, size: int) -> Iterator[Tensor]:
        """Dense batches of at most `size` rows, in order."""
        return (self[begin : begin + size] for begin in range(0, len(self), size))

    def to(self, device: torch.device) -> SparseRows:
        """The same rows on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("offsets", "columns", "values")}
        return replace(self, **moved)
