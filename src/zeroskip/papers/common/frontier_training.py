"""How far zeroskip's own recipe gets: error against weights, and error against bytes, beside a dense network
that was trained as long on the same images."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from zeroskip import pack, task_api
from zeroskip.concepts import Progress
from zeroskip.papers.common.training_plans import FrontierPlan, TrainingPlan, gradual
from zeroskip.papers.common.trainings import Seed, dense, of_each, pruned, seeds, shared

TUNING = {"bias_bits": 5, "epochs": 4, "learning_rate": 5e-4, "weight_decay": 0.0}
CODERS = ("huffman", "arithmetic")


def all_frontiers(plan: TrainingPlan, out: Path, count: int, progress: Progress) -> dict[str, object]:
    """The findings of each of the plan's frontiers, by its name; those with a changed task next to `out`."""
    findings: dict[str, object] = {}
    for name, frontier in plan.frontiers.items():
        ending = name.removeprefix("frontier").replace("_", "-")  # "frontier_plain" -> "-plain"
        task = replace(plan.task, **{"name": plan.task.name + ending, **frontier.changes})
        folder = out.with_name(out.name + ending)
        findings[name] = of_seeds(seeds(replace(plan, task=task), folder, count, progress), frontier)
    return findings


def of_seeds(seeds: list[Seed], frontier: FrontierPlan) -> object:
    """Means over the seeds and, in lists, each seed's own figures; errors are those of the test split.

    In JSON what `PrunedFrontier` holds.
    """
    return mean(of_each(seeds, "frontier", partial(_of_seed, frontier)))


def _of_seed(frontier: FrontierPlan, seed: Seed) -> dict[str, object]:
    model = dense(seed)
    # As many steps as a pruned network has: its training, then the same retraining with nothing pruned.
    continued = pruned(seed, "dense-continued", model, gradual(frontier, 1))
    return {
        "stored_bytes_dense": dense_bytes(model),
        "error_dense": task_api.evaluate(seed.task, model, "test"),
        "error_continued": task_api.evaluate(seed.task, continued.model, "test"),
        "points": [_point(seed, frontier, times, bits) for times, bits in frontier.points.items()],
    }


def _point(seed: Seed, frontier: FrontierPlan, times_fewer: int, bits: int) -> dict[str, object]:
    sparse = pruned(seed, f"{times_fewer}x", dense(seed), gradual(frontier, times_fewer))
    small = shared(seed, f"{times_fewer}x-{bits}-bits", sparse, bits=bits, **TUNING)
    return {
        "times_fewer": times_fewer,
        "weights_kept": sum(int(mask.sum()) for mask in sparse.masks.values()),
        "error": task_api.evaluate(seed.task, sparse.model, "test"),
        "bits": bits,
        "error_stored": task_api.evaluate(seed.task, small.model, "test"),
        "stored_bytes": {coder: pack.encode(small, coder=coder).stored_bytes for coder in CODERS},
    }


def dense_bytes(model: nn.Module) -> int:
    """4 x all parameters: what the dense network takes."""
    return 4 * sum(parameter.numel() for parameter in model.parameters())


def mean(parts: list[Any], *, lists: bool = True) -> Any:
    """Means of all numbers in JSON values, position by position.

    lists  with an error, the list of what it is the mean of

    >>> mean([{"bits": 4, "error": 0.01}, {"bits": 4, "error": 0.02}])
    {'bits': 4, 'error': 0.015, 'errors': [0.01, 0.02]}
    """
    first = parts[0]
    if isinstance(first, dict):
        means = {key: mean([part[key] for part in parts], lists=lists) for key in first}
        for key in [key for key in first if lists and (key == "error" or key.startswith("error_"))]:
            means[f"errors{key.removeprefix('error')}"] = [part[key] for part in parts]
        return means
    if isinstance(first, list):
        return [mean(list(same_place), lists=lists) for same_place in zip(*parts, strict=True)]
    return first if len(set(parts)) == 1 else statistics.fmean(parts)
