"""Rows beyond the papers: how far zeroskip's own recipe gets on their networks, beside their headline figures.

A network has up to three frontiers, since what training images go through changes dense and pruned networks alike; see
`IMAGES`.
"""

from __future__ import annotations

from collections.abc import Mapping

from zeroskip.concepts import PaperRow, PrunedFrontier
from zeroskip.papers.common.figure_checks import percent
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings, title
from zeroskip.papers.common.rules import AT_LEAST, OURS, at_most, figure
from zeroskip.papers.common.tables import Table

RISE = "0.1"  # points: what still counts as no loss, ten of ten thousand images
IMAGES = {
    "frontier_plain": "",
    "frontier": ", images with noise",
    "frontier_shifts": ", images with noise and moved by up to a pixel",
}
CODERS = {"huffman": "Huffman codes", "arithmetic": "arithmetic codes"}


def read_frontiers(findings: Findings) -> dict[str, PrunedFrontier]:
    """Those in the findings of either paper, by name in the order of `IMAGES`."""
    return {name: read(PrunedFrontier, findings[name]) for name in IMAGES if findings.get(name) is not None}


def weights_rows(
    paper: str, network: str, frontiers: Mapping[str, PrunedFrontier], error: str
) -> list[PaperRow]:
    """Error against weights, beside the published dense error.

    >>> from zeroskip.concepts import FrontierPoint
    >>> point = FrontierPoint(30, 0.0081, 4, 0.0082, {"huffman": 100, "arithmetic": 80})
    >>> frontier = PrunedFrontier(4000, 0.0079, 0.0078, (point,))
    >>> rows = weights_rows("han2015", "lenet-5", {"frontier": frontier}, "0.80")
    >>> [(row.row, row.column, row.holds) for row in rows[1:]]
    [('30x fewer weights', 'test error', False), ('30x fewer weights', 'rise over dense, trained as long', True)]
    """
    rows = []
    for name in [name for name in IMAGES if name in frontiers]:
        frontier, table = frontiers[name], _table(paper, network, name)
        dense = percent(frontier.error_continued)
        rows.append(table.judge("dense, trained as long", "test error", figure(error, "%"), dense, at_most()))
        for point in frontier.points:
            row = f"{point.times_fewer:g}x fewer weights"
            rows += _errors(table, row, error, point.error, frontier.error_continued)
    return rows


def bytes_rows(
    paper: str, network: str, frontiers: Mapping[str, PrunedFrontier], error: str, rate: str
) -> list[PaperRow]:
    """Error against bytes of the whole file, beside the published dense error and times smaller."""
    rows = []
    for name in [name for name in IMAGES if name in frontiers]:
        frontier, table = frontiers[name], _table(paper, network, name)
        for point in frontier.points:
            row = f"{point.times_fewer:g}x fewer weights, {point.bits:g} bits"
            rows += _errors(table, row, error, point.error_stored, frontier.error_continued)
            for coder, size in point.stored_bytes.items():
                times, column = frontier.stored_bytes_dense / size, f"times smaller, {CODERS[coder]}"
                rows.append(table.judge(row, column, figure(rate, "x"), times, AT_LEAST))
    return rows


def rise_row(
    table: Table, row: str, error: float | None, dense: float | None, over: str = "our own dense network"
) -> PaperRow:
    """What an error has risen by, against `RISE`: a published error may be met with a loss on one's own network.

    >>> rise_row(Table("han2015", "Table 1"), "LeNet-5 pruned", 0.0079, 0.0070).holds
    True
    """
    points = None if error is None or dense is None else percent(error - dense)
    return table.judge(row, f"rise over {over}", figure(RISE, "points", OURS), points, at_most())


def _table(paper: str, network: str, name: str) -> Table:
    return Table(paper, f"Beyond the paper: {title(network)}{IMAGES[name]}", network)


def _errors(table: Table, row: str, error: str, ours: float, dense: float) -> list[PaperRow]:
    limit = at_most(figure(error).value, f"the paper's dense error, {error} %")
    return [
        table.judge(row, "test error", figure(error, "%"), percent(ours), limit),
        rise_row(table, row, ours, dense, over="dense, trained as long"),
    ]
