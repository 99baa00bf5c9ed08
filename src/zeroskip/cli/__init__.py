"""Words on a terminal: every command prints a table, `--json` prints the same for machines.

options.py            the app, shared options, how results are shown
COMMAND.py            a command, or a few that belong together: pack.py has unpack too
"""

from __future__ import annotations

import sys
import warnings

from rich.console import Console

# isort: off
from zeroskip.cli import sparsify, measure, prune, compare_plans, pack, run, export, simulate  # noqa: F401  the order of --help
from zeroskip.cli import report, reproduce, bench, doctor  # noqa: F401

# isort: on
from zeroskip.cli.options import app, note
from zeroskip.errors import ZeroskipError

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: errors of ours, one sentence each, exit status 1; no traceback.

    >>> import sys
    >>> sys.argv = ["zeroskip", "report", "runs/none"]
    >>> main()
    Traceback (most recent call last):
    SystemExit: 1
    """
    warnings.simplefilter("ignore")  # libraries' own; ours are notes to the user
    warnings.filterwarnings("always", module=r"zeroskip(\.|$)")
    warnings.showwarning = lambda message, *_, **__: note(str(message))
    try:
        app(prog_name="zeroskip")
    except ZeroskipError as fact:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"error: {fact}", style="red", markup=False, highlight=False)
        sys.exit(1)
