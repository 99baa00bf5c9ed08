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
    assert "lanes=16: SparTen: lanes = 16 do not divide by tile['filters'] = 32" in out


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


# --- networks of other operations: every count by hand


NETWORKS = {
    # 5 steps, 4 gates of 32: from 8 features, from 32 of the step before; the head reads the last step.
    "lstm": [("lstm.weight_ih_l0", 1, 5 * 128 * 8), ("lstm.weight_hh_l0", 5, 5 * 128 * 32), ("head", 1, 64)],
    # 10 places after the first convolution, 4 after the second.
    "conv1d": [("0", 1, 10 * 8 * 4 * 3), ("2", 1, 4 * 16 * 8 * 3), ("6", 1, 32)],
    # 6 tokens.
    "two_input": [("hidden", 1, 6 * 24 * 8), ("head", 1, 48)],
}


def stored(name: str, folder: Path) -> tuple[str, Path]:
    """A task, and a file of its weights."""
    torch.manual_seed(0)
    task, path = str(TESTS / f"{name}_task.py"), folder / f"{name}.safetensors"
    safetensors.torch.save_file(load(task).model().state_dict(), str(path))
    return task, path


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operation_is_simulated_as_often_as_it_runs(call: Call, tmp_path: Path, name: str) -> None:
    task, weights = stored(name, tmp_path)
    status, out, err = call("simulate", task, weights, "--on", "sparten,dense-array", "--batch", 2, "--json")
    assert (status, err) == (0, "")
    for estimate in json.loads(out)["estimates"]:
        layers = [(layer["name"], layer["runs"], layer["macs"]) for layer in estimate["layers"]]
        assert layers == [(layer, runs, 2 * macs) for layer, runs, macs in NETWORKS[name]]
        assert estimate["network_macs"] == 2 * sum(macs for _, _, macs in NETWORKS[name])
        assert (estimate["examples"], estimate["simulated"]) == (2, 1.0)


def test_what_a_chip_does_not_run_is_named_with_its_share_on_every_way_out(
    call: Call, tmp_path: Path
) -> None:
    task, weights = stored("conv1d", tmp_path)
    words = (
        "simulate",
        task,
        weights,
        "--on",
        "eie",
        "--csv",
        tmp_path / "eie.csv",
        "--out",
        tmp_path / "eie.html",
    )
    status, out, _ = call(*words)
    sentence = "EIE has no way to run 0, 2: 98.7 % of the network's multiplications, in no figure."
    assert (status, sentence in " ".join(out.split())) == (0, True)
    assert sentence.replace("'", "&#39;") in (tmp_path / "eie.html").read_text()
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "eie.csv").read_text().splitlines())}
    assert (rows["2"]["macs"], rows["2"]["cycles"]) == ("1536", "")
    assert rows["2"]["note"] == 'not simulated: EIE has no way to run "2", a conv1d'
    assert sum(float(row["share_of_macs"]) for row in rows.values()) == pytest.approx(1)
    _, out, _ = call("simulate", task, weights)
    assert "(1.3 %" in out  # at the name of the chip; the cell takes several lines
    _, out, _ = call("simulate", task, weights, "--on", "eie", "--sweep", "lanes=8", "--json")
    swept = json.loads(out)
    assert (swept["network_macs"], [each["macs"] for each in swept["left_out"]]) == (2528, [960, 1536])


def test_a_table_is_named_and_has_no_multiplications(call: Call, tmp_path: Path) -> None:
    status, out, _ = call("simulate", *stored("two_input", tmp_path), "--on", "minerva")
    assert status == 0
    assert "Not simulated: table (its rows are looked up, not multiplied)." in " ".join(out.split())


@pytest.mark.parametrize("number", ["1e300", "0", "-1", "1048577"])
def test_a_queue_that_no_chip_has_is_one_sentence(call: Call, weights: Path, number: str) -> None:
    status, out, err = call("simulate", TASK, weights, "--on", "eie", "--sweep", f"tile.queue=0,{number}")
    assert (status, out) == (1, "")
    assert err == "error: tile.queue=0: EIE: tile['queue'] = 0 must be above 0\n"
    status, out, _ = call("simulate", TASK, weights, "--on", "eie", "--sweep", f"tile.queue=8,{number}")
    assert status == 0
    assert f"tile.queue={float(number):.15g}: EIE: tile['queue'] = " in out
