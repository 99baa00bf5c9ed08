"""`zeroskip compare-plans`: what it prints is what its steps give by hand, and it continues in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroskip import measure, prune, retrain, simulate, task_api
from zeroskip.tasks.load import load, run_file

TASK = str(Path(__file__).parent / "tiny_task.py")
Call = Callable[..., tuple[int, str, str]]
CHIPS = """
from dataclasses import replace
from zeroskip.simulate import chips
ONE = replace(chips.EIE, name="one", lanes=1)
TWO = replace(chips.EIE, name="two", lanes=2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans")
    (path / "chips.py").write_text(CHIPS)
    return path


def words(folder: Path) -> tuple[object, ...]:
    ways = ("--on", folder / "chips.py", "--seeds", 2, "--max-error-rise", "0,0.05")
    return "compare-plans", TASK, *ways, "--out", folder / "points", "--markdown", folder / "page.md"


@pytest.fixture
def printed(call: Call, folder: Path) -> dict[str, Any]:
    """Trained by the first test that asks, read by the others."""
    status, out, err = call(*words(folder), "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_two_chips_two_budgets_and_two_seeds_are_eight_pairs_of_four_points(
    printed: dict[str, Any], folder: Path
) -> None:
    keys = [(one["machine"], one["rise"], one["seed"]) for one in printed["pairs"]]
    assert keys == [(chip, rise, seed) for chip in ("one", "two") for rise in (0, 0.05) for seed in (0, 1)]
    assert len(list((folder / "points").iterdir())) == 4
    assert {one["weights"]["zeros"] for one in printed["pairs"][:4]} == {
        one["weights"]["zeros"] for one in printed["pairs"][4:]
    }


def test_both_plans_stay_within_the_budget_of_the_same_dense_network(printed: dict[str, Any]) -> None:
    for one in printed["pairs"]:
        for plan in ("weights", "cost"):
            assert one[plan]["validation"] <= one["dense"]["validation"] + one["rise"] + 1e-9
            assert 0 == one["dense"]["zeros"] < one[plan]["zeros"] < 1


def test_a_pair_is_what_planning_pruning_and_estimating_give_by_hand(
    printed: dict[str, Any], folder: Path
) -> None:
    task, chip = load(TASK), run_file(folder / "chips.py").TWO
    torch.manual_seed(1)
    dense = task_api.model(task, None)
    retrain.train(task, dense, stage="dense training", seed=1)
    profile, inputs = measure.profile(dense.eval(), task), task_api.first(task, 4)
    cost = simulate.cost_on(chip, measure.trace(dense, inputs))
    pair = next(
        one for one in printed["pairs"] if (one["machine"], one["rise"], one["seed"]) == ("two", 0.05, 1)
    )
    for name, price in {"weights": None, "cost": cost}.items():
        recipe = prune.plan(profile, max_error_rise=0.05, cost=price)
        model = retrain.loop(deepcopy(dense), recipe, task, seed=1).model
        found = simulate.estimate_trace(measure.trace(model, inputs), chip)
        assert pair[name]["cycles"] == found.cycles
        assert pair[name]["joules"] == pytest.approx(found.joules)
        assert pair[name]["test"] == task_api.evaluate(task, model, "test")


def test_the_same_command_trains_nothing_again_and_writes_the_same_page(
    printed: dict[str, Any], call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (folder / "page.md").read_text()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(retrain, "train", fail)
    status, out, _ = call(*words(folder))
    assert (status, f"wrote {folder / 'page.md'}" in out.replace("\n", "")) == (0, True)
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 * (2 * 4 + 1)
    assert set(lines) <= set((folder / "page.md").read_text().splitlines())


def test_without_seeds_and_jobs_there_are_three_seeds_and_one_process(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    ways = ("--on", folder / "chips.py", "--out", tmp_path / "points")
    status, out, err = call("compare-plans", TASK, *ways, "--json")
    assert (status, err) == (0, "")
    assert [one["seed"] for one in json.loads(out)["pairs"]] == 2 * [0, 1, 2]


def test_layers_that_a_chip_cannot_run_are_known_before_any_training(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroskip.exploration.plan_comparison.sweep", lambda points, *_, **__: [])
    words = ("compare-plans", "digits-conv", "--on", "scnn,eie", "--out", tmp_path / "points")
    status, out, err = call(*words, "--json")
    assert (status, err) == (0, "")
    layers = json.loads(out)["layers"]
    assert layers["SCNN"]["refused"] == []
    assert (layers["EIE"]["run"], layers["EIE"]["refused"]) == (["fc1", "fc2"], ["conv1", "conv2"])
    assert layers["SCNN"]["simulated"] == 1 > layers["EIE"]["simulated"] > 0.1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--on", "eie", "--cost", "euros"), '--cost is cycles or joules, not "euros"'),
        (("--on", "tpu"), 'there is no chip "tpu"'),
        (("--on", "eie", "--max-error-rise", "0,a"), "no list of numbers from 0 up"),
        (("--on", "eie", "--max-error-rise", "1sigma"), "no list of numbers from 0 up"),
        (("--on", "eie", "--max-error-rise", "nan"), "no list of numbers from 0 up"),
        (("--on", "eie", "--markdown", Path(__file__).parent), "is a folder. Name a file"),
    ],
)
def test_words_that_do_not_go_together_are_one_sentence(
    call: Call, tmp_path: Path, given: tuple[object, ...], sentence: str
) -> None:
    status, out, err = call("compare-plans", TASK, "--out", tmp_path / "out", *given)
    assert (status, out) == (1, "")
    assert sentence in err
    assert not list(tmp_path.iterdir())


def test_two_chips_of_one_name_are_refused_before_any_training(call: Call, tmp_path: Path) -> None:
    status, _, err = call("compare-plans", TASK, "--out", tmp_path / "out", "--on", "sparten,sparten")
    assert status == 1
    assert 'two chips are called "SparTen"' in err


@pytest.mark.parametrize("command", ["prune", "prune-activations", "compare-plans", "simulate"])
def test_the_help_of_a_command_is_a_screen(call: Call, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call(command, "--help")
    assert status == 0
    assert 24 <= len(out.splitlines()) <= 40
