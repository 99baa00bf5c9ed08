"""Minerva's networks trained several times, and thresholds for the one in the middle, as far as the spread allows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path

from torch import nn

from zeroskip import prune, retrain, task_api
from zeroskip.papers.common import trainings
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings, Setup
from zeroskip.papers.common.training_plans import MINERVA, TrainingPlan
from zeroskip.papers.minerva import power, published
from zeroskip.papers.minerva.findings import MinervaFindings, MinervaLayer, NetworkMacs, Thresholds
from zeroskip.prune import Judged, Noise
from zeroskip.thresholds import hold_, release_

AHEAD = (16, 8, 4, 2)
"""Times sigma that thresholds may cost before the training that wins it back; tried in this order."""
EVALUATIONS = 150


def measure_network(network: str, setup: Setup) -> Findings:
    """What `MinervaFindings` holds; resumes in the folder, and reads what is there.

    The spread of the trainings bounds the error, so given weights, which would make them equal, are not used.
    """
    return of_plan(MINERVA[network], setup.folder / network, setup)


def measure_mean(setup: Setup) -> Findings:
    """What `MinervaMeans` holds, over the five networks, each of which is measured where that has not been done."""
    networks = published.TABLE1
    return means({name: read(MinervaFindings, measure_network(name, setup)) for name in networks})


def means(networks: Mapping[str, MinervaFindings]) -> dict[str, object]:
    """The means over networks, from the findings of each by its name."""
    powers = [power.saved(network, findings.layers) for network, findings in networks.items()]
    saved: dict[str, dict[str, float]] = {prices: {} for prices in power.PRICES}
    for prices in saved:
        for gated in power.GATING:
            saved[prices][gated] = statistics.fmean(times[prices][gated] for times in powers)
    macs = [findings.macs for findings in networks.values()]
    again = [(findings.retrained or findings.thresholds).macs for findings in networks.values()]
    return {**_mean(macs), "power": saved, "retrained": _mean(again)}


def of_plan(plan: TrainingPlan, out: Path, setup: Setup) -> Findings:
    """The findings of one network by a plan of one's own, with everything in `out`."""
    seeds = trainings.seeds(plan, out, setup.seeds, setup.progress)
    models = [trainings.dense(seed) for seed in seeds]
    errors = trainings.of_each(seeds, "errors", _errors)
    noise = Noise(tuple(error["validation"] for error in errors), tuple(models))
    middle = seeds[models.index(noise.middle)]
    pruned = trainings.once(out / f"thresholds-{setup.seeds}.json", partial(_pruned, middle, noise))
    again = trainings.once(out / f"retrained-{setup.seeds}.json", partial(_retrained, middle, noise))
    kept = [read(Thresholds, found).macs.kept for found in (pruned, again) if found]
    return {
        "errors": [error["test"] for error in errors],
        "validation": [error["validation"] for error in errors],
        **pruned,
        "retrained": again if again and kept[1] < kept[0] else pruned,
    }


def _mean(counts: Sequence[NetworkMacs]) -> dict[str, float]:
    return {
        "removed": statistics.fmean(count.removed for count in counts),
        "skipped": statistics.fmean(count.skipped for count in counts),
    }


def _errors(seed: trainings.Seed) -> dict[str, float]:
    model = trainings.dense(seed)
    return {split: task_api.evaluate(seed.task, model, split) for split in ("validation", "test")}


def _pruned(seed: trainings.Seed, noise: Noise) -> dict[str, object]:
    search = prune.thresholds(noise.middle, seed.task, max_error_rise=noise.rise, progress=seed.progress)
    thresholded = hold_(deepcopy(noise.middle), search.thresholds)
    found = {"validation_pruned": search.after.error, "removed_validation": search.removed}
    return {**_on_test_split(seed.task, noise.middle, thresholded), **found}


def _retrained(seed: trainings.Seed, noise: Noise) -> dict[str, object]:
    """Thresholds that cost several sigma, put in before a second training as long as the first, which wins the error
    back: the highest of `AHEAD` with which it does."""
    limit = noise.mean + noise.sigma + 1e-9
    rise = noise.rise + (max(AHEAD) - 1) * noise.sigma
    search = prune.thresholds(
        noise.middle, seed.task, max_error_rise=rise, evaluations=EVALUATIONS, progress=seed.progress
    )
    for ahead in AHEAD:
        best = _least(search.history, limit + (ahead - 1) * noise.sigma)
        if best is None:
            continue
        model = hold_(deepcopy(noise.middle), best.thresholds)
        train = partial(retrain.train, seed.task, model, stage=f"retrained-{ahead}")
        train(seed=seed.number, progress=seed.progress)
        if task_api.probe(seed.task, model) <= limit:
            raised = _raised(seed, model, limit)
            error = task_api.probe(seed.task, raised)
            tested = _on_test_split(seed.task, noise.middle, raised)
            return {**tested, "ahead": ahead, "validation_pruned": error}
    return {}


def _raised(seed: trainings.Seed, model: nn.Module, limit: float) -> nn.Module:
    """The model with what thresholds a new search finds, where these leave less of it within the limit."""
    now = prune.judge(model, seed.task)
    # Without its thresholds the error may be higher, and that is where a search starts.
    without = task_api.probe(seed.task, release_(deepcopy(model)))
    rise, progress = max(limit, without) - now.error, seed.progress
    search = prune.thresholds(
        model, seed.task, max_error_rise=rise, evaluations=EVALUATIONS, progress=progress
    )
    tried = (now, *search.history)
    return hold_(release_(model), (_least(tried, limit) or now).thresholds)


def _least(tried: Sequence[Judged], limit: float) -> Judged | None:
    """What leaves the least work, of all that stay within the limit and leave every layer some."""
    alive = [judged for judged in tried if all(layer.nonzero for layer in judged.layers.values())]
    fitting = [judged for judged in alive if judged.error <= limit]
    return min(fitting, key=lambda judged: judged.nonzero, default=None)


def _on_test_split(task: task_api.Task, model: nn.Module, thresholded: nn.Module) -> dict[str, object]:
    """What thresholds remove on the test split, and the errors there."""
    before, after = (prune.judge(network, task, split="test") for network in (model, thresholded))
    first, *others = before.layers.values()
    macs = NetworkMacs(
        all=first.macs + sum(layer.macs for layer in others),
        zero_inputs=first.macs - first.nonzero,
        zero_activations=sum(layer.macs - layer.nonzero for layer in others),
        nonzero=before.nonzero,
        kept=after.nonzero,
    )
    layers = {}
    for name, layer in before.layers.items():
        layers[name] = asdict(MinervaLayer(layer.macs, layer.nonzero, after.layers[name].nonzero))
    errors = {"thresholds": after.thresholds, "test": before.error, "test_pruned": after.error}
    return {**errors, "macs": asdict(macs), "layers": layers}
