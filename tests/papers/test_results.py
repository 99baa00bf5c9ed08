"""Findings on disk: written whole, read back equal, refused where they are something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from zeroskip.errors import FileError, RunError
from zeroskip.papers import PaperResult, load, store, stored

RESULT = PaperResult(
    "han2015", "lenet-5", "2026-01-31", "Xeon", "zeroskip reproduce han2015", 3, {"error": 0.01}
)


def test_what_is_stored_is_what_is_loaded_from_the_file_and_from_its_folder(tmp_path: Path) -> None:
    path = store(tmp_path, RESULT)
    other = store(tmp_path, replace(RESULT, network="lenet-300-100"))
    (tmp_path / "digits.json").write_text("{}")
    assert path.name == "reproduce-han2015-lenet-5.json"
    assert load(path) == [RESULT]
    assert load(tmp_path) == [*load(other), RESULT]


def test_a_stored_result_is_found_again_with_the_same_seeds_only(tmp_path: Path) -> None:
    assert stored(tmp_path, "han2015", "lenet-5", 3) is None
    store(tmp_path, RESULT)
    assert stored(tmp_path, "han2015", "lenet-5", 3) == RESULT
    with pytest.raises(RunError, match="found with 3 seeds, not 5"):
        stored(tmp_path, "han2015", "lenet-5", 5)


@pytest.mark.parametrize("content", ["{}", "[1]", '"text"', json.dumps({"paper": "han2015", "extra": 1})])
def test_a_file_of_another_form_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "reproduce-x.json"
    path.write_text(content)
    with pytest.raises(FileError, match=r"reproduce-x\.json holds no findings"):
        load(path)


def test_findings_that_are_no_object_a_folder_without_files_and_an_absent_file(tmp_path: Path) -> None:
    store(tmp_path, replace(RESULT, findings=[1]))  # type: ignore[arg-type]
    with pytest.raises(FileError, match="they are no object"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"holds no reproduce-\*\.json"):
        load(tmp_path / "empty")
    with pytest.raises(FileError, match="cannot read"):
        load(tmp_path / "absent.json")


def test_where_findings_come_from_fits_one_line() -> None:
    line = RESULT.origin.line
    assert line == "han2015, lenet-5: 2026-01-31, Xeon, 3 seeds, `zeroskip reproduce han2015`"
    assert ", 1 seed, " in replace(RESULT, seeds=1).origin.line
