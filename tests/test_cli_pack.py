"""`zeroskip pack` on minus zeros, tied matrices and recurrent networks. Counts are of the whole network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.utils import prune as torch_pruning

from zeroskip import pack, task_api
from zeroskip.tasks import load

TESTS = Path(__file__).parent
Call = Callable[..., tuple[int, str, str]]
TIED = """
import torch
from torch import nn

def model():
    made = nn.ModuleDict({"table": nn.Embedding(9, 4), "last": nn.Linear(4, 9, bias=False)})
    made["last"].weight = made["table"].weight
    return made

def train(model): ...
def evaluate(model): return 0.0
def batch(): return torch.zeros(2, 4)
"""


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    return path


def packed(call: Call, task: object, weights: Path, *words: object) -> tuple[dict[str, object], str, Path]:
    out = weights.with_suffix(".zs")
    status, printed, errors = call("pack", task, weights, "--out", out, "--json", *words)
    assert status == 0, errors
    return json.loads(printed), errors, out


def test_a_recurrent_network_whose_head_is_pruned_keeps_5126_of_5184_weights(
    call: Call, tmp_path: Path
) -> None:
    task = TESTS / "lstm_task.py"
    torch.manual_seed(0)
    model = task_api.model(load(str(task)))
    with torch.no_grad():
        model.head.weight.flatten()[:58] = 0.0
    figures, _, out = packed(
        call, task, saved(tmp_path / "w.safetensors", model.state_dict()), "--index-bits", 4
    )
    assert (figures["weights"], figures["weights_kept"]) == (5184, 5126)
    assert figures["stored_bytes"] == out.stat().st_size
    state = pack.decode(pack.load(out))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_minus_zeros_of_torch_s_pruning_become_zeros_with_a_note(call: Call, tmp_path: Path) -> None:
    task = TESTS / "lstm_task.py"
    torch.manual_seed(0)
    model = task_api.model(load(str(task)))
    torch_pruning.l1_unstructured(model.head, "weight", 0.5)
    torch_pruning.remove(model.head, "weight")
    state = model.state_dict()
    negative = int((torch.signbit(state["head.weight"]) & (state["head.weight"] == 0)).sum())
    assert negative > 5
    figures, note, out = packed(call, task, saved(tmp_path / "w.safetensors", state))
    assert figures["negative_zeros"] == negative
    assert f"note: {negative} numbers were -0.0" in note
    decoded = pack.decode(pack.load(out))
    assert all(torch.equal(tensor, decoded[name]) for name, tensor in state.items())
    assert not torch.signbit(decoded["head.weight"][decoded["head.weight"] == 0]).any()
    _, quiet, _ = packed(call, task, saved(tmp_path / "w.safetensors", decoded))
    assert quiet == ""


def test_blocks_of_eight_bits_are_named_in_table_and_json_and_unpacked_bit_for_bit(
    call: Call, tmp_path: Path
) -> None:
    task = TESTS / "lstm_task.py"
    torch.manual_seed(0)
    state = task_api.model(load(str(task))).state_dict()
    kept = (torch.rand(128, 8) < 0.3).repeat_interleave(4, 1)
    numbers = torch.randint(-127, 128, (128, 32))
    numbers[:, ::4] = 127  # the largest of every output
    state["lstm.weight_hh_l0"] = (numbers * 0.001).masked_fill(~kept, 0.0)
    figures, _, out = packed(call, task, saved(tmp_path / "w.safetensors", state))
    coding = figures["codings"]["lstm.weight_hh_l0"]
    assert coding.startswith("1x4 ")
    assert "bits; bytes" in coding
    assert figures["ledger"]["lstm.weight_hh_l0"]["scales"] == 4 * 128
    _, table, _ = call("pack", task, tmp_path / "w.safetensors", "--out", out)
    assert "coding" in table
    assert "scales" in table
    status, _, _ = call("unpack", out, "--out", tmp_path / "plain.safetensors")
    plain = safetensors.torch.load_file(tmp_path / "plain.safetensors")
    assert status == 0
    assert all(torch.equal(plain[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("gone", [None, "last.weight", "table.weight"])
def test_a_tied_matrix_is_stored_once_however_its_file_names_it(
    call: Call, tmp_path: Path, gone: str | None
) -> None:
    task = tmp_path / "tied.py"
    task.write_text(TIED)
    state = task_api.model(load(str(task))).state_dict()
    weights = saved(tmp_path / "w.safetensors", {n: t for n, t in state.items() if n != gone})
    figures, _, out = packed(call, task, weights)
    assert figures["tied"] == {"last.weight": "table.weight"}
    assert figures["weights"] == 36
    assert figures["ledger"]["last.weight"]["values"] == 0
    assert set(pack.decode(pack.load(out))) == {"table.weight", "last.weight"}


def test_weights_under_other_names_are_refused_with_the_line_that_renames_them(
    call: Call, tmp_path: Path
) -> None:
    task = TESTS / "lstm_task.py"
    state = {f"module.{name}": t for name, t in task_api.model(load(str(task))).state_dict().items()}
    weights = saved(tmp_path / "w.safetensors", state)
    for command in (["pack", task, weights], ["prune", task, "--weights", weights]):
        status, out, errors = call(*command, "--out", tmp_path / "new")
        assert (status, out) == (1, "")
        assert "missing: 6 (lstm.weight_ih_l0," in errors
        assert "unexpected: 6 (module." in errors
        assert 'name.removeprefix("module.")' in errors
        assert not (tmp_path / "new").exists()


def test_a_prune_that_is_refused_leaves_no_folder_behind(call: Call, tmp_path: Path) -> None:
    words = ("--weights", tmp_path / "absent.safetensors", "--sparsity", 0.5)
    status, _, errors = call(
        "prune", TESTS / "lstm_task.py", *words, "--out", tmp_path / "a" / "b" / "w.safetensors"
    )
    assert (status, "absent.safetensors" in errors) == (1, True)
    assert not (tmp_path / "a").exists()
