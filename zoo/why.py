"""What a program says about itself: which zeros it skips, in how many pieces it runs."""

from __future__ import annotations

from zeroskip import run


def why(program: run.Program) -> dict[str, object]:
    """Placeholder of what comes."""
    return {}
