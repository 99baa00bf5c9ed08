"""What a program says of its speed: which zeros it skips, in how many pieces it runs, and what cuts it."""

from __future__ import annotations

from zeroskip import run


def why(program: run.Program) -> dict[str, object]:
    """For the page; `pieces` are those of the way that was chosen, `tiles` those on tiles where that way lost."""
    explanation = program.explanation
    if explanation is None:
        return {}
    return {
        "timed": explanation.zeros_reached,
        "won": explanation.zeros_won,
        "pieces": explanation.pieces,
        "tiles": explanation.tiles_pieces,
        "between": explanation.between_seconds / (explanation.seconds or 1.0),
        "cuts": [[each.operation, each.count] for each in explanation.between],  # longest first
        "lines": list(explanation.lines),
    }
