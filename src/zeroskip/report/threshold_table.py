"""What thresholds on the inputs of layers remove, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count, show_error, show_share

if TYPE_CHECKING:
    from zeroskip.prune import ActivationPruning

COLUMNS = (
    "layer",
    "threshold",
    "MACs",
    "of them with non-zero input",
    "after thresholds",
    "removed of these",
)


def threshold_table(pruning: ActivationPruning) -> Grid:
    """One line for each layer, and all of them: what is multiplied for one example, zero weights not counted.

    >>> from zeroskip.prune import ActivationPruning, Judged, LayerMacs
    >>> before = Judged({}, 0.02, {"fc1": LayerMacs(1000.0, 400.0)})
    >>> after = Judged({"fc1": 0.5}, 0.025, {"fc1": LayerMacs(1000.0, 100.0)})
    >>> threshold_table(ActivationPruning(before, after, max_error=0.03, history=())).rows[0]
    ('fc1', '0.5', '1,000', '400', '100', '75.0 %')
    """
    before, after = pruning.before, pruning.after
    cells = [
        _cells(
            name,
            f"{pruning.thresholds.get(name, 0.0):.3g}",
            work.macs,
            work.nonzero,
            after.layers[name].nonzero,
        )
        for name, work in before.layers.items()
    ]
    macs = sum(work.macs for work in before.layers.values())
    cells.append(_cells("all", "", macs, before.nonzero, after.nonzero))
    note = f"validation error {show_error(before.error)} -> {show_error(after.error)}"
    return Grid("Small activations pruned", COLUMNS, tuple(cells), note, marks={len(cells) - 1: "total"})


def _cells(name: str, theta: str, macs: float, nonzero: float, left: float) -> tuple[str, ...]:
    removed = show_share(1 - left / nonzero if nonzero else 0.0)
    return (name, theta, *(show_count(round(number)) for number in (macs, nonzero, left)), removed)
