"""The command line: every command, its JSON, and one clear sentence for whatever cannot be done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

TESTS = Path(__file__).parent
TASK = str(TESTS / "tiny_task.py")
COMMANDS = [
    *(
        "sparsify",
        "measure",
        "prune",
        "prune-activations",
        "compare-plans",
        "pack",
        "unpack",
        "run",
        "simulate",
    ),
    *("report", "reproduce", "doctor", "bench", "export"),
]

Call = Callable[..., tuple[int, str, str]]


def test_help_names_every_command_and_where_to_start(call: Call) -> None:
    status, out, _ = call("--help")
    assert status == 0
    assert "zeroskip sparsify digits --out runs/demo" in out
    assert all(f"  {command} " in out for command in COMMANDS)


def test_the_version_is_that_of_the_package(call: Call) -> None:
    assert call("--version") == (0, f"zeroskip {version('zeroskip')}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_one_screen(call: Call, command: str) -> None:
    status, out, _ = call(command, "--help")
    assert status == 0
    assert len(out.splitlines()) <= 50
    assert "--json" in out
    assert "Usage: zeroskip" in out


def test_every_step_alone_leads_from_a_task_to_a_running_file(call: Call, tmp_path: Path) -> None:
    sparse, packed, plain = (
        tmp_path / "sparse.safetensors",
        tmp_path / "model.zs",
        tmp_path / "plain.safetensors",
    )
    status, out, err = call("prune", TASK, "--max-error-rise", 0.05, "--out", sparse)
    assert (status, err) == (0, "")
    assert f"wrote {sparse}; next: zeroskip pack" in out
    status, out, _ = call("pack", TASK, sparse, "--out", packed)
    assert status == 0
    assert f"{packed.stat().st_size:,} bytes; next: zeroskip run" in out
    status, out, _ = call("unpack", packed, "--out", plain)
    assert status == 0
    first, second = (safetensors.torch.load_file(one) for one in (sparse, plain))
    assert all(first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first)
    status, out, _ = call("run", TASK, packed)
    assert status == 0
    assert "batch 1" in out
    assert "batch 4" in out
    assert "error of what runs, test split" in out


def test_prune_to_a_sparsity_reaches_it_whatever_the_error(call: Call, tmp_path: Path) -> None:
    out_file = tmp_path / "sparse.safetensors"
    status, out, _ = call(
        "prune",
        TASK,
        "--sparsity",
        0.75,
        "--rounds",
        2,
        "--learning-rate-divisor",
        10,
        "--out",
        out_file,
        "--json",
    )
    assert status == 0
    points = json.loads(out)["history"]
    assert [point["kind"] for point in points] == ["dense", "round", "round"]
    assert points[-1]["weights_kept"] == pytest.approx(176 * 0.25, abs=1)


def test_sparsify_a_file_of_one_s_own_prints_a_table_and_ends_with_the_verdict(
    call: Call, tmp_path: Path
) -> None:
    status, out, _ = call("sparsify", TASK, "--out", tmp_path / "run", "--max-error-rise", 0.05)
    assert status == 0
    assert "stored bytes" in out
    assert out.splitlines()[0] == f"{TASK}: 200 train, 100 validation, 100 test examples"
    assert out.strip().splitlines()[-1].startswith("Ship ")
    assert (tmp_path / "run" / "report.html").exists()


def test_json_of_sparsify_is_the_summary_file(call: Call, tmp_path: Path) -> None:
    status, out, err = call("sparsify", TASK, "--out", tmp_path / "run", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "run" / "summary.json").read_text())


def test_measure_run_and_report_speak_json(call: Call, tmp_path: Path) -> None:
    call("sparsify", TASK, "--out", tmp_path / "a", "--seeds", 2)
    status, out, _ = call(
        "measure", TASK, "--weights", tmp_path / "a" / "seed-0" / "dense.safetensors", "--json"
    )
    assert status == 0
    assert [layer["weights"] for layer in json.loads(out)["layers"]] == [128, 48]
    packed = tmp_path / "a" / "seed-0" / "model.zs"
    status, out, _ = call("run", TASK, packed, "--batch", 7, "--json")
    assert status == 0
    assert [timing["batch"] for timing in json.loads(out)["timings"]] == [7]
    explanation = json.loads(out)["explanation"]
    others = sum(each["share"] for each in explanation["unskipped"])
    assert explanation["zeros_won"] + others == pytest.approx(float(bool(explanation["zeros"])))
    status, out, _ = call(
        "report", tmp_path / "a", tmp_path / "a" / "seed-1", "--out", tmp_path / "two.html", "--json"
    )
    assert status == 0
    assert len(json.loads(out)["runs"]) == 2
    assert (tmp_path / "two.html").exists()


def test_measure_and_report_print_tables(call: Call, tmp_path: Path) -> None:
    call("sparsify", TASK, "--out", tmp_path / "a")
    status, out, _ = call("measure", TASK, "--weights", tmp_path / "a" / "dense.safetensors")
    assert status == 0
    assert re.search(r"^ 0 .*128", out, re.MULTILINE)
    status, out, _ = call("report", tmp_path / "a")
    assert status == 0
    assert f"wrote {tmp_path / 'a' / 'report.html'}" in out


def test_doctor_names_the_machine_its_precisions_and_data_sets(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZEROSKIP_DATA", "/nowhere")
    status, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert status == 0
    assert "dense" in found["precisions"]['precision="fp32"']["kernels"]
    assert found["machine"]["name"]
    assert found["versions"]["torch"] == torch.__version__
    assert (
        found["data_sets"]["mnist"]
        == 'there is no folder "mnist" in /nowhere. Check --data DIR or ZEROSKIP_DATA.'
    )
    (tmp_path / "mnist").mkdir()
    found = json.loads(call("doctor", "--data", tmp_path, "--json")[1])
    assert found["data_sets"]["mnist"] == str(tmp_path / "mnist")
    assert 'weights="int8"' in call("doctor")[1]


def broken(tmp_path: Path) -> dict[str, str]:
    """Files that are not what they should be."""
    torch.manual_seed(0)
    state = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).state_dict()
    safetensors.torch.save_file(
        {**state, "0.weight": state["0.weight"] * float("nan")}, tmp_path / "nan.safetensors"
    )
    safetensors.torch.save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text.zs").write_text("not a model")
    (tmp_path / "half.py").write_text("def model(): pass")
    (tmp_path / "layerless.py").write_text(Path(TASK).read_text() + LAYERLESS)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    return {one.name: str(one) for one in tmp_path.iterdir()}


LAYERLESS = """
import torch
def model(): return torch.nn.ReLU()
"""

BAD = {
    "unknown task": (["sparsify", "digit", "--out", "{new}"], 'there is no task "digit". Use one of digits'),
    "half a task": (
        ["sparsify", "{half.py}", "--out", "{new}"],
        "has no train() and no evaluate() and no batch()",
    ),
    "no layers": (["sparsify", "{layerless.py}", "--out", "{new}"], "There is nothing to prune in it."),
    "nan weights": (
        ["sparsify", "{task}", "--weights", "{nan.safetensors}", "--out", "{new}"],
        '"0.weight" holds NaN or Inf',
    ),
    "other weights": (["measure", "{task}", "--weights", "{other.safetensors}"], "do not fit the network"),
    "absent weights": (["measure", "{task}", "--weights", "{new}"], "cannot read"),
    "a pattern that is none": (
        ["prune", "{task}", "--pattern", "2x", "--out", "{new}"],
        'pattern "2x" cannot be read',
    ),
    "a pattern that fits nowhere": (
        ["prune", "{task}", "--pattern", "1x1x3x3", "--out", "{new}"],
        'no layer of the network can take the pattern "1x1x3x3"',
    ),
    "sparsity above 1": (
        ["prune", "{task}", "--sparsity", "1.5", "--out", "{new}"],
        "not a share from 0 to 1",
    ),
    "a sparsity and a budget": (
        ["prune", "{task}", "--sparsity", "0.5", "--max-error-rise", "0.1", "--out", "{new}"],
        "not both",
    ),
    "rounds of a budget": (
        ["prune", "{task}", "--rounds", "3", "--out", "{new}"],
        "--rounds goes with --sparsity",
    ),
    "2:4 at 90 %": (
        ["prune", "{task}", "--sparsity", "0.9", "--pattern", "2:4", "--out", "{new}"],
        "fixes the sparsity at 0.5, not",
    ),
    "foreign .zs": (["unpack", "{text.zs}", "--out", "{new}"], "text.zs"),
    "absent .zs": (["run", "{task}", "{new}"], "cannot read"),
    "a folder in use": (["sparsify", "{task}", "--out", "{mine}"], "is not empty and not a RUN folder"),
    "a file in the way": (["sparsify", "{task}", "--out", "{file}"], "cannot make the folder"),
    "no run": (["report", "{mine}"], "is not a RUN folder"),
    "no data": (["measure", "mnist", "--data", "{mine}"], 'there is no folder "mnist" in'),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing_behind(
    case: str, call: Call, tmp_path: Path
) -> None:
    names = {**broken(tmp_path), "task": TASK, "new": str(tmp_path / "new")}
    if "layerless" in case or case == "no layers":
        names["layerless.py"] = str(tmp_path / "layerless.py")
    words, sentence = BAD[case]
    before = {one for one in tmp_path.rglob("*") if "__pycache__" not in one.parts}
    filled = [names.get(word.strip("{}"), word) if word.startswith("{") else word for word in words]
    status, out, err = call(*filled)
    assert status == 1
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert "Traceback" not in err
    left = {one for one in tmp_path.rglob("*") if "__pycache__" not in one.parts} - before
    assert not left


@pytest.mark.parametrize(
    "words", [["prune", TASK], ["sparsify", TASK, "--out", "x", "--seeds", "0"], ["nonsense"]]
)
def test_words_that_do_not_parse_are_a_usage_error(call: Call, words: list[str]) -> None:
    status, _, err = call(*words)
    assert status == 2
    assert "Usage: zeroskip" in err


def test_download_fetches_only_when_asked_and_absent(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from zeroskip.data import mnist

    fetched: list[Path] = []
    monkeypatch.setattr(mnist, "download", fetched.append)
    monkeypatch.setenv("ZEROSKIP_DATA", str(tmp_path))
    assert call("measure", "mnist")[0] == 1
    assert fetched == []
    call("measure", "mnist", "--download")
    assert fetched == [tmp_path]
    (tmp_path / "mnist").mkdir()
    for name in mnist.FILES:
        (tmp_path / "mnist" / name).touch()
    call("measure", "mnist", "--download")
    assert fetched == [tmp_path]


def test_help_answers_without_importing_torch() -> None:
    code = "import sys, zeroskip.cli; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_note_about_a_task_is_not_an_error(call: Call, tmp_path: Path) -> None:
    bare = "from tiny import Bare\nb = Bare()\nmodel, train, evaluate, batch = b.model, b.train, b.evaluate, b.batch"
    (tmp_path / "bare.py").write_text(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{bare}\nlearning_rate = 0.01"
    )
    words = [
        "prune",
        tmp_path / "bare.py",
        "--learning-rate-divisor",
        10,
        "--out",
        tmp_path / "s.safetensors",
    ]
    status, _, err = call(*words, "--sparsity", 0.5, "--rounds", 1)
    assert status == 0
    assert err.startswith("note: bare: train() takes no learning_rate; it is called without")
