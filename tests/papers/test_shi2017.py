"""Shi and Chu 2017: how seconds become rows, and that the seconds are those of the layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zeroskip.models.convolutions import RECTIFIED, RECTIFIED_OTHERWISE
from zeroskip.papers import Setup
from zeroskip.papers.shi2017 import measure as timing
from zeroskip.papers.shi2017 import rows as shi2017
from zeroskip.papers.shi2017.published import NETWORK


def findings(skipping: float = 1e-5) -> dict[str, Any]:
    one = {"im2col": 4e-5, "dense": 2e-5, "skipping": skipping}
    return {"layers": dict.fromkeys(RECTIFIED, one), "otherwise": dict.fromkeys(RECTIFIED_OTHERWISE, one)}


def test_13_layers_3_other_readings_and_lowest_mean_highest_have_rows() -> None:
    rows = shi2017.measured_rows(NETWORK, findings())
    assert len(rows) == 13 + 3 + 3
    assert rows[0].ours == "4.00x; 2.00x PyTorch's best"
    assert [(row.row.split()[0], row.published, row.ours, row.holds) for row in rows[-3:]] == [
        ("lowest", 1.39, 4.0, True),
        ("mean", 3.49, 4.0, True),
        ("highest", 8.11, 4.0, False),
    ]


def test_a_layer_that_is_not_faster_does_not_hold() -> None:
    rows = shi2017.measured_rows(NETWORK, findings(skipping=5e-5))
    assert all(row.holds is False for row in rows)


def test_without_timing_every_row_stays_with_the_reason_and_no_mean_of_some_layers_is_told() -> None:
    rows = shi2017.measured_rows(NETWORK, {"layers": {"LeNet Conv2": findings()["layers"]["LeNet Conv2"]}})
    assert [row.holds for row in rows].count(None) == 18
    assert all("needs timing" in row.reason for row in rows if row.holds is None)


def test_a_layer_is_timed_three_ways_once_and_then_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUNS", "ROUNDS"):
        monkeypatch.setattr(timing, name, 1)
    monkeypatch.setattr(timing, "SLOT", 1e-4)
    one = {"Inception5a.2": RECTIFIED["Inception5a.2"]}
    monkeypatch.setattr(timing, "RECTIFIED", one)
    monkeypatch.setattr(timing, "RECTIFIED_OTHERWISE", {})
    found = timing.measure_layers(Setup(tmp_path, 1))
    assert set(found["layers"]["Inception5a.2"]) == {"im2col", "dense", "skipping"}
    assert all(seconds > 0 for seconds in found["layers"]["Inception5a.2"].values())
    assert timing.measure_layers(Setup(tmp_path, 1)) == found
