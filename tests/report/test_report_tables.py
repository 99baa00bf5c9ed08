"""The tables hold the record's figures, name a loss as a loss, and fit a terminal of 100 columns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from zeroskip import report
from zeroskip.concepts import Point, Record
from zeroskip.report import Grid


def cells(grid: Grid) -> dict[str, tuple[str, ...]]:
    """First cell of each row -> the other cells."""
    return {row[0]: row[1:] for row in grid.rows}


def printed(grid: Grid, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(grid)
    return capture.get()


def every_table(record: Record) -> list[Grid]:
    return [
        report.summary_table(record), report.layer_table(record), report.choice_table(record.choices),
        *map(report.timing_table, record.timings), report.profile_table(record.profile),
        report.history_table(record.history), report.ledger_table(record.ledger), report.seeds_table(record),
        report.comparison_table([record, replace(record, folder="runs/other")]),
    ]  # fmt: skip


def test_the_summary_holds_the_seven_figures_of_the_record(record: Record):
    assert cells(report.summary_table(record)) == {
        "test error": ("2.22 %", "2.50 %", "0.28 points worse"),
        "test error, unpacked file": ("-", "2.50 %", ""),
        "test error, compiled program": ("-", "2.50 %", ""),
        "weights": ("50,200", "4,267", "11.8x fewer"),
        "stored bytes": ("202 kB", "21.8 kB", "9.28x smaller"),
        "time per call, batch 1": ("33.5 µs", "22.1 µs", "1.52x faster than torch compiled"),
        "time per call, batch 256": ("308 µs", "520 µs", "1.69x slower than torch compiled"),
    }


def test_the_summary_says_on_which_split_the_network_was_chosen(record: Record):
    assert "chosen on validation" in report.summary_table(record).note
    shown = replace(record, summary=replace(record.summary, selected_on="the reported set"))
    assert "chosen on the reported set" in report.summary_table(shown).note


def test_without_timings_the_summary_has_no_row_of_times(record: Record):
    untimed = cells(report.summary_table(replace(record, timings=())))
    assert [name for name in untimed if name.startswith("time")] == []
    assert untimed["weights"] == ("50,200", "4,267", "11.8x fewer")


def test_a_time_whose_spread_overlaps_is_neither_a_win_nor_a_loss(record: Record):
    spread = {"zeroskip": (20e-6, 35e-6), "torch eager": (41e-6, 42e-6), "torch compiled": (33e-6, 34e-6)}
    timings = (replace(record.timings[0], spread=spread), record.timings[1])
    grid = report.summary_table(replace(record, timings=timings))
    row = cells(grid)["time per call, batch 1"]
    assert row[-1] == "1.52x faster than torch compiled; spreads overlap"
    assert [grid.marks[place] for place in (5, 6)] == ["", "loss"]


def test_a_dense_engine_that_is_1_69_times_faster_is_named_a_loss(record: Record):
    lost, won = report.timing_table(record.timings[1]), report.timing_table(record.timings[0])
    assert cells(lost)["torch compiled"][-1] == "zeroskip loses: it is 1.69x slower"
    assert cells(won)["torch compiled"][-1] == "zeroskip is 1.52x faster"
    assert lost.marks == {0: "loss", 1: "loss"}
    assert won.marks == {1: "win", 2: "win"}


def test_every_engine_has_its_median_and_spread_and_a_skipped_one_its_reason(record: Record):
    found = cells(report.timing_table(record.timings[0]))
    assert list(found) == ["zeroskip", "torch compiled", "torch eager", "onnxruntime"]  # fastest first
    assert found["torch eager"][:3] == ("41.2 µs", "40 µs to 42.8 µs", "0")
    assert found["onnxruntime"][-1] == "did not take part: not installed: pip install onnxruntime"


def test_a_lead_within_the_spread_is_said_to_be_one(record: Record):
    spread = {"zeroskip": (20e-6, 35e-6), "torch eager": (41e-6, 42e-6), "torch compiled": (33e-6, 34e-6)}
    found = cells(report.timing_table(replace(record.timings[0], spread=spread)))
    assert found["torch compiled"][-1] == "zeroskip is 1.52x faster, but the spreads overlap"
    assert found["torch eager"][-1] == "zeroskip is 1.86x faster"


def test_a_race_that_zeroskip_could_not_join_shows_the_others(record: Record):
    seconds = {"torch eager": 41.2e-6}
    alone = replace(record.timings[0], seconds=seconds, skipped={"zeroskip": "a layer it cannot run"})
    assert cells(report.timing_table(alone)) == {
        "torch eager": ("41.2 µs", "40 µs to 42.8 µs", "0", ""),
        "zeroskip": ("-", "-", "-", "did not take part: a layer it cannot run"),
    }
    shown = report.summary_table(replace(record, timings=(alone, record.timings[1])))
    assert [name for name in cells(shown) if name.startswith("time")] == ["time per call, batch 256"]


def test_each_of_the_three_layers_names_its_kernel_and_why(record: Record):
    found = cells(report.layer_table(record))
    reason = "fastest path through the network"
    assert found["fc1"] == ("19,200", "1,632", "91.5 %", "50.0 %", "blocks", reason)
    assert found["fc3"][-2:] == ("dense", "too small to gain from its zeros")


def test_a_choice_lists_its_kernels_from_the_fastest_on_and_the_refused_with_reason(record: Record):
    assert cells(report.choice_table(record.choices))["fc1"] == (
        "blocks",
        "blocks 4.4 µs; csr 6.2 µs; dense 9.1 µs",
        "2:4: the zeros do not come in groups of four",
    )


def test_the_profile_shows_the_error_at_the_middle_and_the_highest_sparsity(conv_record: Record):
    grid = report.profile_table(conv_record.profile)
    assert grid.columns[-2:] == ("error at 80 %", "error at 95 %")
    measured = conv_record.profile.layer("conv2").sensitivity
    errors = (f"{100 * measured[0.8]:.2f} %", f"{100 * measured[0.95]:.2f} %")
    assert cells(grid)["conv2"] == ("50x20x5x5", "25,000", "14.4 M", "0.0 %", "60.0 %", "60.0 %", *errors)
    unprobed = tuple(replace(layer, sensitivity={}) for layer in conv_record.profile.layers)
    assert report.profile_table(replace(conv_record.profile, layers=unprobed)).columns[-1] == "zero outputs"


def test_the_history_marks_the_last_good_point_as_chosen(record: Record):
    outcomes = [row[-1] for row in report.history_table(record.history).rows]
    assert outcomes == ["the start", *["within the budget"] * 3, *["over the budget"] * 2, "chosen"]


def test_where_every_point_was_good_there_may_have_been_no_budget_to_speak_of():
    history = (
        Point("dense", 10, 10, 0.1, True),
        Point("round", 5, 10, 0.9, True),
        Point("round", 2, 10, 0.9, True),
    )
    assert [row[-1] for row in report.history_table(history).rows] == ["the start", "on the way", "chosen"]


def test_where_no_round_was_good_the_dense_network_is_chosen_and_zero_weights_are_all_gone():
    history = (Point("dense", 10, 10, 0.1, True), Point("round", 0, 10, 0.9, False))
    rows = report.history_table(history).rows
    assert [row[-1] for row in rows] == ["chosen", "over the budget"]
    assert rows[1][2:4] == ("100.0 %", "all gone")


def test_the_ledger_adds_up_to_the_stored_bytes(record: Record):
    found = cells(report.ledger_table(record.ledger))
    assert found["fc1.weight"] == ("6,388", "1,020", "128", "12", "24", "7,572")
    assert found["all"][-1] == f"{record.summary.stored_bytes:,}"


def test_three_seeds_have_three_rows_and_their_median_lowest_and_highest(conv_record: Record):
    found = cells(report.seeds_table(conv_record))
    errors = {seed: row[1] for seed, row in found.items()}
    lines = {"median": "1.07 %", "lowest": "0.97 %", "highest": "1.17 %"}
    assert errors == {"0": "0.97 %", "1": "1.07 %", "2": "1.17 %"} | lines


def test_two_runs_compare_in_two_rows_and_the_slower_one_is_a_loss(record: Record, conv_record: Record):
    grid = report.comparison_table([record, conv_record])
    times = ("1", "22.1 µs", "1.52x faster")
    assert cells(grid)["digits"] == ("2.22 %", "2.50 %", "4,267 (11.8x)", "21.8 kB (9.28x)", *times)
    assert cells(grid)["digits-conv"][-1] == "1.6x slower"
    assert grid.marks == {0: "win", 1: "loss"}


def test_runs_whose_folders_end_alike_are_told_apart_by_the_whole_folder(record: Record):
    other = replace(record, folder="other/digits")
    assert list(cells(report.comparison_table([record, other]))) == ["runs/digits", "other/digits"]


@pytest.mark.parametrize("place", range(9))
def test_every_cell_survives_printing_on_100_columns(conv_record: Record, place: int):
    grid = every_table(conv_record)[place]
    lines = printed(grid).splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in printed(grid)
    words = {word for row in grid.rows for cell in row for word in cell.split()}
    assert words <= set(printed(grid).split())


def test_headings_take_two_lines_so_that_a_reason_of_five_words_takes_one(record: Record):
    assert "fastest path through the network" in printed(report.layer_table(record))
    assert "error at" not in printed(report.profile_table(record.profile)).split("Error of")[0]


def test_a_table_that_is_too_wide_cuts_no_word_and_names_part_where_their_words_do():
    columns = ("layer", *(f"count {place}" for place in range(9)), "lost most to")
    row = ("lstm.weight_ih_l0", *["100.0 %"] * 9, "fragmentation")
    lines = [line.split() for line in printed(Grid("", columns, (row,)), width=88).splitlines()]
    assert [line[0] for line in lines if line and line[0] in ("lstm.", "weight_", "ih_l0")] == [
        "lstm.",
        "weight_",
        "ih_l0",
    ]
    assert "fragmentation" in [word for line in lines for word in line]


def test_kernels_that_were_refused_for_a_layer_above_are_counted(record: Record):
    refused = {"csr": "no batch", "spmm": "no batch", "sell": "no zeros"}
    choices = [
        replace(record.choices[0], layer="fc1", refused=refused),
        replace(record.choices[0], layer="fc2", refused=refused | {"sell": "too small"}),
    ]
    rows = report.choice_table(choices).rows
    assert [row[-1] for row in rows] == [
        "csr, spmm: no batch; sell: no zeros",
        "sell: too small; 2 as in fc1",
    ]


def test_brackets_in_a_cell_are_printed_as_they_are(record: Record):
    name = "[red]digits[/red]"
    assert name in printed(report.summary_table(replace(record, summary=replace(record.summary, task=name))))
    assert name in printed(report.ledger_table({name: {"values": 1}}))
    assert name in printed(report.choice_table([replace(record.choices[0], refused={"csr": name})]))
