"""`zeroskip export`: the network of a RUN folder as an ONNX file, and what cannot be exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from zeroskip import files, run, run_folder, task_api
from zeroskip.tasks import load

TASK = Path(__file__).parent / "pictures_task.py"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run of two seeds, in eight bits, as far as exporting looks at it."""
    monkeypatch.chdir(tmp_path)
    task = load(str(TASK))
    torch.manual_seed(0)
    model = task_api.model(task)
    with torch.no_grad():
        model[2].weight[:, :4] = 0.0
    shown = tmp_path / "run" / "seed-1"
    run_folder.save_tensors(shown / "sparse.safetensors", model.state_dict())
    run.quantisation.save(
        run.calibrate(model, [task.batch()], method="min-max"), shown / run_folder.QUANTISATION
    )
    files.write_json(shown / "run.json", {"task": task_api.identity(task), "seed": 1})
    files.write_json(tmp_path / "run" / "run.json", {"task": task_api.identity(task), "seeds": 2})
    files.write_json(tmp_path / "run" / "summary.json", {"shown": "seed-1"})
    return tmp_path / "run"


def test_a_run_in_eight_bits_becomes_a_file_whose_answers_are_within_a_step(call: Call, folder: Path) -> None:
    status, out, err = call("export", folder, "--onnx", "sub/net.onnx", "--task", TASK, "--json")
    assert (status, err) == (0, "")
    figures = json.loads(out)
    assert figures["layers_in_bytes"] == 2
    assert figures["steps"] <= 1
    assert figures["bytes"] == Path("sub/net.onnx").stat().st_size
    kinds = [node.op_type for node in onnx.load("sub/net.onnx").graph.node]
    assert kinds.count("Conv") == 2
    assert kinds.count("QuantizeLinear") == 2


def test_a_run_in_fp32_becomes_a_file_in_fp32_and_its_task_is_found_here(call: Call, folder: Path) -> None:
    (folder / "seed-1" / run_folder.QUANTISATION).unlink()
    shutil.copy(TASK, TASK.name)
    Path("net.onnx").write_text("an older file is replaced")
    status, out, err = call("export", folder, "--onnx", "net.onnx")
    assert (status, err) == (0, "")
    assert "wrote net.onnx" in out
    assert "0 layers in eight bits" in out
    assert "ONNX Runtime's answers" in out
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load("net.onnx").graph.initializer}
    assert not stored["2.weight"][:, :4].any()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["absent", "--onnx", "new.onnx"], "absent is not a RUN folder"),
        (["run", "--onnx", "new.onnx"], "was made with the task file pictures_task.py, which is not here"),
        (["run", "--onnx", "new.onnx", "--task", "digits"], "was made with the task pictures_task"),
        (["run", "--onnx", "run", "--task", str(TASK)], "cannot write run"),
        (["run", "--onnx", "run/run.json/new.onnx", "--task", str(TASK)], "cannot make the folder"),
        (["begun", "--onnx", "new.onnx"], "begun is not finished"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing_behind(
    call: Call, folder: Path, words: list[str], sentence: str
) -> None:
    files.write_json("begun/run.json", {"task": "digits"})
    before = set(Path().rglob("*"))
    status, out, err = call("export", *words)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert set(Path().rglob("*")) == before
