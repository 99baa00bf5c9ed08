"""Rows beyond the papers: how far zeroskip's own recipe gets on their networks, beside their headline figures.

Findings of one network (reproduce/trained/frontier.py makes them), three times, since what training images go
through changes dense and pruned networks alike: "frontier_plain" for images as they are, "frontier" for those of
the task, with noise, and "frontier_shifts" for images with noise that move by up to a pixel.

    error_dense, error_continued  of the dense network, and after as many steps as a pruned one has had
    points                        [{"times_fewer", "weights_kept", "error", "bits", "error_stored",
                                  "stored_bytes": {"huffman", "arithmetic"}}]
    stored_bytes_dense            4 x parameters
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zeroskip.papers.common import figure_checks
from zeroskip.papers.common.network_sizes import title
from zeroskip.papers.common.row import AT_LEAST, Row, Table, at_most, figure
from zeroskip.papers.deep_compression import published as deep_compression
from zeroskip.papers.han2015 import published as han2015

OURS = "our own bound; the paper has no such figure"
RISE = "0.1"  # points: what still counts as no loss, ten of ten thousand images
IMAGES = {
    "frontier_plain": "",
    "frontier": ", images with noise",
    "frontier_shifts": ", images with noise and moved by up to a pixel",
}


def weights_rows(paper: str, network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Error against weights, for a network with published figures.

    >>> weights_rows("han2015", "lenet-5", findings)[0].row
    'dense, trained as long'
    """
    rows, error = [], han2015.TABLE1[network].error
    for key, images in IMAGES.items():
        found = findings.get(key)
        if found is None:
            continue
        judge = Table(paper, f"Beyond the paper: {title(network)}{images}", network).judge
        dense = figure_checks.percent(found["error_continued"])
        rows.append(judge("dense, trained as long", "test error", error, dense, at_most(), unit="%"))
        for point in found["points"]:
            name, ours = f"{point['times_fewer']}x fewer weights", point["error"]
            rows += _errors(judge, name, error, ours, found["error_continued"])
    return rows


def bytes_rows(paper: str, network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Error against bytes of the whole file, for a network with published figures.

    >>> bytes_rows("deep-compression", "lenet-5", findings)[2].column
    'times smaller, Huffman codes'
    """
    rows, told = [], deep_compression.TABLE1[network]
    for key, images in IMAGES.items():
        found = findings.get(key)
        if found is None:
            continue
        judge = Table(paper, f"Beyond the paper: {title(network)}{images}", network).judge
        for point in found["points"]:
            name = f"{point['times_fewer']}x fewer weights, {point['bits']} bits"
            rows += _errors(judge, name, told.error, point["error_stored"], found["error_continued"])
            for coder, size in point["stored_bytes"].items():
                times, column = found["stored_bytes_dense"] / size, f"times smaller, {CODERS[coder]}"
                rows.append(judge(name, column, told.rate, times, AT_LEAST, unit="x"))
    return rows


CODERS = {"huffman": "Huffman codes", "arithmetic": "arithmetic codes"}


def rise(
    judge: Callable[..., Row],
    name: str,
    error: float | None,
    dense: float | None,
    *,
    over: str = "our own dense network",
) -> Row:
    """What an error has risen by, against `RISE`: a published error may be met with a loss on one's own network.

    >>> rise(Table("han2015", "Table 1").judge, "LeNet-5 pruned", 0.0079, 0.0070).holds
    True
    """
    points = None if error is None or dense is None else figure_checks.percent(error - dense)
    return judge(name, f"rise over {over}", RISE, points, at_most(), unit="points", trust=OURS)


def _errors(judge: Callable[..., Row], name: str, error: str, ours: float, dense: float) -> list[Row]:
    limit = at_most(figure(error).value, f"the paper's dense error, {error} %")
    return [
        judge(name, "test error", error, figure_checks.percent(ours), limit, unit="%"),
        rise(judge, name, ours, dense, over="dense, trained as long"),
    ]
