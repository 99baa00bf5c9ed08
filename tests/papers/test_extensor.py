"""ExTensor's rows: nothing is lost in tiles, closed forms, and four real matrices with their authors' own bytes."""

from __future__ import annotations

import gzip
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from zeroskip.errors import DataError
from zeroskip.papers import PaperRow, Setup, committed, named, rows
from zeroskip.papers.extensor import measure, published
from zeroskip.papers.extensor import rows as extensor

PAPER = named("extensor")
NAMES = [one.name for one in published.MATRICES]
MISSING = {("p2p-Gnutella31", "A to the right, from DRAM"), ("email-Enron", "time")}


def stored() -> list[PaperRow]:
    (found,) = [one for one in committed() if one.paper == "extensor"]
    return extensor.measured_rows(published.NETWORK, found.findings)


def test_all_19_rows_without_findings_hold() -> None:
    found = PAPER.analytic()
    assert len(found) == 19
    assert all(row.holds for row in found)


def test_12_rows_are_never_measured_and_each_says_why() -> None:
    found = PAPER.unmeasurable()
    assert len(found) == 12
    assert all(row.holds is None and row.reason for row in found)


def test_without_findings_the_matrices_wait_and_say_for_what() -> None:
    waiting = rows([PAPER], networks=[published.NETWORK])
    assert len(waiting) == 4 * 7
    assert {row.reason for row in waiting} == {extensor.DATA}


def test_26_of_28_figures_of_four_real_matrices_hold_and_the_others_say_why() -> None:
    found = stored()
    assert len(found) == 28
    assert {(row.row, row.column) for row in found if not row.holds} == MISSING
    assert all(row.reason for row in found if not row.holds)


@pytest.mark.parametrize(
    "column", ["products", "comparisons", "A to the left, from DRAM", "sums, read and written again"]
)
def test_products_comparisons_and_bytes_of_the_left_are_those_of_the_authors_to_the_last_digit_printed(
    column: str,
) -> None:
    found = [row for row in stored() if row.column == column]
    rounded = {"email-Enron"} if "again" in column else set()
    assert [row.row for row in found] == NAMES
    assert all(row.difference == 0 for row in found if row.row not in rounded)
    assert all(abs(row.difference or 0) < 5e4 for row in found)


def test_times_of_three_matrices_lie_within_11_percent_of_the_authors() -> None:
    shares = {
        row.row: (row.difference or 0) / float(row.published) for row in stored() if row.column == "time"
    }
    assert all(-0.11 < shares[name] < 0 for name in NAMES[:3])
    assert shares["email-Enron"] == pytest.approx(-0.27, abs=0.01)


# --- closed form


def fingers(one: list[int], two: list[int]) -> int:
    count = 0
    while one and two:
        count += 1
        ahead = max(one[0], two[0])
        both = one[0] == two[0]
        one = [place for place in one if place >= ahead + both]
        two = [place for place in two if place >= ahead + both]
    return count


@pytest.mark.parametrize(("one", "two"), [(0.3, 0.7), (0.5, 0.5), (1.0, 0.2), (0.0, 0.4), (1.0, 1.0)])
def test_expected_comparisons_are_the_mean_over_all_pairs_of_lists_of_4_places(
    one: float, two: float
) -> None:
    mean = 0.0
    for places in product([0, 1], repeat=8):
        lists = [[k for k in range(4) if half[k]] for half in (places[:4], places[4:])]
        chances = [one if there else 1 - one for there in places[:4]]
        chances += [two if there else 1 - two for there in places[4:]]
        mean += float(np.prod(chances)) * fingers(*lists)
    assert extensor.comparisons(4, one, two) == pytest.approx(mean)


# --- matrices


def tiny(rows: int, first: int | None, entries: int = 2) -> published.SquaredMatrix:
    figures = dict.fromkeys(("products", "comparisons", "left", "right", "sums", "again", "nanoseconds"), "1")
    return published.SquaredMatrix("tiny", rows, entries, first, (1, 1, 2), **figures)


def write(folder: Path, text: str) -> Path:
    path = folder / "tiny.txt"
    path.write_text(text)
    return path


def test_rows_count_from_the_first_or_anew(tmp_path: Path) -> None:
    path = write(tmp_path, "# a comment\n1\t3\n3\t7\n")
    assert measure.read_matrix(path, tiny(7, 1)).tolist() == [[0, 2], [2, 6]]
    assert measure.read_matrix(path, tiny(3, None)).tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3\n", "is damaged"),
        ("1 2 3\n", "3 numbers in a line, not 2"),
        ("1 9\n", "9 rows, not 7"),
        ("0 3\n", "is damaged"),
        ("a b\n", "is damaged"),
        ("1 2\n", "1 entries, not 2"),
        ("# nothing\n", "no data"),
        ("", "no data"),
    ],
)
def test_a_file_that_is_not_the_matrix_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure.read_matrix(write(tmp_path, text), tiny(7, 1))


def test_bytes_that_are_no_gzip_stream_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.txt.gz"
    packed = bytearray(gzip.compress(b"1 2\n3 4\n" * 100))
    packed[12] ^= 0xFF
    path.write_bytes(packed)
    with pytest.raises(DataError, match="is damaged"):
        measure.read_matrix(path, tiny(7, 1))


def test_a_matrix_that_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "accelerators").mkdir()
    monkeypatch.setenv("ZEROSKIP_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"there is no file .*wiki-Vote.txt.gz"):
        measure.measure_matrices(Setup(tmp_path, 1))


def test_a_random_matrix_of_300_rows_times_itself_has_the_products_and_sums_of_numpy() -> None:
    mask = np.random.default_rng(0).random((300, 300)) < 0.01
    found = measure.squared(np.argwhere(mask), tiny(300, 0))
    told = mask.astype(int) @ mask.astype(int)
    assert found["products"] == told.sum()
    assert found["sums"] == 16 * np.count_nonzero(told)
    assert found["again"] > 0  # three tiles of places


@pytest.mark.real_data
def test_measuring_wiki_vote_gives_the_findings_that_come_with_zeroskip() -> None:
    path = Path(os.environ.get("ZEROSKIP_DATA", "")) / "accelerators" / f"{NAMES[0]}.txt.gz"
    if not path.exists():
        pytest.skip(
            "the matrix is absent: set ZEROSKIP_DATA to the folder that holds accelerators/wiki-Vote.txt.gz"
        )
    (found,) = [one for one in committed() if one.paper == "extensor"]
    matrix = published.MATRICES[0]
    assert measure.squared(measure.read_matrix(path, matrix), matrix) == found.findings[NAMES[0]]
