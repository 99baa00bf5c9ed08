"""Codes of any width stand next to each other as the string of their digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.codecs import bit_stream
from zeroskip.errors import PackError

CODES = st.lists(
    st.integers(0, 32).flatmap(lambda width: st.tuples(st.integers(0, 2**width - 1), st.just(width))),
    max_size=200,
)


def spelled(codes: list[tuple[int, int]]) -> bytes:
    text = "".join(f"{code:0{width}b}" for code, width in codes if width)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


@given(codes=CODES)
def test_codes_of_0_to_32_bits_are_written_digit_by_digit(codes):
    numbers = np.array(codes, np.int64).reshape(-1, 2)
    assert bit_stream.write(numbers[:, 0], numbers[:, 1]) == spelled(codes)


def test_two_million_codes_are_written_across_the_borders_of_blocks():
    random = np.random.default_rng(0)
    widths = random.integers(1, 8, 2_200_000)
    codes = random.integers(0, 2**16, len(widths)) & ((1 << widths) - 1)
    digits = np.zeros(int(widths.sum()), np.uint8)
    ends = np.cumsum(widths)
    for place in range(7):  # the place-th digit of every code from its end
        has = widths > place
        digits[ends[has] - 1 - place] = codes[has] >> place & 1
    assert bit_stream.write(codes, widths) == np.packbits(digits).tobytes()


@pytest.mark.parametrize("width", range(1, 17))
@pytest.mark.parametrize("count", [0, 1, 7, bit_stream.MIN_GROUPED - 1, bit_stream.MIN_GROUPED + 5, 50_001])
def test_codes_of_1_to_16_bits_are_read_back(width, count):
    codes = np.random.default_rng(width).integers(0, 2**width, count)
    data = bit_stream.write(codes, np.full(count, width))
    np.testing.assert_array_equal(bit_stream.read_fixed(data, count, width), codes)
    bit_stream.check_end(data, count * width, "they")


def test_a_stream_of_7_bytes_is_too_short_for_20_codes_of_3_bits():
    with pytest.raises(PackError, match="7 bytes are too few for 20 codes of 3 bits"):
        bit_stream.read_fixed(bytes(7), 20, 3)


@pytest.mark.parametrize("start", [0, 63, 64, 2**20, 2**62])
def test_reading_behind_the_end_stays_inside_the_buffer_and_tells_so_by_the_end(start):
    table = np.array([1, 257], np.uint32)
    _, ends = bit_stream.read(b"\x00", [0, 0, 0, start], 0, 100, table)
    assert ends[-1] == start + 100


@pytest.mark.parametrize(("data", "end"), [("40", 1), ("4000", 8), ("", 1), ("01", 7), ("00", 0)])
def test_an_end_that_leaves_bytes_or_set_bits_or_lacks_them_is_refused(data, end):
    with pytest.raises(PackError, match=f"take {end} bits, and there is (more|less)"):
        bit_stream.check_end(bytes.fromhex(data), end, "they")


def test_a_table_of_every_second_entry_of_an_array_and_one_of_64_bits_are_read_as_they_look():
    table = np.array([1, 1, 514, 770], np.uint32)
    for same in (np.repeat(table, 2)[::2], table.astype(np.int64)):
        assert bit_stream.read(bytes.fromhex("58"), [0] * 4, 0, 3, same)[0].tolist() == [0, 2, 3]
