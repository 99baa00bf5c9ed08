"""How far zeroskip's own recipe gets: error against weights, and error against bytes, beside a dense network
that was trained as long on the same images."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from zeroskip import contract, pack
from zeroskip.concepts import Progress, Sparse
from zeroskip.reproduce.trained import stages
from zeroskip.reproduce.trained.recipes import Plan
from zeroskip.reproduce.trained.stages import Seed, continued, dense, shared, sparsified

TUNING = {"bias_bits": 5, "epochs": 4, "learning_rate": 5e-4, "weight_decay": 0.0}
CODERS = ("huffman", "arithmetic")


def frontier(seeds: list[Seed]) -> dict[str, Any]:
    """Means over the seeds and, in lists, each seed's own figures; errors are those of the test split.

    The keys are those of reproduce/frontier.py, with "errors_..." beside every error.

    >>> frontier(seeds)["points"][0]["times_fewer"]
    30
    """
    return _mean(stages.each(seeds, "frontier", _one))


def both(plan: Plan, out: Path, count: int, progress: Progress) -> dict[str, Any]:
    """{"frontier", "frontier_shifts"}, as far as the plan asks for them.

    >>> list(both(RECIPES["digits"], Path("runs/digits"), 1, silent))
    ['frontier']
    """
    found = {}
    if plan.frontier:
        found["frontier"] = frontier(stages.seeds(plan, out, count, progress))
    if plan.shifted:
        moved = out.with_name(f"{out.name}-shifts")
        found["frontier_shifts"] = frontier(stages.seeds(plan.augmented(), moved, count, progress))
    return found


def stored(seed: Seed, times_fewer: int, bits: int) -> Sparse:
    """The network of the frontier as it is stored: shared values, fine-tuned.

    >>> stored(seed, 30, 4).masks["fc1"].sum()
    tensor(5100)
    """
    return shared(seed, f"{times_fewer}x-{bits}-bits", sparsified(seed, times_fewer), bits=bits, **TUNING)


def _one(seed: Seed) -> dict[str, Any]:
    points = [_point(seed, times_fewer, bits) for times_fewer, bits in seed.plan.frontier.items()]
    return {
        "stored_bytes_dense": 4 * sum(parameter.numel() for parameter in dense(seed).parameters()),
        "error_dense": contract.evaluate(seed.task, dense(seed), "test"),
        "error_continued": contract.evaluate(seed.task, continued(seed), "test"),
        "points": points,
    }


def _point(seed: Seed, times_fewer: int, bits: int) -> dict[str, Any]:
    sparse, small = sparsified(seed, times_fewer), stored(seed, times_fewer, bits)
    return {
        "times_fewer": times_fewer,
        "weights_kept": sum(int(mask.sum()) for mask in sparse.masks.values()),
        "error": contract.evaluate(seed.task, sparse.model, "test"),
        "bits": bits,
        "error_stored": contract.evaluate(seed.task, small.model, "test"),
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
