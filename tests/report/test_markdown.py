"""Tables in Markdown and on a terminal have the same cells."""

from __future__ import annotations

from rich.console import Console

from zeroskip.report import Grid
from zeroskip.report.grid import markdown_table
from zeroskip.report.run_tables import mark

COLUMNS, ROWS = ("layer", "weights"), (("fc1", "19,200"), ("fc2", "1,000"), ("all", "20,200"))


def test_a_markdown_table_has_a_line_for_the_columns_a_rule_and_a_line_for_each_row() -> None:
    lines = markdown_table(COLUMNS, ROWS).splitlines()
    assert lines[:2] == ["| layer | weights |", "|---|---|"]
    assert [line.strip("| ").split(" | ") for line in lines[2:]] == [list(row) for row in ROWS]


def test_without_rows_there_are_still_the_columns() -> None:
    assert markdown_table(COLUMNS, []) == "| layer | weights |\n|---|---|\n"


def test_marks_colour_the_last_cell_and_a_total_is_bold() -> None:
    console = Console(width=60, color_system="standard", force_terminal=True)
    with console.capture() as capture:
        console.print(Grid("Layers", COLUMNS, ROWS, marks={0: "win", 1: "loss", 2: "total"}))
    lines = capture.get().splitlines()
    won, lost, total = (next(line for line in lines if name in line) for name in ("fc1", "fc2", "all"))
    assert "\x1b[32m" in won  # green
    assert "\x1b[1;33m" in lost  # bold yellow
    assert "\x1b[1m" in total


def test_a_note_stands_under_the_table_and_a_title_above_it() -> None:
    console = Console(width=60, color_system=None)
    with console.capture() as capture:
        console.print(Grid("Layers", COLUMNS, ROWS, note="exact"))
    lines = [line.strip() for line in capture.get().splitlines() if line.strip()]
    assert (lines[0], lines[-1]) == ("Layers", "exact")


def test_faster_is_a_win_slower_a_loss_and_as_fast_is_neither() -> None:
    assert [mark(2e-6, sparse) for sparse in (1e-6, 4e-6, 2e-6)] == ["win", "loss", ""]
