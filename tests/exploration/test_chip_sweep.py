"""One chip with other numbers, from Python: every point is the estimate of that chip, once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.errors import AcceleratorError
from zeroskip.exploration import ChipSweep, SweepRow, chip_sweep, sweep_chip
from zeroskip.simulate import LeftOut, Workload, chips, estimate, of_masks, random_masks, vary


@pytest.fixture
def works() -> list[Workload]:
    weight = random_masks.random((64, 40), 0.8)
    return [of_masks("fc", weight, random_masks.random((2, 40), 0.5, seed=1))]


@given(
    st.dictionaries(
        st.sampled_from(["lanes", "width", "hertz"]), st.lists(st.integers(1, 9), min_size=1, max_size=3)
    )
)
def test_points_are_every_combination_the_last_parameter_fastest(values: dict[str, list[int]]) -> None:
    points = ChipSweep("eie", values).points
    count = 1
    for numbers in values.values():
        count *= len(numbers)
    assert len(points) == count
    assert all(list(point) == list(values) for point in points)
    for name, numbers in values.items():
        assert {point[name] for point in points} == set(numbers)
    if len(values) > 1 and len(set(values[list(values)[-1]])) > 1:
        last = list(values)[-1]
        assert [point[last] for point in points[: len(values[last])]] == values[last]


def test_every_row_is_the_estimate_of_the_chip_at_its_point(works: list[Workload]) -> None:
    asked = ChipSweep("eie", {"lanes": [2, 8], "tile.queue": [1, 4]}, energy="eie2016", dram="ddr3")
    outcome = sweep_chip(works, asked)
    assert (outcome.chip, outcome.refused) == ("EIE", ())
    assert [row.numbers for row in outcome.rows] == asked.points
    for row in outcome.rows:
        found = estimate(works, vary(chips.EIE, row.numbers), energy="eie2016", dram="ddr3")
        assert (row.cycles, row.seconds, row.joules) == (found.cycles, found.seconds, found.joules)
        assert (row.roof, row.dram_bytes) == (found.total.roof, found.total.moved("DRAM"))
        assert row.utilisation == found.total.utilisation


def test_a_point_at_which_the_chip_contradicts_itself_is_named_and_the_others_are_estimated(
    works: list[Workload],
) -> None:
    outcome = sweep_chip(works, ChipSweep("sparten", {"lanes": [16, 32, 48, 64]}))
    assert [row.numbers["lanes"] for row in outcome.rows] == [32, 64]
    assert [text.partition(":")[0] for text in outcome.refused] == ["lanes=16", "lanes=48"]
    assert all("do not divide by tile['filters'] = 32" in text for text in outcome.refused)


def test_a_sweep_without_a_point_that_can_be_is_an_error(works: list[Workload]) -> None:
    with pytest.raises(AcceleratorError, match="lanes = 0 must be above 0"):
        sweep_chip(works, ChipSweep("eie", {"lanes": [0]}))


@pytest.mark.parametrize(
    ("chip", "values", "sentence"),
    [
        ("tpu", {"lanes": [1]}, 'there is no chip "tpu"'),
        ("eie,scnn", {"lanes": [1]}, "eie,scnn names 2"),
        ("eie", {"pes": [1]}, 'EIE has no "pes". It has lanes, width, .*tile.queue, .*memory.entries'),
    ],
)
def test_words_that_are_no_sweep_are_refused_before_anything_is_estimated(
    works: list[Workload],
    chip: str,
    values: dict[str, list[float]],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("estimated")

    monkeypatch.setattr(chip_sweep, "estimate", fail)
    with pytest.raises(AcceleratorError, match=sentence):
        sweep_chip(works, ChipSweep(chip, values))


def test_points_are_kept_and_estimated_once(
    works: list[Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep_chip(works, ChipSweep("eie", {"lanes": [2, 4]}), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    estimated: list[int] = []

    def counted(works: list[Workload], chip: chips.Accelerator, **words: str) -> object:
        estimated.append(chip.lanes)
        return estimate(works, chip, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(chip_sweep, "estimate", counted)
    again = sweep_chip(works, ChipSweep("eie", {"lanes": [8, 4, 2]}), folder=tmp_path)
    assert estimated == [8]
    assert again.rows[1:] == first.rows[::-1]


def test_other_zeros_another_price_and_another_chip_are_other_points(
    works: list[Workload], tmp_path: Path
) -> None:
    sweep_chip(works, ChipSweep("eie", {"lanes": [2]}), folder=tmp_path)
    emptier = [replace(works[0], weight=torch.zeros_like(works[0].weight))]
    sweep_chip(emptier, ChipSweep("eie", {"lanes": [2]}), folder=tmp_path)
    sweep_chip(works, ChipSweep("eie", {"lanes": [2]}, dram="ddr3"), folder=tmp_path)
    sweep_chip(works, ChipSweep("minerva", {"lanes": [16]}), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.slow
def test_a_user_s_chip_is_swept_in_other_processes_too(works: list[Workload], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom zeroskip.simulate import chips\n"
        "MINE = replace(chips.EIE, name='mine', shaped=dict(chips.EIE.shaped))\n"
    )
    asked = ChipSweep(str(tmp_path / "mine.py"), {"lanes": [2, 4]})
    alone, together = sweep_chip(works, asked), sweep_chip(works, asked, jobs=2)
    assert alone == together
    assert alone.chip == "mine"


def test_an_outcome_is_plain_json_by_the_names_that_pages_have(works: list[Workload]) -> None:
    outcome = sweep_chip(works, ChipSweep("eie", {"lanes": [2, 4]}))
    value = json.loads(json.dumps(outcome.to_json()))
    assert (value["machine"], value["refused"]) == ("EIE", [])
    assert [SweepRow(**row) for row in value["points"]] == list(outcome.rows)


def test_what_no_point_simulates_is_part_of_the_outcome(works: list[Workload]) -> None:
    others = [LeftOut("products of activations", 700, "no chip")]
    conv = of_masks("conv", torch.ones(4, 2, 1, 1) != 0, torch.ones(1, 2, 8, 8) != 0)
    outcome = sweep_chip([*works, conv], ChipSweep("eie", {"lanes": [2, 8]}), left_out=others)
    assert [(each.name, each.macs) for each in outcome.left_out] == [
        ("conv", conv.macs),
        ("products of activations", 700),
    ]
    assert outcome.network_macs == sum(work.macs for work in works) + conv.macs + 700
    assert [row.cycles for row in outcome.rows] == [
        estimate([*works, conv], vary(chips.EIE, row.numbers)).cycles for row in outcome.rows
    ]
