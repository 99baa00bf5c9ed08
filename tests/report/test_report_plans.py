"""The table of both plans, from figures made by hand: every ratio follows from them, losses are there; and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from zeroskip.concepts import ChipLayers, PlanComparison, PlannedNetwork, PlanPair
from zeroskip.report.number_format import show_times
from zeroskip.report.plan_tables import plans_markdown, plans_table

ROOT = Path(__file__).parents[2]


def network(cycles: int, joules: float, error: float = 0.02) -> PlannedNetwork:
    return PlannedNetwork(0.9, error, 0.03, cycles, joules)


def pair(chip: str, seed: int, weights: int, cost: int, rise: float = 1 / 360) -> PlanPair:
    """By weights and by cost so many cycles, of 2000."""
    networks = network(2000, 3e-6), network(weights, 2e-6), network(cost, 1.5e-6, 0.0222)
    return PlanPair(chip, rise, seed, *networks)


PAIRS = (pair("SCNN", 0, 1000, 250), pair("SCNN", 1, 400, 400), pair("EIE", 0, 300, 400))
LAYERS = {"SCNN": ChipLayers(("conv1",), ()), "EIE": ChipLayers(("fc1", "fc2"), ("conv1",))}
COMPARISON = PlanComparison("digits", "cycles", "free", LAYERS, PAIRS)


def test_each_pair_has_two_lines_and_each_machine_a_geometric_mean() -> None:
    grid = plans_table(COMPARISON)
    assert grid.rows[:3] == (
        ("SCNN", "0.278", "0", "weights", "90.0 %", "2.00 %", "3.00 %", "1,000", "2", "2x", "-"),
        ("SCNN", "0.278", "0", "cycles", "90.0 %", "2.22 %", "3.00 %", "250", "1.5", "8x", "4x"),
        ("SCNN", "0.278", "1", "weights", "90.0 %", "2.00 %", "3.00 %", "400", "2", "5x", "-"),
    )
    assert (grid.rows[4][0], grid.rows[4][-1]) == ("SCNN, geometric mean", "2x")
    assert (grid.rows[7][0], grid.rows[7][-1]) == ("EIE, geometric mean", "0.75x")


def test_a_gain_a_draw_and_a_loss_are_marked_as_what_they_are() -> None:
    assert plans_table(COMPARISON).marks == {1: "win", 3: "", 4: "total", 6: "loss", 7: "total"}


def test_of_joules_the_ratios_are_those_of_energy() -> None:
    grid = plans_table(replace(COMPARISON, cost="joules"))
    assert grid.rows[1][3:] == ("joules", "90.0 %", "2.22 %", "3.00 %", "250", "1.5", "2x", "1.33x")
    assert "times less energy" in grid.note


def test_the_page_tells_its_command_how_many_pairs_were_won_and_lost_and_every_line() -> None:
    page = plans_markdown(COMPARISON, "2026-01-31, M, `zeroskip prune digits`")
    assert "    2026-01-31, M, `zeroskip prune digits`\n" in page
    assert (
        "- SCNN: the plan by cycles needs fewer cycles in 1 of 2 different pairs, more in 0: 2x in the geometric mean"
        in page
    )
    assert "- EIE: the plan by cycles needs fewer cycles in 0 of 1 different pairs, more in 1: 0.75x" in page
    assert "share one network" not in page
    for row in plans_table(COMPARISON).rows:
        assert f"| {' | '.join(row)} |\n" in page


def test_layers_that_a_machine_does_not_run_are_told_under_the_table_and_with_the_verdict() -> None:
    sentence = "EIE cannot run conv1: its figures are of fc1, fc2 alone."
    assert plans_table(COMPARISON).note.endswith(sentence)
    page = plans_markdown(COMPARISON, "")
    assert f"- {sentence}\n" in page
    assert "SCNN cannot run" not in page


def test_a_pair_that_a_wider_budget_repeats_is_in_brackets_and_counts_once_and_one_shared_network_is_told() -> (
    None
):
    first, wider = pair("SCNN", 0, 1000, 500), pair("SCNN", 0, 1000, 500, 0.01)
    half, other = pair("SCNN", 0, 1000, 125, 0.02), pair("SCNN", 1, 1000, 500)
    comparison = replace(COMPARISON, pairs=(first, wider, half, other))
    grid = plans_table(comparison)
    assert [row[-1] for row in grid.rows if row[3] == "cycles"] == ["2x", "(2x)", "8x", "2x"]
    assert grid.rows[-1][-1] == show_times(32 ** (1 / 3))
    page = plans_markdown(comparison, "")
    assert "in 3 of 3 different pairs, more in 0: " in page
    assert " 2 of these pairs share one network with another budget of their seed.\n" in page


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "PLANNING.md").read_text()


def cells(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_page_in_docs_was_written_by_the_command_it_names(page: str) -> None:
    command = re.search(r"`zeroskip compare-plans \S+ --on (\S+) [^`]*--markdown docs/PLANNING.md`", page)
    assert command is not None
    assert plans_markdown(COMPARISON, "").partition("Generated")[0] == page.partition("Generated")[0]


def test_ratios_of_the_page_in_docs_are_those_of_its_cycles_and_a_chip_gains(page: str) -> None:
    gains: dict[str, list[float]] = {}
    means = {}
    for before, row in zip([[], *cells(page)], cells(page), strict=False):
        if row[0].endswith("geometric mean"):
            means[row[0].partition(",")[0]] = row[-1]
        elif row[3] == "cycles":
            assert before[:4] == [*row[:3], "weights"]
            ratio = float(before[7].replace(",", "")) / float(row[7].replace(",", ""))
            assert row[-1].strip("()") == show_times(ratio)
            if not row[-1].startswith("("):
                gains.setdefault(row[0], []).append(ratio)
    assert means == {name: show_times(prod(each) ** (1 / len(each))) for name, each in gains.items()}
    assert max(prod(each) for each in gains.values()) > 1
    assert min(len(each) for each in gains.values()) >= 3
