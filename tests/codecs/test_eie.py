"""EIE's columns: each processing element's own rows, with padding for runs of more than 15 zeros."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codecs import eie
from zeroskip.errors import PackError, RecipeError

MATRICES = st.builds(
    lambda rows, columns, sparsity, seed: random_codes(rows, columns, sparsity, seed),
    st.integers(0, 90),
    st.integers(0, 8),
    st.sampled_from([0.0, 0.5, 0.9, 0.97, 1.0]),
    st.integers(0, 2**32 - 1),
)


def random_codes(rows: int, columns: int, sparsity: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(1, 16, (rows, columns)) * (random.random((rows, columns)) >= sparsity)


def one_by_one(codes: np.ndarray, elements: int) -> tuple[list[int], list[int], list[list[int]]]:
    """The format by its definition, one element, column and row at a time."""
    stored, runs, pointers = [], [], []
    for element in range(elements):
        first, own = len(stored), [0]
        for column in codes[element::elements].T.tolist():
            zeros = 0
            for code in column[: max((i + 1 for i, code in enumerate(column) if code), default=0)]:
                if code or zeros == 15:
                    stored, runs, zeros = [*stored, code], [*runs, zeros], 0
                else:
                    zeros += 1
            own.append(len(stored) - first)
        pointers.append(own)
    return stored, runs, pointers


@given(codes=MATRICES, elements=st.sampled_from([1, 2, 3, 7, 64]))
def test_codes_come_back_and_take_exactly_the_promised_bits(codes, elements):
    stored, runs, pointers = eie.encode(codes, elements)
    np.testing.assert_array_equal(eie.decode(stored, runs, pointers, len(codes)), codes)
    assert eie.bits(codes != 0, elements) == 8 * len(stored) + 16 * pointers.size
    assert eie.padding(codes != 0, elements) == np.count_nonzero(stored == 0)


@given(codes=MATRICES, elements=st.sampled_from([1, 2, 5]))
def test_entries_are_those_that_the_definition_makes_one_by_one(codes, elements):
    stored, runs, pointers = eie.encode(codes, elements)
    assert (stored.tolist(), runs.tolist(), pointers.tolist()) == one_by_one(codes, elements)


def test_the_paper_s_example_column_has_a_padding_entry_after_15_of_18_zeros():
    stored, runs, pointers = eie.encode(np.array([0, 0, 1, 2, *[0] * 18, 3])[:, None], 1)
    assert (stored.tolist(), runs.tolist(), pointers.tolist()) == ([1, 2, 0, 3], [2, 0, 15, 2], [[0, 4]])


def test_rows_are_dealt_in_turn_and_zeros_are_counted_within_an_element_s_own():
    codes = np.zeros((8, 1), int)
    codes[5], codes[6] = 9, 4  # element 1 holds rows 1, 5; element 2 rows 2, 6
    stored, runs, pointers = eie.encode(codes, 4)
    assert (stored.tolist(), runs.tolist()) == ([9, 4], [1, 1])
    assert pointers.tolist() == [[0, 0], [0, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("sparsity", [0.0, 0.9, 0.97, 1.0])
@pytest.mark.parametrize(("rows", "columns", "elements"), [(100, 9, 4), (40, 3, 1), (70, 2, 64)])
def test_expected_bits_lie_within_4_standard_errors_of_300_random_masks(rows, columns, elements, sparsity):
    random = np.random.default_rng(5)
    drawn = np.array([eie.bits(random.random((rows, columns)) >= sparsity, elements) for _ in range(300)])
    allowed = 4 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    assert abs(drawn.mean() - eie.expected_bits(rows, columns, sparsity, elements)) <= allowed + 1e-6


@pytest.mark.real_data
def test_the_authors_own_fc8_decodes_and_encodes_to_their_1051991_entries():
    path = Path(os.environ.get("ZEROSKIP_DATA", ""), "accelerators", "eie_alexnet_fc8.npz")
    if not os.environ.get("ZEROSKIP_DATA") or not path.is_file():
        pytest.skip("EIE's data are absent: set ZEROSKIP_DATA to the folder that holds accelerators/")
    with np.load(path) as stored:
        codes, runs, pointers = stored["codes"], stored["zero_runs"], stored["pointers"]
    matrix = eie.decode(codes, runs, pointers, 1000)
    assert (matrix.shape, len(codes)) == ((1000, 4097), 1_051_991)
    again = eie.encode(matrix, 64)
    for ours, theirs in zip(again, (codes, runs, pointers), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("codes", "runs", "pointers", "fact"),
    [
        ([1], [1, 2], [[0, 1]], "no list of entries"),
        ([16], [0], [[0, 1]], "do not fit 4 bits"),
        ([-1], [0], [[0, 1]], "do not fit 4 bits"),
        ([1.5], [0], [[0, 1]], "codes of float64 are not whole"),
        ([1], [0.5], [[0, 1]], "no list of entries"),
        ([1], [0], [0, 1], r"pointers \(2,\) of int64 are no table"),
        ([1], [0], [[]], "are no table"),
        ([1], [0], [[0.0, 1.0]], "of float64 are no table"),
        ([1], [16], [[0, 1]], "not all between 0 and 15"),
        ([0, 1], [3, 0], [[0, 2]], "code 0 has a gap of 3, a filler has 15"),
        ([0], [15], [[0, 1]], "a column ends with padding"),
        ([1], [0], [[0, 2]], "do not divide 1 entries"),
        ([1], [0], [[1, 1]], "do not divide 1 entries"),
        ([1, 1], [0, 0], [[0, 3, 2]], "do not divide 2 entries"),
        ([1, 1], [9, 9], [[0, 1, 2], [0, 0, 0]], "row 18 of 18"),
    ],
)
def test_entries_that_encode_would_not_write_are_refused(codes, runs, pointers, fact):
    with pytest.raises(PackError, match=fact):
        eie.decode(np.array(codes), np.array(runs), np.array(pointers), 18)


@pytest.mark.parametrize("codes", [[[16]], [[-1]]])
def test_codes_that_do_not_fit_4_bits_are_refused(codes):
    with pytest.raises(PackError, match="do not fit 4 bits"):
        eie.encode(np.array(codes), 1)
    with pytest.raises(PackError, match="codes of float64 are not whole"):
        eie.encode(np.array([[0.5]]), 1)


def test_no_elements_a_vector_and_a_sparsity_of_90_are_refused():
    for codes, elements in ((np.ones((2, 2), int), 0), (np.ones(3, int), 1)):
        with pytest.raises(PackError, match="give a matrix and at least 1"):
            eie.encode(codes, elements)
    with pytest.raises(RecipeError, match="from 0 to 1"):
        eie.expected_bits(10, 10, 90, 4)
