"""The stop-watch, by a clock that the test turns itself, who wins a race, and the comparison of outputs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from itertools import accumulate, count, cycle, repeat

import pytest
import torch

from zeroskip.errors import EngineError
from zeroskip.run.output_difference import agree, difference, leaves
from zeroskip.run.timing import (
    CLOSE,
    FEWEST,
    MOST,
    TURN,
    interleaved,
    medians,
    preferred,
    raced,
    reading_seconds,
    settled,
    stop_watch,
    torch_threads,
)

NAN, INF = float("nan"), float("inf")


class Clock:
    """Calls made by `takes` move it by their seconds, and leave their name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.called: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def takes(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds
            self.called.append(name)

        return call


def test_calls_of_1_and_2_ms_measure_as_1_and_2_ms_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls = {"a": clock.takes("a", 1e-3), "b": clock.takes("b", 2e-3)}
    measured = interleaved(calls, rounds=3, seconds=4e-3)
    assert measured == {"a": pytest.approx([1e-3] * 3), "b": pytest.approx([2e-3] * 3)}


def test_turns_last_as_long_as_asked_and_the_order_rotates(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    calls = {name: clock.takes(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 9.0))}
    interleaved(calls, rounds=3, seconds=4.0)
    turns = "".join(clock.called)
    assert turns.endswith("aaaabbc" + "bbcaaaa" + "caaaabb")


def test_a_call_longer_than_its_turn_is_measured_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert interleaved({"slow": clock.takes("slow", 5.0)}, rounds=2, seconds=0.1) == {"slow": [5.0, 5.0]}
    assert len(clock.called) == 1 + 1 + 2  # to warm up, to find out how long it takes, and two rounds


def test_medians() -> None:
    assert medians({"a": [3.0, 1.0, 2.0], "b": [1.0, 2.0]}) == {"a": 2.0, "b": 1.5}


class Processor:
    """A CPU clock that calls move on by their seconds times the next of `disturbances`, which lasts for a turn."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, dict[str, int]()
        self.disturbance = 1.0

    def clock(self) -> float:
        return self.now

    def takes(self, name: str, seconds: float, disturbances: Iterator[float]) -> Callable[[], None]:
        turn_ends = 0.0

        def call() -> None:
            nonlocal turn_ends
            if self.now >= turn_ends:
                self.disturbance, turn_ends = next(disturbances), self.now + TURN / 2
            self.now += seconds * self.disturbance
            self.calls[name] = self.calls.get(name, 0) + 1

        return call


def quiet() -> Iterator[float]:
    return repeat(1.0)


def test_a_race_finds_the_seconds_of_each_and_those_far_behind_have_few_turns() -> None:
    processor = Processor()
    calls = {
        name: processor.takes(name, took, quiet()) for name, took in (("a", 0.03), ("b", 0.031), ("c", 9))
    }
    seconds = raced(calls, processor.clock, budget=math.inf)
    assert seconds == {"a": pytest.approx(0.03), "b": pytest.approx(0.031), "c": pytest.approx(9)}
    assert processor.calls == {"a": 1 + FEWEST, "b": 1 + FEWEST, "c": 2}


def test_short_calls_are_repeated_for_the_time_of_a_turn() -> None:
    processor = Processor()
    raced({"a": processor.takes("a", TURN / 100, quiet())}, processor.clock)
    assert processor.calls["a"] == pytest.approx((0.25 + 0.25 + FEWEST) * 100, rel=0.2)


def test_turns_that_a_neighbour_disturbed_do_not_count() -> None:
    processor = Processor()
    often = cycle([3.0, 1.0])
    calls = {"a": processor.takes("a", 1.0, often), "b": processor.takes("b", 1.2, quiet())}
    assert raced(calls, processor.clock, budget=math.inf) == pytest.approx({"a": 1.0, "b": 1.2})


def test_a_race_goes_on_while_two_readings_of_one_call_differ_and_ends_with_its_budget() -> None:
    def slower_at_first() -> Iterator[float]:
        return (1.05 if turn < 12 else 1.0 for turn in count())

    def faster_each_time() -> Iterator[float]:
        return (0.97**turn for turn in count())

    for disturbances, budget, fewest, most in (
        (quiet, math.inf, FEWEST, FEWEST),
        (slower_at_first, math.inf, FEWEST, FEWEST),  # it cannot know
        (faster_each_time, math.inf, MOST, MOST),
        (faster_each_time, 8.0, 8, 12),
        (faster_each_time, 0.0, 2, 2),
    ):
        processor = Processor()
        raced({"a": processor.takes("a", 1.0, disturbances())}, processor.clock, budget=budget)
        assert fewest <= processor.calls["a"] - 1 <= most


def test_beside_a_busy_neighbour_the_choices_are_those_of_a_quiet_machine() -> None:
    """Three kernels that differ by more than what decides; four turns in ten take up to five times as long."""
    names, equal = ("dense", "sell", "spmm"), 0
    for seed in range(200):
        draw = random.Random(seed)
        seconds = dict(zip(names, draw.sample([1e-5, 1.15e-5, 1.4e-5], 3), strict=True))

        def busy(draw: random.Random = draw) -> Iterator[float]:
            return (draw.uniform(1, 5) if draw.random() < 0.4 else draw.uniform(1, 1.02) for _ in count())

        processor = Processor()
        calls = {name: processor.takes(name, took, busy()) for name, took in seconds.items()}
        equal += preferred(raced(calls, processor.clock)) == preferred(seconds)
    assert equal >= 0.98 * 200


@pytest.mark.parametrize("close", [0.05, math.inf])
@pytest.mark.parametrize("least", [0.0, -1e-7])
def test_what_takes_no_time_that_a_clock_can_tell_is_preferred_all_the_same(
    close: float, least: float
) -> None:
    assert preferred({"baked": least, "streamed": 1.0}, close) == "baked"
    assert preferred({"baked": 1.0, "streamed": least}, close) == (
        "baked" if close == math.inf else "streamed"
    )


def test_near_ties_are_decided_by_the_order_and_noise_does_not_change_them() -> None:
    draw = random.Random(0)
    for _ in range(100):
        noisy = {name: draw.uniform(1, 1 + CLOSE) for name in ("dense", "sell", "spmm")}
        assert preferred(noisy) == "dense"
    assert preferred({"dense": 1 + 1.01 * CLOSE, "sell": 1.0}) == "sell"
    assert preferred({"only": 2.0}) == "only"
    assert preferred({"first": 1.0, "of no time": 0.0}, math.inf) == "first"
    assert preferred({"first": 1.0, "of no time": 0.0}) == "of no time"


def test_halves_agree_when_their_least_differ_by_no_more_than_one_percent() -> None:
    assert settled([2.0, 1.0, 9.0, 1.009])
    assert not settled([2.0, 1.0, 9.0, 1.011])


def test_one_thread_is_timed_by_its_cpu_time_and_several_by_the_wall() -> None:
    with torch_threads(1):
        assert stop_watch() is time.thread_time
    with torch_threads(2):
        assert stop_watch() is time.perf_counter


def test_reading_the_clock_costs_the_least_of_what_it_took() -> None:
    assert reading_seconds(accumulate(cycle([3.0, 0.5, 2.0])).__next__) == 0.5


def test_threads_come_back_also_after_an_exception_and_0_are_refused() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_threads(before + 1):
        _ = torch.get_num_threads() / 0
    assert torch.get_num_threads() == before
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(EngineError, match="threads=1"), torch_threads(0):
        pass


def test_leaves_are_the_tensors_of_tuples_lists_and_dicts_in_order() -> None:
    one, two, three = (torch.full((1,), float(i)) for i in range(3))
    assert [leaf.item() for leaf in leaves({"a": one, "b": [two, (three,)], "c": None})] == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "expected", "gap"),
    [
        ([1.0, 2.5], [1.0, 2.0], 0.5),
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([1.0, 5.0], [1.0, NAN], 0.0),  # what PyTorch makes NaN, a skipped zero may keep
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, INF], [1.0, 2.0], INF),
        ([1.0], [1.0, 2.0], INF),
        ([], [], 0.0),
    ],
)
def test_difference_is_the_largest_one_where_the_expected_value_is_finite(
    value: list[float], expected: list[float], gap: float
) -> None:
    assert difference(torch.tensor(value), torch.tensor(expected)) == gap


def test_missing_tensors_differ_infinitely_and_whole_numbers_are_compared_too() -> None:
    assert difference((), torch.ones(1)) == INF
    assert difference(torch.tensor([3]), torch.tensor([5])) == 2


def test_outputs_agree_up_to_a_thousandth_of_the_largest() -> None:
    expected = torch.tensor([100.0, 0.0])
    assert agree(expected + torch.tensor([0.0, 0.09]), expected)
    assert not agree(expected + torch.tensor([0.0, 0.11]), expected)
    assert agree(torch.zeros(2), torch.zeros(2))
    assert not agree(torch.full((2,), 1e-5), torch.zeros(2))
