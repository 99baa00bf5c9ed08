"""Trainings of a reproduction, one folder each: what is there is read back, so a killed run continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeroskip import files, retrain, run_folder, task_api
from zeroskip.concepts import Progress, Recipe, Sparse
from zeroskip.papers.common.recipes import Frontier, Plan, gradual


@dataclass(frozen=True)
class Seed:
    """One of several repetitions: its plan, number, folder, and where progress is told."""

    plan: Plan
    number: int
    folder: Path
    progress: Progress

    @property
    def task(self) -> task_api.Task:
        """What is trained."""
        return self.plan.task


def seeds(plan: Plan, out: Path, count: int, progress: Progress) -> list[Seed]:
    """Seeds 0 .. count - 1, each with a folder of its own inside `out`; RunError where one belongs to another
    task or other weights to start from.

    >>> [seed.number for seed in seeds(plan, Path("runs/han"), 3, silent)]
    [0, 1, 2]
    """

    def told(number: int) -> Progress:
        return lambda what, done, total: progress(f"seed {number + 1} of {count}: {what}", done, total)

    given = None if plan.weights is None else run_folder.fingerprint(plan.weights)
    owner = {"task": task_api.identity(plan.task), "started_from": given}
    folders = [run_folder.claim(out / f"seed-{number}", owner) for number in range(count)]
    return [Seed(plan, number, folder, told(number)) for number, folder in enumerate(folders)]


def dense(seed: Seed, name: str = "dense", **keywords: Any) -> nn.Module:
    """The network trained without pruning, with the task's training or with `keywords` in it.

    >>> dense(seed).training
    False
    """
    stored = seed.folder / f"{name}.safetensors"
    if not stored.exists():
        torch.manual_seed(seed.number)
        given = seed.plan.weights
        model = task_api.model(seed.task, None if given is None else dict(given))
        if given is None:
            retrain.train(
                seed.task,
                model,
                stage=name,
                seed=seed.number,
                folder=seed.folder,
                progress=seed.progress,
                **keywords,
            )
        run_folder.save_tensors(stored, model.state_dict())
    return task_api.model(seed.task, run_folder.load_tensors(stored))


def pruned(seed: Seed, name: str, start: nn.Module, recipe: Recipe) -> Sparse:
    """The outcome of `recipe` from `start`, in a folder called `name`.

    >>> pruned(seed, "30x", dense(seed), gradual(way, 30)).history[-1].sparsity
    0.9667
    """

    def progress(what: str, done: int, total: int) -> None:
        seed.progress(f"{name}, {what}", done, total)

    model = task_api.model(seed.task, start.state_dict())
    folder = seed.folder / name
    return retrain.loop(model, recipe, seed.task, folder=folder, seed=seed.number, progress=progress)


def continued(seed: Seed, way: Frontier) -> nn.Module:
    """The dense network after as many steps as a pruned one: its training, then the same retraining unpruned.

    >>> continued(seed, way)
    LeNet300100(...)
    """
    return pruned(seed, "dense-continued", dense(seed), gradual(way, 1)).model


def sparsified(seed: Seed, way: Frontier, times_fewer: int) -> Sparse:
    """One weight in `times_fewer`, pruned while training.

    >>> sparsified(seed, way, 30).history[-1].weights_kept
    8873
    """
    return pruned(seed, f"{times_fewer}x", dense(seed), gradual(way, times_fewer))


def shared(seed: Seed, name: str, sparse: Sparse, **keywords: Any) -> Sparse:
    """`sparse` with shared values, stored in a folder called `name`; `keywords` are those of retrain.centroids.

    >>> shared(seed, "30x-4-bits", sparsified(seed, way, 30), bits=4, epochs=2).model
    LeNet300100(...)
    """
    folder = run_folder.claim(
        seed.folder / name, {"start": run_folder.fingerprint(sparse.model.state_dict()), **keywords}
    )
    stored = folder / "sparse.safetensors"
    if not stored.exists():
        made = retrain.centroids(
            sparse, seed.task, folder=folder, seed=seed.number, progress=seed.progress, **keywords
        )
        run_folder.save_tensors(stored, made.model.state_dict())
    return retrain.as_sparse(task_api.model(seed.task, run_folder.load_tensors(stored)))


def each(seeds: list[Seed], name: str, find: Callable[[Seed], Any]) -> list[Any]:
    """What `find` gives for every seed, each found once and stored in its folder as `name`.json.

    >>> each(seeds, "tables", lambda seed: {"seed": seed.number})
    [{'seed': 0}, {'seed': 1}]
    """
    return [once(seed.folder / f"{name}.json", partial(find, seed)) for seed in seeds]


def figures(seed: Seed, finders: Mapping[str, Callable[[Seed], Any]]) -> dict[str, Any]:
    """Those figures of `finders` that the plan asks for, by name.

    >>> figures(seed, {"figure6": sensitivity})
    {'figure6': {...}}
    """
    wanted = [name for name in finders if name in seed.plan.figures]
    return {name: each([seed], name, finders[name])[0] for name in wanted}


def errors(seed: Seed, **models: nn.Module) -> dict[str, float]:
    """The test error of each model under its name and, where the task knows it, the top-5 error beside it.

    >>> errors(seed, error_dense=model)
    {'error_dense': 0.0164}
    """
    top5 = getattr(seed.task, "errors", None)
    if top5 is None:
        return {name: task_api.evaluate(seed.task, model, "test") for name, model in models.items()}
    found: dict[str, float] = {}
    for name, model in models.items():
        found[name], found[name.replace("error", "top5")] = top5(model, "test")
    return found


def once(path: Path, find: Callable[[], Any]) -> Any:
    """What `find` returns, as JSON; found once and then read from `path`.

    >>> once(Path("runs/han/figure5.json"), lambda: {"L1": []})
    {'L1': []}
    """
    if not path.exists():
        files.write_json(path, find())
    return files.read_json(path)
