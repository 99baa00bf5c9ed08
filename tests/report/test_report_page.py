"""The page holds every section, loads nothing, and escapes what it is given."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from zeroskip import report
from zeroskip.concepts import Between, Explanation, Gain, Profile, Record, Unskipped
from zeroskip.errors import FileError, RunError
from zeroskip.report import figures
from zeroskip.report.captions import CAPTIONS

TITLES = [
    "Verdict", "Time on this machine", "Layer by layer", "Where the zeros are", "How much each layer minds",
    "Error against weights kept", "Weights before and after", "What the first layer keeps", "Where the bytes go",
]  # fmt: skip


class Page(HTMLParser):
    """Every tag with its attributes, the text outside scripts and styles, and the section titles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.titles: list[str] = []
        self.styles: list[str] = []
        self.inside = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        kept = {"h2": self.titles, "style": self.styles, "script": []}.get(self.inside, self.words)
        if data.strip():
            kept.append(data.strip())

    def count(self, tag: str, attribute: str = "") -> int:
        return sum(name == tag and (not attribute or attribute in attrs) for name, attrs in self.tags)


def page(folder: Path, *records: Record) -> Page:
    return Page(report.html(folder / "report.html", *records))


@pytest.fixture(scope="module")
def shown(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("one"), record)


def test_a_whole_record_has_all_nine_sections_and_ten_figures(shown: Page, record: Record):
    assert shown.titles == TITLES
    # 2 layer bars, sensitivity, trade-off, 3 histograms, mask and pixels, ledger
    assert shown.count("div", "data-plot") == 10
    assert record.summary.verdict in shown.words


def test_the_page_holds_the_cells_of_the_summary_and_of_both_races(shown: Page, record: Record):
    for grid in (report.summary_table(record), *map(report.timing_table, record.timings)):
        assert {cell for row in grid.rows for cell in row if cell} <= set(shown.words)


def test_no_tag_loads_anything_and_the_browser_is_told_to_fetch_nothing(shown: Page):
    links = [attrs.get(key) for _, attrs in shown.tags for key in ("src", "href", "srcset", "action", "data")]
    assert {link[:1] for link in links if link} == {"#", "d"}
    assert {link for link in links if link and link[0] == "d"} == {"data:,"}
    assert not any(word in style for style in shown.styles for word in ("url(", "@import"))
    policy = next(attrs["content"] for tag, attrs in shown.tags if "http-equiv" in attrs and tag == "meta")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_plotly_is_in_the_page_once_and_not_at_all_without_a_figure(record: Record, tmp_path: Path):
    marker = "Plotly, Inc."
    once = report.html(tmp_path / "once.html", record).read_text().count(marker)
    bare = replace(
        record, profile=Profile((), 0.0), history=(), ledger={}, dense_weights={}, sparse_weights={}
    )
    small = report.html(tmp_path / "none.html", bare)
    assert once == 1
    assert marker not in small.read_text()
    assert Page(small).titles == TITLES[:3]
    assert small.stat().st_size < 50_000


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title>&amp;"]
)
def test_a_hostile_name_is_text_wherever_it_appears(
    record: Record, shown: Page, tmp_path: Path, hostile: str
):
    summary = replace(record.summary, task=hostile, verdict=hostile, machine=hostile)
    layers = (replace(record.profile.layers[0], name=hostile), *record.profile.layers[1:])
    named = replace(
        record,
        folder=f"runs/{hostile}",
        summary=summary,
        profile=Profile(layers, 0.1),
        sparse_weights={hostile: record.sparse_weights["fc1"], **record.sparse_weights},
    )
    found = page(tmp_path, named)
    assert found.count("script") == shown.count("script")
    assert found.count("img") == 0
    assert hostile in "".join(found.words)


