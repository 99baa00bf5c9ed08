"""Trainings of a reproduction, one folder each: what is there is read back, so a killed run continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from zeroskip import files, retrain, run_folder, task_api
from zeroskip.concepts import Progress, Recipe, Sparse
from zeroskip.papers.common.training_plans import TrainingPlan

Made = TypeVar("Made")


@dataclass(frozen=True)
class Seed:
    """One of several repetitions: its plan, number, folder, and where progress is reported."""

    plan: TrainingPlan
    number: int
    folder: Path
    progress: Progress

    @property
    def task(self) -> task_api.Task:
        """What is trained."""
        return self.plan.task


def seeds(plan: TrainingPlan, out: Path, count: int, progress: Progress) -> list[Seed]:
    """Seeds 0 .. count - 1, each with a folder of its own inside `out`; RunError where one belongs to another
    task or other weights to start from.
    """

    def numbered(number: int) -> Progress:
        return lambda what, done, total: progress(f"seed {number + 1} of {count}: {what}", done, total)

    given = None if plan.weights is None else run_folder.fingerprint(plan.weights)
    owner = {"task": task_api.identity(plan.task), "started_from": given}
    folders = [run_folder.claim(out / f"seed-{number}", owner) for number in range(count)]
    return [Seed(plan, number, folder, numbered(number)) for number, folder in enumerate(folders)]


def dense(seed: Seed, name: str = "dense", **keywords: Any) -> nn.Module:
    """The network trained without pruning, with the task's training or with `keywords` in it."""
    stored = seed.folder / f"{name}.safetensors"
    if not stored.exists():
        torch.manual_seed(seed.number)
        given = seed.plan.weights
        model = task_api.model(seed.task, None if given is None else dict(given))
        if given is None:
            train = partial(retrain.train, seed.task, model, stage=name, seed=seed.number)
            train(folder=seed.folder, progress=seed.progress, **keywords)
        run_folder.save_tensors(stored, model.state_dict())
    return task_api.model(seed.task, run_folder.load_tensors(stored))


def pruned(seed: Seed, name: str, start: nn.Module, recipe: Recipe) -> Sparse:
    """The outcome of `recipe` from `start`, in a folder called `name`."""
    progress: Progress = lambda what, done, total: seed.progress(f"{name}, {what}", done, total)
    model = task_api.model(seed.task, start.state_dict())
    folder = seed.folder / name
    return retrain.loop(model, recipe, seed.task, folder=folder, seed=seed.number, progress=progress)


def shared(seed: Seed, name: str, sparse: Sparse, **keywords: Any) -> Sparse:
    """`sparse` with shared values, in a folder called `name`; `keywords` are those of the recipe and its training."""
    owner = {"start": run_folder.fingerprint(sparse.model.state_dict()), **keywords}
    folder = run_folder.claim(seed.folder / name, owner)
    stored = folder / "sparse.safetensors"
    if not stored.exists():
        train = {key: value for key, value in keywords.items() if key not in ("bits", "bias_bits", "start")}
        widths = {key: value for key, value in keywords.items() if key not in train}
        recipe = retrain.CodebookRecipe(**widths, train=train)
        train_codebooks = partial(retrain.centroids, sparse, recipe, seed.task, folder=folder)
        made = train_codebooks(seed=seed.number, progress=seed.progress)
        run_folder.save_tensors(stored, made.model.state_dict())
    return retrain.as_sparse(task_api.model(seed.task, run_folder.load_tensors(stored)))


def of_each(seeds: list[Seed], name: str, find: Callable[[Seed], Made]) -> list[Made]:
    """What `find` gives for every seed, each found once and stored in its folder as `name`.json."""
    return [once(seed.folder / f"{name}.json", partial(find, seed)) for seed in seeds]


def figures(seed: Seed, finders: Mapping[str, Callable[[Seed], object]]) -> dict[str, object]:
    """Those figures of `finders` that the plan asks for, by name."""
    wanted = [name for name in finders if name in seed.plan.figures]
    return {name: of_each([seed], name, finders[name])[0] for name in wanted}


def errors(seed: Seed, **models: nn.Module) -> dict[str, float]:
    """The test error of each model under its name and, where the task knows it, the top-5 error beside it."""
    top5 = getattr(seed.task, "errors", None)
    if top5 is None:
        return {name: task_api.evaluate(seed.task, model, "test") for name, model in models.items()}
    values: dict[str, float] = {}
    for name, model in models.items():
        values[name], values[name.replace("error", "top5")] = top5(model, "test")
    return values


def once(path: Path, find: Callable[[], Made]) -> Made:
    """What `find` returns, as JSON; found once and then read from `path`.

    >>> once(Path("errors.json"), lambda: {"L1": [0.5]}), once(Path("errors.json"), dict)
    ({'L1': [0.5]}, {'L1': [0.5]})
    """
    if not path.exists():
        files.write_json(path, find())
    stored: Made = files.read_json(path)
    return stored
