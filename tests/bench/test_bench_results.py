"""Rows, what is kept on disk, and the command's tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from zeroskip.bench import Case, RaceResult, RaceRow, Store, rows, worst_first
from zeroskip.cli.bench import _summary, _table
from zeroskip.errors import FileError

Make = Callable[..., RaceResult]
Call = Callable[..., tuple[int, str, str]]
FC = Case("alexnet_fc7", 0.91, weights="int8", cold=True)
COLUMNS = ["case", "sparsity", "batch", "threads", "precision", "engine", "seconds", "speedup"]


def by_label(result: RaceResult) -> dict[str, RaceRow]:
    return {f"{row.engine} {row.precision}": row for row in rows(result)}


def test_a_row_says_how_many_times_longer_an_engine_takes_than_we_do(result: Make) -> None:
    found = by_label(result({"DeepSparse fp32": (4.0, 2.0, 3.0), "zeroskip fp32": (1.0, 2.0, 1.5)}))
    row = found["DeepSparse fp32"]
    assert (row.seconds, row.seconds_low, row.seconds_high) == (3.0, 2.0, 4.0)
    assert row.speedup == 2.0
    assert found["zeroskip fp32"].speedup == 1.0


def test_fp32_is_judged_by_our_fp32_and_16_bits_by_our_16_bits(result: Make) -> None:
    seconds = {"torch eager fp32": (8.0,), "torch eager bf16": (4.0,), "zeroskip fp32": (2.0,)}
    assert by_label(result(seconds))["torch eager bf16"].against == "fp32"
    half = by_label(result({**seconds, "zeroskip fp16": (0.5,)}))["torch eager bf16"]
    assert (half.speedup, half.against) == (8.0, "fp16")


def test_where_weights_may_have_8_bits_everybody_is_judged_by_that(result: Make) -> None:
    seconds = {"torch eager fp32": (8.0,), "zeroskip fp32": (4.0,), "zeroskip int8 weights": (1.0,)}
    assert by_label(result(seconds, FC))["torch eager fp32"].speedup == 8.0


def test_without_a_figure_of_ours_there_is_no_speedup(result: Make) -> None:
    (row,) = rows(result({"DeepSparse fp32": (4.0,)}))
    assert row.speedup is None
    assert row.against is None


def test_kept_results_come_back_and_a_case_raced_again_is_replaced(tmp_path: Path, result: Make) -> None:
    store = Store(tmp_path / "a" / "results.json", "this machine")
    assert store.load() == []
    first, other = result({"zeroskip fp32": (1.0, 2.0, 3.0)}), result({"zeroskip fp32": (9.0,)}, FC)
    store.add([first])
    store.add([other])
    newer = result({"zeroskip fp32": (4.0,)}, OpenVINO_bf16="it is absent")
    store.add([newer])
    assert store.load() == [newer, other]


def test_results_of_another_machine_are_refused(tmp_path: Path, result: Make) -> None:
    path = tmp_path / "results.json"
    Store(path, "one").add([result({"zeroskip fp32": (1.0,)})])
    with pytest.raises(FileError, match="measured on one, and this is two"):
        Store(path, "two").load()


@pytest.mark.parametrize("content", ["[]", "{}", '{"machine": "one", "cases": [1]}'])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(FileError, match="holds no results"):
        Store(path, "one").load()


def raced(monkeypatch: pytest.MonkeyPatch, result: Make) -> list[Case]:
    """Races that take no time, and the cases that they were asked for."""
    asked: list[Case] = []

    def race(cases: list[Case], *others: object, **options: object) -> list[RaceResult]:
        asked.extend(cases)
        seconds = {"torch eager fp32": (3.0,), "DeepSparse fp32": (0.5,)}
        seconds |= {"zeroskip fp32": (1.0,), "zeroskip int8": (1.0,)}
        return [result(seconds, case, OpenVINO_bf16="this CPU lacks it") for case in cases]

    monkeypatch.setattr("zeroskip.bench.rounds.race", race)
    return asked


def test_quick_json_has_a_row_for_every_engine_and_names_the_missing(
    monkeypatch: pytest.MonkeyPatch, result: Make, call: Call, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    raced(monkeypatch, result)
    status, out, _ = call("bench", "--quick", "--json")
    printed = json.loads(out)
    assert status == 0
    assert len(printed["rows"]) == 4 * 4
    for row in printed["rows"]:
        assert list(row)[: len(COLUMNS)] == COLUMNS
        assert all(isinstance(row[name], float) for name in ("sparsity", "seconds", "speedup"))
        assert all(isinstance(row[name], int) for name in ("batch", "threads"))
    assert {row["engine"] for row in printed["rows"]} == {"torch eager", "DeepSparse", "zeroskip"}
    assert printed["missing"][0]["engine"] == "OpenVINO bf16"
    assert printed["missing"][0]["reason"] == "this CPU lacks it"
    assert {"machine", "versions", "seconds", "runs", "rounds", "date"} <= set(printed)
    assert list(tmp_path.iterdir()) == []  # a quick run leaves nothing behind


def test_losses_stand_first_in_the_table(
    monkeypatch: pytest.MonkeyPatch, result: Make, call: Call, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    raced(monkeypatch, result)
    status, out, err = call("bench", "--quick", "--case", "resnet20")
    assert status == 0
    assert out.index("DeepSparse") < out.index("torch eager")
    assert "too short for a claim" in out
    assert "OpenVINO bf16 is missing in resnet20" in err
    assert "this CPU lacks it" in err


def test_a_table_marks_losses_and_not_our_own_rows(result: Make) -> None:
    seconds = {"torch eager fp32": (3.0,), "DeepSparse fp32": (0.5,), "zeroskip fp32": (1.0,)}
    table = _table(worst_first(rows(result(seconds))))
    assert [row[4] for row in table.rows] == ["DeepSparse fp32", "zeroskip fp32", "torch eager fp32"]
    assert table.marks == {0: "loss", 2: "win"}
    assert [row[-1] for row in table.rows] == ["0.50", "1.00", "3.00"]


def test_a_row_has_the_99th_percentile_and_the_first_call_or_a_dash_for_older_results(result: Make) -> None:
    label = "zeroskip fp32"
    older = result({label: (1.0, 2.0, 3.0)})
    newer = replace(older, slowest={label: (5.0, 4.0, 6.0)}, first_call={label: (0.5, 0.25, 0.75)})
    assert [_table(rows(each)).rows[0][6:8] for each in (older, newer)] == [("-", "-"), ("5 s", "500 ms")]
    assert RaceResult.from_json(json.loads(json.dumps(newer.to_json()))) == newer
    old_file = {
        name: value for name, value in older.to_json().items() if name not in ("slowest", "first_call")
    }
    assert RaceResult.from_json(json.loads(json.dumps(old_file))) == older


IN_INT8 = Case("vgg16", 0.9, pattern="1x4", precision="int8")


def test_in_a_case_of_eight_bits_everybody_is_judged_by_our_int8_and_on_a_layer_by_that_on_tiles(
    result: Make,
) -> None:
    seconds = {"OpenVINO int8": (4.0,), "OpenVINO fp32": (8.0,), "zeroskip, free zeros fp32": (3.0,)}
    network = by_label(result({**seconds, "zeroskip int8": (2.0,)}, IN_INT8))
    assert [row.speedup for row in network.values()] == [2.0, 4.0, 1.5, 1.0]
    assert {row.asked for row in network.values()} == {"int8"}
    ours = {"zeroskip int8": (2.0,), "zeroskip on tiles int8": (1.0,)}
    layer = by_label(result({**seconds, **ours}, replace(IN_INT8, network="3x3_64_64_56")))["OpenVINO int8"]
    assert (layer.speedup, layer.against) == (4.0, "on tiles int8")
    assert not layer.is_ours


def test_the_summary_keeps_networks_and_layers_in_eight_bits_apart(result: Make) -> None:
    seconds = {"OpenVINO int8": (4.0,), "zeroskip int8": (2.0,), "zeroskip fp32": (4.0,)}
    on_tiles = {"zeroskip on tiles int8": (1.0,)}
    table = [
        *rows(result(seconds, IN_INT8)),
        *rows(result(seconds | on_tiles, replace(IN_INT8, network="3x3_64_64_56"))),
        *rows(result(seconds)),
    ]
    assert {row[0]: row[-1] for row in _summary(table).rows} == {
        "OpenVINO int8, layers in int8 on tiles": "4.00",
        "OpenVINO int8, networks in int8": "2.00",
        "OpenVINO int8": "1.00",
    }


def test_a_trained_network_is_left_out_with_a_sentence_where_its_data_are_absent(
    monkeypatch: pytest.MonkeyPatch, result: Make, call: Call, tmp_path: Path
) -> None:
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    raced(monkeypatch, result)
    status, _, err = call("bench", "--case", "vgg16", "--precision", "int8", "--out", tmp_path)
    assert status == 0
    assert "EfficientNet-Lite0 is left out: " in err


def test_the_summary_counts_losses_and_takes_geometric_means(result: Make) -> None:
    pairs = [(0.5, 1.0), (8.0, 1.0)]
    table = [
        row
        for theirs, ours in pairs
        for row in rows(result({"DeepSparse fp32": (theirs,), "zeroskip fp32": (ours,)}))
    ]
    assert _summary(table).rows == (("DeepSparse fp32", "2", "1", "0.50", "2.00"),)


def test_a_finished_case_is_not_raced_again_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, result: Make, call: Call, tmp_path: Path
) -> None:
    asked = raced(monkeypatch, result)
    words = ("bench", "--case", "1x1_64_256_56", "--precision", "fp32", "--out", tmp_path)
    assert call(*words, "--sparsity", "0.9")[0] == 0
    assert [case.sparsity for case in asked] == [0.9]
    assert call(*words)[0] == 0
    assert [case.sparsity for case in asked] == [0.9, 0.8, 0.95]
    assert call(*words, "--fresh")[0] == 0
    assert len(asked) == 6
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text())["cases"]) == 3


def test_encoders_at_every_length_are_asked_for_by_a_word_and_runs_by_a_number(
    monkeypatch: pytest.MonkeyPatch, result: Make, call: Call, tmp_path: Path
) -> None:
    asked = raced(monkeypatch, result)
    words = ("bench", "--case", "minilm", "--tokens", "16", "--sparsity", "0.9", "--out", tmp_path)
    assert call(*words, "--runs", "1")[0] == 0
    assert _table(rows(result({"zeroskip fp32": (1.0,)}, asked[0]))).rows[0][0] == "minilm 16 tokens"
    assert [(case.batch, case.precision) for case in asked] == [(1, "fp32"), (1, "int8")]
    assert call(*words, "--transformers")[0] == 0  # those that are finished are not raced again
    assert [(case.batch, case.precision) for case in asked[2:]] == [(16, "fp32"), (16, "int8")]
    assert call("bench", "--transformers", "--activations")[0] == 1


def test_a_busy_machine_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, result: Make, call: Call, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    raced(monkeypatch, result)
    for load, said in ((0.1, False), (2.5, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert ("busy (load 2.5)" in call("bench", "--quick")[2]) is said


def test_an_unknown_case_is_one_sentence_with_the_names_there_are(call: Call) -> None:
    status, _, err = call("bench", "--case", "lenet")
    assert status == 1
    assert "mobilenet_v1" in err
