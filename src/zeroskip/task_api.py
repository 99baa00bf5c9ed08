"""What zeroskip asks of a task: four functions, and optional parts that are used where a task has them.

The four are `model()`, `train(model)` in place, `evaluate(model)` -> a number, lower is better, and `batch()`,
one batch of inputs. Optional:

    evaluate(model, split)    split "validation" | "test"; else decisions are made on the reported set
    batches()                 pairs (inputs, targets), for statistics over a data set; else `batch()` serves
    split_sizes()             dict of examples per split, for the report and the tolerance of one example
    learning_rate             the number that the first training starts from; retraining divides it
    train(model, *, epochs, learning_rate, weight_decay, loss, on_step, resume, on_epoch)   any of these keywords
"""

from __future__ import annotations

import hashlib
import inspect
import math
import random
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from zeroskip import files, thresholds
from zeroskip.concepts import TrainState
from zeroskip.errors import ModelError, RecipeError, TaskError, ZeroskipError

FUNCTIONS = ("model", "train", "evaluate", "batch")

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs, targets) -> the number that a training makes small."""
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
    def batch(self) -> Callable[[], Tensor]:
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
    with _blaming(task, "split_sizes()"):
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
    with _blaming(task, "train(model)"):
        task.train(model, **taken)


def seed_all(seed: int) -> None:
    """Start the random numbers of Python, numpy and torch, whichever a task draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def batches(task: Task) -> Iterator[Tensor]:
    """Batches of inputs over the task's data set, or its one `batch()`."""
    for one in examples(task):
        yield one if isinstance(one, Tensor) else one[0]


def examples(task: Task) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
    """Pairs (inputs, targets) over the task's data set, or its one `batch()` of inputs."""
    if not hasattr(task, "batches"):
        yield batch(task)
        return
    with _blaming(task, "batches()"):
        yield from ((inputs, targets) for inputs, targets in task.batches())


def has_classes(task: Task) -> bool:
    """Whether `examples` come with the number of a class each."""
    first = next(examples(task), None)
    if not isinstance(first, tuple) or not isinstance(first[1], Tensor):
        return False
    return first[1].shape == (len(first[0]),) and not first[1].is_floating_point()


def batch(task: Task) -> Tensor:
    """The task's batch, checked: a tensor with a batch axis that holds at least one example."""
    with _blaming(task, "batch()"):
        inputs = task.batch()
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not len(inputs):
        raise TaskError(
            f"{name(task)}: batch() must return one tensor of inputs, batch axis first, with an example in it."
        )
    return inputs


def model(task: Task, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """A fresh network of the task, with `weights` (a state dict) loaded where given, and the thresholds in it.

    Raises TaskError where `model()` returns no `nn.Module`, ModelError where the weights do not fit it.

    >>> list(model(task).state_dict())
    ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    """
    with _blaming(task, "model()"):
        made = task.model()
    if not isinstance(made, nn.Module):
        raise TaskError(f"{name(task)}: model() returned {type(made).__name__}, not a torch nn.Module.")
    if weights is not None:
        try:
            thresholds.load_(made, weights)
        except (RuntimeError, RecipeError) as fact:
            reason = " ".join(str(fact).split())[:300]
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
    with _blaming(task, "evaluate(model)"):
        value = task.evaluate(model, **keywords)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TaskError(
            f"{name(task)}: evaluate(model) returned {value!r}, not a number. Return the error, lower is better."
        ) from None


@contextmanager
def _blaming(task: Task, function: str) -> Iterator[None]:
    """Turn failures of the task's own code into a TaskError with file and line; errors of zeroskip pass."""
    try:
        yield
    except (ZeroskipError, MemoryError):
        raise
    except (Exception, SystemExit) as fact:
        frame = traceback.extract_tb(fact.__traceback__)[-1]
        raise TaskError(
            f"{name(task)}: {function} failed in {frame.filename}, line {frame.lineno}: {type(fact).__name__}: {fact}"
        ) from fact


def _takes(function: Callable[..., object], keyword: str) -> bool:
    parameters = inspect.signature(function).parameters
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return keyword in parameters or anything
