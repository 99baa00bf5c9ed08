"""The same command gives the same file: weights that start at random, dropout, draws of Python, numpy and torch."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from zeroskip import task_api
from zeroskip.tasks import load

TESTS = Path(__file__).parent
TASK = str(TESTS / "random_task.py")
Call = Callable[..., tuple[int, str, str]]

PRUNE = {
    "within a budget": ["--max-error-rise", 0.05],
    "to a sparsity": ["--sparsity", 0.8, "--rounds", 2],
    "at a lower rate": ["--sparsity", 0.5, "--rounds", 1, "--learning-rate-divisor", 10],
    "while training": ["--sparsity", 0.8, "--while-training"],
    "by a pattern": ["--sparsity", 0.5, "--rounds", 1, "--pattern", "4x1"],
    "for a chip": ["--max-error-rise", 0.05, "--cost-on", "scnn"],
}


def disturb() -> None:
    """Leave every generator in a state that no other run has had."""
    random.seed(os.urandom(8))
    np.random.seed(int.from_bytes(os.urandom(4), "little"))
    torch.seed()


def outcome(call: Call, command: str, out: Path, *words: object) -> tuple[bytes, dict[str, object]]:
    disturb()
    status, printed, errors = call(command, TASK, "--out", out, *words, "--json")
    assert status == 0, errors
    return out.read_bytes(), json.loads(printed)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    disturb()
    path = tmp_path / "given.safetensors"
    safetensors.torch.save_file(task_api.model(load(TASK)).state_dict(), path)
    return path


@pytest.mark.parametrize("words", PRUNE.values(), ids=PRUNE.keys())
def test_pruning_twice_gives_the_same_file(call: Call, tmp_path: Path, words: list[object]) -> None:
    first = outcome(call, "prune", tmp_path / "out", *words)
    assert outcome(call, "prune", tmp_path / "out", *words) == first
    assert first[1]["seed"] == 0


def test_given_weights_are_pruned_the_same_again_and_another_seed_gives_others(
    call: Call, tmp_path: Path, weights: Path
) -> None:
    words = [*PRUNE["to a sparsity"], "--weights", weights]
    first = outcome(call, "prune", tmp_path / "out", *words)
    assert outcome(call, "prune", tmp_path / "out", *words) == first
    other, figures = outcome(call, "prune", tmp_path / "out", *words, "--seed", 1)
    assert figures["seed"] == 1
    assert other != first[0]


@pytest.mark.parametrize(("rise", "given"), [("0.1", True), ("1sigma", False)])
def test_thresholds_searched_for_twice_are_the_same(
    call: Call, tmp_path: Path, weights: Path, rise: str, given: bool
) -> None:
    words = ["--max-error-rise", rise, *(["--weights", weights] if given else [])]
    first = outcome(call, "prune-activations", tmp_path / "out", *words)
    assert outcome(call, "prune-activations", tmp_path / "out", *words) == first
    assert first[1]["seed"] == 0


DIGITS = """
from dataclasses import replace
from zeroskip.tasks import digits

short = replace(digits, epochs=2)
model, train, evaluate, batch, batches = short.model, short.train, short.evaluate, short.batch, short.batches
split_sizes, loss, learning_rate = short.split_sizes, short.loss, short.learning_rate
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--rounds", "2"], ["--while-training"]], ids=["rounds", "while training"])
def test_two_processes_with_other_orders_of_sets_prune_digits_to_the_same_file(
    tmp_path: Path, words: list[str]
) -> None:
    task, files = tmp_path / "short_digits.py", []
    task.write_text(DIGITS)
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.safetensors"
        command = [sys.executable, "-m", "zeroskip.cli", "prune", str(task), "--out", str(out)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "--sparsity", "0.9", *words], env=environment, check=True, capture_output=True
        )
        files.append(out.read_bytes())
    assert files[0] == files[1]
