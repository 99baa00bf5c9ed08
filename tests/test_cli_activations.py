"""The command line about activations: zeros counted and continued, thresholds found, stored and honoured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from zeroskip import measure, task_api, thresholds
from zeroskip.tasks import digits

TESTS = Path(__file__).parent
TASK = str(TESTS / "tiny_task.py")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "digits.safetensors"
    safetensors.torch.save_file(digits.model().state_dict(), str(path))
    return path


def test_measure_activations_gives_the_counts_of_measure_layer_by_layer(call: Call, weights: Path) -> None:
    status, out, err = call("measure", "digits", "--activations", "--weights", weights, "--json")
    assert (status, err) == (0, "")
    printed = json.loads(out)
    model = task_api.model(digits, safetensors.torch.load_file(str(weights)))
    found = measure.activations(model, digits.batches())
    assert {name: one["before"]["zeros"] for name, one in printed["zeros"].items()} == {
        name: one.before.zeros for name, one in found.items()
    }
    assert [row["layer"] for row in printed["layers"]] == ["fc1", "fc2", "fc3"]


def test_measure_activations_draws_a_page_and_a_second_call_continues_where_the_first_ended(
    call: Call, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroskip.cli.measure.EVERY", 1)
    words = ["measure", "digits", "--activations", "--weights", weights, "--out", tmp_path / "run"]
    status, out, _ = call(*words)
    assert status == 0
    assert f"wrote {tmp_path / 'run' / 'activations.html'}" in out.replace("\n", "")
    page = (tmp_path / "run" / "activations.html").read_text()
    assert "By class" in page
    assert "By example" in page
    assert call(*words)[1] == out


def test_pages_of_another_network_are_not_continued(call: Call, weights: Path, tmp_path: Path) -> None:
    assert call("measure", "digits", "--activations", "--weights", weights, "--out", tmp_path / "run")[0] == 0
    changed = {name: 2 * one for name, one in safetensors.torch.load_file(str(weights)).items()}
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(changed, str(other))
    status, _, err = call("measure", "digits", "--activations", "--weights", other, "--out", tmp_path / "run")
    assert status == 1
    assert "weights" in err


def test_pruned_activations_are_stored_with_the_weights_and_honoured_by_the_next_command(
    call: Call, tmp_path: Path
) -> None:
    sparse, packed = tmp_path / "sparse.safetensors", tmp_path / "model.zs"
    status, out, _ = call("prune-activations", TASK, "--max-error-rise", 0.2, "--out", sparse, "--json")
    assert status == 0
    printed = json.loads(out)
    assert printed["removed"] > 0
    assert printed["after"]["error"] <= printed["before"]["error"] + 0.2
    held = thresholds.stored(safetensors.torch.load_file(str(sparse)))
    assert held == {name: theta for name, theta in printed["thresholds"].items() if theta}
    assert call("pack", TASK, sparse, "--out", packed)[0] == 0
    status, out, _ = call("run", TASK, packed, "--json")
    assert status == 0
    assert json.loads(out)["error_run"] == pytest.approx(printed["test_error_after"])


def test_one_sigma_is_the_spread_of_five_trainings(call: Call, tmp_path: Path) -> None:
    from zeroskip import prune
    from zeroskip.tasks.load import load

    out_file = tmp_path / "sparse.safetensors"
    status, out, _ = call(
        "prune-activations", TASK, "--max-error-rise", "1sigma", "--out", out_file, "--json"
    )
    assert status == 0
    noise = prune.noise(load(TASK))
    assert len(noise.errors) == 5
    assert json.loads(out)["max_error_rise"] == pytest.approx(noise.rise)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["prune-activations", TASK, "--max-error-rise", "a", "--out", "x"], "no number from 0 up"),
        (["prune-activations", TASK, "--max-error-rise", "-1", "--out", "x"], "no number from 0 up"),
        (["prune-activations", TASK, "--out", str(TESTS)], "is a folder. Name a file"),
        (["prune", TASK, "--out", str(TESTS)], "is a folder. Name a file"),
        (["measure", TASK, "--out", "x"], "--out goes with --activations"),
        (["reproduce", "minerva", "--codec"], "--codec is about eyeriss"),
        (["reproduce", "minerva", "--weights", "x", "--network", "minerva-webkb"], "does not start from given"),
    ],
)  # fmt: skip
def test_words_that_do_not_go_together_are_one_sentence(call: Call, words: list[str], sentence: str) -> None:
    status, out, err = call(*words)
    assert (status, out) == (1, "")
    assert sentence in err


def test_reproduce_eyeriss_codec_shows_the_tables_of_the_code_alone(call: Call) -> None:
    status, out, _ = call("reproduce", "eyeriss", "--codec", "--analytic", "--json")
    assert status == 0
    tables = {row["table"] for row in json.loads(out)}
    assert tables == {"Run-length code", "DRAM traffic: AlexNet", "DRAM traffic: VGG-16"}
