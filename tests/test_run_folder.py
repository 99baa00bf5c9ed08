"""The RUN folder: who owns it, and that nouns come back as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zeroskip import run_folder
from zeroskip.concepts import (
    Between,
    Choice,
    Explanation,
    Gain,
    Histogram,
    LayerProfile,
    LayerSummary,
    Point,
    Profile,
    Summary,
    Timing,
    Unskipped,
)
from zeroskip.errors import FileError, RunError

LAYER = LayerProfile(
    "fc1", "linear", (2, 3), (3,), (2,), 6, 6, 24, 0.5, 0.1, Histogram((0.0, 1.0), (6,)), 0.25, 0.75,
    (0.0, 0.5), (0.1,), {0.5: 0.1, 0.9: 0.2},
)  # fmt: skip
TIMING = Timing(
    {"zeroskip": 1e-6}, {"zeroskip": (1e-6, 2e-6)}, {"zeroskip": 0.0}, {"x": "y"}, 1, 1, "fp32", "M", 3, 9
)
SUMMARY = Summary(
    "digits", 1, 0, "free", 0.01, None, None, 0.02, 0.03, 0.03, 0.03, 80, 44, 80 / 44, 368, 316, 368 / 316, 2e-5, 1e-5,
    "torch eager", 1, 1, "fp32", "M", "validation", {"test": 100}, "Ship it.", (TIMING,),
    (LayerSummary("fc1", 80, 44, 0.45, None, "sell", "fastest"),),
)  # fmt: skip
EXPLANATION = Explanation(
    36, 1.0, 0.5, (Unskipped("dense kernels were faster", 0.5),), 1, (Between("silu", 2, 1e-6),), 9e-6, 0.0,
    advice=(Gain("silu in compiled code", 1e-6, "its own time"),),
)  # fmt: skip
NOUNS = [
    Profile((LAYER,), 0.05),
    Point("round", 3, 6, 0.1, False, {"fc1": 3}),
    Choice("fc1", "linear", (2, 3), 0.5, "sell", {"sell": 1e-6}, {"spmm": "no"}, "fastest"),
    TIMING,
]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: type(noun).__name__)
def test_every_noun_comes_back_from_json_as_it_was(noun: object, tmp_path: Path) -> None:
    path = run_folder.save_json(tmp_path / "noun.json", noun)
    assert run_folder.from_json(type(noun), json.loads(path.read_text())) == noun


def test_what_a_summary_lacks_is_named_and_what_is_not_known_is_passed_over() -> None:
    values = {
        name: value for name, value in SUMMARY.to_json().items() if name not in ("spread", "dense_seconds")
    }
    with pytest.raises(RunError, match="damaged: it lacks 'dense_seconds'"):
        run_folder.from_json(Summary, values)


@pytest.mark.parametrize("damage", [{"layers": 3}, {"layers": [{}], "error": 0.1}, {"errors": 1}, 7, {}])
def test_json_of_another_form_is_a_damaged_run(damage: object) -> None:
    with pytest.raises(RunError, match="damaged"):
        run_folder.from_json(Profile, damage)


def test_a_folder_belongs_to_the_command_that_made_it(tmp_path: Path) -> None:
    command = {"task": "digits", "seed": 0}
    assert run_folder.claim(tmp_path / "run", command) == tmp_path / "run"
    run_folder.claim(tmp_path / "run", command)  # the same again continues
    with pytest.raises(RunError, match=r"other settings \(seed 0, now 1\). Choose another --out"):
        run_folder.claim(tmp_path / "run", {"task": "digits", "seed": 1})


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="not empty and not a RUN folder"):
        run_folder.claim(tmp_path, {})
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.tex"]


def test_tensors_come_back_bit_for_bit_also_when_they_share_memory(tmp_path: Path) -> None:
    shared = torch.tensor([[1.0, -0.0], [float("nan"), 2.0]])
    path = run_folder.save_tensors(tmp_path / "a.safetensors", {"a": shared, "b": shared.t()})
    back = run_folder.load_tensors(path)
    assert back["a"].numpy().tobytes() == shared.numpy().tobytes()
    assert back["b"].numpy().tobytes() == shared.t().contiguous().numpy().tobytes()


def test_a_file_of_another_format_says_how_to_save_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(
        FileError, match=r"weights.pt is not a readable safetensors file .* pickled files are never"
    ):
        run_folder.load_tensors(path)


def test_an_unfinished_training_is_found_by_its_own_stage_only(tmp_path: Path) -> None:
    run_folder.keep_unfinished(tmp_path, "round 3", {"epoch": torch.tensor(2)})
    assert run_folder.unfinished(tmp_path, "round 4") is None
    state = run_folder.unfinished(tmp_path, "round 3")
    assert state is not None
    assert {name: int(value) for name, value in state.items()} == {"epoch": 2}
    run_folder.finish(tmp_path, SUMMARY)
    assert run_folder.unfinished(tmp_path, "round 3") is None


def test_a_damaged_unfinished_training_starts_over(tmp_path: Path) -> None:
    (tmp_path / "unfinished.safetensors").write_bytes(b"")
    assert run_folder.unfinished(tmp_path, "round 3") is None


def test_a_fingerprint_changes_with_any_bit_name_or_shape() -> None:
    base = {"a": torch.zeros(2, 3)}
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": torch.zeros(2, 3).double()}]
    flipped = torch.zeros(2, 3)
    flipped[1, 2] = -0.0
    prints = {run_folder.fingerprint(one) for one in [base, {"a": flipped}, *others]}
    assert len(prints) == 5
    assert run_folder.fingerprint({"a": torch.zeros(2, 3)}) == run_folder.fingerprint(base)


def test_loading_what_is_no_finished_run_says_which_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a RUN folder"):
        run_folder.load(tmp_path / "absent")
    run_folder.claim(tmp_path / "begun", {})
    with pytest.raises(RunError, match="is not finished: run the same command again"):
        run_folder.load(tmp_path / "begun")


def finished(folder: Path, summary: dict[str, object], choices: list[dict[str, object]]) -> None:
    """A RUN folder with a summary and choices as they were stored, and nothing else of interest."""
    weights = {"fc1.weight": torch.zeros(2, 3)}
    for name in ("dense", "sparse"):
        run_folder.save_tensors(folder / f"{name}.safetensors", weights)
    run_folder.save_json(folder / "profile.json", NOUNS[0])
    run_folder.save_json(folder / "history.json", [NOUNS[1]])
    engine = {"choices": choices, "timings": [], "ledger": {}}
    for name, value in (("engine", engine), ("summary", summary)):
        (folder / f"{name}.json").write_text(json.dumps(value))


def test_a_summary_comes_back_as_it_was_and_its_json_as_it_was_stored(tmp_path: Path) -> None:
    stored = json.loads(json.dumps(SUMMARY.to_json()))
    finished(tmp_path, stored, [])
    assert run_folder.load(tmp_path).summary == SUMMARY
    assert stored["spread"] == {"zeroskip": [1e-6, 2e-6]}
    assert not {"shown", "runs"} & set(stored)  # of several seeds only


def test_what_stays_dense_is_written_for_readers_and_comes_back_with_the_layers(tmp_path: Path) -> None:
    lstm = LayerSummary(
        "lstm.weight_hh_l0", 320, 320, 0.0, None, "none", "", 1600, 5, "nothing was pruned", False
    )
    summary = replace(SUMMARY, weights=400, layers=(*SUMMARY.layers, lstm), macs=1680, macs_kept=1644)
    stored = json.loads(json.dumps(summary.to_json()))
    share = {"share_of_weights": 0.8, "share_of_macs": 1600 / 1680}
    assert stored["dense_layers"] == [{"name": lstm.name, "weights": 320, **share, "reason": lstm.dense}]
    finished(tmp_path, stored, [])
    assert run_folder.load(tmp_path).summary == summary


def test_why_a_program_is_not_faster_comes_back_and_was_not_there_before(tmp_path: Path) -> None:
    stored = json.loads(json.dumps(replace(SUMMARY, explanation=EXPLANATION).to_json()))
    assert stored["explanation"]["lines"][0].startswith(
        "zeros: 100.0% lie where a sparse kernel was timed, 50.0%"
    )
    assert stored["explanation"]["seconds"] == 1e-5
    finished(tmp_path, stored, [])
    assert run_folder.load(tmp_path).summary.explanation == EXPLANATION
    assert "explanation" not in SUMMARY.to_json()
    del stored["explanation"]["pieces"]
    finished(tmp_path, stored, [])
    with pytest.raises(RunError, match="damaged"):
        run_folder.load(tmp_path)


def test_weights_are_found_by_name_however_a_state_dict_calls_them(tmp_path: Path) -> None:
    weight = torch.ones(2, 3)
    finished(tmp_path, json.loads(json.dumps(SUMMARY.to_json())), [])
    layers = tuple(replace(LAYER, name=name) for name in ("fc1", "", "lstm.weight_hh_l0", "gone"))
    run_folder.save_json(tmp_path / "profile.json", Profile(layers, 0.05))
    tensors = {"fc1.weight": weight, "weight": 2 * weight, "lstm.weight_hh_l0": 3 * weight}
    for name in ("dense", "sparse"):
        run_folder.save_tensors(tmp_path / f"{name}.safetensors", tensors)
    found = run_folder.load(tmp_path).sparse_weights
    assert {name: int(tensor[0, 0]) for name, tensor in found.items()} == {
        "fc1": 1,
        "": 2,
        "lstm.weight_hh_l0": 3,
    }


@pytest.mark.parametrize("name", ["digits", "digits-conv"])
def test_summaries_stored_by_earlier_versions_keep_every_key(name: str, tmp_path: Path) -> None:
    stored = json.loads((Path(__file__).parent.parent / "docs" / "results" / f"{name}.json").read_text())
    (tmp_path / stored["shown"]).mkdir()
    finished(tmp_path / stored["shown"], {}, [])
    (tmp_path / "summary.json").write_text(json.dumps(stored))
    summary = run_folder.load(tmp_path).summary
    later = {"macs": 0, "runs": 1, "dense": "", "raced": True}
    layers = [layer | later for layer in stored["layers"]]
    assert json.loads(json.dumps(summary.to_json())) == stored | {"layers": layers}
    assert [run.seed for run in summary.runs] == [0, 1, 2]


@pytest.mark.parametrize(
    ("kernel", "skips"),
    [("sell", "weights"), ("dense", "nothing"), ("depthwise_fp16", "nothing"), ("channels_last", "nothing")],
)
def test_of_choices_stored_without_it_the_kernels_name_tells_what_is_skipped(
    kernel: str, skips: str, tmp_path: Path
) -> None:
    stored = {"layer": "fc1", "op": "linear", "weight_shape": [2, 3], "sparsity": 0.5, "kernel": kernel}
    stored |= {"seconds": {}, "refused": {}, "reason": "fastest", "error": 0.0}
    finished(tmp_path, json.loads(json.dumps(SUMMARY.to_json())), [stored, stored | {"skips": "inputs"}])
    assert [choice.skips for choice in run_folder.load(tmp_path).choices] == [skips, "inputs"]


@pytest.mark.parametrize("damage", [7, {}, {"task": "digits"}])
def test_a_damaged_summary_is_one_sentence(damage: object, tmp_path: Path) -> None:
    finished(tmp_path, json.loads(json.dumps(SUMMARY.to_json())), [])
    (tmp_path / "summary.json").write_text(json.dumps(damage))
    with pytest.raises(RunError, match="damaged"):
        run_folder.load(tmp_path)
