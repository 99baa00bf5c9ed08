"""Deep Compression's entries say which code stands where, with a filler for every gap that is too long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codecs import relative
from zeroskip.errors import PackError, RecipeError

CODES = st.one_of(
    st.lists(st.integers(0, 3), max_size=200).map(lambda codes: np.array(codes, np.int64)),
    st.builds(
        lambda sparsity, size, seed: random_codes(size, sparsity, seed),
        st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
        st.integers(0, 2000),
        st.integers(0, 2**32 - 1),
    ),
)


def random_codes(size: int, sparsity: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(1, 256, size) * (random.random(size) >= sparsity)


def one_by_one(codes: np.ndarray, width: int) -> list[tuple[int, int]]:
    """The entries by the definition, position by position; fillers after the last code are taken away."""
    entries, zeros = [], 0
    for code in codes.tolist():
        if code or zeros == 2**width - 1:
            entries.append((zeros, code))
            zeros = 0
        else:
            zeros += 1
    while entries and entries[-1][1] == 0:
        entries.pop()
    return entries


@given(codes=CODES, width=st.integers(1, 16))
def test_codes_come_back_and_take_exactly_the_promised_bits(codes, width):
    gaps, entries = relative.encode(codes, width)
    np.testing.assert_array_equal(relative.decode(gaps, entries, len(codes), width), codes)
    assert relative.bits(codes != 0, width, 5) == len(gaps) * (width + 5) == len(entries) * (width + 5)
    assert relative.fillers(codes != 0, width) == np.count_nonzero(entries == 0)


@given(codes=CODES, width=st.integers(1, 4))
def test_entries_are_those_that_the_definition_makes_one_by_one(codes, width):
    gaps, entries = relative.encode(codes, width)
    assert list(zip(gaps.tolist(), entries.tolist(), strict=True)) == one_by_one(codes, width)


def test_a_weight_after_9_zeros_costs_a_filler_of_8_positions_where_gaps_have_3_bits():
    codes = np.array([0, 5, *[0] * 9, 6])
    gaps, entries = relative.encode(codes, 3)
    assert (gaps.tolist(), entries.tolist()) == ([1, 7, 1], [5, 0, 6])


def test_codes_keep_their_dtype():
    gaps, entries = relative.encode(np.array([0, 7], np.uint8), 4)
    assert (gaps.dtype, entries.dtype) == (np.uint16, np.uint8)
    assert relative.decode(gaps, entries, 2, 4).dtype == np.uint8


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize(("size", "width"), [(1, 1), (16, 4), (17, 4), (1000, 1), (1000, 4), (1000, 8)])
def test_expected_bits_lie_within_4_standard_errors_of_400_random_masks(size, sparsity, width):
    random = np.random.default_rng(11)
    drawn = np.array([relative.bits(random.random(size) >= sparsity, width, 5) for _ in range(400)])
    allowed = 4 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    assert abs(drawn.mean() - relative.expected_bits(size, sparsity, width, 5)) <= allowed + 1e-9


@pytest.mark.parametrize(
    ("sparsity", "width", "code_bits"), [(0.91, 4, 5), (0.62, 4, 8), (0.92, 5, 5), (0.96, 5, 5)]
)
def test_expected_bits_of_a_million_weights_are_the_published_closed_form(sparsity, width, code_bits):
    q = sparsity ** (2**width)
    published = (1 - sparsity) * (1 + q / (1 - q)) * (code_bits + width)
    assert relative.expected_bits(10**6, sparsity, width, code_bits) / 10**6 == pytest.approx(published, 1e-4)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity):
    with pytest.raises(RecipeError, match="from 0 to 1"):
        relative.expected_bits(100, sparsity, 4, 5)


@pytest.mark.parametrize("width", [-1, 0, 17])
def test_gaps_of_no_or_more_than_16_bits_are_refused(width):
    with pytest.raises(PackError, match="1 to 16 bits"):
        relative.encode(np.ones(3, int), width)


@pytest.mark.parametrize(
    ("gaps", "codes", "fact"),
    [
        ([1, 2], [5], "no list of entries"),
        ([1.5], [5], "no list of entries"),
        ([4], [5], "not all between 0 and 3"),
        ([-1], [5], "not all between 0 and 3"),
        ([2, 1], [0, 5], "code 0 has a gap of 2, a filler has 3"),
        ([1, 3], [5, 0], "the last of its 2 entries is a filler"),
        ([3, 3, 2], [5, 0, 6], "position 10 of 10"),
    ],
)
def test_entries_that_encode_would_not_write_are_refused(gaps, codes, fact):
    with pytest.raises(PackError, match=fact):
        relative.decode(np.array(gaps), np.array(codes), 10, 2)


@given(
    entries=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=12), size=st.integers(0, 40)
)
def test_any_entries_are_refused_or_the_ones_that_encode_writes(entries, size):
    gaps, codes = np.array(entries, np.int64).reshape(-1, 2).T
    try:
        found = relative.decode(gaps, codes, size, 2)
    except PackError:
        return
    again = relative.encode(found, 2)
    assert (again[0].tolist(), again[1].tolist()) == (gaps.tolist(), codes.tolist())
