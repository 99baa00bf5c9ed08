"""Han et al. 2015 on one network: the paper's own method, its five trade-off curves, its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zeroskip import measure, prune, retrain, task_api
from zeroskip.concepts import Profile, Recipe, Round
from zeroskip.graph import forward
from zeroskip.papers.common import trainings
from zeroskip.papers.common.frontier_training import all_frontiers, mean
from zeroskip.papers.common.paper import Findings, Setup
from zeroskip.papers.common.training_plans import PLANS, TrainingPlan
from zeroskip.papers.common.trainings import Seed

ROUNDS = 4
L1, L2 = {"l1": 1e-5}, {"l2": 1e-4}
PENALTIES = {"L1": L1, "L2": L2}


def measure_network(network: str, setup: Setup) -> Findings:
    """What `HanFindings` holds, means over the seeds and figures of seed 0; resumes in the folder."""
    return of_plan(replace(PLANS[network], weights=setup.weights), setup.folder / network, setup)


def of_plan(plan: TrainingPlan, out: Path, setup: Setup) -> Findings:
    """The findings of one network by a plan of one's own, with everything in `out`."""
    seeds = trainings.seeds(plan, out, setup.seeds, setup.progress)
    tables = trainings.of_each(seeds, "han-tables", _tables)
    judged_by = {name: find for name, find in JUDGED_BY.items() if name.split("_")[0] in plan.figures}
    return {
        **mean(tables, lists=False),
        **trainings.figures(seeds[0], FIGURES),
        **{name: trainings.of_each(seeds[:1], name, find)[0] for name, find in judged_by.items()},
        **all_frontiers(plan, out, setup.seeds, setup.progress),
    }


def iterative(seed: Seed) -> nn.Module:
    """The paper's method: thresholds of quality x standard deviation from the sensitivity scan, survivors
    retrained at a tenth of the learning rate, again and again until `plan.published` times fewer are left.
    """
    model, plan = trainings.dense(seed), seed.plan
    every = trainings.of_each([seed], "shares", _shares)[0]
    for index, shares in enumerate(every, 1):
        for part, frozen in _parts(model, plan.alternate):
            quality = {name: prune.quality(prune.weights(model)[name], shares[name]) for name in part}
            train = {"epochs": 2 * plan.rounds, "learning_rate_divisor": plan.divisor}
            one = Round(quality=quality, frozen=frozen, train=train)
            name = f"iterative-{index}" + ("-fc" if frozen and frozen[0] in _convolutions(model) else "")
            model = trainings.pruned(seed, name, model, Recipe((one,))).model
    return model


def _shares(seed: Seed) -> list[dict[str, float]]:
    """Sparsity of each layer after each round, spread by the sensitivity scan of the dense network."""
    profile = measure.profile(trainings.dense(seed), seed.task, progress=seed.progress)
    kept = (1 / seed.plan.published) ** (1 / ROUNDS)
    return [prune.allocate(profile.layers, 1 - kept**index) for index in range(1, ROUNDS + 1)]


def _parts(model: nn.Module, alternate: bool) -> list[tuple[list[str], tuple[str, ...]]]:
    """Which layers are pruned together, and which are frozen meanwhile: first the linear ones, then the others."""
    convolutions = _convolutions(model)
    linear = [name for name in prune.weights(model) if name not in convolutions]
    if not alternate:
        return [(list(prune.weights(model)), ())]
    return [(linear, tuple(convolutions)), (convolutions, tuple(linear))]


def _convolutions(model: nn.Module) -> list[str]:
    return [name for name, weight in prune.weights(model).items() if weight.ndim == 4]


def _tables(seed: Seed) -> dict[str, Any]:
    dense, model = trainings.dense(seed), iterative(seed)
    profile = measure.profile(model, seed.task, progress=seed.progress)
    left, fed = {}, 1.0
    for layer in profile.layers:
        kept = 1 - layer.weight_sparsity
        handed_on = 1 - (layer.output_sparsity or 0.0)
        left[layer.name] = {"kept": kept, "output": handed_on, "work": kept * fed}
        fed = handed_on
    return {
        **trainings.errors(seed, error_dense=dense, error_pruned=model),
        "weights_kept": sum(int((weight != 0).sum()) for weight in prune.weights(model).values()),
        "layers": left,
        "total": _total(profile, left),
    }


