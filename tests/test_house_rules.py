"""The rules of this house, checked on the source itself: who imports whom, what is documented, what is banned."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "zeroskip"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

# Who may import whom (docs/ARCHITECTURE.md). Everybody may import the first row; nobody imports upwards.
FREE = {"errors", "concepts", "files", "task_api"}
MAY_IMPORT: dict[str, set[str] | None] = {
    "errors": set(),
    "files": {"errors"},
    "concepts": {"errors"},
    "held": {"errors"},
    "thresholds": {"errors", "held"},
    "task_api": {"errors", "concepts", "files", "thresholds", "graph"},
    "patterns": set(),
    "graph": {"held"},
    "emit": set(),
    "codecs": {"emit"},
    "run_folder": set(),
    "sweep": set(),
    "data": set(),
    "models": set(),
    "measure": {"patterns", "graph", "codecs", "emit"},
    "prune": {"patterns", "graph", "measure", "thresholds", "held"},
    "codebooks": {"held"},
    "retrain": {"patterns", "graph", "codebooks", "prune", "run_folder", "thresholds"},
    "pack": {"codecs"},
    "run": {"graph", "emit", "codecs"},
    "simulate": {"patterns", "graph", "codecs", "emit"},
    "bench": {"patterns", "graph", "emit", "data", "models", "run", "tasks"},
    "exploration": {"patterns", "measure", "prune", "retrain", "simulate", "tasks", "sweep"},
    "report": {"measure", "prune", "simulate", "exploration", "bench"},  # their nouns, which it shows
    "tasks": {"data", "models", "run_folder"},
    "verdict": set(),
    "outcome": {"measure", "run", "verdict"},
    "journey": {"measure", "prune", "retrain", "pack", "run", "run_folder", "report", "outcome"},
    "doctor": {"data", "graph", "emit", "run", "report"},
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
    }
    | {"retrain", "pack", "data", "run", "simulate", "tasks"},
    "cli": None,  # words on a terminal may use everything
}
# The same inside rooms that have rooms. Files that stand alone are rooms too; "__init__" and what is not listed
# may import all of them.
INSIDE: dict[str, dict[str, set[str]]] = {
    "run": {
        "argument_block": set(),
        "call_checks": set(),
        "captured": set(),
        "change_watch": set(),
        "dense": set(),
        "element": set(),
        "measurement": set(),
        "output_difference": set(),
        "timing": set(),
        "linear": {"argument_block", "dense"},
        "convolution": {"argument_block", "captured", "dense", "element", "timing"},
        "recurrent": {"argument_block", "dense", "linear"},
        "linear_quads": {"argument_block", "convolution", "dense", "element", "integer_reference", "linear"},
        "kernels": {"convolution", "dense", "linear", "linear_quads", "recurrent"},
        "runner": {"linear"},
        "program_bytes": {"measurement"},
        "quantisation": {"element", "measurement", "program_bytes"},
        "value_ranges": {"element"},
        "fused_multiply_add": {"convolution"},
        "integer_reference": {"convolution", "element", "fused_multiply_add"},
        "integer_network": {"convolution", "element", "integer_reference", "quantisation", "runner"},
        "layer_scales": {"element", "integer_network", "linear_quads", "quantisation"},
        "padding": {"call_checks", "measurement"},
        "program": {
            "call_checks",
            "convolution",
            "integer_network",
            "measurement",
            "padding",
            "quantisation",
            "runner",
        },
        "select": {"captured", "convolution", "dense", "element", "linear", "output_difference"}
        | {"integer_network", "layer_scales", "program", "quantisation", "runner", "timing"},
        "building": {"captured", "convolution", "dense", "element", "integer_network", "program", "runner"},
        "network_checks": {"call_checks", "captured", "output_difference", "runner", "select"},
        "unreached": {"captured", "measurement"},
        "part_timing": {"captured", "convolution", "program", "runner", "timing"},
        "explaining": {"captured", "convolution", "measurement", "part_timing"},
        "possible_gains": {"convolution", "element", "explaining"},
    },
    "run.convolution": {"tiles": set(), "zero_inputs": set()},
}
NOUN_INSTEAD = (
    "Pass a noun from concepts/ instead: Layer, Profile, Recipe, Sparse, Packed, Trace, Timing, Record."
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


def test_the_table_of_architecture_md_says_who_may_import_whom() -> None:
    text, said = (ROOT / "docs" / "ARCHITECTURE.md").read_text(), {}
    for rooms, arrows_ in re.findall(r"^\| (`[^|]*`) \| [^|]* \| ([^|]*) \|[^|]*\|$", text, re.MULTILINE):
        for room in re.findall(r"`(\w+)`", rooms):
            said[room] = None if arrows_ == "everything" else set(re.findall(r"`(\w+)`", arrows_))
    assert {name: may and may - FREE for name, may in said.items()} == {
        name: may and may - FREE for name, may in MAY_IMPORT.items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downwards_only(path: Path) -> None:
    own = package(path)
    allowed = MAY_IMPORT.get(own)
    if allowed is None:
        return
    free = FREE if own not in FREE else set()
    wrong = set(zeroskip_imports(TREES[path])) - allowed - free - {own}
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}. {NOUN_INSTEAD}"


def module_of(path: Path) -> tuple[str, ...]:
    """("run", "linear", "stored_weights"); a package's own file ends with "__init__"."""
    return tuple(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = {module_of(path): path for path in FILES}


def imported_modules(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules of zeroskip that a file imports, anywhere in it."""
    for node in ast.walk(TREES[path]):
        dotted: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zeroskip":
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names if alias.name.startswith("zeroskip.")]
        for name in dotted:
            parts = tuple(name.split(".")[1:])
            forms = (parts, (*parts, "__init__"), parts[:-1], (*parts[:-1], "__init__"))
            yield from [form for form in forms if form in MODULES][:1]


def arrows(room: tuple[str, ...]) -> dict[str, set[str]]:
    """Which children of a room import which others."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module[: len(room)] != room:
            continue
        child = module[len(room)]
        found.setdefault(child, set())
        for other in imported_modules(path):
            if other[: len(room)] == room and len(other) > len(room) and other[len(room)] != child:
                found[child].add(other[len(room)])
    return found


ROOMS = sorted({module[:-1] for module in MODULES})


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: ".".join(room) or "zeroskip")
def test_inside_every_room_imports_form_no_circle(room: tuple[str, ...]) -> None:
    left = arrows(room)
    while leaves := [child for child, others in left.items() if not others & set(left)]:
        for child in leaves:
            del left[child]
    assert not left, {child: others & set(left) for child, others in left.items()}


@pytest.mark.parametrize("room", sorted(INSIDE))
def test_rooms_inside_rooms_import_downwards_only(room: str) -> None:
    allowed, found = INSIDE[room], arrows(tuple(room.split(".")))
    assert set(allowed) <= set(found), "a room of the table is gone"
    wrong = {child: found[child] - may for child, may in allowed.items() if found[child] - may}
    assert not wrong


def test_a_paper_imports_common_and_the_catalogue_imports_papers() -> None:
    found = arrows(("papers",))
    papers = {child for child in found if (SOURCE / "papers" / child / "published.py").exists()}
    beyond_common: dict[str, set[str]] = {name: set() for name in papers} | {
        "common": set(),
        "published_shares": {"eyeriss", "han2015"},
        "deep_compression": {"han2015"},
        "cambricon_s": {"eie", "han2015", "published_shares"},
        "cnvlutin": {"published_shares"},
        "extensor": {"published_shares"},
        "scnn": {"published_shares"},
        "sparten": {"eyeriss_v2", "published_shares", "scnn"},
        "catalogue": papers,
        "__init__": {"catalogue", "eyeriss"},
    }
    assert {name: others - {"common"} for name, others in found.items()} == beyond_common
    # Functions that are imported when they are called are named by texts, and are the paper's own.
    for name in papers:
        called = re.findall(r'later\(\s*"([\w.]+)"', (SOURCE / "papers" / name / "__init__.py").read_text())
        assert called
        assert all(module.startswith(f"zeroskip.papers.{name}.") for module in called)


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


def exported(path: Path) -> list[str]:
    """The names in a package's `__all__`."""
    for node in TREES[path].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def defined(path: Path, name: str) -> ast.AST | None:
    """The function or class that a package exports under a name, looked for where it is imported from."""
    for node in TREES[path].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            parts = tuple((node.module or "").split(".")[1:])
            source = MODULES.get(parts) or MODULES.get((*parts, "__init__"))
            return defined(source, name) if source and source != path else None
    return None


def examples(node: ast.AST) -> list[str]:
    """The docstrings with an example of a function, or of a class and its methods."""
    holders = [one for one in ast.walk(node) if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    return [text for text in map(ast.get_docstring, holders) if text and ">>>" in text]


def test_every_function_and_class_in_an_all_shows_an_example() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} {name}"
        for path in FILES
        if path.name == "__init__.py"
        for name in exported(path)
        if (node := defined(path, name)) is not None and not examples(node)
    ]
    assert not wrong


