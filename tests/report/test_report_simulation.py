"""The page of a simulation shows the engine's own numbers, and its parts sum to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from zeroskip import measure, report, simulate
from zeroskip.exploration import SweepRow
from zeroskip.report import simulation_page as page
from zeroskip.simulate import chips, formats


@pytest.fixture(scope="module")
def works() -> list[simulate.Workload]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)).eval()
    return simulate.of_trace(measure.trace(net, torch.randn(2, 2, 6, 6)))


@pytest.fixture(scope="module")
def estimates(works: list[simulate.Workload]) -> list[simulate.Estimate]:
    return [simulate.estimate(works, chip) for chip in (chips.DENSE, chips.SCNN, chips.EYERISS)]


def test_the_bars_of_a_layer_sum_to_its_cycles_and_to_its_energy(estimates: list[simulate.Estimate]) -> None:
    for estimate in estimates:
        cycles, energy, _ = page._chip(estimate, np.inf).plots
        for place, layer in enumerate(estimate.layers):
            assert sum(bar.x[place] for bar in cycles.figure.data) == pytest.approx(layer.cycles)
            assert sum(bar.x[place] for bar in energy.figure.data) == pytest.approx(1e6 * layer.joules)


def test_marks_stay_under_the_roof_of_multipliers_and_dram(estimates: list[simulate.Estimate]) -> None:
    marks, roof = page._chip(estimates[0], chips.DENSE.dram_bytes_per_cycle).plots[2].figure.data
    for x, y in zip(marks.x, marks.y, strict=True):
        assert y <= min(1024, 32 * x) * (1 + 1e-9)
    assert max(roof.y) <= 1024
    assert min(roof.y) == pytest.approx(32 * min(roof.x))


def test_what_would_be_left_without_idle_slots_is_done_and_gated_macs_over_the_multipliers(
    estimates: list[simulate.Estimate],
) -> None:
    (row,) = page.ideal_table(estimates[1:2]).rows  # SCNN skips: 1,024 multipliers
    total = estimates[1].total
    assert row[1] == f"{total.macs / 1024:,.0f}"
    assert row[4] == f"{total.done / 1024:,.0f}"
    assert float(row[5][:-1]) == pytest.approx(total.macs / total.done, rel=0.005)


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
    way = formats.WAYS[name]
    assert way(sparser, 16).bits < 16 * len(draw) <= way(denser, 16).bits


def test_the_format_table_marks_the_smallest_and_says_where_none_pays(
    works: list[simulate.Workload],
) -> None:
    grid = page.format_table(simulate.format_sizes(works), simulate.cross_overs())
    assert grid.rows[0][:4] == ("0", "weights", "0.0 %", "100.0 %")
    assert (grid.rows[0][-1], grid.marks[0]) == ("dense", "loss")
    assert grid.rows[3][:2] == ("3", "inputs")  # behind the ReLU: half zeros
    assert (grid.rows[3][-1], grid.marks[3]) == ("bitmask", "win")
    assert grid.rows[-1][:5] == ("cross-over", "", "", "-", "6.2 %")


def test_one_page_holds_all_chips_and_asks_nobody_for_anything(
    estimates: list[simulate.Estimate], works: list[simulate.Workload], tmp_path: Path
) -> None:
    path = report.simulation_html(
        tmp_path / "page.html",
        estimates,
        formats=simulate.format_sizes(works),
        cross_overs=simulate.cross_overs(),
    )
    text = path.read_text()
    assert all(f"{name}, layer by layer" in text for name in ("dense array", "SCNN", "Eyeriss"))
    assert "Size by format" in text
    assert "default-src 'none'" in text


def test_a_sweep_has_a_line_for_each_choice_of_the_other_numbers(tmp_path: Path) -> None:
    rows = [
        SweepRow(
            {"lanes": lanes, "tile.queue": queue},
            1000 // lanes + 10 // queue,
            1e-6,
            3e-6,
            "compute",
            0.5,
            2048,
        )
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


@pytest.fixture
def partial(works: list[simulate.Workload]) -> simulate.Estimate:
    """EIE, which has no way to run a convolution, on a network with attention and a table."""
    others = [
        simulate.LeftOut("products of activations", 1000, "both change"),
        simulate.LeftOut("table", 0, "looked up"),
    ]
    return simulate.estimate(works, chips.EIE, left_out=others)


def test_what_is_in_no_figure_is_said_in_the_table_and_on_the_page(
    partial: simulate.Estimate, tmp_path: Path
) -> None:
    macs = {each.name: each.macs for each in partial.left_out}
    whole = sum(macs.values()) + partial.total.macs
    share = report.show_share
    refused = list(partial.refused)
    sentences = [
        f"EIE has no way to run {', '.join(refused)}: {share(sum(macs[name] for name in refused) / whole)} of the "
        "network's multiplications, in no figure.",
        f"{share(1000 / whole)} of the network's multiplications are products of activations, which are not simulated.",
        "Not simulated: table (looked up).",
    ]
    for grid in (report.chip_table([partial]), report.layer_cost_table(partial)):
        assert grid.note.endswith(" ".join(sentences))
    assert report.chip_table([partial]).rows[0][0] == f"EIE ({share(partial.simulated)} of the MACs)"
    rows = report.left_out_table([partial]).rows
    assert [row[1:4] for row in rows] == [
        (name, report.show_count(count), share(count / whole)) for name, count in macs.items()
    ]
    text = report.simulation_html(tmp_path / "page.html", [partial]).read_text()
    assert "What is in no figure" in text
    assert "products of activations" in text


def test_a_layer_that_runs_several_times_says_how_often_and_its_formats_are_of_all_runs(
    works: list[simulate.Workload],
) -> None:
    thrice = [works[0], works[0], works[0], *works[1:]]
    grid = report.layer_cost_table(simulate.estimate(thrice, chips.DENSE))
    assert grid.columns[:3] == ("layer", "runs", "MACs")
    assert grid.rows[0][:3] == (works[0].name, "3", report.show_count(3 * works[0].macs))
    assert "runs" not in report.layer_cost_table(simulate.estimate(works, chips.DENSE)).columns
    once, all_runs = simulate.format_sizes(works), simulate.format_sizes(thrice)
    assert [sizes.layer for sizes in once] == [sizes.layer for sizes in all_runs]
    assert all_runs[0] == once[0]  # weights are stored once
    assert all_runs[1].bits == {name: 3 * bits for name, bits in once[1].bits.items()}
    assert all_runs[1].sparsity == pytest.approx(once[1].sparsity)


def test_layers_counted_as_dense_are_named_in_one_sentence(works: list[simulate.Workload]) -> None:
    found = simulate.estimate(works, chips.SCNN)
    names = [layer.name for layer in found.layers if layer.note]
    assert report.layer_cost_table(found).note == (
        f"SCNN has no way to run {', '.join(names)}, counted as dense on the same multipliers."
    )
