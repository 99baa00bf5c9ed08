"""The whole path with zeros in 1x4 blocks and a program in eight bits, on a task that trains in milliseconds."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import Tiny
from tiny_images import TinyImages
from torch import nn

from zeroskip import files, journey, report, run, run_folder, task_api
from zeroskip.concepts import Goal, Record
from zeroskip.errors import EngineError, RecipeError, RunError
from zeroskip.run import quantisation
from zeroskip.run.comparison import eager

TASK = str(Path(__file__).parent / "tiny_images.py")
GOAL = Goal("1x4", sparsity=0.6, precision="int8")
STEM = 'pattern "1x4" does not fit: 1 input is fewer than a block of 4'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A run of the whole path, and its folder."""
    folder = tmp_path_factory.mktemp("eight") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "html", lambda path, *_: files.write(path, "a page"))
        patch.setattr(run, "compare", partial(run.compare, engines={"torch eager": eager}, runs=1, rounds=2))
        with pytest.warns(UserWarning, match=r'"1x4" does not fit them: "1" \(10, 1, 3, 3\)'):
            return folder, journey.sparsify(TinyImages("tiny-images"), folder, GOAL)


def test_the_program_in_eight_bits_errs_as_the_network_in_fp32(finished: tuple[Path, Record]) -> None:
    summary = finished[1].summary
    assert summary.precision == "int8"
    assert abs(summary.error_run - summary.error_sparse) <= 0.02  # of 100 test examples
    bits = summary.eight_bits
    assert bits is not None
    assert 0 < bits.error < 0.05
    assert bits.examples == 64
    assert set(bits.in_fp32) == {1, 4}
    assert all({*layers} <= {"1", "3", "6"} for layers in bits.in_fp32.values())
    assert [timing.precision for timing in summary.timings] == ["int8", "int8"]


