"""The command that prices zeros on silicon: chips by name or from a user's file, tables, JSON, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from zeroskip import measure, simulate, task_api
from zeroskip.simulate import chips
from zeroskip.tasks.load import load

TESTS = Path(__file__).parent
TASK = str(TESTS / "tiny_task.py")
Call = Callable[..., tuple[int, str, str]]

OWN = """
from dataclasses import replace
from zeroskip.simulate import chips
SMALL = replace(chips.EIE, name="small", lanes=4)
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    safetensors.torch.save_file(load(TASK).model().state_dict(), str(path))
    return path


def test_json_is_what_the_engine_estimates_of_the_trace(call: Call, weights: Path) -> None:
    status, out, err = call("simulate", TASK, weights, "--on", "eie", "--json")
    assert (status, err) == (0, "")
    task = load(TASK)
    model = task_api.model(task, safetensors.torch.load_file(str(weights)))
    expected = simulate.estimate_trace(measure.trace(model, task_api.first(task, 1)), chips.EIE)
    assert json.loads(out)["estimates"] == [json.loads(json.dumps(expected.to_json()))]


def test_every_chip_that_can_run_the_network_has_a_line_and_energies_are_named(
    call: Call, weights: Path
) -> None:
    status, out, _ = call("simulate", TASK, weights, "--batch", 2)
    assert status == 0
    assert "energies: han2015, DRAM lpddr4; for 2 examples" in out.replace("\n", " ")
    assert all(word in out for word in ("Eyeriss", "EIE", "Cnvlutin", "Cambricon", "SparTen"))


def test_one_chip_is_shown_layer_by_layer_and_written_as_csv(
    call: Call, weights: Path, tmp_path: Path
) -> None:
    table = tmp_path / "layers.csv"
    status, out, _ = call("simulate", TASK, weights, "--on", "minerva", "--csv", table)
    assert status == 0
    assert "Minerva, layer by layer" in out
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert all(int(row["done"]) + int(row["gated"]) + int(row["skipped"]) == int(row["macs"]) for row in rows)


def test_a_chip_of_one_s_own_is_a_python_file(call: Call, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "my_chip.py").write_text(OWN)
    status, out, _ = call("simulate", TASK, weights, "--on", tmp_path / "my_chip.py", "--json")
    assert status == 0
    (estimate,) = json.loads(out)["estimates"]
    assert estimate["machine"] == "small"
    assert estimate["total"]["slots"] == 4 * estimate["total"]["cycles"]


@pytest.mark.parametrize(
    ("on", "sentence"),
    [
        ("tpu", 'there is no chip "tpu". Chips are dense-array, eyeriss'),
        (",", "no chip is named"),
        ("{empty.py}", "makes no Accelerator"),
        ("{absent.py}", "absent.py"),
    ],
)
def test_chips_that_are_none_are_one_sentence(
    call: Call, weights: Path, tmp_path: Path, on: str, sentence: str
) -> None:
    (tmp_path / "empty.py").write_text("")
    named = str(tmp_path / on.strip("{}")) if on.startswith("{") else on
    status, out, err = call("simulate", TASK, weights, "--on", named)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert "Traceback" not in err


def test_a_page_is_written_that_opens_offline_and_names_every_layer(
    call: Call, weights: Path, tmp_path: Path
) -> None:
    status, out, _ = call("simulate", TASK, weights, "--on", "minerva", "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert (status, "wrote" in out) == (0, True)
    task = load(TASK)
    trace = measure.trace(task_api.model(task, None), task_api.first(task, 1))
    assert all(f">{layer.name}</th>" in page for layer, _, _ in trace)
    assert "default-src 'none'" in page


def test_a_sweep_is_every_combination_and_goes_on_from_its_folder(
    call: Call, weights: Path, tmp_path: Path
) -> None:
    words = ("simulate", TASK, weights, "--on", "eie", "--out", tmp_path / "run", "--json")
    status, out, _ = call(*words, "--sweep", "lanes=2,4", "--sweep", "tile.queue=1,8")
    assert status == 0
    points = json.loads(out)["points"]
    assert [tuple(one["numbers"].values()) for one in points] == [(2, 1), (2, 8), (4, 1), (4, 8)]
    assert points[0]["cycles"] > points[3]["cycles"]
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "points").iterdir()}
    status, again, _ = call(*words, "--sweep", "lanes=4,2,8", "--sweep", "tile.queue=8")
    assert json.loads(again)["points"][:2] == [points[3], points[1]]
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "points").iterdir()}
    assert stored.items() <= now.items()
    assert (len(stored), len(now)) == (4, 5)
    assert "EIE with other numbers" in (tmp_path / "run" / "sweep.html").read_text()


def test_a_point_is_what_the_engine_estimates_of_that_chip(call: Call, weights: Path) -> None:
    status, out, _ = call("simulate", TASK, weights, "--on", "eie", "--sweep", "lanes=4", "--json")
    assert status == 0
    task = load(TASK)
    model = task_api.model(task, safetensors.torch.load_file(str(weights)))
    chip = replace(chips.EIE, lanes=4)
    expected = simulate.estimate_trace(measure.trace(model, task_api.first(task, 1)), chip)
    (point,) = json.loads(out)["points"]
    assert (point["cycles"], point["joules"]) == (expected.cycles, expected.joules)


def test_another_network_is_another_point(call: Call, weights: Path, tmp_path: Path) -> None:
    words = ("--on", "eie", "--sweep", "lanes=4", "--out", tmp_path / "run", "--json")
    call("simulate", TASK, weights, *words)
    emptier = {name: one * (one > 0) for name, one in safetensors.torch.load_file(str(weights)).items()}
    safetensors.torch.save_file(emptier, str(tmp_path / "emptier.safetensors"))
    call("simulate", TASK, tmp_path / "emptier.safetensors", *words)
    assert len(list((tmp_path / "run" / "points").iterdir())) == 2


def test_a_chip_that_contradicts_itself_is_named_and_the_others_are_shown(call: Call, weights: Path) -> None:
    status, out, _ = call("simulate", TASK, weights, "--on", "sparten", "--sweep", "lanes=16,32")
    assert status == 0
    assert "{'lanes': 16}: SparTen: lanes = 16 do not divide by tile['filters'] = 32" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--on", "eie", "--sweep", "pes=4"), 'EIE has no "pes". It has lanes, width'),
        (("--on", "eie", "--sweep", "lanes"), '--sweep "lanes" is not NAME=NUMBER'),
        (("--on", "eie", "--sweep", "lanes=a"), '--sweep "lanes=a" is not'),
        (("--on", "eie", "--sweep", "lanes=2.5"), "lanes = 2.5 must be a whole number"),
        (("--on", "eie", "--sweep", "lanes=0"), "lanes = 0 must be above 0"),
        (("--on", "eie", "--sweep", "lanes=1", "--sweep", "lanes=2"), "names a number twice"),
        (("--sweep", "lanes=4"), "--sweep changes one chip"),
        (("--jobs", "2"), "--jobs goes with --sweep"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_sentence(
    call: Call, weights: Path, words: tuple[str, ...], sentence: str
) -> None:
    status, out, err = call("simulate", TASK, weights, *words)
    assert (status, out) == (1, "")
    assert sentence in err


def test_a_network_is_pruned_where_a_chip_gains_most(call: Call, weights: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.safetensors"
    words = ("prune", TASK, "--weights", weights, "--max-error-rise", 0.5, "--out", sparse)
    status, _, _ = call(*words, "--cost-on", "eie", "--cost", "joules")
    assert (status, sparse.exists()) == (0, True)