@pytest.mark.parametrize(
    ("missing", "title"),
    [
        ({"timings": ()}, "Time on this machine"),
        ({"history": ()}, "Error against weights kept"),
        ({"ledger": {}}, "Where the bytes go"),
        ({"dense_weights": {}}, "Weights before and after"),
    ],
)
def test_what_a_record_lacks_has_no_section(record: Record, tmp_path: Path, missing: dict, title: str):
    assert page(tmp_path, replace(record, **missing)).titles == [name for name in TITLES if name != title]


def test_why_a_program_is_not_faster_has_a_section_where_it_is_known(record: Record, tmp_path: Path):
    between = (Between("silu", 2, 3e-6),)
    unskipped = (Unskipped("lstm: no sparse kernel", 0.25),)
    gains = (Gain("silu on tiles", 3e-6, "its own time"), Gain("too little", 1e-8, "to be shown"))
    why = Explanation(40, 0.75, 0.75, unskipped, 1, between, 7e-6, 7e-6, 3, 2e-5, gains)
    shown = page(tmp_path, replace(record, summary=replace(record.summary, explanation=why)))
    assert shown.titles == [*TITLES[:2], "Why it is not faster", *TITLES[2:]]
    cells = (
        "25.0%",
        "lstm: no sparse kernel",
        "silu, 2 times",
        "silu on tiles: its own time",
        "in 3 pieces: not faster",
    )
    assert set(cells) <= set(shown.words)
    assert "too little: to be shown" not in shown.words


def test_without_sensitivity_and_layer_list_two_sections_are_gone(record: Record, tmp_path: Path):
    layers = tuple(replace(layer, sensitivity={}) for layer in record.profile.layers)
    summary = replace(record.summary, layers=(), splits={}, verdict="")
    partial = replace(record, profile=replace(record.profile, layers=layers), summary=summary)
    gone = ("Layer by layer", "How much each layer minds")
    assert page(tmp_path, partial).titles == [name for name in TITLES if name not in gone]


@pytest.mark.parametrize(("task", "mood"), [("digits", "verdict "), ("digits-conv", "verdict loss")])
def test_a_verdict_is_amber_only_where_every_race_was_lost(
    record: Record, conv_record: Record, tmp_path: Path, task: str, mood: str
):
    one = {"digits": record, "digits-conv": conv_record}[task]
    classes = [attrs.get("class") or "" for tag, attrs in page(tmp_path, one).tags if tag == "div"]
    assert [name for name in classes if name.startswith("verdict")] == [mood]


def test_three_seeds_have_their_own_table(conv_record: Record, tmp_path: Path):
    assert {"Seeds", "median", "1.07 %"} <= set(page(tmp_path, conv_record).words)


def test_two_runs_are_compared_and_each_row_links_to_its_verdict(
    record: Record, conv_record: Record, tmp_path: Path
):
    found = page(tmp_path, record, conv_record)
    assert found.titles == ["Comparison", "digits", "digits-conv"]
    assert found.count("div", "data-plot") == 2
    assert {record.summary.verdict, conv_record.summary.verdict} <= set(found.words)
    anchors = {attrs["id"] for tag, attrs in found.tags if tag == "section"}
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    assert links == ["#part-0", "#part-1", "#part-2", "#part-1", "#part-2"]  # the menu, then the rows
    assert {link.removeprefix("#") for link in links if link} == anchors


def test_a_report_of_no_runs_is_an_error_that_says_so(tmp_path: Path):
    with pytest.raises(RunError, match="Name at least one run"):
        report.html(tmp_path / "report.html")


def test_a_page_that_cannot_be_written_is_a_file_error(record: Record, tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match="taken"):
        report.html(tmp_path / "taken" / "report.html", record)


def test_the_captions_name_the_limits_that_the_figures_keep():
    assert f"{figures.MOST_HISTOGRAMS} largest layers" in CAPTIONS["Weights before and after"]
    assert f"{figures.MOST_TENSORS} largest tensors" in CAPTIONS["Where the bytes go"]
