"""The files in examples/: under 60 lines; tasks are counted by hand and go the whole way; sentences get vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zeroskip import journey, measure, run, task_api, tasks
from zeroskip.tasks import sentences

FOLDER = Path(__file__).parent.parent / "examples"

# Weight -> (weights, multiply-accumulates of one example).
COUNTS = {
    "wine_task": {
        "first": (13 * 64, 13 * 64),
        "blocks.0": (4096, 4096),
        "blocks.1": (4096, 4096),
        "last": (192, 192),
    },
    # Eight rows; three gates of 64.
    "recurrent_task": {
        "gru.weight_ih_l0": (192 * 8, 8 * 192 * 8),
        "gru.weight_hh_l0": (192 * 64, 8 * 192 * 64),
        "head": (640, 640),
    },
    # Sixteen words, of which the head reads a sum; words are looked up, places are added.
    "transformer_task": {
        "places": (16 * 64, 0),
        "words": (40 * 64, 0),
        "query_key_value": (64 * 192, 16 * 64 * 192),
        "out": (4096, 16 * 4096),
        "wide": (64 * 256, 16 * 64 * 256),
        "narrow": (64 * 256, 16 * 64 * 256),
        "head": (256, 256),
    },
}


def test_every_example_is_here_and_under_60_lines() -> None:
    files = {path.stem: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    assert set(files) == {*COUNTS, "embed_sentences"}
    assert not [name for name, lines in files.items() if lines >= 60]


@pytest.mark.parametrize("name", COUNTS)
def test_its_weights_and_multiplications_are_counted_as_by_hand(name: str) -> None:
    task = tasks.load(str(FOLDER / f"{name}.py"))
    cost = measure.cost(task_api.model(task), task_api.first(task, 1))
    assert {layer: (each.weights, each.macs) for layer, each in cost.layers.items()} == COUNTS[name]
    # Each of 16 words looks at 16 words, with 64 numbers, and takes 64 numbers of each.
    assert cost.activation_macs == (2 * 16 * 16 * 64 if name == "transformer_task" else 0)


@pytest.mark.slow
def test_the_transformer_of_two_inputs_is_compiled_and_answers_as_it_does() -> None:
    task = tasks.load(str(FOLDER / "transformer_task.py"))
    torch.manual_seed(0)
    model = task_api.model(task)
    program = run.compile(model, task_api.first(task, 1), kernels=[])
    running = run.as_module(program, model)
    assert task_api.evaluate(task, running, "test") == task_api.evaluate(task, model, "test")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "error"), [("recurrent_task", 0.06), ("transformer_task", 0.03)])
def test_it_learns_its_task_and_loses_half_of_its_weights(name: str, error: float, tmp_path: Path) -> None:
    task = tasks.load(str(FOLDER / f"{name}.py"))
    summary = journey.sparsify(task, tmp_path / "run", journey.Goal(max_error_rise=0.02)).summary
    assert summary.error_dense < error
    assert summary.weights == sum(weights for weights, _ in COUNTS[name].values())
    assert summary.weights_times_fewer > 2
    assert summary.error_run <= summary.error_dense + 0.05


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_sentences_get_their_vectors_in_their_order(
    sentence_folder: Path, tmp_path: Path, precision: str
) -> None:
    lines = [
        "A cat sits on a mat.",
        "Stocks fell sharply on Monday after the bank raised its rates. " * 2,
        "",
        "Rain",
    ]
    lines.append("There is a cat on the mat.")
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    words = ["--data", sentence_folder, "--precision", precision]
    given = [
        sys.executable,
        FOLDER / "embed_sentences.py",
        tmp_path / "lines.txt",
        tmp_path / "out.npy",
        *words,
    ]
    shown = subprocess.run(list(map(str, given)), capture_output=True, text=True, check=True).stdout
    found = torch.from_numpy(np.load(tmp_path / "out.npy"))
    model, tokenizer = sentences.published(sentence_folder), sentences.tokenizer(sentence_folder)
    expected = sentences.vectors(model, tokenizer, lines)
    # In eight bits the reference is at 0.972 for the empty sentence, two tokens, whose errors no mean makes smaller.
    assert (found * expected).sum(1).min() > (0.9999 if precision == "fp32" else 0.96)
    assert (found @ found.T)[0].topk(2).indices.tolist() == [0, 4]
    assert [line.split(":")[0] for line in shown.splitlines()] == [
        f"zeroskip {precision}",
        "ONNX Runtime fp32",
    ]
