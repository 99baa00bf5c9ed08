"""Inputs that are mostly zeros are kept as their non-zeros, and are the dense tensor to whoever reads them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroskip.data.sparse_rows import SparseRows


def compressed(dense: Tensor) -> SparseRows:
    row, columns = dense.nonzero(as_tuple=True)
    offsets = torch.cat(
        [torch.zeros(1, dtype=torch.long), torch.bincount(row, minlength=len(dense)).cumsum(0)]
    )
    return SparseRows(offsets, columns, dense[row, columns], dense.shape[1])


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Up to 12 rows of up to 9 columns, some without any non-zero."""
    count, width = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    zeros = torch.rand(count, width, generator=generator) < draw(st.floats(0, 1))
    return torch.randn(count, width, generator=generator).masked_fill(zeros, 0.0)


@settings(deadline=None)
@given(dense=matrices(), seed=st.integers(0, 99))
def test_an_index_gives_the_rows_of_the_dense_matrix_in_any_order_and_more_than_once(
    dense: Tensor, seed: int
) -> None:
    rows = compressed(dense)
    assert (len(rows), rows.shape) == (len(dense), tuple(dense.shape))
    index = torch.randint(len(dense), (7,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(rows[index], dense[index])
    assert torch.equal(rows[:3], dense[:3])
    assert torch.equal(rows.take(index)[:], dense[index])
    assert torch.equal(torch.cat(list(rows.split(5))), dense)


def test_no_row_at_all_is_an_empty_batch() -> None:
    rows = compressed(torch.eye(4))
    assert rows[torch.tensor([], dtype=torch.long)].shape == (0, 4)
    assert rows[4:].shape == (0, 4)


def test_moving_to_a_device_moves_all_three_tensors() -> None:
    moved = compressed(torch.eye(4)).to(torch.device("meta"))
    assert {moved.offsets.device.type, moved.columns.device.type, moved.values.device.type} == {"meta"}
