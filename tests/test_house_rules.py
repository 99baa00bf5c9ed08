"""The rules of this house, checked on the source itself: who imports whom, what is documented, what is banned."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "zeroskip"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

# Who may import whom (docs/ARCHITECTURE.md). Everybody may import the first row; nobody imports upwards.
FREE = {"errors", "concepts", "files", "task_api"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "concepts": {"errors"},
    "thresholds": {"errors"},
    "task_api": {"errors", "concepts", "files", "thresholds"},
    "patterns": set(),
    "graph": set(),
    "emit": set(),
    "codecs": {"emit"},
    "run_folder": set(),
    "sweep": set(),
    "data": set(),
    "models": set(),
    "measure": {"patterns", "graph", "codecs"},
    "prune": {"patterns", "graph", "measure", "thresholds"},
    "codebooks": set(),
    "retrain": {"patterns", "graph", "codebooks", "prune", "run_folder", "thresholds"},
    "pack": {"codecs"},
    "run": {"graph", "emit", "codecs"},
    "simulate": {"patterns", "graph", "codecs"},
    "bench": {"patterns", "graph", "emit", "data", "models", "run", "tasks"},
    "report": set(),
    "tasks": {"data", "models", "run_folder"},
    "verdict": set(),
    "journey": {"measure", "prune", "retrain", "pack", "run", "run_folder", "report", "verdict"},
    "doctor": {"data", "emit", "run", "report"},
    "papers": {
        "graph",
        "emit",
        "codecs",
        "codebooks",
        "run_folder",
        "models",
        "thresholds",
        "measure",
        "prune",
        "retrain",
        "pack",
    }
    | {"data", "run", "simulate", "tasks"},
    "cli": None,  # words on a terminal may use everything
}
NOUN_INSTEAD = (
    "Pass a noun from concepts.py instead: Layer, Profile, Recipe, Sparse, Packed, Trace, Timing, Record."
)


def package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def zeroskip_imports(tree: ast.AST) -> Iterator[str]:
    """First-level names of zeroskip that a file imports: `from zeroskip.graph import layers` -> "graph"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zeroskip":
            parts = (node.module or "").split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            yield from (one.name.split(".")[1] for one in node.names if one.name.startswith("zeroskip."))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions of the module, and methods of its public classes, without a leading underscore."""
    for node in tree.body:
        bodies = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        for one in bodies:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and not one.name.startswith("_"):
                yield one


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


def test_every_folder_is_in_the_table_of_who_may_import_whom() -> None:
    assert {package(path) for path in FILES} - {"__init__", "__main__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downwards_only(path: Path) -> None:
    own = package(path)
    allowed = MAY_IMPORT.get(own)
    if allowed is None:
        return
    free = FREE if own not in FREE else set()
    wrong = set(zeroskip_imports(TREES[path])) - allowed - free - {own}
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}. {NOUN_INSTEAD}"


def test_public_functions_are_annotated() -> None:
    wrong = []
    for path, tree in TREES.items():
        for function in public(tree):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            named = [one for one in arguments if one.arg not in ("self", "cls")]
            if function.returns is None or any(one.annotation is None for one in named):
                wrong.append(f"{where(path, function)} {function.name}")
    assert not wrong


def test_public_functions_are_documented_in_at_most_15_lines() -> None:
    wrong = []
    for path, tree in TREES.items():
        for function in public(tree):
            text = ast.get_docstring(function)
            if not text or len(text.splitlines()) > 15:
                wrong.append(f"{where(path, function)} {function.name}")
    assert not wrong


def test_public_functions_of_modules_show_an_example() -> None:
    commands = SOURCE / "cli"  # its functions are commands: their docstrings are the --help
    wrong = [
        f"{where(path, one)} {one.name}"
        for path, tree in TREES.items()
        if path.parent != commands
        for one in tree.body
        if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")
        if ">>>" not in (ast.get_docstring(one) or "")
    ]
    assert not wrong


def test_every_file_says_what_it_is_for() -> None:
    assert not [str(path) for path, tree in TREES.items() if not ast.get_docstring(tree)]


def test_no_pickle_is_read_or_written() -> None:
    banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if banned & {name.split(".")[0] for name in names}:
                wrong.append(where(path, node))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "torch.load",
                "torch.save",
                "np.load",
            ):
                wrong.append(where(path, node))
    assert not wrong


def test_nothing_prints_outside_cli_and_report() -> None:
    wrong = [
        where(path, node)
        for path, tree in TREES.items()
        if package(path) not in ("cli", "report")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong


def test_files_stay_under_400_lines_and_functions_under_60() -> None:
    long = [str(path) for path in FILES if len(path.read_text().splitlines()) >= 400]
    long += [
        f"{where(path, one)} {one.name}"
        for path, tree in TREES.items()
        for one in functions(tree)
        if (one.end_lineno or 0) - one.lineno >= 60
    ]
    assert not long


def test_half_of_the_functions_are_under_10_lines_without_their_docstring() -> None:
    def body(one: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        first = one.body[1] if ast.get_docstring(one) and len(one.body) > 1 else one.body[0]
        return (one.end_lineno or 0) - first.lineno + 1

    sizes = sorted(body(one) for tree in TREES.values() for one in functions(tree))
    assert sizes[len(sizes) // 2] < 10


def test_no_file_is_called_utils() -> None:
    assert not [str(path) for path in FILES if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_every_deliberate_error_is_one_of_ours() -> None:
    """Outside tests, `raise` names an error from errors.py, or re-raises."""
    ours = {one.name for one in TREES[SOURCE / "errors.py"].body if isinstance(one, ast.ClassDef)}
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = ast.unparse(node.exc.func).split(".")[-1]
                # Those two are caught a few lines further down and turned into one of ours.
                if name not in ours | {"SystemExit", "ValueError"}:
                    wrong.append(f"{where(path, node)} {name}")
    assert not wrong


def test_the_error_tree_drawn_at_the_top_of_the_file_is_complete() -> None:
    tree = TREES[SOURCE / "errors.py"]
    drawn = ast.get_docstring(tree) or ""
    assert all(one.name in drawn for one in tree.body if isinstance(one, ast.ClassDef))
