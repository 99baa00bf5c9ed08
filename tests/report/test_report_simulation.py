"""The page of a simulation shows the engine's own numbers, and its parts sum to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zeroskip import measure, report, simulate
from zeroskip.report import simulation_page as page
from zeroskip.simulate import chips, format_thresholds


@pytest.fixture(scope="module")
def works() -> list[simulate.Workload]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)).eval()
    return simulate.of_trace(measure.trace(net, torch.randn(2, 2, 6, 6)))


@pytest.fixture(scope="module")
def told(works: list[simulate.Workload]) -> list[dict[str, Any]]:
    """As they come back from a JSON file."""
    three = (chips.DENSE, chips.SCNN, chips.EYERISS)
    return json.loads(json.dumps([simulate.estimate(works, chip).to_json() for chip in three]))


def test_the_bars_of_a_layer_sum_to_its_cycles_and_to_its_energy(told: list[dict[str, Any]]) -> None:
    for one in told:
        cycles, energy, _ = page._machine(one, np.inf).plots
        for place, layer in enumerate(one["layers"]):
            assert sum(bar.x[place] for bar in cycles.figure.data) == pytest.approx(layer["cycles"])
            joules = sum(layer["picojoules"].values()) * 1e-6
            assert sum(bar.x[place] for bar in energy.figure.data) == pytest.approx(joules)


def test_marks_stay_under_the_roof_of_multipliers_and_dram(told: list[dict[str, Any]]) -> None:
    (dense, *_) = told
    marks, roof = page._machine(dense, chips.DENSE.dram_bytes_per_cycle).plots[2].figure.data
    for x, y in zip(marks.x, marks.y, strict=True):
        assert y <= min(1024, 32 * x) * (1 + 1e-9)
    assert max(roof.y) <= 1024
    assert min(roof.y) == pytest.approx(32 * min(roof.x))


def test_what_would_be_left_without_idle_slots_is_done_and_gated_macs_over_the_multipliers(
    told: list[dict[str, Any]],
) -> None:
    (row,) = page.ideal_table(told[1:2]).rows  # SCNN skips: 1,024 multipliers
    total = told[1]["total"]
    assert row[1] == f"{total['macs'] / 1024:,.0f}"
    assert row[4] == f"{total['done'] / 1024:,.0f}"
    assert float(row[5][:-1]) == pytest.approx(total["macs"] / total["done"], rel=0.005)


def test_formats_cross_over_where_their_expected_bits_meet_those_of_storing_all() -> None:
    found = simulate.cross_overs()
    assert found["bitmask"] == pytest.approx(1 / 16)
    assert found["bricks"] == pytest.approx(4 / 20)
    assert found["zero runs"] == pytest.approx(4 / 20, abs=1e-3)  # gaps over 15 zeros are rare there
    assert found["run-length"] == pytest.approx(1 - 16 / (64 / 3), abs=1e-3)


@pytest.mark.parametrize("name", ["bitmask", "bricks", "zero runs", "run-length"])
def test_random_masks_on_either_side_of_the_cross_over_are_smaller_and_larger(name: str) -> None:
    draw = np.random.default_rng(0).random(200_000)
    point = simulate.cross_overs()[name]
    sparser, denser = draw >= point + 0.02, draw >= point - 0.02
    way = format_thresholds.WAYS[name]
    assert way(sparser, 16).bits < 16 * len(draw) <= way(denser, 16).bits


def test_the_format_table_marks_the_smallest_and_says_where_none_pays(
    works: list[simulate.Workload],
) -> None:
    grid = page.format_table([sizes.to_json() for sizes in simulate.format_sizes(works)], simulate.cross_overs())
    assert grid.rows[0][:4] == ("0", "weights", "0.0 %", "100.0 %")
    assert (grid.rows[0][-1], grid.marks[0]) == ("dense", "loss")
    assert grid.rows[3][:2] == ("3", "inputs")  # behind the ReLU: half zeros
    assert (grid.rows[3][-1], grid.marks[3]) == ("bitmask", "win")
    assert grid.rows[-1][:5] == ("cross-over", "", "", "-", "6.2 %")


def test_one_page_holds_all_machines_and_asks_nobody_for_anything(
    told: list[dict[str, Any]], works: list[simulate.Workload], tmp_path: Path
) -> None:
    path = report.simulation_html(
        tmp_path / "page.html",
        told,
        formats=[sizes.to_json() for sizes in simulate.format_sizes(works)],
        cross_overs=simulate.cross_overs(),
    )
    text = path.read_text()
    assert all(f"{name}, layer by layer" in text for name in ("dense array", "SCNN", "Eyeriss"))
    assert "Size by format" in text
    assert "default-src 'none'" in text


def test_a_sweep_has_a_line_for_each_choice_of_the_other_numbers(tmp_path: Path) -> None:
    rows = [
        {
            "numbers": {"lanes": lanes, "tile.queue": queue},
            "cycles": 1000 // lanes + 10 // queue,
            "seconds": 1e-6,
            "utilisation": 0.5,
            "roof": "compute",
            "dram_bytes": 2048,
            "joules": 3e-6,
        }
        for lanes in (32, 16)
        for queue in (1, 8)
    ]
    lines = page._over_first(rows).data
    assert [(line.name, line.x, line.y) for line in lines] == [
        ("tile.queue 1", (16, 32), (72, 41)),
        ("tile.queue 8", (16, 32), (63, 32)),
    ]
    assert report.sweep_table("EIE", rows).rows[0] == (
        "32", "1", "41", "1 µs", "50.0 %", "compute", "2.05 kB", "3 µJ",
    )  # fmt: skip
    assert "EIE with other numbers" in report.sweep_html(tmp_path / "s.html", "EIE", rows).read_text()
