"""`zeroskip reproduce`: tables, JSON, Markdown, training through the seam, and one sentence for what cannot be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroskip import cli, run_folder
from zeroskip import papers as reproduce
from zeroskip.papers import catalogue

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `zeroskip reproduce WORDS...` in this process: (exit status, stdout, stderr)."""

    def calling(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zeroskip", "reproduce", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return calling


@pytest.fixture(autouse=True)
def nothing_committed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the findings that come with zeroskip, empty."""
    folder = tmp_path_factory.mktemp("measured")
    monkeypatch.setattr("zeroskip.papers.common.results.PAPERS", folder)
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[reproduce.Setup]:
    """han2015 can be measured on lenet-5, by a function that notes how it was called."""
    calls: list[reproduce.Setup] = []

    def measure(setup: reproduce.Setup) -> dict[str, Any]:
        calls.append(setup)
        return {"error_dense": 0.007, "error_pruned": 0.0074}

    monkeypatch.setattr(reproduce, "PAPERS", _with(measure))
    monkeypatch.setattr(catalogue, "PAPERS", _with(measure))
    return calls


def _with(measure: Callable[..., Any]) -> tuple[reproduce.Paper, ...]:
    return tuple(replace(one, measure={"lenet-5": measure}, default=()) for one in reproduce.PAPERS)


ROWS = {
    "han2015": "149 rows: 148 hold, 1 fails, 0 not measured",
    "deep-compression": "181 rows: 173 hold, 8 fail, 0 not measured",
    "cnvlutin": "6 rows: 4 hold, 2 fail, 0 not measured",
    "cambricon-s": "5 rows: 3 hold, 2 fail, 0 not measured",
    "eie": "33 rows: 28 hold, 5 fail, 0 not measured",
    "scnn": "17 rows: 13 hold, 4 fail, 0 not measured",
    "sparten": "8 rows: 5 hold, 3 fail, 0 not measured",
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of papers whose rows take no second; there are no others."""
    names = [*ROWS][:4]
    papers = tuple(paper for paper in reproduce.PAPERS if paper.name in names)
    monkeypatch.setattr(reproduce, "PAPERS", papers)
    monkeypatch.setattr(catalogue, "PAPERS", papers)
    return names


def test_analytic_rows_of_every_paper_there_is_are_shown_and_it_is_said(call: Call, few: list[str]) -> None:
    status, out, err = call("--analytic")
    assert (status, err) == (0, "")
    assert all(f"{name}: {ROWS[name]}" in out for name in few)
    assert out.count(" rows: ") == len(few)
    assert "rows that need training are left out" in out


@pytest.mark.slow
def test_analytic_rows_of_all_papers_are_shown(call: Call) -> None:
    status, out, _ = call("--analytic")
    assert status == 0
    assert all(f"{name}: {rows}" in out for name, rows in ROWS.items())


def test_findings_that_come_with_zeroskip_are_shown_unless_others_are_given(
    call: Call, trained: list[reproduce.Setup], nothing_committed: Path, tmp_path: Path
) -> None:
    def error(*words: object) -> float:
        told = json.loads(call("han2015", "--json", *words)[1])
        return next(row["ours"] for row in told if row["row"] == "LeNet-5 pruned" and row["unit"] == "%")

    kept = reproduce.PaperResult(
        "han2015", "lenet-5", "2026-01-01", "a machine", "", 1, {"error_pruned": 0.0079}
    )
    reproduce.store(nothing_committed / "han2015" / "results", kept)
    assert error() == pytest.approx(0.79)
    assert not trained
    assert error("--network", "lenet-5", "--out", tmp_path) == pytest.approx(0.74)
    assert error("--results", tmp_path) == pytest.approx(0.74)


def test_data_alone_trains_in_runs_and_weights_are_handed_on(
    call: Call, trained: list[reproduce.Setup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROSKIP_DATA", "")
    file = run_folder.save_tensors(tmp_path / "w.safetensors", {"fc.bias": torch.ones(2)})
    words = ("han2015", "--network", "lenet-5", "--data", tmp_path, "--weights", file, "--seeds", 1)
    assert call(*words)[0] == 0
    assert (trained[0].weights or {})["fc.bias"].tolist() == [1, 1]
    assert (tmp_path / "runs" / "reproduce" / "report-han2015.html").exists()


def test_json_is_a_list_of_rows_and_nothing_else(call: Call) -> None:
    status, out, err = call("han2015", "--analytic", "--json")
    told = json.loads(out)
    assert (status, err, len(told)) == (0, "", 149)
    wanted = {"paper", "table", "row", "column", "published", "ours", "difference", "holds"}
    assert all(wanted < set(row) for row in told)
    assert all(row["paper"] == "han2015" and row["ours"] is not None for row in told)


def test_a_paper_lists_rows_that_were_not_measured_too(call: Call) -> None:
    told = json.loads(call("deep-compression", "--json")[1])
    waiting = [row for row in told if row["holds"] is None]
    assert len(waiting) > 100
    assert all(row["ours"] is None and row["reason"] for row in waiting)


def test_network_may_be_repeated_and_limits_the_rows(call: Call) -> None:
    told = json.loads(call("han2015", "--network", "lenet-5", "--network", "digits", "--json")[1])
    assert {row["network"] for row in told} == {"lenet-5", "digits"}


def test_markdown_is_written_with_failures_and_the_titles_of_the_papers(
    call: Call, few: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "docs" / "VALIDATION.md"
    status, out, _ = call("--markdown", page)
    text = page.read_text()
    assert status == 0
    assert out.splitlines()[-1].endswith("VALIDATION.md")
    assert "## Deep Compression (Han, Mao, Dally, ICLR 2016, arXiv 1510.00149)" in text
    assert "- Table 5: VGG-16, conv1_1, P+Q %: published 40 %, ours 38.38 %" in text
    assert "not measured: needs training on ImageNet" in text


def test_out_trains_stores_and_is_not_trained_again(
    call: Call, trained: list[reproduce.Setup], tmp_path: Path
) -> None:
    words = (
        "han2015",
        "--network",
        "lenet-5",
        "--network",
        "alexnet",
        "--out",
        tmp_path,
        "--seeds",
        2,
        "--json",
    )
    status, out, _ = call(*words)
    told = json.loads(out)
    assert status == 0
    assert [row["ours"] for row in told if row["column"] == "top-1 error"][:2] == [0.7, 0.74]
    assert [(setup.folder.name, setup.seeds) for setup in trained] == [("trained", 2)]
    assert json.loads(call(*words)[1]) == told
    assert len(trained) == 1
    stored = json.loads((tmp_path / "reproduce-han2015-lenet-5.json").read_text())
    assert (stored["seeds"], stored["findings"]["error_pruned"]) == (2, 0.0074)
    assert stored["command"].startswith("zeroskip reproduce han2015")
    merged = json.loads(call("han2015", "--results", tmp_path, "--json")[1])
    assert [row for row in merged if row["network"] == "lenet-5" and row["paper"] == "han2015"] == [
        row for row in told if row["network"] == "lenet-5"
    ]


def test_out_writes_the_page_beside_the_findings_and_html_writes_it_anywhere(
    call: Call, trained: list[reproduce.Setup], tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "pages" / "han.html"
    status, out, _ = call("han2015", "--network", "lenet-5", "--out", run)
    assert (status, len(trained)) == (0, 1)
    assert out.splitlines()[-1].endswith("report-han2015.html")
    first = (run / "report-han2015.html").read_text()
    assert "Learning both Weights and Connections" in first
    assert "<h2>lenet-5</h2>" in first
    assert call("han2015", "--network", "lenet-5", "--results", run, "--html", other)[0] == 0
    assert other.read_text() == first


def test_without_out_and_html_no_page_is_written(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("han2015")[0] == 0
    assert not list(tmp_path.iterdir())


def test_findings_are_kept_with_the_paper_where_that_is_asked(
    call: Call,
    trained: list[reproduce.Setup],
    nothing_committed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = nothing_committed / "han2015" / "results"
    monkeypatch.setattr(reproduce, "results_folder", lambda paper: nothing_committed / paper / "results")
    words = ("han2015", "--network", "lenet-5", "--out", tmp_path)
    assert call(*words)[0] == 0
    assert not folder.exists()
    assert call(*words, "--keep")[0] == 0  # trained before, kept now
    name = "reproduce-han2015-lenet-5.json"
    assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert len(trained) == 1


def test_findings_are_not_kept_in_an_installed_package_and_nothing_is_trained_before_that_is_said(
    call: Call, trained: list[reproduce.Setup], tmp_path: Path
) -> None:
    status, out, err = call("han2015", "--network", "lenet-5", "--out", tmp_path / "run", "--keep")
    assert (status, out, trained) == (1, "", [])
    assert "which is no source checkout" in err
    assert not list(tmp_path.iterdir())


def test_codec_leaves_the_rows_about_the_code(call: Call) -> None:
    rows = json.loads(call("eyeriss", "--codec", "--analytic", "--json")[1])
    assert len(rows) == 25
    assert all(row["table"].startswith(reproduce.CODEC_TABLES) for row in rows)


BAD = {
    "the code of another paper": (["eie", "--codec"], "--codec is about eyeriss"),
    "keeping what was not measured": (["han2015", "--keep"], "--keep keeps what --out measures"),
    "weights for a paper of chips": (
        ["eie", "--network", "eie-fc8", "--weights", "{new}", "--out", "{new}"],
        "eie does not start from given --weights",
    ),
    "an unknown paper": (
        ["lecun1989"],
        'there is no paper "lecun1989". Use one of han2015, deep-compression, ',
    ),
    "an unknown network": (["han2015", "--network", "resnet"], 'there is no network "resnet" here.'),
    "nothing to train": (
        ["han2015", "--network", "vgg16", "--out", "{new}"],
        "han2015 cannot be measured here on vgg16",
    ),
    "training without a paper": (["--out", "{new}"], "--out measures one paper."),
    "weights of two networks": (
        ["han2015", "--weights", "{new}", "--out", "{new}"],
        "--weights are those of one network.",
    ),
    "training no rows": (["han2015", "--analytic", "--out", "{new}"], "--analytic leaves out"),
    "absent results": (["han2015", "--results", "{new}"], "cannot read"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_one_sentence_and_exit_status_1(
    case: str, call: Call, trained: list[reproduce.Setup], tmp_path: Path
) -> None:
    words, sentence = BAD[case]
    status, out, err = call(*[word.replace("{new}", str(tmp_path / "new")) for word in words])
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
    assert not trained
