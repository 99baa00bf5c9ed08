"""The command that looks at this machine. Its docstring is the --help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zeroskip.cli.options import DATA, JSON, app, show, use_data


@app.command()
def doctor(data: Annotated[Path | None, DATA] = None, as_json: Annotated[bool, JSON] = False) -> None:
    """This machine: what it has, what each precision would use on it, which data sets are found."""
    from zeroskip.doctor import examine
    from zeroskip.doctor import show as table
    from zeroskip.emit import detect

    use_data(data)
    examination = examine(detect())
    show(examination.to_json(), table(examination), as_json=as_json)
