"""What the documents say of files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "src").rglob("*.py"))
# Files that a user writes, and one of the authors of Deep Compression.
ELSEWHERE = {"my_chip.py", "my_task.py", "COMMAND.py", "decode.py"}


def described(path: Path) -> str:
    """The text of a document, or the docstrings of a module."""
    if path.suffix == ".md":
        return path.read_text()
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return "\n".join(filter(None, map(ast.get_docstring, nodes)))


@pytest.fixture(scope="module")
def files() -> list[str]:
    folders = [ROOT / name for name in ("src", "tests", "benchmarks", "examples")]
    return [path.as_posix() for folder in folders for path in folder.rglob("*.py")]


def test_every_module_that_is_named_exists(files: list[str]) -> None:
    named = {(path.name, name) for path in DOCUMENTS for name in re.findall(r"[\w/]+\.py\b", described(path))}
    missing = {(document, name) for document, name in named if name not in ELSEWHERE
               and not any(file.endswith(f"/{name}") for file in files)}  # fmt: skip
    assert not missing
