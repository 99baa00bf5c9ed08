"""The whole path, on a task that trains in milliseconds and, once, on real digits."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Bare, Tiny
from torch import nn

from zeroskip import files, journey, pack, prune, report, run, run_folder, tasks
from zeroskip.concepts import Record, silent
from zeroskip.errors import (
    EngineError,
    FileError,
    ModelError,
    PatternError,
    RecipeError,
    RunError,
    TaskError,
)
from zeroskip.journey import Goal, RunSetup
from zeroskip.run.comparison import eager

PAGE = report.html


@pytest.fixture(autouse=True)
def short_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """One dense engine and two rounds, and a page of one line: what is timed and drawn does not matter here."""
    short = partial(run.compare, engines={"torch eager": eager}, runs=1, rounds=2)
    monkeypatch.setattr(run, "compare", short)
    monkeypatch.setattr(report, "html", lambda path, *_: files.write(path, "a page"))


def check_summary(record: Record, folder: Path) -> None:
    """What must hold in the summary of any run with one seed."""
    summary = record.summary
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary.to_json()))
    assert summary.weights_times_fewer == summary.weights / summary.weights_kept
    assert summary.stored_bytes == (folder / "model.zs").stat().st_size
    assert summary.stored_times_smaller == summary.stored_bytes_dense / summary.stored_bytes
    assert summary.error_sparse == summary.error_unpacked
    assert summary.weights_kept == sum(layer.weights_kept for layer in summary.layers)
    assert summary.macs == sum(layer.macs for layer in summary.layers)
    assert summary.weights_kept / summary.weights <= 1 >= summary.macs_kept / summary.macs > 0
    assert summary.timings == record.timings
    assert summary.dense_seconds == record.timings[0].seconds[summary.dense_engine]
    assert summary.sparse_seconds > 0
    assert summary.verdict.startswith("Ship ")


def test_the_journey_leaves_a_complete_consistent_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "html", PAGE)
    task, folder = Tiny(), tmp_path / "run"
    record = journey.sparsify(task, folder, Goal(max_error_rise=0.05))
    check_summary(record, folder)
    assert record.summary.weights == 8 * 16 + 16 * 3
    assert record.summary.stored_bytes_dense == 4 * (8 * 16 + 16 * 3 + 16 + 3)
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not list(folder.rglob("unfinished*"))
    assert [timing.batch for timing in record.timings] == [1, 4]


def test_the_files_it_leaves_hold_the_same_network_bit_for_bit(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record = journey.sparsify(Tiny(), folder, Goal(max_error_rise=0.05))
    sparse = run_folder.load_tensors(folder / "sparse.safetensors")
    unpacked = pack.decode(pack.load(folder / "model.zs"))
    assert set(sparse) == set(unpacked)
    assert all(sparse[name].numpy().tobytes() == unpacked[name].numpy().tobytes() for name in sparse)
    model = Tiny().model()
    model.load_state_dict(unpacked)
    assert record.summary.error_sparse == Tiny().evaluate(model, "test")
    kept = sum(int((weight != 0).sum()) for weight in prune.weights(model).values())
    assert record.summary.weights_kept == kept


def test_a_finished_run_is_read_again_without_training(tmp_path: Path) -> None:
    first = journey.sparsify(Tiny(), tmp_path / "run")
    task = Tiny()
    (tmp_path / "run" / "report.html").unlink()
    again = journey.sparsify(task, tmp_path / "run")
    assert again.summary == first.summary
    assert task.calls == []
    assert (tmp_path / "run" / "report.html").exists()


def test_another_command_does_not_touch_the_folder(tmp_path: Path) -> None:
    journey.sparsify(Tiny(), tmp_path / "run")
    with pytest.raises(RunError, match=r"max_error_rise 0.01, now 0.1"):
        journey.sparsify(Tiny(), tmp_path / "run", Goal(max_error_rise=0.1))


def test_test_data_is_looked_at_only_when_everything_is_decided(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watching(Tiny):
        def evaluate(self, model: nn.Module, split: str = "validation") -> float:
            seen.append(split)
            return super().evaluate(model, split)

    journey.sparsify(Watching(), tmp_path / "run")
    first = seen.index("test")
    assert seen[first:] == ["test"] * 4
    assert "validation" in seen[:first]


def test_a_task_of_four_functions_is_labelled_selected_on_the_reported_set(tmp_path: Path) -> None:
    record = journey.sparsify(Bare(), tmp_path / "run")
    assert record.summary.selected_on == "the reported set"
    assert "chosen on the same set" in record.summary.verdict


def test_a_trained_network_is_taken_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, task = Tiny().model(), Tiny()
    Tiny().train(model, epochs=10)
    record = journey.sparsify(task, tmp_path / "run", setup=RunSetup(weights=model.state_dict()))
    assert torch.equal(record.dense_weights["0"], model[0].weight)
    assert all("learning_rate" not in call for call in task.calls)
    assert len(task.calls) == len(record.history) - 1  # no first training


def test_nan_weights_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    state = Tiny().model().state_dict()
    state["0.weight"][0, 0] = float("nan")
    with pytest.raises(ModelError, match=r'"0.weight" holds NaN'):
        journey.sparsify(Tiny(), tmp_path / "run", setup=RunSetup(weights=state))


def test_a_network_with_nothing_to_prune_is_refused_before_training(tmp_path: Path) -> None:
    class Layerless(Tiny):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.ReLU(), nn.LayerNorm(8))

    task = Layerless()
    with pytest.raises(ModelError, match="nothing to prune"):
        journey.sparsify(task, tmp_path / "run")
    assert task.calls == []


def test_layers_that_are_no_modules_or_shared_do_not_stop_the_journey(tmp_path: Path) -> None:
    class Odd(nn.Module):
        """A weight used by hand, and one layer that runs twice, under two names."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.again = self.first
            self.by_hand = nn.Parameter(torch.randn(8, 8) / 3)
            self.last = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.again(torch.relu(self.first(x)))
            return self.last(torch.relu(nn.functional.linear(x, self.by_hand)))

    class OddTask(Tiny):
        def model(self) -> nn.Module:
            return Odd()

    summary = journey.sparsify(OddTask(), tmp_path / "run", Goal(max_error_rise=0.1)).summary
    assert {layer.name: layer.weights for layer in summary.layers} == {"by_hand": 64, "first": 64, "last": 24}
    assert summary.weights == 64 + 64 + 24
    assert summary.macs == 64 + 2 * 64 + 24
    assert "runs 2 times" in summary.layers[1].reason


