"""The command that prices zeros on silicon: machines by name or from a user's file, tables, JSON, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from zeroskip import contract, measure, simulate
from zeroskip.simulate import machines
from zeroskip.tasks.load import load

TESTS = Path(__file__).parent
TASK = str(TESTS / "tiny_task.py")
Call = Callable[..., tuple[int, str, str]]

OWN = """
from dataclasses import replace
from zeroskip.simulate import machines
SMALL = replace(machines.EIE, name="small", lanes=4)
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
    model = contract.model(task, safetensors.torch.load_file(str(weights)))
    expected = simulate.estimate(measure.trace(model, contract.batch(task)[:1]), machines.EIE)
    assert json.loads(out)["estimates"] == [json.loads(json.dumps(expected.to_json()))]


def test_every_machine_that_can_run_the_network_has_a_line_and_energies_are_named(
    call: Call, weights: Path
) -> None:
    status, out, _ = call("simulate", TASK, weights, "--batch", 2)
    assert status == 0
    assert "energies: han2015, DRAM lpddr4; for 2 examples" in out.replace("\n", " ")
    assert all(word in out for word in ("Eyeriss", "EIE", "Cnvlutin", "Cambricon", "SparTen"))


def test_one_machine_is_shown_layer_by_layer_and_written_as_csv(
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
    (told,) = json.loads(out)["estimates"]
    assert told["machine"] == "small"
    assert told["total"]["slots"] == 4 * told["total"]["cycles"]


@pytest.mark.parametrize(
    ("on", "sentence"),
    [
        ("tpu", '--on names "tpu". Machines are dense-array, eyeriss'),
        (",", "--on names nothing"),
        ("{empty.py}", "makes no Accelerator"),
        ("{absent.py}", "absent.py"),
    ],
)
def test_machines_that_are_none_are_one_sentence(
    call: Call, weights: Path, tmp_path: Path, on: str, sentence: str
) -> None:
    (tmp_path / "empty.py").write_text("")
    named = str(tmp_path / on.strip("{}")) if on.startswith("{") else on
    status, out, err = call("simulate", TASK, weights, "--on", named)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert "Traceback" not in err
