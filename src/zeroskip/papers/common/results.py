"""Findings of a long run as one JSON file, with where, when and how they were found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zeroskip import files
from zeroskip.errors import FileError, RunError

PAPERS = Path(__file__).parent.parent  # each with a folder of its own


@dataclass(frozen=True)
class Result:
    """What was found on one network for one paper; `findings` is described in the paper's own file."""

    paper: str
    network: str
    date: str
    machine: str
    command: str
    seeds: int
    findings: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """Where the findings come from, in one line."""
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"{self.paper}, {self.network}: {self.date}, {self.machine}, {seeds}, `{self.command}`"


def store(folder: str | Path, result: Result) -> Path:
    """Write `reproduce-PAPER-NETWORK.json` into `folder`, whole or not at all.

    >>> store("runs/han", result)
    PosixPath('runs/han/reproduce-han2015-lenet-5.json')
    """
    return files.write_json(_place(folder, result.paper, result.network), asdict(result))


def stored(folder: str | Path, paper: str, network: str, seeds: int) -> Result | None:
    """What `store` left in `folder`, if anything; RunError where it was found with other seeds.

    >>> stored("runs/han", "han2015", "lenet-5", 3) is None
    True
    """
    path = _place(folder, paper, network)
    if not path.exists():
        return None
    result = _read(path)
    if result.seeds != seeds:
        raise RunError(
            f"{path} was found with {result.seeds} seeds, not {seeds}. Choose another --out, or delete the file."
        )
    return result


def committed() -> list[Result]:
    """The findings that come with zeroskip, each with its date and machine.

    >>> [one.network for one in committed()]
    ['lenet-300-100', 'lenet-5', ...]
    """
    return [_read(one) for one in sorted(PAPERS.glob("*/results/reproduce-*.json"))]


def load(path: str | Path) -> list[Result]:
    """The result in a file, or those of all reproduce-*.json in a folder, by name.

    Raises FileError where there is none, or where it has another form.

    >>> [one.network for one in load("runs/reproduce")]
    ['lenet-300-100', 'lenet-5']
    """
    path = Path(path)
    found = sorted(path.glob("reproduce-*.json")) if path.is_dir() else [path]
    if not found:
        raise FileError(
            f"{path} holds no reproduce-*.json. Run `zeroskip reproduce PAPER --out {path}` first."
        )
    return [_read(one) for one in found]


def _place(folder: str | Path, paper: str, network: str) -> Path:
    return Path(folder) / f"reproduce-{paper}-{network}.json"


def _read(path: Path) -> Result:
    value = files.read_json(path)
    try:
        result = Result(**value)
    except TypeError as fact:
        raise FileError(
            f"{path} holds no findings of `zeroskip reproduce`: {fact}. Name another file."
        ) from None
    if not isinstance(result.findings, dict):
        raise FileError(
            f"{path} holds no findings of `zeroskip reproduce`: they are no object. Name another file."
        )
    return result