def test_a_network_that_is_not_in_its_state_dict_is_noticed(tmp_path: Path) -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(8, 3)
            self.register_buffer("shuffle", torch.randperm(8), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(x[:, self.shuffle])

    class RandomTask(Tiny):
        def model(self) -> nn.Module:
            return Random()

    with pytest.raises(ModelError, match="depends on something that is not in its state_dict"):
        journey.sparsify(RandomTask(), tmp_path / "run")


def test_what_can_be_refused_is_refused_before_training_and_leaves_the_folder_free(tmp_path: Path) -> None:
    class Deciding(Tiny):
        def model(self) -> nn.Module:
            class Decide(nn.Linear):
                def forward(self, x: torch.Tensor) -> torch.Tensor:
                    return super().forward(x) if float(x.sum()) > 0 else super().forward(-x)

            return Decide(8, 3)

    for task, pattern in ((Tiny(), "2x"), (Tiny(), "1x17"), (Deciding(), "free")):
        with pytest.raises((PatternError, RecipeError, EngineError)):
            journey.sparsify(task, tmp_path / "run", Goal(pattern))
        assert task.calls == []
        assert not (tmp_path / "run").exists()


def test_a_changed_task_file_is_another_task(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text((Path(__file__).parent / "tiny_task.py").read_text())
    journey.sparsify(tasks.load(str(path)), tmp_path / "run")
    path.write_text(path.read_text() + "\n# changed")
    with pytest.raises(RunError, match="other settings .task"):
        journey.sparsify(tasks.load(str(path)), tmp_path / "run")


@pytest.mark.slow
def test_three_seeds_give_means_records_and_the_median_seed(tmp_path: Path) -> None:
    record = journey.sparsify_seeds(Tiny(), tmp_path / "run", 3, Goal(max_error_rise=0.05))
    summary, each = record.summary, record.summary.runs
    assert summary.seeds == len(each) == 3
    assert [one.seed for one in each] == [0, 1, 2]
    for key in (
        "error_dense",
        "error_run",
        "weights_kept",
        "weights_times_fewer",
        "macs_kept",
        "stored_bytes",
        "dense_seconds",
    ):
        assert getattr(summary, key) == pytest.approx(sum(getattr(run, key) for run in each) / 3)
    errors = sorted(one.error_sparse for one in each)
    shown = run_folder.load(tmp_path / "run" / summary.shown)
    assert shown.summary.error_sparse == errors[1]
    assert all(torch.equal(record.sparse_weights[name], shown.sparse_weights[name]) for name in ("0", "2"))
    assert len({one.weights_kept for one in each} | {one.error_dense for one in each}) > 1  # seeds differ


def test_a_full_disk_at_any_moment_is_one_sentence_and_the_run_continues_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = journey.sparsify(Tiny(), tmp_path / "whole")
    write = files.write
    failures = 0
    for survives in (0, 1, 3, 8, 20):
        left = survives

        def failing(path: Any, content: Any, **keywords: Any) -> Path:
            nonlocal left
            left -= 1
            if left < 0:
                raise FileError(f"cannot write {path}: No space left on device.")
            return write(path, content, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write", failing)
            try:
                journey.sparsify(Tiny(), tmp_path / "run")
            except FileError:
                failures += 1
    assert failures == 5
    record = journey.sparsify(Tiny(), tmp_path / "run")
    assert all(torch.equal(record.sparse_weights[name], whole.sparse_weights[name]) for name in ("0", "2"))


# Each journey has a process of its own, and all share what takes seconds to import: optimizers ask for dynamo.
SCRIPT = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch._dynamo
from tiny import Tiny
from zeroskip import journey, run
from zeroskip.run.comparison import eager
run.compare = partial(run.compare, engines={{"torch eager": eager}}, runs=1, rounds=2)
folder = Path(sys.argv[1])
for milestone in sys.argv[2:]:
    child = os.fork()
    if not child:
        journey.sparsify(Tiny(), folder, journey.Goal(max_error_rise=0.1))
        os._exit(0)
    while not (folder / milestone).exists() and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL), "it ended before it could be killed"
    assert not (folder / "summary.json").exists()
journey.sparsify(Tiny(), folder, journey.Goal(max_error_rise=0.1))
"""


@pytest.mark.slow
def test_killed_with_kill_9_and_started_again_it_ends_with_the_same_network(tmp_path: Path) -> None:
    whole = journey.sparsify(Tiny(), tmp_path / "whole", Goal(max_error_rise=0.1))
    script, milestones = (
        SCRIPT.format(tests=str(Path(__file__).parent)),
        ("dense.safetensors", "rounds/002.json"),
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "run", *milestones], check=True, timeout=120)
    record = run_folder.load(tmp_path / "run")
    assert record.history == whole.history
    assert all(torch.equal(record.sparse_weights[name], whole.sparse_weights[name]) for name in ("0", "2"))


def test_real_digits_become_many_times_smaller_at_about_the_same_error(tmp_path: Path) -> None:
    record = journey.sparsify(replace(tasks.digits, epochs=20), tmp_path / "run")
    check_summary(record, tmp_path / "run")
    assert record.summary.splits == {"train": 1077, "validation": 360, "test": 360}
    assert record.summary.max_error_rise == 1 / 360
    assert record.summary.weights == 50_200
    # One seed of short training is noisy, and rounding differs between processors: below is the real figure.
    assert record.summary.weights_times_fewer >= 6
    assert max(record.summary.error_sparse, record.summary.error_dense) < 0.06
    assert math.isclose(record.summary.error_run, record.summary.error_sparse, abs_tol=1 / 360)


@pytest.mark.slow
def test_three_seeds_of_digits_keep_a_twelfth_of_the_weights_within_one_test_image(tmp_path: Path) -> None:
    summary = journey.sparsify_seeds(tasks.digits, tmp_path / "run", 3).summary
    assert summary.weights_times_fewer >= 12
    assert summary.error_sparse <= summary.error_dense + 1 / 360 + 1e-9


def test_a_sparsity_is_reached_in_one_training_and_each_layer_ends_with_few_values(tmp_path: Path) -> None:
    summary = journey.sparsify(Tiny(), tmp_path / "run", Goal(sparsity=0.75, bits=2)).summary
    assert summary.weights_kept == 44
    assert (summary.sparsity, summary.bits) == (0.75, 2)
    tensors = pack.decode(pack.load(tmp_path / "run" / "model.zs"))
    assert all(len(tensors[name].unique()) <= 5 for name in ("0.weight", "2.weight"))
    assert summary.error_unpacked == summary.error_sparse


def test_a_sparsity_goes_with_neither_a_budget_nor_a_pattern_that_fixes_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not both"):
        journey.sparsify(Tiny(), tmp_path / "run", Goal(sparsity=0.5, max_error_rise=0.1))
    with pytest.raises(RecipeError, match='"2:4" fixes the sparsity at 0.5'):
        journey.sparsify(Tiny(), tmp_path / "run", Goal("2:4", sparsity=0.5))
    with pytest.raises(TaskError, match="takes no on_step"):
        journey.sparsify(Bare(), tmp_path / "run", Goal(sparsity=0.5))
    assert not (tmp_path / "run").exists()


def test_each_batch_size_has_a_program_and_a_timing_of_its_own() -> None:
    compared = journey.compile_and_compare(Tiny(), Tiny().model())
    assert [timing.batch for _, timing in compared] == [1, 4]
    ((program, timing),) = journey.compile_and_compare(
        Tiny(), Tiny().model(), batch=9
    )  # more than the task has
    assert timing.batch == 9
    assert [choice.layer for choice in program.choices] == ["0", "2"]


def test_sentences_of_more_lengths_than_a_program_keeps_by_default_are_evaluated() -> None:
    torch.manual_seed(0)

    class Lengths(Tiny):
        """The mean of however many steps of 8 numbers there are."""

        def model(self) -> nn.Module:
            class Mean(nn.Linear):
                def forward(self, x: torch.Tensor) -> torch.Tensor:
                    return super().forward(x).mean(1)

            return Mean(8, 3)

        def evaluate(self, model: nn.Module, split: str = "validation") -> float:
            sums = [model(torch.ones(2, length, 8)).sum() for length in range(1, 13)]
            return float(sum(each.detach() for each in sums))

        def batch(self) -> torch.Tensor:
            return torch.randn(1, 4, 8)

    model = Lengths().model().eval()
    ((program, _),) = journey.compile_and_compare(Lengths(), model)
    with pytest.warns(UserWarning, match="the first call with another size takes longer"):
        error = Lengths().evaluate(run.as_module(program, model))
    assert error == pytest.approx(Lengths().evaluate(model), rel=1e-4)
    assert len(program.networks) == 12


def test_the_dense_network_is_the_one_given_or_trained() -> None:
    task = Tiny()
    given = task.model().state_dict()
    assert torch.equal(journey.dense_network(task, given).state_dict()["0.weight"], given["0.weight"])
    assert task.calls == []
    assert not journey.dense_network(task).training
    assert len(task.calls) == 1


def test_blocks_of_inputs_start_from_an_order_of_the_channels_unless_asked_not_to(tmp_path: Path) -> None:
    kept, made = {}, {}
    for permute in (True, False):
        folder = files.folder(tmp_path / str(permute))
        made[permute] = journey._dense(Tiny(), folder, "1x4", RunSetup(permute=permute), silent)
        kept[permute] = made[permute][2].weight.reshape(3, 4, 4).abs().sum(2).max()  # one block of twelve
        assert journey._dense(Tiny(), folder, "1x4", RunSetup(), silent)[2].weight.equal(
            made[permute][2].weight
        )
    assert kept[True] > kept[False]
    inputs = Tiny().batch()
    assert torch.allclose(made[True](inputs), made[False](inputs), atol=1e-5)
