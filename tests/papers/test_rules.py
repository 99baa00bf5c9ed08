"""One row: a printed figure and its precision, the rules, the JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.papers.common.rules import (
    AT_LEAST,
    EQUAL,
    LAST_DIGIT,
    ROUNDS,
    Figure,
    Rule,
    at_least,
    at_most,
    figure,
    within,
    within_share,
)
from zeroskip.papers.common.tables import Table

TABLE = Table("paper", "Table 1", "lenet-5", "needs training")


@pytest.mark.parametrize(
    ("printed", "value", "digit"),
    [
        ("38M", 38e6, 1e6),
        ("1.5B", 1.5e9, 1e8),
        ("0.5K", 500.0, 100.0),
        ("6,796,192", 6_796_192.0, 1.0),
        ("12.70", 12.7, 0.01),
        ("-0.03", -0.03, 0.01),
    ],
)
def test_a_printed_figure_has_a_value_and_a_last_digit(printed: str, value: float, digit: float) -> None:
    assert figure(printed).value == value
    assert figure(printed).digit == pytest.approx(digit)


@given(st.floats(0, 1e6), st.integers(0, 4))
def test_a_number_rounds_to_what_printing_makes_of_it(number: float, decimals: int) -> None:
    assert ROUNDS.holds(figure(f"{number:.{decimals}f}"), number)


@given(st.floats(0, 1e4), st.floats(-1e4, 1e4))
def test_what_rounds_to_a_figure_is_within_a_step_of_its_last_digit(told: float, ours: float) -> None:
    printed = figure(f"{told:.1f}")
    assert LAST_DIGIT.holds(printed, ours) or not ROUNDS.holds(printed, ours)
    assert LAST_DIGIT.holds(printed, ours) == (abs(ours - printed.value) <= 0.1 * (1 + 1e-9))


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (within(1, "1 point"), 9.0, 8.9),
        (within_share(0.02), 10.2, 10.21),
        (at_most(), 10.0, 10.1),
        (at_most(words="10 and a half", slack=0.5), 10.5, 10.6),
        (at_most(12.0, "12"), 12.0, 12.1),
        (AT_LEAST, 10.0, 9.9),
        (at_least("9 and a half", slack=0.5), 9.5, 9.4),
        (EQUAL, 10.0, 10.0001),
        (ROUNDS, 10.5, 10.6),
        (LAST_DIGIT, 11.0, 11.1),
    ],
)
def test_a_rule_holds_up_to_its_limit_and_not_beyond(rule: Rule, good: float, bad: float) -> None:
    told = Figure(10.0, 1.0)
    assert rule.holds(told, good)
    assert not rule.holds(told, bad)


def test_the_json_of_a_row_has_these_13_keys_in_this_order() -> None:
    told = TABLE.judge("fc1", "size", figure("27", "KB"), 26.5, at_most()).to_json()
    keys = "paper table row column published ours difference holds unit rule trust network reason"
    assert " ".join(told) == keys
    assert json.loads(json.dumps(told)) == told
    assert (told["published"], told["ours"], told["difference"], told["holds"]) == (27.0, 26.5, -0.5, True)


def test_a_row_that_was_not_measured_is_null_and_says_why() -> None:
    number = TABLE.judge("fc1", "size", figure("27"), None, at_most())
    fact = TABLE.fact("conv1", "rank", "first", None, "the same")
    for row in (number, fact):
        assert (row.ours, row.holds, row.difference, row.reason) == (None, None, None, "needs training")


def test_a_row_of_words_has_no_difference_and_a_verdict() -> None:
    row = TABLE.fact("conv1", "rank", "first", ("second", False), "the same", reason="known")
    assert (row.published, row.ours, row.difference, row.holds) == ("first", "second", None, False)
    assert row.reason == "known"


def test_a_row_that_holds_keeps_no_reason_and_one_that_fails_the_known_one() -> None:
    held, failed = (
        TABLE.judge("fc1", "size", figure("27"), ours, at_most(), "known") for ours in (26.0, 28.0)
    )
    assert (held.reason, failed.reason) == ("", "known")
    assert TABLE.fact("conv1", "rank", "first", ("first", True), "the same", reason="known").reason == ""
