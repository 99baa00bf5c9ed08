"""Huffman codes are the shortest there are, come back exactly, and nothing else is taken for them."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codecs import bit_stream, huffman
from zeroskip.errors import PackError

COUNTS = st.lists(st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 10**6)), min_size=1, max_size=40)
DIGEST = "effa942a01f0dd4d3b107b99b5187f43398c27fa609c58d1c319539228852657"
CODE = np.array([1, 0, 2, 2], np.uint8)  # 0, none, 10, 11


def drawn(alphabet: int, count: int, *, spread: float = 4.0, seed: int = 0) -> np.ndarray:
    """Symbols around the middle of the alphabet, as the codes of trained weights are."""
    random = np.random.default_rng(seed)
    return np.clip(np.round(random.normal(alphabet / 2, spread, count)), 0, alphabet - 1).astype(np.int64)


def code_for(symbols: np.ndarray, alphabet: int) -> np.ndarray:
    return huffman.lengths(np.bincount(symbols, minlength=alphabet))


def textbook_bits(counts: list[int]) -> int:
    """Bits of Huffman's own algorithm: the sum of all nodes that it joins."""
    heap, total = sorted(count for count in counts if count), 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, joined)
        total += joined
    return total


def text_of(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)


@given(counts=COUNTS)
def test_codes_of_up_to_40_symbols_are_as_short_as_the_textbook_s(counts):
    lengths = huffman.lengths(np.array(counts))
    assert lengths.tolist() == [length if count else 0 for length, count in zip(lengths, counts, strict=True)]
    total = int(np.array(counts) @ lengths.astype(int))
    if np.count_nonzero(counts) > 1 and lengths.max() < 12:
        assert total == textbook_bits(counts)
    assert total >= textbook_bits(counts)


def test_a_limit_of_12_bits_is_kept_by_the_best_of_all_limited_codes():
    counts = np.array([1, 1, *(int(1.7**k) + 1 for k in range(1, 20))])  # Huffman's own would be 17 bits long
    lengths = huffman.lengths(counts).astype(int)
    assert lengths.max() == 12
    assert (2.0**-lengths).sum() == 1
    # The best limited code by dynamic programming: open leaves level by level, rarest symbols deepest.
    costs = np.cumsum(np.sort(counts))  # what one more bit for the k + 1 rarest costs
    states = {(2, len(counts)): int(counts.sum())}
    answers = []
    for _ in range(12):
        following: dict[tuple[int, int], int] = {}
        for (nodes, left), cost in states.items():
            for leaves in range(min(nodes, left) + 1):
                rest, inner = left - leaves, nodes - leaves
                if rest == 0 and inner == 0:
                    answers.append(cost)
                elif inner and rest >= inner:
                    key = (min(2 * inner, rest), rest)
                    price = cost + int(costs[rest - 1])
                    following[key] = min(following.get(key, price), price)
        states = following
    assert int(counts @ lengths) == min(answers)


