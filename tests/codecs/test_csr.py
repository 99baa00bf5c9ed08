"""Compressed sparse rows come back exactly, in exactly the promised bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from zeroskip.codecs import csr
from zeroskip.errors import PackError, RecipeError

MASKS = st.builds(
    lambda rows, columns, sparsity, seed: np.random.default_rng(seed).random((rows, columns)) >= sparsity,
    st.integers(0, 30),
    st.integers(0, 60),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.integers(0, 2**32 - 1),
)


@given(mask=MASKS)
def test_a_mask_comes_back_and_takes_16_bits_a_non_zero_and_32_a_row_and_32(mask):
    columns, pointers = csr.encode(mask)
    np.testing.assert_array_equal(csr.decode(columns, pointers, mask.shape), mask)
    assert csr.bits(mask) == 8 * (columns.nbytes + pointers.nbytes)
    assert csr.bits(mask) == 16 * mask.sum() + 32 * (len(mask) + 1)


@given(mask=MASKS.filter(lambda mask: mask.size))
def test_columns_and_pointers_are_those_of_scipy(mask):
    theirs = csr_array(mask)
    columns, pointers = csr.encode(mask)
    assert (columns.tolist(), pointers.tolist()) == (theirs.indices.tolist(), theirs.indptr.tolist())


def test_a_row_of_65536_columns_is_the_widest():
    mask = np.zeros((1, 65_536), bool)
    mask[0, -1] = True
    np.testing.assert_array_equal(csr.decode(*csr.encode(mask), mask.shape), mask)
    with pytest.raises(PackError, match=r"\(1, 65537\) has no rows of at most 65,536 columns"):
        csr.encode(np.zeros((1, 65_537), bool))


def test_expected_bits_are_the_mean_of_200_random_masks_within_4_standard_errors():
    random = np.random.default_rng(1)
    drawn = np.array([csr.bits(random.random((9, 50)) >= 0.8) for _ in range(200)])
    allowed = 4 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    assert abs(drawn.mean() - csr.expected_bits(9, 50, 0.8)) <= allowed


@pytest.mark.parametrize(
    ("columns", "pointers", "fact"),
    [
        ([1], [0, 1], "do not divide 1 columns into 2 rows"),
        ([1], [0, 0, 0], "do not divide 1 columns"),
        ([1], [1, 1, 1], "do not divide 1 columns"),
        ([1], [0, 2, 1], "do not divide 1 columns"),
        ([], [], "do not divide 0 columns"),
        ([3], [0, 1, 1], "columns 3 to 3 are not all among 3"),
        ([-1], [0, 1, 1], "columns -1 to -1 are not all among 3"),
        ([1, 1], [0, 2, 2], "do not increase"),
        ([2, 1], [0, 2, 2], "do not increase"),
        ([0.5], [0, 1, 1], "no integers"),
        ([1], [0.0, 1.0, 1.0], "no integers"),
    ],
)
def test_columns_and_pointers_that_encode_would_not_write_are_refused(columns, pointers, fact):
    with pytest.raises(PackError, match=fact):
        csr.decode(np.array(columns or np.zeros(0, int)), np.array(pointers or np.zeros(0, int)), (2, 3))


def test_a_vector_and_a_sparsity_of_90_are_refused():
    with pytest.raises(PackError, match="reshape it"):
        csr.bits(np.ones(3, bool))
    with pytest.raises(RecipeError, match="from 0 to 1"):
        csr.expected_bits(1, 10, 90)
