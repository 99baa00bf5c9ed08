"""The stop-watch, by a clock that the test turns itself, and the comparison of outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from zeroskip.errors import EngineError
from zeroskip.run import timing
from zeroskip.run.output_difference import agree, difference, leaves
from zeroskip.run.timing import interleaved, medians, torch_threads

NAN, INF = float("nan"), float("inf")


class Clock:
    """Calls made by `takes` move it by their seconds, and leave their name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.called: list[str] = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

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
