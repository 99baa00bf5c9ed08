"""A table as data, so that the terminal, the HTML page and Markdown show the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich import box
from rich.table import Table
from rich.text import Text

_STYLES = {"loss": "bold yellow", "win": "green"}


@dataclass(frozen=True)
class Grid:
    """Columns and rows of text; rich prints it, and the HTML page shows the same.

    prose  columns of words: left-aligned, and they may wrap; the first column always is one
    marks  row number -> "win" or "loss", which colours the row's last cell, or "total"

    >>> from rich.console import Console
    >>> Console(width=40).print(Grid("counts", ("layer", "weights"), (("fc1", "19,200"),)))
    counts
    <BLANKLINE>
     layer   weights
     ───────────────
     fc1      19,200
    <BLANKLINE>
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    prose: tuple[str, ...] = ()
    marks: Mapping[int, str] = field(default_factory=dict)

    def without(self, column: str) -> Grid:
        """The same without a column.

        >>> Grid("counts", ("layer", "weights"), (("fc1", "19,200"),)).without("weights").rows
        (('fc1',),)
        """
        place = self.columns.index(column)
        columns, *rows = ((*row[:place], *row[place + 1 :]) for row in (self.columns, *self.rows))
        return replace(self, columns=columns, rows=tuple(rows))

    def __rich__(self) -> Table:
        """The rich table; cells are plain text, whatever brackets they hold."""
        table = Table(title=Text(self.title, "bold"), caption=Text(self.note) if self.note else None)
        table.box, table.pad_edge = box.SIMPLE_HEAD, False
        table.title_justify = table.caption_justify = "left"
        for place, column in enumerate(self.columns):
            words = place == 0 or column in self.prose
            # A heading on two lines is as narrow as its numbers and leaves the width to the words.
            heading = column if words else column.replace(" ", "\n", 1)
            table.add_column(Text(heading), justify="left" if words else "right", overflow="fold")
        for number, row in enumerate(self.rows):
            mark = self.marks.get(number, "")
            cells = [*map(Text, row[:-1]), Text(row[-1], _STYLES.get(mark, ""))]
            table.add_row(*cells, style="bold" if mark == "total" else None)
        return table


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, for the generated pages of docs/.

    >>> print(markdown_table(["layer"], [["conv1"]]), end="")
    | layer |
    |---|
    | conv1 |
    """
    head, *lines = (f"| {' | '.join(cells)} |\n" for cells in (columns, *rows))
    return "".join([head, "|" + "---|" * len(columns) + "\n", *lines])
