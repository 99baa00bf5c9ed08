"""Tables in Markdown, for the generated pages of docs/."""

from __future__ import annotations

from collections.abc import Sequence


def table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(table(["layer"], [["conv1"]]), end="")
    | layer |
    |---|
    | conv1 |
    """
    lines = [columns, ["---"] * len(columns), *cells]
    return "".join(
        f"|{'|'.join(line)}|\n" if line[0] == "---" else f"| {' | '.join(line)} |\n" for line in lines
    )
