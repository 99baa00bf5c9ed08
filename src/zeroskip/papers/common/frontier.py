"""How far zeroskip's own recipe gets: error against weights, and error against bytes, beside a dense network
that was trained as long on the same images."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from zeroskip import pack, task_api
from zeroskip.concepts import Progress
from zeroskip.papers.common import stages
from zeroskip.papers.common.recipes import Frontier, Plan
from zeroskip.papers.common.stages import Seed, continued, dense, shared, sparsified

TUNING = {"bias_bits": 5, "epochs": 4, "learning_rate": 5e-4, "weight_decay": 0.0}
CODERS = ("huffman", "arithmetic")


def all_ways(plan: Plan, out: Path, count: int, progress: Progress) -> dict[str, Any]:
    """The findings of each of the plan's frontiers, by its name; those with a changed task beside `out`.

    >>> list(all_ways(RECIPES["digits"], Path("runs/digits"), 1, silent))
    ['frontier']
    """
    found = {}
    for name, way in plan.frontiers.items():
        ending = name.removeprefix("frontier").replace("_", "-")  # "frontier_plain" -> "-plain"
        task = replace(plan.task, **{"name": plan.task.name + ending, **way.changes})
        folder = out.with_name(out.name + ending)
        found[name] = frontier(stages.seeds(replace(plan, task=task), folder, count, progress), way)
    return found


def frontier(seeds: list[Seed], way: Frontier) -> dict[str, Any]:
    """Means over the seeds and, in lists, each seed's own figures; errors are those of the test split.

    The keys are those of reproduce/frontier.py, with "errors_..." beside every error.

    >>> frontier(seeds, way)["points"][0]["times_fewer"]
    30
    """
    return _mean(stages.each(seeds, "frontier", partial(_one, way)))


def _one(way: Frontier, seed: Seed) -> dict[str, Any]:
    model = dense(seed)
    return {
        "stored_bytes_dense": 4 * sum(parameter.numel() for parameter in model.parameters()),
        "error_dense": task_api.evaluate(seed.task, model, "test"),
        "error_continued": task_api.evaluate(seed.task, continued(seed, way), "test"),
        "points": [_point(seed, way, times_fewer, bits) for times_fewer, bits in way.points.items()],
    }


def _point(seed: Seed, way: Frontier, times_fewer: int, bits: int) -> dict[str, Any]:
    sparse = sparsified(seed, way, times_fewer)
    small = shared(seed, f"{times_fewer}x-{bits}-bits", sparse, bits=bits, **TUNING)
    return {
        "times_fewer": times_fewer,
        "weights_kept": sum(int(mask.sum()) for mask in sparse.masks.values()),
        "error": task_api.evaluate(seed.task, sparse.model, "test"),
        "bits": bits,
        "error_stored": task_api.evaluate(seed.task, small.model, "test"),
        "stored_bytes": {coder: pack.encode(small, coder=coder).stored_bytes for coder in CODERS},
    }


def _mean(each: list[Any]) -> Any:
    """Means of all numbers, position by position; beside an error, the list of what it is the mean of."""
    if isinstance(each[0], dict):
        mean = {key: _mean([one[key] for one in each]) for key in each[0]}
        lists = {
            f"errors{key.removeprefix('error')}": [one[key] for one in each]
            for key in each[0]
            if _is_error(key)
        }
        return {**mean, **lists}
    if isinstance(each[0], list):
        return [_mean(list(parts)) for parts in zip(*each, strict=True)]
    return each[0] if len(set(each)) == 1 else statistics.fmean(each)


def _is_error(key: str) -> bool:
    return key == "error" or key.startswith("error_")