def test_at_least_500_examples_are_shown() -> None:
    assert sum(len(examples(node)) for tree in TREES.values() for node in tree.body) >= 500


# Functions that may take more than six parameters, and why.
MANY_PARAMETERS = {
    "run/compiler.py compile": "what a user asks of a program; each keyword is independent and has a default",
    "run/comparison.py compare": "likewise; of engines, rounds and threads most calls name none",
}


def test_functions_take_at_most_six_parameters() -> None:
    """The commands of the terminal aside, whose parameters are their options."""
    found = set()
    for path, tree in TREES.items():
        for function in functions(tree):
            named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            count = len([one for one in named if one.arg not in ("self", "cls")])
            command = package(path) == "cli" and any(
                "command" in ast.unparse(d) for d in function.decorator_list
            )
            if count > 6 and not command:
                found.add(f"{path.relative_to(SOURCE)} {function.name}")
    assert found == set(MANY_PARAMETERS)
    assert len(found) <= 10


def test_no_two_modules_define_public_names_that_look_the_same() -> None:
    """Classes and type aliases: one word has one meaning."""
    where_defined: dict[str, list[str]] = {}
    for path, tree in TREES.items():
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [
                one.id for one in targets if isinstance(one, ast.Name) and re.match("[A-Z][a-z]", one.id)
            ]
            names += [node.name] if isinstance(node, ast.ClassDef) else []
            for name in names:
                if not name.startswith("_"):
                    where_defined.setdefault(name, []).append(str(path.relative_to(SOURCE)))
    assert not {name: files for name, files in where_defined.items() if len(files) > 1}


def test_few_lines_say_any() -> None:
    lines = [line for path in FILES for line in path.read_text().splitlines() if re.search(r"\bAny\b", line)]
    assert len(lines) < 150
    assert len([line for line in lines if re.search(r"(dict|Mapping)\[str, Any\]", line)]) < 60


BANNED = {
    "told",
    "some",
    "beside",
    "stuff",
    "thing",
    "things",
}  # names that say nothing (docs/ARCHITECTURE.md)


def bound_names(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every name that a file gives to something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node
        if isinstance(node, ast.arg):
            yield node.arg, node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node


def test_no_name_is_one_of_the_banned_words() -> None:
    wrong = [f"{where(path, node)} {name}" for path, tree in TREES.items() for name, node in bound_names(tree)
             if name.strip("_") in BANNED]  # fmt: skip
    assert not wrong + [str(path) for path in FILES if path.stem in BANNED]


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