@given(symbols=st.lists(st.integers(0, 300), min_size=1, max_size=400), seed=st.integers(0, 99))
def test_symbols_come_back_in_exactly_the_promised_bits(symbols, seed):
    numbers = np.array(symbols)
    lengths = code_for(np.append(numbers, seed), 301)
    data = huffman.encode(numbers, lengths)
    np.testing.assert_array_equal(huffman.decode(data, len(numbers), lengths), numbers)
    assert len(data) == -(-huffman.bits(numbers, lengths) // 8)
    assert huffman.bits(numbers, lengths) == lengths[numbers].sum(dtype=int)


@pytest.mark.parametrize("alphabet", [2, 32, 256, 4096, 65536])
@pytest.mark.parametrize("count", [bit_stream.MIN_GROUPED - 1, bit_stream.MIN_GROUPED, 100_003, 1_200_001])
def test_long_data_come_back_from_four_lanes_and_from_one(alphabet, count):
    symbols = drawn(alphabet, count, spread=alphabet / 8, seed=alphabet)
    lengths = code_for(symbols, alphabet)
    data = huffman.encode(symbols, lengths)
    np.testing.assert_array_equal(huffman.decode(data, count, lengths), symbols)
    assert len(data) == -(-huffman.bits(symbols, lengths) // 8)


def test_the_bits_are_those_of_the_canonical_code_one_after_the_other():
    lengths = np.array([3, 1, 0, 3, 2], np.uint8)
    words = {1: "0", 4: "10", 0: "110", 3: "111"}  # shorter first, then the smaller symbol
    symbols = [4, 0, 1, 1, 3, 1, 4]
    expected = "".join(words[symbol] for symbol in symbols)
    data = huffman.encode(np.array(symbols), lengths)
    assert text_of(data) == expected + "0" * (-len(expected) % 8)


def test_4_bit_codes_of_a_normal_distribution_take_less_than_a_tenth_of_a_bit_over_their_entropy():
    symbols = drawn(32, 50_000)
    shares = np.bincount(symbols, minlength=32) / len(symbols)
    entropy = -sum(share * np.log2(share) for share in shares if share)
    spent = huffman.bits(symbols, code_for(symbols, 32)) / len(symbols)
    assert entropy <= spent < entropy + 0.1


def test_the_only_symbol_of_an_alphabet_takes_one_bit_and_none_of_none_takes_nothing():
    lengths = huffman.lengths(np.array([0, 9, 0]))
    assert lengths.tolist() == [0, 1, 0]
    assert huffman.encode(np.full(9, 1), lengths) == bytes(2)
    assert huffman.decode(bytes(2), 9, lengths).tolist() == [1] * 9
    assert huffman.lengths(np.zeros(3, int)).tolist() == [0, 0, 0]
    assert huffman.decode(b"", 0, np.zeros(3, np.uint8)).tolist() == []


def test_20000_of_the_only_symbol_come_back_from_lanes():
    lengths, symbols = np.array([0, 1], np.uint8), np.ones(20_000, int)
    data = huffman.encode(symbols, lengths)
    np.testing.assert_array_equal(huffman.decode(data, 20_000, lengths), symbols)
    assert len(data) == 15 + 2500
    with pytest.raises(PackError, match="only symbol"):
        huffman.decode(data[:-1] + b"\x01", 20_000, lengths)


@pytest.mark.parametrize("count", [300, 20_000])
def test_expected_bits_lie_within_4_standard_errors_of_200_drawings(count):
    chances = np.random.default_rng(3).dirichlet(np.full(24, 0.5))
    lengths, random = huffman.lengths(chances), np.random.default_rng(4)
    spent = np.array([huffman.bits(random.choice(24, count, p=chances), lengths) for _ in range(200)])
    allowed = 4 * spent.std(ddof=1) / np.sqrt(len(spent))
    assert abs(spent.mean() - huffman.expected_bits(chances, count)) <= allowed


@given(counts=COUNTS)
def test_a_table_comes_back_and_tells_where_it_ends(counts):
    lengths = huffman.lengths(np.array(counts))
    data = huffman.table(lengths)
    found, used = huffman.read_table(data + b"more", len(counts))
    np.testing.assert_array_equal(found, lengths)
    assert used == len(data)


@pytest.mark.parametrize(("alphabet", "spread"), [(8, 2), (16, 3), (32, 5), (256, 40)])
def test_the_table_of_trained_weights_codes_takes_less_than_4_bits_a_symbol(alphabet, spread):
    lengths = code_for(drawn(alphabet, 20_000, spread=spread), alphabet)
    assert 8 * len(huffman.table(lengths)) <= 4 * alphabet


@pytest.mark.parametrize(
    ("data", "count", "fact"),
    [
        ("", 1, "too few for 1"),
        (
            "58",
            2,
            "2 Huffman codes take 3 bits, and there is more in 1 bytes",
        ),  # 0 10, then bits that are set
        ("5800", 3, "take 5 bits, and there is more in 2 bytes"),
        ("ff", 5, "take 9 bits, and there is less in 1 bytes"),
        ("5c", 3, "take 5 bits, and there is more"),
        ("", 2**31, "too few for 2,147,483,648"),
    ],
)
def test_data_that_do_not_fit_the_count_are_refused(data, count, fact):
    with pytest.raises(PackError, match=fact):
        huffman.decode(bytes.fromhex(data), count, CODE)


@pytest.mark.parametrize(
    "lengths",
    [[1, 1, 1], [1, 2, 0], [2], [0, 3], [1, *range(2, 14), 13], [200, 200]],
    ids=["too many", "too few", "one of two bits", "one of three", "over 12 bits", "over 64 bits"],
)
def test_lengths_of_no_code_are_refused(lengths):
    with pytest.raises(PackError, match=r"no complete code|too many"):
        huffman.decode(b"\x00", 1, np.array(lengths, np.uint8))


@pytest.mark.parametrize("symbol", [-1, 1, 4])
def test_a_symbol_without_a_code_is_refused(symbol):
    with pytest.raises(PackError, match=r"has no Huffman code|leave an alphabet"):
        huffman.encode(np.array([0, symbol]), CODE)


def test_no_symbols_of_an_empty_code_but_a_count_of_one_are_refused():
    with pytest.raises(PackError, match="too few"):
        huffman.decode(b"\x00", 1, np.zeros(4, np.uint8))
    with pytest.raises(PackError, match="are not 0"):
        huffman.decode(b"\x00", 0, CODE)


@given(data=st.binary(max_size=30), count=st.integers(0, 60), counts=COUNTS)
def test_any_bytes_are_refused_or_the_one_spelling_of_their_symbols(data, count, counts):
    lengths = huffman.lengths(np.array(counts))
    try:
        symbols = huffman.decode(data, count, lengths)
    except PackError:
        return
    assert huffman.encode(symbols, lengths) == data


@given(data=st.binary(max_size=30), alphabet=st.integers(1, 60))
def test_any_table_is_refused_or_the_one_spelling_of_its_lengths(data, alphabet):
    try:
        lengths, used = huffman.read_table(data, alphabet)
    except PackError:
        return
    assert huffman.table(lengths) == data[:used]
    assert (2.0 ** -lengths[lengths > 0].astype(float)).sum() in (0, 0.5, 1)


def test_every_small_code_of_4_symbols_has_a_table_that_is_read():
    for lengths in itertools.product(range(4), repeat=4):
        code = np.array(lengths, np.uint8)
        share = sum(2.0**-length for length in lengths if length)
        if share == 1 or sorted(lengths) == [0, 0, 0, 1]:
            assert huffman.read_table(huffman.table(code), 4)[0].tolist() == list(lengths)
        elif share:
            with pytest.raises(PackError, match="no complete code"):
                huffman.read_table(huffman.table(code), 4)


@pytest.mark.parametrize("place", [0, 5, 10, 14, 15, 5000, -1])
@pytest.mark.parametrize("value", [0x00, 0x55, 0xFF])
def test_long_data_with_an_altered_byte_are_refused_or_decode_to_other_symbols(place, value):
    symbols = drawn(32, 20_000)
    lengths = code_for(symbols, 32)
    data = bytearray(huffman.encode(symbols, lengths))
    data[place] ^= value
    try:
        found = huffman.decode(bytes(data), 20_000, lengths)
    except PackError:
        assert value
        return
    assert huffman.encode(found, lengths) == bytes(data)


def test_lanes_that_begin_anywhere_else_are_refused():
    symbols = drawn(32, 20_000)
    lengths = code_for(symbols, 32)
    good = huffman.encode(symbols, lengths)
    for entry in (0, 1, 2**39, 2**40 - 1):
        with pytest.raises(PackError, match="lanes"):
            huffman.decode(entry.to_bytes(5, "little") + good[5:], 20_000, lengths)


@pytest.mark.parametrize("length", [0, 14, 15, 16, 2500, 9000])
def test_long_data_that_are_cut_are_refused(length):
    symbols = drawn(32, 20_000)
    lengths = code_for(symbols, 32)
    with pytest.raises(PackError):
        huffman.decode(huffman.encode(symbols, lengths)[:length], 20_000, lengths)


def test_a_table_is_read_without_a_look_at_the_megabyte_after_it():
    data = huffman.table(np.array([*[0] * 65_535, 1], np.uint8))
    assert len(data) == 6
    long = data + bytes(2**20)
    tracemalloc.start()
    lengths, used = huffman.read_table(long, 65_536)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (used, lengths[-1], np.count_nonzero(lengths)) == (6, 1, 1)
    assert peak < 2**18


@pytest.mark.parametrize("zeros", [16, 17, 20_000])
def test_a_number_of_more_than_17_bits_in_a_table_is_refused(zeros):
    digits = "00100" + "0" * zeros + "1" * (zeros + 1)
    data = int(digits.ljust(-(-len(digits) // 8) * 8, "0"), 2).to_bytes(-(-len(digits) // 8), "big")
    with pytest.raises(PackError, match="not spelled as" if zeros == 16 else "larger than any"):
        huffman.read_table(data, 65_536)


def test_the_bytes_of_20000_symbols_in_four_lanes_do_not_change_between_machines_and_versions():
    symbols = np.cumsum(np.arange(20_000) ** 2 % 37) % 53 % 32
    lengths = code_for(symbols, 32)
    data = huffman.table(lengths) + huffman.encode(symbols, lengths)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (12_519, DIGEST)
