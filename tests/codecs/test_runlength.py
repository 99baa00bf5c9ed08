"""Eyeriss's run-length code: bit-exact words, every value back, and no silent garbage from damaged words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codecs import runlength
from zeroskip.errors import PackError, RecipeError

VALUES = st.builds(
    lambda sparsity, size, seed: random_values(sparsity, size, seed),
    st.sampled_from([0.0, 0.4, 0.9, 0.98, 0.999, 1.0]),
    st.integers(0, 700),
    st.integers(0, 2**32 - 1),
)


def random_values(sparsity: float, size: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.integers(-(2**15), 2**15, size) * (random.random(size) >= sparsity)).astype(np.int16)


def one_by_one(values: np.ndarray) -> list[int]:
    """The words by the definition, one value at a time."""
    pairs, run = [], 0
    for place, value in enumerate(values.tolist()):
        if value or run == 31 or place == len(values) - 1:
            pairs, run = [*pairs, (run, value & 0xFFFF)], 0
        else:
            run += 1
    pairs += [(0, 0)] * (-len(pairs) % 3)
    text = "".join(f"{run:05b}{level:016b}" for run, level in pairs)
    words = [f"{text[at : at + 63]}0" for at in range(0, len(text), 63)]
    return [int(word, 2) | (number == len(words) - 1) for number, word in enumerate(words)]


def test_the_paper_s_example_is_one_word_of_2_12_4_53_2_22_and_an_end_bit():
    values = np.array([0, 0, 12, 0, 0, 0, 0, 53, 0, 0, 22], np.int16)
    word = f"00010{12:016b}00100{53:016b}00010{22:016b}1"
    assert len(word) == 3 * (5 + 16) + 1 == 64
    assert runlength.encode(values).tolist() == [int(word, 2)]


def test_after_31_zeros_the_next_zero_is_a_level_and_100_zeros_are_4_pairs():
    values = np.zeros(100, np.int16)
    first, second = runlength.encode(values).tolist()
    assert first == int(("11111" + 16 * "0") * 3 + "0", 2)
    assert second == int("00011" + 16 * "0" + 42 * "0" + "1", 2)  # three zeros, and the last one as a level


@given(values=VALUES)
def test_values_come_back_and_words_are_those_that_the_definition_spells_one_by_one(values):
    words = runlength.encode(values)
    assert words.tolist() == one_by_one(values)
    assert 64 * len(words) == runlength.bits(values != 0)
    np.testing.assert_array_equal(runlength.decode(words, len(values)), values)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("level", [1, 2**15 - 1, 2**15, 2**16 - 1])
def test_the_levels_1_32767_32768_and_65535_come_back_in_both_types(level, dtype):
    values = np.array([[0, level], [level, 0]], np.uint16).view(dtype)
    back = runlength.decode(runlength.encode(values[:, ::-1]), 4, dtype)
    np.testing.assert_array_equal(back, values[:, ::-1].reshape(-1))
    assert back.dtype == dtype


@pytest.mark.parametrize(
    ("sparsity", "printed"),
    [(0.387, 13.08), (0.5, 10.67), (0.6, 8.53), (0.725, 5.87), (0.776, 4.78), (0.793, 4.42), (0.9, 2.21), (0.95, 1.32)],
)  # fmt: skip
def test_random_zeros_cost_13_08_bits_a_value_at_38_7_percent_and_1_32_at_95(sparsity, printed):
    assert runlength.expected_bits(10_000_000, sparsity) / 1e7 == pytest.approx(printed, abs=0.005)
    drawn = runlength.bits(np.random.default_rng(3).random(1_000_000) >= sparsity) / 1e6
    assert drawn == pytest.approx(printed, rel=0.005)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 12])
def test_expected_bits_are_64_thirds_of_the_mean_number_of_pairs_over_all_masks(size, sparsity):
    masks = (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(bool)
    kept = masks.sum(axis=1)
    chance = (1 - sparsity) ** kept * sparsity ** (size - kept)
    mean = sum(p * runlength.pairs(mask) for p, mask in zip(chance, masks, strict=True))
    assert runlength.expected_bits(size, sparsity) == pytest.approx(64 / 3 * mean)


@pytest.mark.parametrize("sparsity", [0.95, 0.99])
@pytest.mark.parametrize("size", [33, 65, 500])
def test_expected_bits_of_long_runs_lie_within_4_standard_errors_of_400_random_masks(size, sparsity):
    random = np.random.default_rng(7)
    drawn = 64 / 3 * np.array([runlength.pairs(random.random(size) >= sparsity) for _ in range(400)])
    allowed = 4 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    assert abs(drawn.mean() - runlength.expected_bits(size, sparsity)) <= allowed


def word(*pairs: tuple[int, int], end: int = 1) -> int:
    text = "".join(f"{run:05b}{level:016b}" for run, level in [*pairs, *[(0, 0)] * (3 - len(pairs))])
    return int(f"{text}{end}", 2)


@pytest.mark.parametrize(
    ("words", "count", "fact"),
    [
        ([], 1, "0 words are too few for 1 values"),
        ([word((0, 5))], -1, "too few for -1 values"),
        ([word((0, 5))], 97, "too few for 97 values"),
        ([word((0, 5), (0, 5), (0, 5), end=0)], 3, "none of 1 words has the end bit: the code is cut short"),
        (
            [word((0, 5), (0, 5), (0, 5)), word((0, 5))],
            4,
            "word 1 of 2 has the end bit, and more words follow",
        ),
        ([word((0, 5), (0, 5), (0, 5), end=0), word((0, 5))], 7, "hold 6 values, and not 7"),
        ([word((0, 5), (0, 5), (0, 5), end=0), word((0, 5))], 3, "hold 6 values, and not 3"),
        ([word((3, 5))], 1, "hold 6 values, and not 1"),
        ([word((3, 5), (0, 7))], 4, "do not end after 4 values"),
        ([word((3, 5), (0, 0), (0, 7))], 6, "a zero is a level after fewer than 31 zeros"),
        ([word((3, 5), (30, 0), (0, 7))], 36, "a zero is a level after fewer than 31 zeros"),
    ],
)
def test_words_that_are_cut_short_end_wrongly_or_hold_another_number_of_values_are_refused(
    words, count, fact
):
    with pytest.raises(PackError, match=fact):
        runlength.decode(np.array(words, np.uint64), count)


@given(values=VALUES, data=st.data())
def test_a_flipped_bit_is_refused_or_gives_the_values_that_these_words_spell(values, data):
    words = runlength.encode(values)
    if not len(words):
        return
    place, bit = data.draw(st.integers(0, len(words) - 1)), data.draw(st.integers(0, 63))
    words[place] ^= np.uint64(1 << bit)
    try:
        found = runlength.decode(words, len(values))
    except PackError:
        return
    # A level's own bits can change unnoticed, and a run where a filling zero makes up for it: [5, 0] and [0, 5].
    assert runlength.encode(found).tolist() == words.tolist()
    assert (found != values).any()


@given(values=VALUES, cut=st.integers(1, 5), more=st.integers(1, 200))
def test_words_left_out_and_another_count_are_refused_but_for_a_zero_that_fills_up(values, cut, more):
    words = runlength.encode(values)
    if len(words) >= cut:
        with pytest.raises(PackError):
            runlength.decode(words[:-cut], len(values))
    shorter = values[: max(0, len(values) - more)]
    if runlength.encode(shorter).tolist() != words.tolist():
        with pytest.raises(PackError):
            runlength.decode(words, len(shorter))
    longer = np.append(values, np.zeros(more, np.int16))
    if runlength.encode(longer).tolist() != words.tolist():
        with pytest.raises(PackError):
            runlength.decode(words, len(longer))


def test_one_value_and_the_same_with_one_more_zero_are_the_same_word_so_the_count_is_needed():
    one, two = (runlength.encode(np.array(values, np.int16)).tolist() for values in ([5], [5, 0]))
    assert one == two


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int32, np.int64])
def test_values_and_words_of_other_types_are_refused(dtype):
    with pytest.raises(PackError, match="levels are 16 bits wide"):
        runlength.encode(np.zeros(3, dtype))
    with pytest.raises(PackError, match="levels are 16 bits wide"):
        runlength.decode(np.array([1], np.uint64), 1, dtype)
    with pytest.raises(PackError, match="no list of uint64"):
        runlength.decode(np.zeros(3, dtype), 1)
    with pytest.raises(RecipeError, match="from 0 to 1"):
        runlength.expected_bits(100, 90)
