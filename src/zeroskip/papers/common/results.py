"""Findings of a long run as one JSON file, with where, when and how they were found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from zeroskip import files
from zeroskip.concepts import PaperOrigin
from zeroskip.errors import FileError, RunError
from zeroskip.papers.common.paper import Findings

PAPERS = Path(__file__).parent.parent  # each with a folder of its own


@dataclass(frozen=True)
class PaperResult:
    """What was found on one network for one paper; findings.py of the paper says what is in `findings`.

    >>> PaperResult("eie", "eie-fc8", "2026-01-31", "Xeon", "zeroskip reproduce eie", 1, {"cycles": 7865}).origin.seeds
    1
    """

    paper: str
    network: str
    date: str
    machine: str
    command: str
    seeds: int
    findings: Findings

    @property
    def origin(self) -> PaperOrigin:
        """Where the findings come from."""
        return PaperOrigin(self.paper, self.network, self.date, self.machine, self.command, self.seeds)


def results_folder(paper: str) -> Path:
    """Where the findings of a paper lie in a source checkout; RunError where zeroskip is installed otherwise.

    >>> results_folder("deep-compression").relative_to(PAPERS)
    PosixPath('deep_compression/results')
    """
    checkout = PAPERS.parents[2]
    if not (checkout / "pyproject.toml").is_file() or PAPERS.parents[1].name != "src":
        raise RunError(
            f"zeroskip runs from {PAPERS.parent}, which is no source checkout: findings that come with it are not "
            "replaced there. Give --out RUN without --keep."
        )
    return PAPERS / paper.replace("-", "_") / "results"


def store(folder: str | Path, result: PaperResult) -> Path:
    """Write `reproduce-PAPER-NETWORK.json` into `folder`, whole or not at all.

    >>> result = PaperResult("han2015", "lenet-5", "2026-01-31", "M", "zeroskip reproduce han2015", 3, {})
    >>> store("runs/han", result)
    PosixPath('runs/han/reproduce-han2015-lenet-5.json')
    """
    return files.write_json(_place(folder, result.paper, result.network), asdict(result))


def stored(folder: str | Path, paper: str, network: str, seeds: int) -> PaperResult | None:
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


def committed() -> list[PaperResult]:
    """The findings that come with zeroskip, each with its date and machine.

    >>> [result.network for result in committed()]
    ['lenet-300-100', 'lenet-5', ...]
    """
    return [_read(path) for path in sorted(PAPERS.glob("*/results/reproduce-*.json"))]


def load(path: str | Path) -> list[PaperResult]:
    """The result in a file, or those of all reproduce-*.json in a folder, by name.

    Raises FileError where there is none, or where it has another form.

    >>> path = store("runs/han", PaperResult("han2015", "lenet-5", "2026-01-31", "M", "", 3, {}))
    >>> [result.network for result in load("runs/han")]
    ['lenet-5']
    """
    path = Path(path)
    files_found = sorted(path.glob("reproduce-*.json")) if path.is_dir() else [path]
    if not files_found:
        raise FileError(
            f"{path} holds no reproduce-*.json. Run `zeroskip reproduce PAPER --out {path}` first."
        )
    return [_read(file) for file in files_found]


def _place(folder: str | Path, paper: str, network: str) -> Path:
    return Path(folder) / f"reproduce-{paper}-{network}.json"


def _read(path: Path) -> PaperResult:
    value = files.read_json(path)
    try:
        known = {field.name for field in fields(PaperResult)}
        if not isinstance(value, dict) or set(value) != known:
            raise ValueError(f"it is no object with {', '.join(sorted(known))}")
        result = PaperResult(**value)
        if not isinstance(result.findings, dict):
            raise ValueError("they are no object")
    except (TypeError, ValueError) as fact:
        message = f"{path} holds no findings of `zeroskip reproduce`: {fact}. Name another file."
        raise FileError(message) from None
    return result
