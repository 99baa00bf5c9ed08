"""Both codecs say exactly which positions are non-zero, in exactly as many bits as they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codecs import bitmask, gaps
from zeroskip.errors import PackError, RecipeError

WIDTHS = range(2, 17)
MASKS = st.one_of(
    st.lists(st.booleans(), max_size=300).map(lambda flags: np.array(flags, bool)),
    st.builds(
        lambda sparsity, size, seed: np.random.default_rng(seed).random(size) >= sparsity,
        st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.9999, 1.0]),
        st.integers(0, 3000),
        st.integers(0, 2**32 - 1),
    ),
)
EDGES = {
    "empty": np.zeros(0, bool),
    "one zero": np.zeros(1, bool),
    "one non-zero": np.ones(1, bool),
    "all zeros": np.zeros(1000, bool),
    "all ones": np.ones(1000, bool),
    "last of 200,000": np.arange(200_000) == 199_999,
    "both ends of 200,000": np.isin(np.arange(200_000), [0, 199_999]),
}


def written_out(mask: np.ndarray, width: int) -> tuple[str, int]:
    """The gaps as a string of bits and the number of escapes, position by position, by the definition."""
    code, escapes, zeros = "", 0, 0
    for kept in mask:
        if kept:
            code, zeros = code + f"{zeros:0{width}b}", 0
        elif (zeros := zeros + 1) == 2**width - 1 and mask.any():
            code, escapes, zeros = code + "1" * width, escapes + 1, 0
    while code and code.endswith("1" * width):  # an escape after the last non-zero leads nowhere
        code, escapes = code[:-width], escapes - 1
    return code, escapes


def random_bits(size: int, sparsity: float, width: int) -> np.ndarray:
    random = np.random.default_rng(7)
    return np.array([gaps.bits(random.random(size) >= sparsity, width) for _ in range(400)])


@given(mask=MASKS)
def test_a_bitmask_comes_back_and_takes_one_bit_per_position(mask):
    data = bitmask.encode(mask)
    np.testing.assert_array_equal(bitmask.decode(data, mask.size), mask)
    assert bitmask.bits(mask) == mask.size == bitmask.expected_bits(mask.size, 0.5)
    assert len(data) == -(-bitmask.bits(mask) // 8)


@given(mask=MASKS, width=st.sampled_from(WIDTHS))
def test_gaps_come_back_and_take_exactly_the_promised_bits(mask, width):
    data = gaps.encode(mask, width)
    np.testing.assert_array_equal(gaps.decode(data, mask.size, int(mask.sum()), width), mask)
    assert len(data) == -(-gaps.bits(mask, width) // 8)


@pytest.mark.parametrize("mask", EDGES.values(), ids=EDGES.keys())
@pytest.mark.parametrize("width", WIDTHS)
def test_gaps_and_bitmasks_hold_at_the_edges(mask, width):
    data, nonzeros = gaps.encode(mask, width), int(mask.sum())
    np.testing.assert_array_equal(gaps.decode(data, mask.size, nonzeros, width), mask)
    np.testing.assert_array_equal(gaps.positions(data, mask.size, nonzeros, width), np.flatnonzero(mask))
    np.testing.assert_array_equal(bitmask.decode(bitmask.encode(mask), mask.size), mask)


@given(
    mask=st.lists(st.booleans(), max_size=120).map(lambda flags: np.array(flags, bool)),
    width=st.integers(2, 4),
)
def test_gaps_are_the_bits_that_the_definition_spells_one_by_one(mask, width):
    code, escapes = written_out(mask, width)
    padded = code + "0" * (-len(code) % 8)
    assert gaps.encode(mask, width) == bytes(int(padded[i : i + 8], 2) for i in range(0, len(padded), 8))
    assert (gaps.bits(mask, width), gaps.fillers(mask, width)) == (len(code), escapes)


def test_golden_bytes_of_a_bitmask_put_the_first_position_highest():
    mask = np.array([1, 0, 1, 0, 0, 0, 0, 1, 1], bool)
    assert bitmask.encode(mask) == bytes([0b10100001, 0b10000000])


def test_golden_bytes_of_two_bit_gaps_bridge_four_zeros_with_one_escape():
    mask = np.array([0, 1, 0, 0, 0, 0, 1, 1], bool)  # gaps of 1, 4 = escape 3 + 1, and 0
    assert gaps.encode(mask, 2) == bytes([0b01_11_01_00])
    assert gaps.fillers(mask, 2) == 1


def test_golden_bytes_of_five_bit_gaps_cross_the_borders_of_bytes():
    mask = np.isin(np.arange(40), [0, 32, 33])  # gaps of 0, 31 = escape + 0, and 0
    assert gaps.encode(mask, 5).hex() == f"{0b00000_11111_00000_00000_0000:06x}"


def test_a_million_zeros_after_the_last_non_zero_cost_nothing():
    mask = np.zeros(1_000_001, bool)
    mask[0] = True
    assert gaps.bits(mask, 4) == 4


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.7, 0.9, 0.99, 1.0])
@pytest.mark.parametrize(
    ("size", "width"), [(1, 2), (3, 2), (4, 2), (50, 3), (1000, 2), (1000, 4), (1000, 5), (700, 8)]
)
def test_expected_bits_lie_within_4_standard_errors_of_400_random_masks(size, sparsity, width):
    drawn = random_bits(size, sparsity, width)
    allowed = 4 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    assert abs(drawn.mean() - gaps.expected_bits(size, sparsity, width)) <= allowed + 1e-9


@pytest.mark.parametrize("sparsity", [0.25, 0.9, 1 - 1e-7])
@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 15])
def test_expected_bits_equal_the_mean_over_all_masks_of_up_to_15_positions(size, sparsity):
    masks = (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(bool)  # (masks, size)
    kept = masks.sum(axis=1)
    chance = (1 - sparsity) ** kept * sparsity ** (size - kept)
    mean = sum(p * gaps.bits(mask, 2) for p, mask in zip(chance, masks, strict=True))
    assert gaps.expected_bits(size, sparsity, 2) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, 90, float("nan")])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity):
    with pytest.raises(RecipeError, match="from 0 to 1"):
        gaps.expected_bits(100, sparsity, 4)


@pytest.mark.parametrize("width", [-1, 0, 1, 17])
def test_gaps_of_fewer_than_2_or_more_than_16_bits_are_refused(width):
    with pytest.raises(PackError, match="2 to 16 bits"):
        gaps.encode(np.ones(3, bool), width)


@pytest.mark.parametrize(("data", "size"), [("", 1), ("80", 9), ("8000", 8), ("00", 0)])
def test_a_bitmask_of_the_wrong_length_is_refused(data, size):
    with pytest.raises(PackError, match=f"{size} positions takes"):
        bitmask.decode(bytes.fromhex(data), size)


@pytest.mark.parametrize("size", range(1, 8))
def test_a_set_bit_after_the_last_position_of_a_bitmask_is_refused(size):
    with pytest.raises(PackError, match="a bit is set"):
        bitmask.decode(bytes([1]), size)


@pytest.mark.parametrize(
    ("data", "size", "nonzeros", "fact"),
    [
        ("", 8, 1, "fewer than 1 positions"),
        ("74", 8, 5, "fewer than 5 positions"),  # 4 codes, one of them an escape
        ("ff", 100, 1, "fewer than 1 positions"),  # escapes only
        ("75", 8, 2, "more in 1 bytes"),  # the bits after the second position are 01
        ("7400", 8, 3, "more in 2 bytes"),
        ("ff", 100, 0, "more in 1 bytes"),
        ("74", 7, 3, "position 7 of 7"),
        ("10", 0, 1, "more in 1 bytes"),
        ("00", 0, 1, "position 0 of 0"),
    ],
)
def test_two_bit_gaps_that_do_not_fit_what_is_expected_of_them_are_refused(data, size, nonzeros, fact):
    with pytest.raises(PackError, match=fact):
        gaps.decode(bytes.fromhex(data), size, nonzeros, 2)


@given(
    data=st.binary(max_size=40),
    size=st.integers(0, 500),
    nonzeros=st.integers(0, 200),
    width=st.sampled_from(WIDTHS),
)
def test_any_bytes_are_either_refused_or_the_one_spelling_of_a_mask(data, size, nonzeros, width):
    try:
        mask = gaps.decode(data, size, nonzeros, width)
    except PackError:
        return
    assert (mask.size, mask.sum()) == (size, nonzeros)
    assert gaps.encode(mask, width) == data


@pytest.mark.parametrize("code", [-1, 4, 2**16, 2**16 + 1, 2**32 + 2])
def test_codes_that_2_bits_cannot_hold_lead_nowhere(code):
    with pytest.raises(PackError, match="do not fit 2 bits"):
        gaps.places(np.array([1, code, 0]), 100, 3, 2)
