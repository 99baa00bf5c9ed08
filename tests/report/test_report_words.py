"""Numbers in words: what is read back is what was given, to three digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.report.number_format import (
    show_bytes,
    show_count,
    show_error,
    show_error_change,
    show_macs,
    show_seconds,
    show_share,
    show_speed,
    show_times,
)

SIZES = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1, "s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


def read(text: str) -> float:
    number, unit = text.split(" ")
    return float(number.replace(",", "")) * SIZES[unit]


@given(st.floats(1e-9, 1e6))
def test_seconds_read_back_within_half_a_percent_and_never_need_four_digits(seconds: float):
    text = show_seconds(seconds)
    assert read(text) == pytest.approx(seconds, rel=0.0051)
    assert text.endswith(" s") or float(text.split(" ")[0]) < 1000


@given(st.integers(1, 10**14))
def test_bytes_read_back_within_half_a_percent(size: int):
    assert read(show_bytes(size)) == pytest.approx(size, rel=0.0051)


@given(st.floats(1e-7, 1 - 1e-7))
def test_a_share_between_0_and_1_never_reads_as_none_or_all(share: float):
    assert 0 < float(show_share(share).removesuffix(" %")) < 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (show_seconds(0.00123), "1.23 ms"),
        (show_seconds(45e-6), "45 µs"),
        (show_seconds(999.9e-6), "1 ms"),  # not 1000 µs, and not 1e+03 µs
        (show_seconds(0), "0 s"),
        (show_bytes(12_345), "12.3 kB"),
        (show_bytes(0), "0 B"),
        (show_share(0.942), "94.2 %"),
        (show_share(1), "100.0 %"),
        (show_share(0.99996), "99.996 %"),
        (show_count(1_070_000), "1,070,000"),
        (show_times(9.84), "9.84x"),
        (show_times(1234), "1,234x"),
        (show_macs(14_400_000), "14.4 M"),
        (show_macs(640), "640"),
        (show_error(0.0194), "1.94 %"),
        (show_error(23.4), "23.4"),  # a perplexity is no share
    ],
)
def test_a_number_is_written_for_people(text: str, expected: str):
    assert text == expected


def test_half_the_speed_is_called_two_times_slower_and_names_the_winner():
    assert show_speed(1e-6, 2e-6, than="torch eager") == "2x slower than torch eager"
    assert show_speed(2e-6, 1e-6) == "2x faster"
    assert show_speed(1e-6, 1.004e-6, than="torch eager") == "as fast as torch eager"


def test_an_error_that_rose_by_a_quarter_of_a_point_is_called_worse():
    assert show_error_change(0.0200, 0.0225) == "0.25 points worse"
    assert show_error_change(0.0225, 0.0200) == "0.25 points better"
    assert show_error_change(0.02, 0.02) == "the same"
    assert show_error_change(30.0, 32.5) == "2.5 worse"
