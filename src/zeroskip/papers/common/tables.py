"""The rows of one table or figure of a paper: a published figure, ours, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.figure_checks import Verdict, percent
from zeroskip.papers.common.paper import TITLES, title
from zeroskip.papers.common.rules import EQUAL, Figure, Rule, at_most, figure


@dataclass(frozen=True)
class Table:
    """Makes the rows of one table or figure of a paper.

    missing  reason given where a figure is absent
    """

    paper: str
    title: str
    network: str = ""
    missing: str = ""

    def judge(
        self, row: str, column: str, published: Figure, ours: float | None, rule: Rule, reason: str = ""
    ) -> PaperRow:
        """A row of numbers; `reason` is given where it fails.

        >>> Table("han2015", "Table 1").judge("LeNet-5", "error", figure("0.80", "%"), 0.74, at_most()).holds
        True
        """
        holds = None if ours is None else rule.holds(published, ours)
        return PaperRow(
            self.paper,
            self.title,
            row,
            column,
            published=published.value,
            ours=ours,
            holds=holds,
            unit=published.unit,
            rule=rule.text,
            trust=published.trust,
            network=self.network,
            reason=self._reason(holds, reason),
        )

    def fact(
        self, row: str, column: str, published: str, verdict: Verdict, rule: str, reason: str = ""
    ) -> PaperRow:
        """A row of words: what the paper states, and what was found with whether it agrees."""
        ours, holds = verdict or (None, None)
        blank = self.judge(row, column, Figure(0.0, 0.0), None, Rule(rule, EQUAL.holds))
        return replace(blank, published=published, ours=ours, holds=holds, reason=self._reason(holds, reason))

    def _reason(self, holds: bool | None, known: str) -> str:
        return {True: "", False: known, None: self.missing}[holds]


def layer_table(paper: str, network: str, missing: str = "") -> Table:
    """The table of a network's layers, which has the same number in both papers by Han et al."""
    number = 2 + list(TITLES).index(network)
    return Table(paper, f"Table {number}: {title(network)}", network, missing)


PrintedError = tuple[str, float | None]
"""An error as the paper prints it ("" where it has none), in percent, and ours, a share."""


def error_rows(
    table: Table,
    network: str,
    before: Sequence[PrintedError],
    after: Sequence[PrintedError],
    *,
    word: str,
    step: str,
) -> list[PaperRow]:
    """Top-1 and, where the paper has them, top-5 errors of a network before a step and after it.

    >>> before, after = [("0.80", 0.0057)], [("0.77", 0.0065)]
    >>> rows = error_rows(Table("han2015", "Table 1"), "LeNet-5", before, after, word="pruned", step=" pruning")
    >>> [(row.row, row.ours, row.holds) for row in rows]
    [('LeNet-5 ref', 0.57, True), ('LeNet-5 pruned', 0.65, True)]
    """
    dense = before[0][0]
    reference = at_most(figure(dense).value, f"the published error before{step}, {dense} %")
    rows: list[PaperRow] = []
    for kind, (printed, ours), (printed_after, ours_after), rule in zip(
        ("top-1 error", "top-5 error"), before, after, (reference, at_most()), strict=False
    ):
        if printed:
            published, published_after = figure(printed, "%"), figure(printed_after, "%")
            rows.append(table.judge(f"{network} ref", kind, published, percent(ours), at_most()))
            rows.append(table.judge(f"{network} {word}", kind, published_after, percent(ours_after), rule))
    return rows
