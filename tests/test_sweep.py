"""Sweeps: in order, each point once, also after a kill and over several processes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zeroskip.errors import RunError
from zeroskip.sweep import sweep

POINTS = [{"number": number} for number in (3, 1, 2)]


def square(point: Mapping[str, Any]) -> dict[str, Any]:
    return {"square": point["number"] ** 2, "pid": os.getpid()}


def root(point: Mapping[str, Any]) -> float:
    return math.sqrt(point["number"])


def die(point: Mapping[str, Any]) -> None:
    os._exit(1)


def test_results_come_in_the_order_of_the_points_and_progress_counts_them() -> None:
    seen: list[tuple[str, int, int]] = []
    found = sweep(POINTS, square, progress=lambda *told: seen.append(told))
    assert [one["square"] for one in found] == [9, 1, 4]
    assert seen == [("sweep", done, 3) for done in range(4)]


def test_two_processes_find_the_same_in_the_same_order() -> None:
    found = sweep(POINTS, square, jobs=2)
    assert [one["square"] for one in found] == [9, 1, 4]
    assert os.getpid() not in {one["pid"] for one in found}


def test_a_sweep_that_was_stopped_goes_on_where_it_stopped(tmp_path: Path) -> None:
    bad = [{"number": 4}, {"number": -1}, {"number": 9}]
    with pytest.raises(ValueError, match="math domain"):
        sweep(bad, root, folder=tmp_path)
    calls: list[Any] = []

    def counted(point: Mapping[str, Any]) -> float:
        calls.append(point["number"])
        return abs(point["number"]) ** 0.5

    assert sweep(bad, counted, folder=tmp_path) == [2.0, 1.0, 3.0]
    assert calls == [-1, 9]
    assert sweep(bad[::-1], counted, folder=tmp_path) == [3.0, 1.0, 2.0]
    assert calls == [-1, 9]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_point_is_known_by_its_parameters_whatever_their_order(tmp_path: Path) -> None:
    sweep([{"a": 1, "b": 2}], lambda point: 5, folder=tmp_path)
    assert sweep([{"b": 2, "a": 1}], lambda point: 6, folder=tmp_path) == [5]
    assert sweep([{"b": 2, "a": 2}], lambda point: 6, folder=tmp_path) == [6]


def test_a_fresh_result_equals_the_stored_one_and_none_is_a_result(tmp_path: Path) -> None:
    fresh = sweep([{"n": 1}, {"n": 2}], lambda point: None if point["n"] == 1 else (1, 2), folder=tmp_path)
    assert fresh == [None, [1, 2]] == sweep([{"n": 1}, {"n": 2}], die, folder=tmp_path)


@pytest.mark.slow
def test_a_process_that_dies_and_a_file_of_something_else_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a process of the sweep died"):
        sweep(POINTS[:2], die, jobs=2)
    sweep(POINTS[:1], square, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps({"point": {"number": 4}, "result": 16}))
    with pytest.raises(RunError, match=r"does not hold the result of \{'number': 3\}"):
        sweep(POINTS[:1], square, folder=tmp_path)


def test_no_points_give_no_results_and_no_processes_are_refused() -> None:
    assert sweep([], square) == []
    with pytest.raises(RunError, match="jobs = 0"):
        sweep(POINTS, square, jobs=0)