def _total(profile: Profile, left: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Shares of the whole network: weights by weights, FLOP by FLOP, activations by what leaves each layer."""
    layers = profile.layers
    # What leaves a layer after its pooling is what the next one reads.
    shapes = [*(layer.input_shape for layer in layers[1:]), layers[-1].output_shape]
    outputs = {layer.name: math.prod(shape) for layer, shape in zip(layers, shapes, strict=True)}

    def weighted(key: str, sizes: Mapping[str, int]) -> float:
        return sum(left[name][key] * size for name, size in sizes.items()) / sum(sizes.values())

    return {
        "kept": weighted("kept", {layer.name: layer.weights for layer in layers}),
        "output": weighted("output", outputs),
        "work": weighted("work", {layer.name: layer.macs for layer in layers}),
    }


def _mask_by_pixel(seed: Seed) -> dict[str, object]:
    weight = next(iter(prune.weights(iterative(seed)).values()))
    return {"kept_by_pixel": (weight != 0).sum(0).flatten().tolist()}


def _sensitivity(seed: Seed) -> dict[str, object]:
    profile = measure.profile(trainings.dense(seed), seed.task, progress=seed.progress)
    curves = {layer.name: layer.sensitivity for layer in profile.layers}
    return {name: {str(share): error for share, error in curve.items()} for name, curve in curves.items()}


def _histograms(seed: Seed) -> dict[str, object]:
    models = {"before": trainings.dense(seed), "after": iterative(seed)}
    return {name: asdict(measure.histogram(_first_linear(model))) for name, model in models.items()}


def _survivors(seed: Seed) -> dict[str, object]:
    """Figure 7 before pruning, of those weights only that are left after it."""
    before, after = _first_linear(trainings.dense(seed)), _first_linear(iterative(seed))
    return asdict(measure.histogram(before * (after != 0)))


def _first_linear(model: nn.Module) -> Tensor:
    return next(weight for weight in prune.weights(model).values() if weight.ndim == 2)


def _dead(seed: Seed) -> dict[str, object]:
    model, example = iterative(seed).double(), task_api.batch(seed.task).map(Tensor.double).tensors[0]
    small, _ = prune.compact(model, example)
    counts = prune.dead_counts(model, example).values()
    removed = sum(count.without_inputs + count.without_outputs for count in counts)
    change = (forward(small, example) - forward(model, example)).abs().max()
    return {"removed": removed, "largest_difference": float(change)}


def _dropout(seed: Seed) -> dict[str, float]:
    """Errors after one cut to the published size and a retraining, with dropout by the rule, and as it was."""
    task = replace(seed.plan.task, network=seed.plan.dropout)
    own = replace(seed, plan=replace(seed.plan, task=task), folder=seed.folder / "dropout")
    start = trainings.dense(own)
    train = {"epochs": 2 * seed.plan.rounds, "learning_rate_divisor": seed.plan.divisor}
    errors = {}
    for name, rescaled in (("rule", True), ("unchanged", False)):
        one = Round(sparsity=1 - 1 / seed.plan.published, rescale_dropout=rescaled, train=train)
        sparse = trainings.pruned(own, name, start, Recipe((one,)))
        errors[name] = task_api.evaluate(own.task, sparse.model, "test")
    return errors


def _trade_off(seed: Seed) -> dict[str, object]:
    """The five curves of figure 5: [[share of the weights kept, error], ...] each."""
    curves: dict[str, object] = {}
    for name, penalty in PENALTIES.items():
        start = _start(seed, name, penalty)
        layers = measure.profile(start, seed.task, progress=seed.progress).layers
        cuts = {kept: prune.allocate(layers, 1 - kept) for kept in seed.plan.curve}
        curves[name] = [[kept, _cut(seed, start, cut)] for kept, cut in cuts.items()]
        curves[f"{name} retrained"] = [
            [kept, _retrained(seed, f"{name}-retrained-{1 / kept:.0f}x", start, (cut,), penalty)[0]]
            for kept, cut in cuts.items()
        ]
        if penalty is L2:
            errors = _retrained(seed, "L2-iterative", start, tuple(cuts.values()), penalty)
            curves["L2 iterative"] = [[kept, error] for kept, error in zip(cuts, errors, strict=True)]
    return curves


def _dense_of_curves(seed: Seed) -> dict[str, float]:
    """Test errors of the dense networks that the curves start from, by penalty."""
    starts = {name: _start(seed, name, penalty) for name, penalty in PENALTIES.items()}
    return {name: task_api.evaluate(seed.task, start, "test") for name, start in starts.items()}


def _start(seed: Seed, name: str, penalty: Mapping[str, float]) -> nn.Module:
    loss = retrain.penalized(seed.plan.task.loss, penalty)
    return trainings.dense(seed, f"dense-{name}", loss=loss, weight_decay=0.0)


def _cut(seed: Seed, start: nn.Module, cut: Mapping[str, float]) -> float:
    model = task_api.model(seed.task, start.state_dict())
    prune.release_(prune.hold_(model, prune.choose(model, Round(sparsity=cut))))
    return task_api.evaluate(seed.task, model, "test")


def _retrained(
    seed: Seed,
    name: str,
    start: nn.Module,
    cuts: tuple[Mapping[str, float], ...],
    penalty: Mapping[str, float],
) -> list[float]:
    """Error after each of the cuts, one after the other, each with a retraining at a tenth of the rate."""
    errors, model = [], start
    train = {"epochs": seed.plan.rounds, "learning_rate_divisor": seed.plan.divisor, "weight_decay": 0.0}
    for index, cut in enumerate(cuts):
        recipe = Recipe((Round(sparsity=cut, penalty=penalty, train=train),))
        model = trainings.pruned(seed, f"{name}-{index}", model, recipe).model
        errors.append(task_api.evaluate(seed.task, model, "test"))
    return errors


FIGURES = {
    "figure4": _mask_by_pixel,
    "figure5": _trade_off,
    "figure6": _sensitivity,
    "figure7": _histograms,
    "dead_neurons": _dead,
    "dropout": _dropout,
}
# What a figure is judged by, made where the figure is and stored with it.
JUDGED_BY = {"figure5_dense": _dense_of_curves, "figure7_survivors": _survivors}
