"""The papers together: what is listed, that nothing is listed twice, and what a look at one of them imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from zeroskip import papers
from zeroskip.errors import RunError
from zeroskip.papers import PAPERS, Paper, PaperRow, committed, results_folder, rows
from zeroskip.papers.common import results
from zeroskip.papers.common.network_sizes import NETWORKS
from zeroskip.papers.common.paper import TITLES, TRAINED_BY_DEFAULT, WITH_TRAINING
from zeroskip.papers.common.training_plans import PLANS
from zeroskip.papers.minerva.published import TABLE1
from zeroskip.report import reproduction_markdown

PAPER_IDS = {"argvalues": PAPERS, "ids": lambda paper: paper.name}
VALIDATION = Path(__file__).parents[2] / "docs" / "VALIDATION.md"


@pytest.fixture(scope="module")
def listed() -> list[PaperRow]:
    return rows(results=committed())


def test_twelve_papers_have_a_name_a_title_and_networks_of_their_own() -> None:
    assert (
        len({paper.name for paper in PAPERS}) == len({paper.title for paper in PAPERS}) == len(PAPERS) == 12
    )
    for paper in PAPERS:
        assert len(set(paper.networks + paper.on_request)) == len(paper.networks + paper.on_request) > 0
        assert set(paper.measure) <= set(paper.networks + paper.on_request)
        assert set(paper.default) <= set(paper.measure)


@pytest.mark.parametrize("paper", **PAPER_IDS)
def test_a_paper_lies_in_the_folder_of_its_name_and_its_results_in_a_folder_within(paper: Paper) -> None:
    folder = Path(papers.__file__).parent / paper.name.replace("-", "_")
    assert results_folder(paper.name) == folder / "results"
    assert (folder / "published.py").exists()
    mine = [result for result in committed() if result.paper == paper.name]
    assert {f"reproduce-{paper.name}-{result.network}.json" for result in mine} == {
        path.name for path in (folder / "results").glob("*")
    }
    assert {result.network for result in mine} <= set(paper.measure)


def test_results_are_kept_in_a_checkout_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "PAPERS", tmp_path / "site-packages" / "zeroskip" / "papers")
    with pytest.raises(RunError, match="no source checkout"):
        results_folder("eie")


def test_no_two_rows_are_about_the_same(listed: list[PaperRow]) -> None:
    keys = Counter((row.paper, row.table, row.row, row.column, row.network) for row in listed)
    assert [key for key, count in keys.items() if count > 1] == []


def test_every_row_has_a_rule_and_a_figure_and_says_why_where_it_does_not_hold(
    listed: list[PaperRow],
) -> None:
    for row in listed:
        assert row.rule
        assert row.published != ""
        assert (row.ours is None) == (row.holds is None)
        assert row.reason or row.holds is not None, row
        assert not (row.holds and row.reason), row


def test_docs_validation_md_is_what_the_command_writes(listed: list[PaperRow]) -> None:
    titles = {paper.name: paper.title for paper in PAPERS}
    page = reproduction_markdown(listed, titles, [result.origin for result in committed()])
    assert VALIDATION.read_text() == page, "run: zeroskip reproduce --markdown docs/VALIDATION.md"


def test_the_names_of_networks_are_those_of_what_is_built_and_trained() -> None:
    assert list(TITLES) == list(NETWORKS)
    assert tuple(PLANS) == WITH_TRAINING
    assert TRAINED_BY_DEFAULT == ("lenet-300-100", "lenet-5")
    assert papers.measurable(papers.named("han2015")) == list(TRAINED_BY_DEFAULT)
    assert papers.measurable(papers.named("minerva")) == [*TABLE1, "minerva-mean"]


HEAVY = (
    "sklearn",
    "lightning_fabric",
    "torch._dynamo",
    "numba",
    "plotly",
    "scipy",
    "zeroskip.tasks",
    "zeroskip.run",
)


def imported(*steps: str) -> list[set[str]]:
    """Modules of HEAVY and trainings of papers that a fresh process has imported after each of `steps`."""
    names = f"[name for name in sys.modules if name in {HEAVY} or name.endswith(('.train', '.measure'))]"
    code = [f"{step}\nprint('imported', json.dumps({names}))" for step in steps]
    command = [sys.executable, "-c", "\n".join(["import json, sys", *code])]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [set(json.loads(line.removeprefix("imported "))) for line in done if line.startswith("imported ")]


def rows_of(paper: str) -> str:
    return f"papers.rows([papers.named({paper!r})], analytic=True)"


def test_papers_and_their_rows_without_training_import_no_training_and_nothing_heavy() -> None:
    look_up = (
        "from zeroskip import papers\npapers.named('scnn')\nassert 'zeroskip.simulate' not in sys.modules"
    )
    looked_up, *with_rows = imported(look_up, rows_of("han2015"), rows_of("cnvlutin"))
    assert looked_up == set()
    assert [modules - {"zeroskip.measure"} for modules in with_rows] == [set(), set()]


@pytest.mark.slow
def test_the_rows_of_eie_import_no_training_and_nothing_heavy_either() -> None:
    (found,) = imported(f"from zeroskip import papers\n{rows_of('eie')}")
    assert found - {"zeroskip.measure"} == set()
