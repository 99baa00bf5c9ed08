"""What zeroskip asks of a task: four functions, and optional parts that are used where a task has them.

The four are `model()`, `train(model)` in place, `evaluate(model)` -> a number, lower is better, and `batch()`,
one batch of inputs: a tensor, a tuple for model(*batch), or a dict for model(**batch). Optional:

    evaluate(model, split)    split "validation" | "test"; else decisions are made on the reported set
    batches()                 pairs (inputs, targets), for statistics over a data set; else `batch()` serves
    batch_axis                None where no axis of the inputs is that of the examples, as for a graph; else 0
    split_sizes()             dict of examples per split, for the report and the tolerance of one example
    learning_rate             the number that the first training starts from; retraining divides it
    train(model, *, epochs, learning_rate, weight_decay, loss, on_step, resume, on_epoch)   any of these keywords
"""

from __future__ import annotations

import hashlib
import inspect
import math
import random
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from zeroskip import files, thresholds
from zeroskip.concepts import TrainState
from zeroskip.errors import ModelError, RecipeError, TaskError, ZeroskipError
from zeroskip.graph import Given, Inputs
from zeroskip.graph.inputs import of as inputs_of
from zeroskip.graph.state_names import misfit, with_tied_names

FUNCTIONS = ("model", "train", "evaluate", "batch")
# Where code lies that is not the user's; "<" begins the names of code without a file.
LIBRARIES = (
    *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")),
    *(str(Path(__file__).parent), "<"),
)

TOGETHER = 64  # examples that pass through a network at a time, whose maps have to fit into memory

Loss = Callable[[nn.Module, Any, Tensor], Tensor]
"""(model, inputs as the task has them, targets) -> the number that a training makes small."""
OnStep = Callable[[int, int, Optimizer], None]
"""Called as (step, steps, optimizer) after each backward and before the update."""
OnEpoch = Callable[[int, int, TrainState], None]
"""Called as (epochs done, epochs, state to continue from)."""


class Task(Protocol):
    """The four functions; a module with them will do as well as an object."""

    @property
    def model(self) -> Callable[[], nn.Module]:
        """Makes a fresh, untrained network."""

    @property
    def train(self) -> Callable[..., object]:
        """Trains a network in place."""

    @property
    def evaluate(self) -> Callable[..., float]:
        """The error of a network, lower is better."""

    @property
    def batch(self) -> Callable[[], Given]:
        """One batch of inputs."""


def name(task: Task) -> str:
    """The task's own name, or its module's.

    >>> name(task)
    'largest-of-four'
    """
    return str(getattr(task, "name", getattr(task, "__name__", type(task).__name__)))


def identity(task: Task) -> str:
    """The task's name and, for a file, a few digits that change with its text: "my_task a41f09c2"."""
    file = getattr(task, "__file__", None)
    digest = " " + hashlib.sha256(files.read(file)).hexdigest()[:8] if file else ""
    return name(task) + digest


def has_splits(task: Task) -> bool:
    """Whether `evaluate` takes a split, "validation" or "test"."""
    return _takes(task.evaluate, "split")


def split_sizes(task: Task) -> dict[str, int]:
    """Examples in each split; an empty dict where the task has no `split_sizes()`.

    >>> split_sizes(task)
    {'train': 200, 'validation': 100, 'test': 100}
    """
    sizes = getattr(task, "split_sizes", None)
    if not callable(sizes):
        return {}
    with _blaming(task, "split_sizes"):
        return {str(split): int(count) for split, count in dict(sizes()).items()}


def one_example(task: Task) -> float:
    """The error of one more wrong answer on the validation split; 0 where its size is unknown.

    >>> one_example(task)
    0.01
    """
    count = split_sizes(task).get("validation", 0)
    return 1 / count if count else 0.0


def probe(task: Task, model: nn.Module) -> float:
    """The validation error of a network that pruning may have ruined: infinite where it is no finite number."""
    error = _error(task, model, "validation")
    return error if math.isfinite(error) else math.inf


