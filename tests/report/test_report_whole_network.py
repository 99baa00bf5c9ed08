"""Every table is of the whole network: what stays dense has its share and the reason, and the last row adds up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zeroskip import report
from zeroskip.concepts import LayerSummary, Record
from zeroskip.report import Grid

LSTM = "in no layer of the program: lstm"


@pytest.fixture
def lstm_record(record: Record) -> Record:
    """LSTM(8, 32) over 5 steps and Linear(32, 2), of which the head alone was pruned, to 6 of 64 weights."""
    layers = (
        LayerSummary(
            "lstm.weight_ih_l0", 1024, 1024, 0.0, 0.0, "none", LSTM, 5120, 0, "nothing of it was pruned"
        ),
        LayerSummary(
            "lstm.weight_hh_l0", 4096, 4096, 0.0, None, "none", LSTM, 20480, 0, "nothing of it was pruned"
        ),
        LayerSummary("head", 64, 6, 58 / 64, 0.0, "sell", "fastest", 64),
    )
    figures = {"weights": 5184, "weights_kept": 5126, "weights_times_fewer": 5184 / 5126}
    summary = replace(record.summary, layers=layers, macs=25_664, macs_kept=25_606, **figures)
    return replace(record, summary=summary)


def cells(grid: Grid) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in grid.rows}


def test_the_summary_tells_1_01x_and_names_what_stays_dense(lstm_record: Record) -> None:
    found = cells(report.summary_table(lstm_record))
    assert found["weights"] == ("5,184", "5,126", "1.01x fewer")
    assert found["MACs of an example"] == ("25.7 k", "25.6 k", "as many")
    assert found["stay dense: lstm.weight_hh_l0, lstm.weight_ih_l0"] == (
        "5,120",
        "5,120",
        "98.8 % of the weights, 99.8 % of the MACs: nothing of it was pruned",
    )


def test_products_of_two_activations_have_a_row_of_their_own(lstm_record: Record) -> None:
    attention = replace(lstm_record, summary=replace(lstm_record.summary, activation_macs=8192))
    assert cells(report.summary_table(attention))["MACs without a weight"] == ("8.19 k", "8.19 k", "as many")


def test_the_layer_table_ends_with_the_whole_network_and_says_twice_why(lstm_record: Record) -> None:
    grid = report.layer_table(lstm_record)
    assert grid.rows[-1] == ("whole network", "5,184", "5,126", "1.1 %", "", "25.7 k", "", "")
    assert grid.marks == {3: "total"}
    assert grid.rows[0][-1] == f"{LSTM}; nothing of it was pruned"
    assert grid.rows[1][4] == "-"  # what it reads was not seen


def test_the_page_has_the_same_rows(lstm_record: Record, tmp_path) -> None:
    page = report.html(tmp_path / "report.html", lstm_record).read_text()
    for words in (
        "stay dense: lstm.weight_hh_l0",
        "98.8 % of the weights",
        "whole network",
        "1.01x fewer",
    ):
        assert words in page


def test_json_names_what_stays_dense_with_its_shares(lstm_record: Record) -> None:
    dense = lstm_record.summary.to_json()["dense_layers"]
    assert dense[0] == {
        "name": "lstm.weight_hh_l0",
        "weights": 4096,
        "share_of_weights": 4096 / 5184,
        "share_of_macs": 20480 / 25664,
        "reason": "nothing of it was pruned",
    }
    assert [each["name"] for each in dense] == ["lstm.weight_hh_l0", "lstm.weight_ih_l0"]


def test_each_reason_has_a_row_and_many_names_are_counted(lstm_record: Record) -> None:
    looked_up = LayerSummary("table", 100, 100, 0.0, None, "none", "", 0, 0, "its rows are looked up")
    many = tuple(replace(looked_up, name=f"conv{n}", dense="dense was faster") for n in range(5))
    summary = replace(lstm_record.summary, layers=(looked_up, *many), weights=600, macs=0)
    found = cells(report.summary_table(replace(lstm_record, summary=summary)))
    assert found["stay dense: table"][-1] == "16.7 % of the weights: its rows are looked up"
    assert found["stay dense: conv0, conv1, conv2 and 2 more"][:2] == ("500", "500")


def test_a_layer_that_runs_several_times_has_a_row_for_each_run(record: Record) -> None:
    choice = record.choices[0]
    grid = report.choice_table([replace(choice, layer="cell")] * 2 + [replace(choice, layer="")])
    assert [row[0] for row in grid.rows] == ["cell, run 1 of 2", "cell, run 2 of 2", "(itself)"]


def test_the_profile_ends_with_the_sums_of_the_network(record: Record) -> None:
    grid = report.profile_table(record.profile)
    assert grid.rows[-1] == ("whole network", "", "50,200", "50.2 k", "0.0 %", "", "", "", "")
    assert grid.marks == {3: "total"}


def test_records_of_older_versions_have_no_row_of_macs_and_nothing_dense(record: Record) -> None:
    found = cells(report.summary_table(record))
    assert not [name for name in found if "dense:" in name or "MACs" in name]
    assert "MACs" not in report.layer_table(record).columns
