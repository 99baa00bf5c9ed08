"""Minerva's networks trained several times, and thresholds for the one in the middle, as far as the spread allows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zeroskip import prune, retrain, task_api
from zeroskip.concepts import Progress, silent
from zeroskip.papers.common import stages
from zeroskip.papers.common.recipes import MINERVA, Plan
from zeroskip.papers.minerva import power
from zeroskip.papers.minerva.rows import NETWORKS, removed, skipped
from zeroskip.prune import Judged, Noise
from zeroskip.thresholds import hold_, release_

AHEAD = (16, 8, 4, 2)
"""Times sigma that thresholds may cost before the training that wins it back; tried in this order."""
EVALUATIONS = 150


def measure_network(
    network: str,
    *,
    out: Path,
    seeds: int = 5,
    progress: Progress = silent,
    weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The findings that reproduce/minerva.py describes; resumes in `out`, and reads what is there.

    The spread of the trainings bounds the error, so `weights`, which would make them equal, are not used.

    >>> measure_network("minerva-webkb", out=Path("runs/minerva"))["thresholds"]
    {'fc1': 0.21, 'fc2': 0.4, 'fc3': 0.37, 'fc4': 0.66}
    """
    return findings(MINERVA[network], out / network, seeds, progress)


def measure_mean(
    *, out: Path, seeds: int = 5, progress: Progress = silent, weights: object = None
) -> dict[str, Any]:
    """The means over the five networks, each of which is measured where that has not been done.

    >>> measure_mean(out=Path("runs/minerva"))
    {'removed': 0.41, 'skipped': 0.94, 'power': {...}, 'retrained': {...}}
    """
    each = [measure_network(network, out=out, seeds=seeds, progress=progress) for network in NETWORKS]
    return means(dict(zip(NETWORKS, each, strict=True)))


def means(each: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The means over networks, from the findings of each by its name.

    >>> means(each)["removed"]
    0.41
    """
    every, again = list(each.values()), [one["retrained"] for one in each.values()]
    powers = [power.saved(network, one["layers"]) for network, one in each.items()]
    saved = {
        prices: {gated: statistics.fmean(one[prices][gated] for one in powers) for gated in power.MACHINES}
        for prices in power.PRICES
    }
    return {**_mean(every), "power": saved, "retrained": _mean(again)}


def findings(plan: Plan, out: Path, count: int, progress: Progress = silent) -> dict[str, Any]:
    """The same for a plan of one's own.

    >>> findings(Plan(tasks.digits), Path("runs/digits"), 5)["test_pruned"]
    0.0194
    """
    seeds = stages.seeds(plan, out, count, progress)
    models = [stages.dense(seed) for seed in seeds]
    errors = stages.each(seeds, "errors", _errors)
    noise = Noise(tuple(one["validation"] for one in errors), tuple(models))
    middle = seeds[models.index(noise.middle)]
    pruned = stages.once(out / f"thresholds-{count}.json", partial(_pruned, middle, noise))
    again = stages.once(out / f"retrained-{count}.json", partial(_retrained, middle, noise))
    return {
        "errors": [one["test"] for one in errors],
        "validation": [one["validation"] for one in errors],
        **pruned,
        "retrained": min((again or pruned, pruned), key=lambda one: one["macs"]["kept"]),
    }


def _mean(each: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        name: statistics.fmean(share(one) or 0.0 for one in each)
        for name, share in {"removed": removed, "skipped": skipped}.items()
    }


def _errors(seed: stages.Seed) -> dict[str, float]:
    model = stages.dense(seed)
    return {split: task_api.evaluate(seed.task, model, split) for split in ("validation", "test")}


def _pruned(seed: stages.Seed, noise: Noise) -> dict[str, Any]:
    found = prune.thresholds(noise.middle, seed.task, max_error_rise=noise.rise, progress=seed.progress)
    told = _told(seed.task, noise.middle, hold_(deepcopy(noise.middle), found.thresholds))
    return {**told, "validation_pruned": found.after.error, "removed_validation": found.removed}


def _retrained(seed: stages.Seed, noise: Noise) -> dict[str, Any]:
    """Thresholds that cost several sigma, put in before a second training as long as the first, which wins the error
    back: the highest of `AHEAD` with which it does."""
    limit = noise.mean + noise.sigma + 1e-9
    rise = noise.rise + (max(AHEAD) - 1) * noise.sigma
    found = prune.thresholds(
        noise.middle, seed.task, max_error_rise=rise, evaluations=EVALUATIONS, progress=seed.progress
    )
    for ahead in AHEAD:
        best = _least(found.history, limit + (ahead - 1) * noise.sigma)
        if best is None:
            continue
        model = hold_(deepcopy(noise.middle), best.thresholds)
        stage = f"retrained-{ahead}"
        retrain.train(seed.task, model, stage=stage, seed=seed.number, progress=seed.progress)
        if task_api.probe(seed.task, model) <= limit:
            raised = _raised(seed, model, limit)
            error = task_api.probe(seed.task, raised)
            return {**_told(seed.task, noise.middle, raised), "ahead": ahead, "validation_pruned": error}
    return {}


def _raised(seed: stages.Seed, model: nn.Module, limit: float) -> nn.Module:
    """The model with what thresholds a new search finds, where these leave less of it within the limit."""
    now = prune.judge(model, seed.task)
    # Without its thresholds the error may be higher, and that is where a search starts.
    without = task_api.probe(seed.task, release_(deepcopy(model)))
    rise, progress = max(limit, without) - now.error, seed.progress
    found = prune.thresholds(
        model, seed.task, max_error_rise=rise, evaluations=EVALUATIONS, progress=progress
    )
    tried = (now, *found.history)
    return hold_(release_(model), (_least(tried, limit) or now).thresholds)


def _least(tried: Sequence[Judged], limit: float) -> Judged | None:
    """What leaves the least work, of all that stay within the limit and leave every layer some."""
    fitting = [
        one for one in tried if one.error <= limit and all(layer.nonzero for layer in one.layers.values())
    ]
    return min(fitting, key=lambda one: one.nonzero, default=None)


def _told(task: task_api.Task, model: nn.Module, thresholded: nn.Module) -> dict[str, Any]:
    """What thresholds remove on the test split, and the errors there."""
    before, after = (prune.judge(one, task, split="test") for one in (model, thresholded))
    return {
        "thresholds": after.thresholds,
        "test": before.error,
        "test_pruned": after.error,
        "macs": _macs(before) | {"kept": after.nonzero},
        "layers": {
            name: {"macs": layer.macs, "nonzero": layer.nonzero, "kept": after.layers[name].nonzero}
            for name, layer in before.layers.items()
        },
    }


def _macs(judged: Judged) -> dict[str, float]:
    first, *others = judged.layers.values()
    return {
        "all": first.macs + sum(layer.macs for layer in others),
        "zero_inputs": first.macs - first.nonzero,
        "zero_activations": sum(layer.macs - layer.nonzero for layer in others),
        "nonzero": judged.nonzero,
    }
