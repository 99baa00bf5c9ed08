"""A table as data, so that the terminal, the HTML page and Markdown show the same cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod
from rich.table import Table
from rich.text import Text

_STYLES = {"loss": "bold yellow", "win": "green"}
_PARTS = re.compile(r"(?<=[._/-])(?=[^\W\d_])")


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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """The rich table, as wide as the terminal at most; cells are plain text, whatever brackets they hold."""
        columns = [self._lines(place) for place in range(len(self.columns))]
        widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
        least = [max(map(cell_len, _pieces(" ".join(column))), default=1) for column in columns]
        between = 3 * len(least) - 1  # columns of spaces
        narrow = sum(least) + between > options.max_width
        widths = _narrowed(widths, least, options.max_width - (2 * len(least) if narrow else between))
        table = Table(title=Text(self.title, "bold"), caption=Text(self.note) if self.note else None)
        table.box, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, (0, 1, 0, 0 if narrow else 1)
        table.title_justify = table.caption_justify = "left"
        for place, width in enumerate(widths):
            heading = Text(_folded(columns[place][0], width))
            justify: JustifyMethod = "left" if self._is_words(place) else "right"
            table.add_column(heading, justify=justify, overflow="fold", width=width)
        for number, row in enumerate(self.rows):
            mark = self.marks.get(number, "")
            *cells, last = (Text(_folded(cell, width)) for cell, width in zip(row, widths, strict=True))
            last.stylize(_STYLES.get(mark, ""))
            table.add_row(*cells, last, style="bold" if mark == "total" else None)
        yield table

    def _is_words(self, place: int) -> bool:
        return place == 0 or self.columns[place] in self.prose

    def _lines(self, place: int) -> list[str]:
        """The heading of a column and its cells; on two lines a heading is as narrow as its numbers."""
        heading = self.columns[place]
        heading = heading if self._is_words(place) else heading.replace(" ", "\n", 1)
        return [heading, *(row[place] for row in self.rows)]


def _narrowed(widths: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    """The widths, made to sum to `most`: the widest gives first, and none gives below its least while another can.

    >>> _narrowed([5, 40, 20], [5, 10, 20], 45)
    [5, 20, 20]
    """
    widths = list(widths)
    while sum(widths) > max(most, len(widths)):
        giving = [place for place, width in enumerate(widths) if width > least[place]] or range(len(widths))
        widths[max(giving, key=widths.__getitem__)] -= 1
    return widths


def _pieces(text: str) -> list[str]:
    """Its words; names also part at dots, slashes, dashes and underscores before a letter."""
    return [piece for word in text.split() for piece in _PARTS.split(word)]


def _folded(text: str, width: int) -> str:
    """The text in lines of a width, broken between words, and within a word only where it is wider than a line.

    >>> _folded("torch.compile of lstm.weight_ih_l0", 14)
    'torch.compile\\nof lstm.\\nweight_ih_l0'
    """
    lines = []
    for given in text.split("\n"):
        line = ""
        for word in given.split(" "):
            parts = [word] if cell_len(word) <= width else _PARTS.split(word)
            for number, part in enumerate(parts):
                longer = f"{line} {part}" if line and number == 0 else line + part
                if line and cell_len(longer) > width:
                    lines.append(line)
                    longer = part
                line = longer
        lines.append(line)
    return "\n".join(lines)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, for the generated pages of docs/.

    >>> print(markdown_table(["layer"], [["conv1"]]), end="")
    | layer |
    |---|
    | conv1 |
    """
    head, *lines = (f"| {' | '.join(cells)} |\n" for cells in (columns, *rows))
    return "".join([head, "|" + "---|" * len(columns) + "\n", *lines])
