"""What thresholds on the inputs of layers remove, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count, show_error, show_share

COLUMNS = (
    "layer",
    "threshold",
    "MACs",
    "of them with non-zero input",
    "after thresholds",
    "removed of these",
)


def threshold_table(figures: Mapping[str, Any]) -> Grid:
    """One line for each layer, and all of them: what is multiplied for one example, zero weights not counted.

    figures  {"before": {"error": ..., "layers": {layer: {"macs": ..., "nonzero": ...}}}, "after": the same,
    "thresholds": {layer: theta}}, as `asdict` makes them of a search's outcome

    >>> Console().print(threshold_table(figures))
    """
    before, after = figures["before"], figures["after"]
    cells = [
        _cells(name, figures["thresholds"].get(name, 0.0), one, after["layers"][name])
        for name, one in before["layers"].items()
    ]
    whole = [
        {key: sum(one[key] for one in side["layers"].values()) for key in ("macs", "nonzero")}
        for side in (before, after)
    ]
    cells.append(_cells("all", None, *whole))
    note = f"validation error {show_error(before['error'])} -> {show_error(after['error'])}"
    return Grid("Small activations pruned", COLUMNS, tuple(cells), note, marks={len(cells) - 1: "total"})


def _cells(
    name: str, theta: float | None, before: Mapping[str, float], after: Mapping[str, float]
) -> tuple[str, ...]:
    some, left = before["nonzero"], after["nonzero"]
    return (
        name,
        "" if theta is None else f"{theta:.3g}",
        show_count(round(before["macs"])),
        show_count(round(some)),
        show_count(round(left)),
        show_share(1 - left / some if some else 0.0),
    )
