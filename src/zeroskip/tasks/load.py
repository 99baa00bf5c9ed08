"""Tasks by name: a built-in one, or a Python file with the four functions."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from zeroskip.errors import TaskError
from zeroskip.task_api import FUNCTIONS, Task
from zeroskip.tasks import built_in


def load(word: str) -> Task:
    """The built-in task called `word`, or the one in the Python file `word`.

    Raises TaskError where there is neither, the file fails when run, or lacks one of the four functions.

    >>> load("digits").name
    'digits'
    """
    tasks = {task.name: task for task in built_in.BUILT_IN}
    if word in tasks:
        return tasks[word]
    path = Path(word)
    if not path.is_file():
        raise TaskError(
            f'there is no task "{word}". Use one of {", ".join(tasks)}, or the path of a Python file '
            f"with {', '.join(f'{name}()' for name in FUNCTIONS)}."
        )
    module = run_file(path)
    missing = [name for name in FUNCTIONS if not callable(getattr(module, name, None))]
    if missing:
        raise TaskError(
            f"{word} has no {' and no '.join(f'{name}()' for name in missing)}. A task needs model(), "
            f"train(model), evaluate(model) and batch(); see examples/."
        )
    return module


def run_file(path: Path) -> ModuleType:
    """A user's Python file as a module. TaskError where it is none, or fails when it is run."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is not a Python file. A task is a .py file; see examples/.")
    module = importlib.util.module_from_spec(spec)
    # As for a script: its neighbours can be imported, also later, and the module can be found by its name.
    sys.path.insert(0, str(path.parent.resolve()))
    if path.stem not in sys.modules:
        sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as fact:
        raise TaskError(
            f"{path} fails when it is run: {type(fact).__name__}: {fact}{_line(path, fact)}"
        ) from fact
    return module


def _line(path: Path, fact: BaseException) -> str:
    """Where in the file; a syntax error names its own line."""
    frames = traceback.extract_tb(fact.__traceback__)
    own = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f" (line {own[-1]})" if own else ""