def test_zeros_lie_in_blocks_and_what_has_too_few_inputs_stays_dense_and_is_named(
    finished: tuple[Path, Record],
) -> None:
    weights, layers = finished[1].sparse_weights, {each.name: each for each in finished[1].summary.layers}
    for name, last in (("3", 2), ("6", 4)):
        kept = weights[name].flatten(2) != 0 if weights[name].ndim > 2 else weights[name] != 0
        blocks = kept.split([4] * ((kept.shape[1] - last) // 4) + [last], dim=1)
        mixed = torch.stack([block.any(1) & ~block.all(1) for block in blocks]).float()
        assert mixed.mean() < 0.1  # small weights round to the byte 0
    assert layers["1"].weights_kept == layers["1"].weights
    assert layers["1"].dense == STEM
    pruned = layers["3"].weights + layers["6"].weights
    gone = sum(layers[name].weights - layers[name].weights_kept for name in ("3", "6"))
    assert gone == pytest.approx(0.6 * pruned, rel=0.03)


def test_what_is_printed_shown_and_concluded_names_the_precision(finished: tuple[Path, Record]) -> None:
    record = finished[1]
    rows = {row[0]: row[1:] for row in report.summary_table(record).rows}
    assert "64 examples" in rows["outputs in int8"][2]
    bits = record.summary.eight_bits
    assert bits is not None
    for name, why in bits.in_fp32[1].items():  # which they are, a measurement decides
        assert any(
            title.startswith("in fp32") and name in title and why in row[2] for title, row in rows.items()
        )
    assert rows["stay dense: 1"][2].endswith(STEM)
    assert re.search(r"Layers in int8: \d of 3[^;]*; the dense engines", record.summary.verdict)


def test_the_summary_is_read_as_it_was_written_and_older_ones_have_no_eight_bits(
    finished: tuple[Path, Record], tmp_path: Path
) -> None:
    assert run_folder.load(finished[0]).summary == finished[1].summary
    older = shutil.copytree(finished[0], tmp_path / "older")
    stored = json.loads((older / "summary.json").read_text())
    del stored["eight_bits"]
    (older / "summary.json").write_text(json.dumps(stored))
    assert run_folder.load(older).summary.eight_bits is None


def test_the_scales_in_the_folder_are_those_of_the_network_in_its_file(
    finished: tuple[Path, Record], call: Callable[..., tuple[int, str, str]]
) -> None:
    folder, record = finished
    quantisation.load(folder / run_folder.QUANTISATION)
    status, out, _ = call("run", TASK, folder, "--json", "--batch", 1)
    assert status == 0
    figures = json.loads(out)
    assert figures["precision"] == "int8"
    assert abs(figures["error_run"] - record.summary.error_run) <= 0.02
    assert set(figures["eight_bits"]["in_fp32"]) == {"1"}  # batch sizes
    status, _, err = call("run", TASK, folder, "--precision", "int4")
    assert (status, err.strip()) == (1, 'error: --precision is fp32 or int8, not "int4".')


@pytest.mark.parametrize("words", [["run", TASK], ["export"]])
def test_a_run_whose_scales_are_gone_is_refused(
    finished: tuple[Path, Record], call: Callable[..., tuple[int, str, str]], tmp_path: Path, words: list[str]
) -> None:
    folder = shutil.copytree(finished[0], tmp_path / "run")
    (folder / run_folder.QUANTISATION).unlink()
    to_file = ["--onnx", tmp_path / "net.onnx", "--task", TASK] if words == ["export"] else []
    status, _, err = call(*words, folder, *to_file)
    assert status == 1
    assert "is of a run in eight bits, and its quantisation.safetensors is gone" in err
    assert not (tmp_path / "net.onnx").exists()


def test_started_again_after_it_was_killed_it_ends_with_the_same_scales(
    finished: tuple[Path, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise RunError("killed")

    folder = shutil.copytree(finished[0], tmp_path / "run")
    for name in ("summary.json", "engine.json", "report.html", "model.zs", run_folder.QUANTISATION):
        (folder / name).unlink()
    monkeypatch.setattr(journey, "compile_and_compare", killed)
    with pytest.raises(RunError, match="killed"):
        journey.sparsify(TinyImages("tiny-images"), folder, GOAL)
    for name in ("model.zs", run_folder.QUANTISATION):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_run_in_eight_bits_is_simulated_with_numbers_of_eight_bits(
    finished: tuple[Path, Record], call: Callable[..., tuple[int, str, str]]
) -> None:
    folder, moved = finished[0], []
    status, out, _ = call("simulate", TASK, folder, "--on", "scnn")
    assert status == 0
    assert "the run computes in int8: inputs and weights have 8 bits here" in out
    for given in (folder, folder / "sparse.safetensors"):
        estimate = json.loads(call("simulate", TASK, given, "--on", "scnn", "--json")[1])
        moved.append((estimate["bits"], estimate["estimates"][0]["joules"]))
    assert [bits for bits, _ in moved] == [8, None]
    assert moved[0][1] < moved[1][1]


def test_what_cannot_have_eight_bits_is_refused_before_training(tmp_path: Path) -> None:
    class Recurrent(Tiny):
        def model(self) -> nn.Module:
            class Last(nn.LSTM):
                def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
                    return super().forward(x[None])[0][0]

            return Last(8, 3)

    task = Recurrent()
    with pytest.raises(EngineError, match="no layer of the network can compute in eight bits"):
        journey.sparsify(task, tmp_path / "run", Goal(precision="int8"))
    with pytest.raises(RecipeError, match='precision "int4" is unknown. Give one of fp32, int8'):
        journey.sparsify(Tiny(), tmp_path / "run", Goal(precision="int4"))
    with pytest.raises(RecipeError, match='pattern "2:4" fixes the sparsity at 0.5, so it cannot grow'):
        journey.sparsify(Tiny(), tmp_path / "run", Goal("2:4", sparsity=0.5))
    assert task.calls == []
    assert not (tmp_path / "run").exists()


def test_batches_for_calibration_have_one_size_and_do_not_pass_the_most() -> None:
    class Lengths(Tiny):
        def batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
            shapes = [(100, 8), (70, 9), (130, 8), (63, 8)]
            return [(torch.zeros(shape), torch.zeros(shape[0])) for shape in shapes]

    found = [each.shapes[0] for each in task_api.equal_batches(Lengths(), 200)]
    assert found == [(64, 8)] * 3
    assert [each.size for each in task_api.equal_batches(Lengths(), 10)] == [10]
    assert [each.size for each in task_api.equal_batches(Tiny(), 512)] == [4]


def test_shared_values_and_eight_bits_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Leave one of them out"):
        journey.sparsify(Tiny(), tmp_path / "run", Goal(precision="int8", bits=4))
    assert not (tmp_path / "run").exists()
