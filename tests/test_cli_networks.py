"""The command line on networks that are no chain of linear layers: recurrent, 1-d, of two inputs, on a graph.

Every count is written out by hand here: of weights, of multiply-accumulates, of what is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

from zeroskip import prune, tasks
from zeroskip.concepts import Recipe, Round

TESTS = Path(__file__).parent
LSTM, CONV1D, TWO, GRAPH = (
    str(TESTS / f"{name}_task.py") for name in ("lstm", "conv1d", "two_input", "graph")
)

Call = Callable[..., tuple[int, str, str]]

# Weight -> (weights, multiply-accumulates of one example).
COUNTS = {
    # 5 steps; 4 gates of 32, from 8 features and from 32 of the step before; the head reads the last step.
    LSTM: {
        "lstm.weight_ih_l0": (4 * 32 * 8, 5 * 4 * 32 * 8),
        "lstm.weight_hh_l0": (4 * 32 * 32, 5 * 4 * 32 * 32),
        "head": (64, 64),
    },
    # 12 positions, 10 after the first layer, 4 after the second.
    CONV1D: {"0": (8 * 4 * 3, 10 * 8 * 4 * 3), "2": (16 * 8 * 3, 4 * 16 * 8 * 3), "6": (32, 32)},
    # 6 tokens; the rows of the table are looked up.
    TWO: {"table": (80, 0), "hidden": (24 * 8, 6 * 24 * 8), "head": (48, 48)},
    # 30 nodes, no axis of examples.
    GRAPH: {"first": (96, 30 * 96), "last": (32, 30 * 32)},
}
NAMES = ["lstm", "conv1d", "two inputs", "graph"]


@pytest.mark.parametrize("task", COUNTS, ids=NAMES)
def test_measure_counts_every_weight_and_every_run(call: Call, task: str) -> None:
    status, out, err = call("measure", task, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert {name: (layer["weights"], layer["macs"]) for name, layer in layers.items()} == COUNTS[task]
    assert (found["network"]["weights"], found["network"]["macs"]) == (sum_of(task, 0), sum_of(task, 1))


def test_measure_prints_the_whole_network_last_and_what_runs_often_or_stays_dense(call: Call) -> None:
    out = " ".join(call("measure", LSTM)[1].split())
    assert "whole network 5,184 25.7 k 0.0 %" in out
    assert "MACs are those of all runs: lstm.weight_hh_l0 runs 5 times." in out
    out = " ".join(call("measure", TWO)[1].split())
    assert "whole network 320 1.2 k 0.0 %" in out
    assert "Stays dense: table, 25.0 % of the weights: its rows are looked up, not multiplied." in out


def test_measure_counts_the_zeros_that_a_recurrent_weight_meets(call: Call) -> None:
    status, out, err = call("measure", LSTM, "--activations", "--json")
    assert (status, err) == (0, "")
    zeros = json.loads(out)["zeros"]
    # 40 sequences of 5 steps; the state of 32 numbers before the first step is 0.
    assert zeros["lstm.weight_hh_l0"]["before"] == {"zeros": 40 * 32, "elements": 40 * 5 * 32, "nonfinite": 0}
    assert zeros["lstm.weight_ih_l0"]["before"] == {"zeros": 0, "elements": 40 * 5 * 8, "nonfinite": 0}
    assert "lstm.weight_hh_l0" in call("measure", LSTM, "--activations")[1]


@pytest.mark.parametrize(
    "task", [*(pytest.param(task, marks=pytest.mark.slow) for task in (LSTM, CONV1D)), TWO, GRAPH], ids=NAMES
)
def test_the_whole_journey_counts_every_weight(call: Call, tmp_path: Path, task: str) -> None:
    status, out, err = call("sparsify", task, "--out", tmp_path / "run", "--max-error-rise", 0.1, "--json")
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert summary["weights"] == sum(weights for weights, _ in COUNTS[task].values())
    assert summary["macs"] == sum(macs for _, macs in COUNTS[task].values())
    assert {layer["name"]: layer["weights"] for layer in summary["layers"]} == {
        name: weights for name, (weights, _) in COUNTS[task].items()
    }
    assert summary["weights_kept"] == sum(layer["weights_kept"] for layer in summary["layers"])
    tensors = safetensors.torch.load_file(tmp_path / "run" / "sparse.safetensors")
    assert summary["stored_bytes_dense"] == sum(tensor.numel() * 4 for tensor in tensors.values())
    assert "whole network" in (tmp_path / "run" / "report.html").read_text()


def test_of_an_lstm_whose_head_alone_is_pruned_the_rest_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "plan", lambda *_, **__: Recipe((Round({"head": 0.9}),)))
    run = tmp_path / "run"
    status, out, _ = call("sparsify", LSTM, "--out", run, "--max-error-rise", 1)
    assert status == 0
    words = " ".join(out.split())
    assert "weights 5,184 5,126 1.01x fewer" in words
    assert "1.01x fewer weights, a file" in words
    assert "Ship model.zs for its size" not in words  # it is 1.01 times smaller
    assert words.endswith(
        "Stays dense: lstm.weight_hh_l0, lstm.weight_ih_l0, 98.8% of the weights (nothing of it was pruned)."
    )
    summary = json.loads((run / "summary.json").read_text())
    assert summary["weights_times_fewer"] == 5184 / 5126
    assert summary["macs_kept"] == 25_664 - 58
    dense = {each["name"]: each["share_of_weights"] for each in summary["dense_layers"]}
    dense.pop("head", None)  # whether its sparse kernel is faster depends on the machine
    assert dense == {
        "lstm.weight_hh_l0": 4096 / 5184,
        "lstm.weight_ih_l0": 1024 / 5184,
    }
    assert "stay dense: lstm.weight_hh_l0, lstm.weight_ih_l0" in (run / "report.html").read_text()


def test_a_table_that_holds_zeros_of_its_own_is_named_among_what_stays_dense(
    call: Call, tmp_path: Path
) -> None:
    state = tasks.load(TWO).model().state_dict()
    state["table.weight"][9] = 0.0  # never looked up, so training leaves it as it is
    safetensors.torch.save_file(state, tmp_path / "dense.safetensors")
    words = ("--weights", tmp_path / "dense.safetensors", "--out", tmp_path / "sparse.safetensors", "--json")
    status, out, _ = call("prune", TWO, "--sparsity", 0.5, "--rounds", 1, *words)
    assert status == 0
    assert [(each["name"], each["weights"]) for each in json.loads(out)["dense"]] == [("table", 80)]


@pytest.mark.parametrize("task", COUNTS, ids=NAMES)
def test_prune_pack_run_and_simulate_go_from_one_file_to_the_next(
    call: Call, tmp_path: Path, task: str
) -> None:
    sparse, packed = tmp_path / "sparse.safetensors", tmp_path / "model.zs"
    words = ("prune", task, "--sparsity", 0.75, "--rounds", 1, "--out", sparse)
    assert call(*words)[::2] == (0, "")
    assert call("pack", task, sparse, "--out", packed)[0] == 0

    status, out, err = call("run", task, packed, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    stored = safetensors.torch.load_file(sparse)
    kept = {
        name: int(stored.get(f"{name}.weight", stored.get(name)).count_nonzero()) for name in COUNTS[task]
    }
    assert {layer["name"]: layer["weights_kept"] for layer in found["layers"]} == kept
    assert (found["weights"], found["weights_kept"]) == (sum_of(task, 0), sum(kept.values()))
    assert found["macs"] == sum_of(task, 1)

    status, out, err = call("simulate", task, sparse, "--on", "eie", "--json")
    assert (status, err) == (0, "")


def test_a_graph_has_no_batch_to_make_larger(call: Call, tmp_path: Path) -> None:
    sparse, packed = tmp_path / "sparse.safetensors", tmp_path / "model.zs"
    safetensors.torch.save_file(tasks.load(GRAPH).model().state_dict(), sparse)
    call("pack", GRAPH, sparse, "--out", packed)
    status, _, err = call("run", GRAPH, packed, "--batch", 9)
    assert status == 1
    assert err == "error: graph_task has no axis of examples to make a batch of 9 of. Leave it out.\n"


def sum_of(task: str, which: int) -> int:
    """Of all weights of a task's network: 0 the weights, 1 the multiply-accumulates."""
    return sum(counts[which] for counts in COUNTS[task].values())
