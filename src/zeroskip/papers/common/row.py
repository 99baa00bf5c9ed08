"""One row of a reproduction: a published figure, ours beside it, and the rule that says whether it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zeroskip.papers.common.figure_checks import percent

READ = "read in the paper"
RECOMPUTED = "recomputed from the paper's figures"

_SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
_SLACK = 1 + 1e-9  # a difference of exactly the tolerance is within it, whatever floating point says


@dataclass(frozen=True)
class Figure:
    """A number as printed: its value, and what one step of its last digit is worth."""

    value: float
    digit: float


@dataclass(frozen=True)
class Rule:
    """What "holds" means: `holds(published, ours)`, and the same in words."""

    text: str
    holds: Callable[[Figure, float], bool]


@dataclass(frozen=True)
class Row:
    """Published beside ours. `ours` and `holds` are None where nothing was measured; `reason` says why.

    published, ours  numbers in `unit`, or short texts where the paper states a fact
    rule             what holds means;  trust  how the published figure is known
    reason           why it was not measured, or what is known about a row that fails
    network          which network the row is about, "" for none
    """

    paper: str
    table: str
    row: str
    column: str
    published: float | str
    ours: float | str | None
    holds: bool | None
    unit: str
    rule: str
    trust: str = READ
    network: str = ""
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus published, in `unit`; None where one of them is no number."""
        if isinstance(self.published, str) or self.ours is None or isinstance(self.ours, str):
            return None
        return self.ours - self.published

    def to_json(self) -> dict[str, Any]:
        """All fields, with the difference after `ours`.

        >>> list(row.to_json())[:8]
        ['paper', 'table', 'row', 'column', 'published', 'ours', 'difference', 'holds']
        """
        fields = asdict(self)
        first = {key: fields.pop(key) for key in ("paper", "table", "row", "column", "published", "ours")}
        return {**first, "difference": self.difference, **fields}


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
        self,
        row: str,
        column: str,
        printed: str,
        ours: float | None,
        rule: Rule,
        *,
        unit: str = "",
        trust: str = READ,
        reason: str = "",
    ) -> Row:
        """A row of numbers, `printed` as the paper prints it: "38M", "2.32".

        >>> Table("han2015", "Table 4").judge("fc1", "weights", "38M", 37_748_736, LAST_DIGIT).holds
        True
        """
        published = figure(printed)
        holds = None if ours is None else rule.holds(published, ours)
        where = (self.paper, self.title, row, column)
        reason = self._reason(holds, reason)
        return Row(*where, published.value, ours, holds, unit, rule.text, trust, self.network, reason)

    def fact(
        self,
        row: str,
        column: str,
        published: str,
        found: tuple[str, bool] | None,
        rule: str,
        reason: str = "",
    ) -> Row:
        """A row of words: what the paper states, and what was found with whether it agrees.

        >>> Table("han2015", "Figure 6").fact("conv1", "rank", "first", ("first", True), "the same").holds
        True
        """
        ours, holds = found or (None, None)
        where = (self.paper, self.title, row, column)
        reason = self._reason(holds, reason)
        return Row(*where, published, ours, holds, "", rule, READ, self.network, reason)

    def _reason(self, holds: bool | None, known: str) -> str:
        return {True: "", False: known, None: self.missing}[holds]


def figure(printed: str) -> Figure:
    """A printed number with its precision; K, M and B are thousands, millions and billions.

    >>> figure("0.5K")
    Figure(value=500.0, digit=100.0)
    """
    match = re.fullmatch(r"(-?[\d,]+(?:\.(\d+))?)([KMB]?)", printed)
    assert match, printed
    number, decimals, letter = match.groups()
    scale = _SCALES[letter]
    # Rounded, so that 0.07 is 0.07 after a multiplication too.
    return Figure(round(float(number.replace(",", "")) * scale, 6), scale * 10.0 ** -len(decimals or ""))


def within(tolerance: float, words: str) -> Rule:
    """Ours differs from the published figure by at most `tolerance`.

    >>> within(1, "1 point").text
    'within 1 point'
    """
    return Rule(f"within {words}", lambda told, ours: abs(ours - told.value) <= tolerance * _SLACK)


def within_share(share: float) -> Rule:
    """Ours differs from the published figure by at most this share of it.

    >>> within_share(0.02).text
    'within 2 % of the published figure'
    """
    return Rule(
        f"within {100 * share:g} % of the published figure",
        lambda told, ours: abs(ours - told.value) <= share * abs(told.value) * _SLACK,
    )


def at_most(limit: float | None = None, words: str = "the published figure", slack: float = 0.0) -> Rule:
    """Ours is no more than `limit`, or than the published figure plus `slack`.

    >>> at_most().text
    'at most the published figure'
    """
    return Rule(
        f"at most {words}",
        lambda told, ours: ours <= (told.value if limit is None else limit) + slack + 1e-9,
    )


def at_least(words: str = "the published figure", slack: float = 0.0) -> Rule:
    """Ours is no less than the published figure minus `slack`.

    >>> at_least().text
    'at least the published figure'
    """
    return Rule(f"at least {words}", lambda told, ours: ours >= told.value - slack)


AT_LEAST = at_least()
ROUNDS = Rule(
    "rounds to the published figure", lambda told, ours: abs(ours - told.value) <= told.digit / 2 * _SLACK
)
LAST_DIGIT = Rule(
    "within one step of the last digit printed",
    lambda told, ours: abs(ours - told.value) <= told.digit * _SLACK,
)
EQUAL = Rule("equal", lambda told, ours: ours == told.value)


Printed = tuple[str, float | None]
"""A figure as the paper prints it ("" where it has none), and ours, a share."""


def error_rows(
    table: Table, network: str, word: str, before: Sequence[Printed], after: Sequence[Printed], *, what: str
) -> list[Row]:
    """Top-1 and, where the paper has them, top-5 errors of a network before `what` and after it, as `word`.

    >>> error_rows(table, "LeNet-5", "pruned", [("0.80", 0.0057)], [("0.77", 0.0065)], what="pruning")[0].ours
    0.57
    """
    printed = before[0][0]
    reference = at_most(figure(printed).value, f"the published error before{what}, {printed} %")
    rows: list[Row] = []
    for kind, (told, ours), (told_after, found), rule in zip(
        ("top-1 error", "top-5 error"), before, after, (reference, at_most()), strict=False
    ):
        if told:
            rows.append(table.judge(f"{network} ref", kind, told, percent(ours), at_most(), unit="%"))
            rows.append(table.judge(f"{network} {word}", kind, told_after, percent(found), rule, unit="%"))
    return rows
