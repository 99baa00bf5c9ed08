"""The papers' figures hold the numbers of the findings; what was not found has no figure and no section."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import report
from zeroskip.concepts import PaperFigures, PaperRow
from zeroskip.errors import FileError
from zeroskip.papers import PaperResult, measured_networks
from zeroskip.report import figures, paper_figures
from zeroskip.report.paper_figures import PublishedErrors

FRONTIER: dict[str, Any] = {
    "stored_bytes_dense": 1000,
    "error_dense": 0.016,
    "error_continued": 0.015,
    "points": [
        {"times_fewer": 60, "bits": 4, "error": 0.017, "errors": [0.016, 0.018], "error_stored": 0.018,
         "errors_stored": [0.017, 0.019], "stored_bytes": {"huffman": 10, "arithmetic": 8}},
        {"times_fewer": 30, "bits": 4, "error": 0.014, "errors": [0.013, 0.015], "error_stored": 0.015,
         "errors_stored": [0.014, 0.016], "stored_bytes": {"huffman": 20, "arithmetic": 16}},
    ],
}  # fmt: skip
HAN: dict[str, Any] = {
    "error_dense": 0.0164,
    "figure4": {"kept_by_pixel": list(range(784))},
    "figure5": {"L1": [[0.5, 0.02], [0.1, 0.5]], "L2 iterative": [[0.5, 0.016], [0.1, 0.017]]},
    "figure5_dense": {"L1": 0.0171, "L2": 0.0164},
    "figure6": {"fc1": {"0.9": 0.06, "0.5": 0.02, "0.98": 0.4}},
    "figure7": {
        "before": {"edges": [-1, 0, 1], "counts": [5, 7]},
        "after": {"edges": [-2, 0, 2], "counts": [3, 2]},
    },
    "frontier": FRONTIER,
    "frontier_shifts": {**FRONTIER, "error_dense": 0.012, "points": FRONTIER["points"][:1]},
}
DEEP: dict[str, Any] = {
    "error_dense": 0.0171,
    "figures_dense": 0.0164,
    "figure6": {"pruned": [[0.1, 0.016]], "both": [[0.05, 0.017], [0.03, 0.4]]},
    "figure7": {"conv": {"8": 0.016, "10": 0.015}, "fc": {"2": 0.02}},
    "figure8": {"linear": {"2": 0.03, "3": 0.02}, "random": {"2": 0.04}},
}
TOLD = PublishedErrors(0.0164, (12, 0.0159), (40, 0.0158))
TITLES = [
    "lenet-300-100", "Trade-off", "Sensitivity", "Histogram of weights", "Mask of the first layer",
    "Error against size", "Error against bits", "Starts of the centroids", "Frontier: weights", "Frontier: bytes",
    "Every table",
]  # fmt: skip
FIGURES = {
    "figure4": "Mask of the first layer",
    "figure5": "Trade-off",
    "figure6": "Sensitivity",
    "figure7": "Histogram of weights",
}


def lines(plot: figures.Plot) -> dict[str, list[tuple[float, float]]]:
    """Name of each line -> its points."""
    return {line.name: list(zip(line.x, line.y, strict=True)) for line in plot.figure.data}


def result(paper: str, found: Any, network: str = "lenet-300-100", **changes: Any) -> PaperResult:
    about = {"date": "2026-01-02", "machine": "a machine", "command": "zeroskip reproduce", "seeds": 2}
    return PaperResult(**{"paper": paper, "network": network, **about, "findings": found, **changes})


def row(paper: str, name: str, column: str, published: float, holds: bool | None, **changes: Any) -> PaperRow:
    own = {
        "paper": paper,
        "table": "Table 1",
        "row": name,
        "column": column,
        "published": published,
        "ours": 2.0,
    }
    rest = {"holds": holds, "unit": "%", "rule": "at most", "trust": "read", "network": "lenet-300-100"}
    return PaperRow(**{**own, **rest, **changes})


ROWS = [
    row("han2015", "LeNet-300-100 ref", "top-1 error", 1.64, True),
    row("han2015", "LeNet-300-100 pruned", "top-1 error", 1.59, False),
    row("han2015", "LeNet-300-100 pruned", "rate, measured", 12.0, True, unit="x"),
    row("han2015", "conv1", "FLOP", 3.0, False, network="vgg16", reason="known since"),
    row("deep-compression", "LeNet-300-100 compressed", "top-1 error", 1.58, True),
    row("deep-compression", "LeNet-300-100 compressed", "rate, measured", 40.0, None, unit="x", ours=None),
]
RESULTS = [result("deep-compression", DEEP), result("han2015", HAN)]


def page(folder: Path, rows: list[PaperRow], results: Any = (), titles: Any = None) -> str:
    networks = measured_networks(rows, results)
    return report.reproduction_html(folder / "report.html", rows, networks, titles).read_text()


def read(han: Any = None, deep: Any = None) -> PaperFigures:
    """What is drawn from these findings."""
    results = [result("han2015", han or {}), result("deep-compression", deep or {})]
    return measured_networks(ROWS, results)[0].figures


def headings(text: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", text)


def drawn(text: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1]) if found else []


def test_each_trade_off_curve_is_the_one_found_and_a_level_is_the_dense_error_of_each_penalty() -> None:
    (plot,) = paper_figures.trade_off(read(HAN))
    assert lines(plot) == {
        "L1, not retrained": [(0.5, 0.02), (0.1, 0.5)],
        "L2 iterative": [(0.5, 0.016), (0.1, 0.017)],
        "dense, L1 (1.71 %)": [(0.1, 0.0171), (0.5, 0.0171)],
        "dense, L2 (1.64 %)": [(0.1, 0.0164), (0.5, 0.0164)],
    }
    assert [line.line.dash for line in plot.figure.data[-2:]] == ["dot", "dash"]
    assert (plot.figure.layout.xaxis.type, plot.figure.layout.xaxis.autorange) == ("log", "reversed")


def test_errors_that_differ_more_than_10_times_have_a_log_axis_unless_one_is_zero() -> None:
    scales = [
        paper_figures.trade_off(read({"figure5": {"L1": [[0.5, low], [0.1, high]]}}))[
            0
        ].figure.layout.yaxis.type
        for low, high in ((0.02, 0.5), (0.02, 0.1), (0.0, 0.5))
    ]
    assert scales == ["log", None, None]


def test_sensitivity_is_in_the_order_of_the_numbers_0_5_0_9_0_98() -> None:
    assert lines(paper_figures.sensitivity(read(HAN))[0]) == {"fc1": [(0.5, 0.02), (0.9, 0.06), (0.98, 0.4)]}


def test_both_histograms_have_their_own_counts_and_the_same_range() -> None:
    before, after = paper_figures.histograms(read(HAN))
    assert (before.title, after.title) == ("before", "after")
    assert (list(before.figure.data[0].x), list(before.figure.data[0].y)) == ([-0.5, 0.5], [5, 7])
    assert (list(after.figure.data[0].x), list(after.figure.data[0].width)) == ([-1, 1], [2, 2])
    assert before.figure.layout.xaxis.range == after.figure.layout.xaxis.range == (-2, 2)


def test_784_counts_are_a_picture_of_28x28_and_a_strip_with_a_grid_line_every_28() -> None:
    image, strip = paper_figures.mask(read(HAN))
    assert np.array_equal(image.figure.data[0].z, np.arange(784).reshape(28, 28))
    assert list(strip.figure.data[0].y) == list(range(784))
    assert strip.figure.layout.xaxis.dtick == 28


def test_12_counts_are_no_square_and_have_no_picture() -> None:
    assert paper_figures.mask(read({"figure4": {"kept_by_pixel": [1] * 12}})) == []


def test_error_against_size_has_the_points_of_pruned_and_both() -> None:
    found = lines(paper_figures.sizes(read(deep=DEEP))[0])
    assert found["pruned"] == [(0.1, 0.016)]
    assert found["both"] == [(0.05, 0.017), (0.03, 0.4)]
    assert found["dense (1.64 %)"][0][1] == 0.0164, "that of the curves' own seed"


def test_bits_are_numbers_so_that_8_comes_before_10() -> None:
    found = lines(paper_figures.bits(read(deep=DEEP))[0])
    assert found["conv layers"] == [(8, 0.016), (10, 0.015)]
    assert found["fc layers"] == [(2, 0.02)]
    assert lines(paper_figures.starts(read(deep=DEEP))[0])["linear"] == [(2, 0.03), (3, 0.02)]


def test_the_frontier_has_means_a_dot_per_seed_and_the_three_levels() -> None:
    figure = paper_figures.frontier_weights(read({"frontier_plain": FRONTIER}), TOLD)[0].figure
    mean, dots, *levels, star = figure.data
    assert list(zip(mean.x, mean.y, strict=True)) == [(30, 0.014), (60, 0.017)]
    assert sorted(zip(dots.x, dots.y, strict=True)) == [(30, 0.013), (30, 0.015), (60, 0.016), (60, 0.018)]
    assert dots.marker.opacity < 0.5
    wanted = ["dense (1.60 %)", "dense continued (1.50 %)", "published dense (1.64 %)"]
    assert [level.name for level in levels] == wanted
    assert [level.y[0] for level in levels] == [0.016, 0.015, 0.0164]
    assert (star.x, star.y, star.name) == ((12,), (0.0159,), "published (12x, 1.59 %)")


def test_bytes_have_a_line_per_coder_at_the_dense_bytes_by_the_stored_ones() -> None:
    found = lines(paper_figures.frontier_bytes(read({"frontier_plain": FRONTIER}), TOLD)[0])
    assert found["Huffman codes"] == [(50, 0.015), (100, 0.018)]
    assert found["arithmetic codes"] == [(62.5, 0.015), (125, 0.018)]
    assert found["published (40x, 1.58 %)"] == [(40, 0.0158)]


def test_moved_images_have_one_colour_of_their_own_in_both_figures() -> None:
    for draw in (paper_figures.frontier_weights, paper_figures.frontier_bytes):
        hues: dict[bool, set[str]] = {True: set(), False: set()}
        for line in draw(read(HAN), PublishedErrors())[0].figure.data:
            if line.showlegend is None:
                hues["moved images" in line.name].add(line.line.color)
        assert len(hues[True]) == len(hues[False]) == 1
        assert hues[True] != hues[False]


def test_every_end_of_the_frontiers_axis_is_outside_of_its_points_and_a_tick_is_between() -> None:
    one = {**FRONTIER, "points": FRONTIER["points"][:1]}
    axis = paper_figures.frontier_weights(read({"frontier": one}), PublishedErrors())[0].figure.layout.xaxis
    low, high = 10 ** np.array(axis.range)
    assert low < 60 < high
    assert [tick for tick in axis.tickvals if low < tick < high] == [50, 60]


def test_nothing_found_is_no_figure_at_all() -> None:
    plain = (paper_figures.trade_off, paper_figures.sensitivity, paper_figures.histograms, paper_figures.mask)
    none = PaperFigures()
    assert [
        draw(none) for draw in (*plain, paper_figures.sizes, paper_figures.bits, paper_figures.starts)
    ] == [[]] * 7
    assert paper_figures.frontier_weights(none, TOLD) == paper_figures.frontier_bytes(none, TOLD) == []


def test_the_page_has_11_sections_and_11_figures(tmp_path: Path) -> None:
    text = page(tmp_path, ROWS, RESULTS, {"han2015": "The first paper"})
    assert headings(text) == TITLES
    assert len(drawn(text)) == text.count('data-plot="') == 11
    assert "<h1>The first paper and deep-compression</h1>" in text


def test_the_published_network_on_the_page_is_that_of_table_1(tmp_path: Path) -> None:
    *_, weights, stored = drawn(page(tmp_path, ROWS, RESULTS))
    assert {"published dense (1.64 %)", "published (12x, 1.59 %)"} < {
        line["name"] for line in weights["data"]
    }
    assert "published (40x, 1.58 %)" in {line["name"] for line in stored["data"]}


def test_the_summary_says_what_holds_what_fails_and_where_the_figures_come_from(tmp_path: Path) -> None:
    own, others = page(tmp_path, ROWS, RESULTS).split("<h2>Trade-off")
    assert (
        "han2015: 3 rows: 2 hold, 1 fails, 0 not measured. deep-compression: 2 rows: 1 hold, 0 fail, 1" in own
    )
    for cell in (
        "2026-01-02",
        "a machine",
        "zeroskip reproduce",
        "Table 1, LeNet-300-100 pruned, top-1 error",
    ):
        assert cell in own
    assert "known since" not in own
    assert "known since" in others.split("<h2>Every table")[1].split("<details>")[0]
    assert others.count("<details>") == 2


@pytest.mark.parametrize("key", FIGURES)
def test_what_was_not_found_has_no_section(tmp_path: Path, key: str) -> None:
    less = {name: value for name, value in HAN.items() if name != key}
    found = headings(page(tmp_path, ROWS, [RESULTS[0], result("han2015", less)]))
    assert found == [title for title in TITLES if title != FIGURES[key]]


def test_without_results_the_tables_are_all_there_is_and_no_script(tmp_path: Path) -> None:
    text = page(tmp_path, ROWS)
    assert headings(text) == ["Every table"]
    assert "<script" not in text


def test_results_of_a_network_or_paper_without_rows_are_left_out(tmp_path: Path) -> None:
    other = result("han2015", HAN, network="lenet-5")
    assert headings(page(tmp_path, ROWS, [other])) == ["Every table"]
    assert headings(page(tmp_path, ROWS[:4], RESULTS))[4:6] == [
        "Mask of the first layer",
        "Frontier: weights",
    ]


def test_of_two_results_of_one_network_the_last_counts(tmp_path: Path) -> None:
    found = headings(page(tmp_path, ROWS, [result("han2015", HAN), result("han2015", {})]))
    assert found == ["lenet-300-100", "Every table"]


def test_of_two_networks_each_section_says_which(tmp_path: Path) -> None:
    more = [*ROWS, row("han2015", "LeNet-5 ref", "top-1 error", 0.8, True, network="lenet-5")]
    found = headings(page(tmp_path, more, [*RESULTS, result("han2015", HAN, network="lenet-5")]))
    assert "lenet-300-100: Trade-off" in found
    assert "lenet-5: Trade-off" in found
    assert "Trade-off" not in found


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title>&amp;"]
)
def test_a_hostile_name_is_text_wherever_it_appears(tmp_path: Path, hostile: str) -> None:
    curves = {hostile: [[0.5, 0.02]]}
    found = {
        **HAN,
        "figure5": curves,
        "figure6": {hostile: {"0.5": 0.1}},
        "figure7": {hostile: HAN["figure7"]["after"]},
    }
    changes = {"machine": hostile, "command": hostile, "date": hostile}
    rows = [replace(one, network=hostile, reason=hostile, table=hostile) for one in ROWS]
    text = page(tmp_path, rows, [result("han2015", found, network=hostile, **changes)], {"han2015": hostile})
    plain = page(tmp_path, ROWS, RESULTS)
    assert hostile not in text
    assert [text.count(tag) for tag in ("<script", "<img")] == [
        plain.count(tag) for tag in ("<script", "<img")
    ]
    assert drawn(text)[0]["data"][0]["name"] == figures.label(hostile)


@pytest.mark.parametrize(
    "broken",
    [
        {"figure5": {"L1": [0.5]}},
        {"figure6": {"fc1": {"half": 0.1}}},
        {"frontier": {"points": [{}]}},
        {"figure7": 3},
    ],
)
def test_damaged_findings_are_one_sentence_and_write_no_page(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(FileError, match="the findings of lenet-300-100 for han2015 are damaged"):
        page(tmp_path, ROWS, [result("han2015", broken)])
    assert not list(tmp_path.iterdir())