def evaluate(task: Task, model: nn.Module, split: str) -> float:
    """The task's error of `model` on "validation" or "test"; without splits, on the one set there is.

    Raises TaskError where the task returns no finite number.

    >>> train(task, dense)
    >>> evaluate(task, dense, "test") < 0.5
    True
    """
    error = _error(task, model, split)
    if not math.isfinite(error):
        raise TaskError(
            f"{name(task)}: evaluate(model) returned {error}, not a finite number. Return the error, lower is better."
        )
    return error


def train(task: Task, model: nn.Module, **keywords: object) -> None:
    """Call the task's `train` with the keywords that it takes; a warning names those that it does not take.

    `resume` and `on_epoch` are left out silently: without them a run resumes between rounds only.
    """
    given = {key: value for key, value in keywords.items() if value is not None}
    taken = {key: value for key, value in given.items() if _takes(task.train, key)}
    missed = sorted(set(given) - set(taken) - {"resume", "on_epoch"})
    if missed:
        warnings.warn(
            f"{name(task)}: train() takes no {', '.join(missed)}; it is called without, as it is written.",
            stacklevel=2,
        )
    with _blaming(task, "train"):
        task.train(model, **taken)


def seed_all(seed: int) -> None:
    """Start the random numbers of Python, numpy and torch, whichever a task draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def batches(task: Task) -> Iterator[Inputs]:
    """Batches of inputs over the task's data set, or its one `batch()`."""
    for one in examples(task):
        yield one if isinstance(one, Inputs) else one[0]


def examples(task: Task) -> Iterator[Inputs | tuple[Inputs, Tensor]]:
    """Pairs (inputs, targets) over the task's data set, or its one `batch()` of inputs.

    >>> [(inputs.size, len(targets)) for inputs, targets in examples(task)]
    [(100, 100)]
    """
    if not hasattr(task, "batches"):
        yield batch(task)
        return
    with _blaming(task, "batches"):
        for given in task.batches():
            inputs, targets = _pair(task, given)
            yield _inputs(task, inputs, "batches"), targets


def equal_batches(task: Task, most: int) -> Iterator[Inputs]:
    """Batches of one size and shape, at most 64 examples each and `most` in all; what differs is left out.

    >>> [inputs.size for inputs in equal_batches(task, 96)]
    [64]
    """
    first, left = None, most
    for inputs in batches(task):
        size = min(inputs.size, TOGETHER, most) if first is None else first.size
        for start in range(0, inputs.size - size + 1, size):
            part = inputs if inputs.size == size else _part(inputs, start, size)
            first = first or part
            if left >= size and part.shapes == first.shapes:
                left -= size
                yield part


def _part(inputs: Inputs, start: int, size: int) -> Inputs:
    return inputs.map(lambda each: each[start : start + size] if inputs.has_examples(each) else each)


def has_classes(task: Task) -> bool:
    """Whether `examples` come with the number of a class each."""
    first = next(examples(task), None)
    if not isinstance(first, tuple) or not isinstance(first[1], Tensor):
        return False
    return first[1].shape == (first[0].size,) and not first[1].is_floating_point()


def batch(task: Task) -> Inputs:
    """The task's batch, checked: it holds at least one example. TaskError where it does not.

    >>> batch(task).shapes, batch(task).take(1).shapes
    (((8, 6),), ((1, 6),))
    """
    with _blaming(task, "batch"):
        inputs = _inputs(task, task.batch(), "batch")
    if not all(tensor.numel() for tensor in inputs.tensors):
        raise TaskError(
            f"{name(task)}: batch() returned {inputs.title}, one of them empty. Return one or more examples, each of "
            "one or more numbers."
        )
    if inputs.batch_axis is None:
        return inputs
    first = inputs.tensors[0]
    alone = len(inputs.tensors) == 1 and first.ndim == 1 and first.is_floating_point()
    if alone or not first.ndim:
        raise TaskError(
            f"{name(task)}: batch() returned {inputs.title}, without an axis of examples. Return the batch with its "
            "examples along the first axis, one example as x[None]; or set batch_axis = None where no axis is theirs."
        )
    return inputs


def first(task: Task, count: int) -> Inputs:
    """The first `count` examples of the task's batch, or as many as there are.

    >>> first(task, 3).size, first(task, 99).size
    (3, 8)
    """
    inputs = batch(task)
    return inputs.take(min(count, inputs.size))


