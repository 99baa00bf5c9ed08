"""Words on a terminal: every command prints a table, `--json` prints the same for machines.

words.py      the app, shared options, how things are shown
steps.py      the whole journey; pack, unpack, run, report, doctor
measure.py    what a network costs, and where its zeros are
prune.py      zeros in weights or in activations
simulate.py   what zeros are worth on described hardware
papers.py     published tables beside ours
bench.py      every engine on this machine, raced
"""

from __future__ import annotations

import sys
import warnings

from rich.console import Console

from zeroskip.cli import bench, measure, prune, reproduce, simulate, steps  # noqa: F401  they add their commands to the app
from zeroskip.cli.options import app, note
from zeroskip.errors import ZeroskipError

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: errors of ours, one sentence each, exit status 1; no traceback.

    >>> main()
    """
    warnings.simplefilter("ignore")  # libraries' own; ours are notes to the user
    warnings.filterwarnings("always", module=r"zeroskip(\.|$)")
    warnings.showwarning = lambda message, *_, **__: note(str(message))
    try:
        app(prog_name="zeroskip")
    except ZeroskipError as fact:
        Console(stderr=True).print(
            f"error: {fact}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)