def model(task: Task, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """A fresh network of the task, with `weights` (a state dict) loaded where given, and the thresholds in it.

    Raises TaskError where `model()` returns no `nn.Module`, ModelError where the weights do not fit it.

    >>> list(model(task).state_dict())
    ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    """
    with _blaming(task, "model"):
        made = task.model()
    if not isinstance(made, nn.Module):
        raise TaskError(f"{name(task)}: model() returned {type(made).__name__}, not a torch nn.Module.")
    if weights is not None:
        try:
            thresholds.load_(made, with_tied_names(made, weights))
        except (RuntimeError, RecipeError) as fact:
            reason = misfit(made, thresholds.without(weights)) or " ".join(str(fact).split())[:300]
            raise ModelError(f"these weights do not fit the network of {name(task)}: {reason}") from None
    check_finite(made)
    return made.eval()


def check_on_step(task: Task) -> None:
    """TaskError where `train` takes no on_step, which pruning in the course of a training needs."""
    if not _takes(task.train, "on_step"):
        raise TaskError(
            f"{name(task)}: train() takes no on_step, and pruning while it trains needs it. Call on_step(step, steps, "
            f"optimizer) after each backward and before the update, or prune in rounds between trainings."
        )


def check_finite(network: nn.Module) -> None:
    """ModelError naming the first parameter that holds NaN or Inf, or has no values yet."""
    for key, parameter in network.named_parameters():
        if is_lazy(parameter):
            raise ModelError(f'"{key}" has no values yet: run the network once in model(), then return it.')
        if not torch.isfinite(parameter).all():
            raise ModelError(
                f'"{key}" holds NaN or Inf: nothing sensible can be pruned or stored. '
                f"Train again, with a lower learning rate, or start from other weights."
            )


def _error(task: Task, model: nn.Module, split: str) -> float:
    keywords = {"split": split} if has_splits(task) else {}
    with _blaming(task, "evaluate"):
        value = task.evaluate(model, **keywords)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TaskError(
            f"{name(task)}: evaluate(model) returned {value!r}, not a number. Return the error, lower is better."
        ) from None


def _inputs(task: Task, given: Given, function: str) -> Inputs:
    """What the task's `function` returned, in the one form of a batch."""
    try:
        return inputs_of(given, getattr(task, "batch_axis", 0))
    except ModelError as fact:
        raise TaskError(
            f"{name(task)}: {function}() returned what no network is called with: {fact}"
        ) from None


def _pair(task: Task, given: object) -> tuple[Given, Tensor]:
    if isinstance(given, tuple | list) and len(given) == 2:
        return given[0], given[1]
    what = f"a {type(given).__name__}" + (f" of {len(given)}" if isinstance(given, tuple | list) else "")
    raise TaskError(
        f"{name(task)}: batches() yields {what}. Yield pairs (inputs, targets); several inputs are a tuple or a dict."
    )


@contextmanager
def _blaming(task: Task, function: str) -> Iterator[None]:
    """Turn failures of the task's own code into a TaskError with file and line; errors of zeroskip pass."""
    try:
        yield
    except (ZeroskipError, MemoryError):
        raise
    except (Exception, SystemExit) as fact:
        called = f"{function}({'model' if function in ('train', 'evaluate') else ''})"
        file, line = _blamed(getattr(task, function), fact)
        raise TaskError(
            f"{name(task)}: {called} failed in {file}, line {line}: {type(fact).__name__}: {fact}"
        ) from fact


def _blamed(function: Callable[..., object], fact: BaseException) -> tuple[str, int]:
    """The user's file and line that failed: not those of a library that his code called."""
    frames = traceback.extract_tb(fact.__traceback__)
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    own = code.co_filename if code is not None else ""
    theirs = [frame for frame in frames if frame.filename == own or not frame.filename.startswith(LIBRARIES)]
    if code is not None and not theirs:  # it cannot be called as it was: what is wrong is how it is defined
        return own, code.co_firstlineno
    last = (theirs or frames)[-1]
    return last.filename, last.lineno or 0


def _takes(function: Callable[..., object], keyword: str) -> bool:
    parameters = inspect.signature(function).parameters
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return keyword in parameters or anything
