"""Plans by what chips gain, and plans by the number of weights: both trained, carried out and estimated alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import nn

from zeroskip import measure, prune, retrain, simulate, task_api, tasks
from zeroskip.concepts import Progress, Trace, silent
from zeroskip.concepts.plan_comparison import ChipLayers, PlanComparison, PlannedNetwork, PlanPair
from zeroskip.errors import AcceleratorError
from zeroskip.exploration.chip_lookup import find_chips, identity
from zeroskip.prune.plan import PlanCost
from zeroskip.simulate import Accelerator
from zeroskip.sweep import SweepPoint, sweep
from zeroskip.task_api import Task

COST_EXAMPLES = 4  # cycles differ by the zeros of an example's activations


@dataclass(frozen=True)
class PlanStudy:
    """What is compared. A task and chips are named by words, with which every process finds them.

    chips  see `find_chips`;  cost: "cycles" or "joules";  pattern, train: as for `prune.plan`

    >>> PlanStudy("digits", "scnn,eie").cost
    'cycles'
    """

    task: str
    chips: str
    cost: str = "cycles"
    pattern: str = "free"
    train: Mapping[str, float] | None = None


class _Network(TypedDict):
    """A network in a stored point; on: chip -> its "cycles" and "joules" there."""

    zeros: float
    validation: float
    test: float
    on: dict[str, dict[str, float]]


class _Result(TypedDict):
    """A stored point: the networks of one seed and budget; cost: chip -> the one planned for it."""

    seed: int
    rise: float
    dense: _Network
    weights: _Network
    cost: dict[str, _Network]


def compare_plans(
    study: PlanStudy,
    *,
    max_error_rises: Sequence[float | None] = (None,),
    seeds: int = 3,
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> PlanComparison:
    """Train, plan, prune and retrain with every seed and budget, and estimate both plans on every chip.

    max_error_rises  budgets of error on validation; None is one example of the validation split
    folder, jobs     as for `sweep.sweep`: a point is a seed with a budget

    TaskError for a word that names no task; AcceleratorError for chips that are none, or that share a name.

    >>> compare_plans(PlanStudy("digits", "eie"), seeds=0).layers["EIE"].run
    ('fc1', 'fc2', 'fc3')
    """
    task, chips = tasks.load(study.task), _chips(study.chips)
    layers = _layers(task, chips)
    common: SweepPoint = {  # all that decides a result, but the budget and the seed
        "task": study.task,
        "on": study.chips,
        "of": study.cost,
        "pattern": study.pattern,
        "train": study.train,
        "identity": task_api.identity(task),
        "machines": [identity(chip, study.chips) for chip in chips],
    }
    rises = [task_api.one_example(task) if rise is None else rise for rise in max_error_rises]
    points = [{**common, "rise": rise, "seed": seed} for rise in rises for seed in range(seeds)]
    results = sweep(points, partial(_compared, study), folder=folder, jobs=jobs, progress=progress)
    pairs = tuple(_pair(result, chip.name) for chip in chips for result in results)
    return PlanComparison(task_api.name(task), study.cost, study.pattern, layers, pairs)


def example_trace(model: nn.Module, task: Task) -> Trace:
    """What a few examples of the task's batch make the layers see: what a cost on a chip is estimated of."""
    return measure.trace(model, task_api.first(task, COST_EXAMPLES))


def _compared(study: PlanStudy, point: SweepPoint) -> _Result:
    """One seed and budget: the dense network, the one planned by weights, and one planned for each chip."""
    task, chips, pattern = tasks.load(study.task), find_chips(study.chips), study.pattern
    seed, rise = cast(int, point["seed"]), cast(float, point["rise"])
    torch.manual_seed(seed)  # of the first weights; a training sets its own
    dense = task_api.model(task, None)
    retrain.train(task, dense, stage="dense training", seed=seed)
    profile, trace = measure.profile(dense.eval(), task), example_trace(dense, task)

    def planned(cost: PlanCost | None) -> _Network:
        recipe = prune.plan(profile, cost=cost, pattern=pattern, max_error_rise=rise, train=study.train)
        return _network(retrain.loop(deepcopy(dense), recipe, task, seed=seed).model, task, chips)

    costs = {chip.name: simulate.cost_on(chip, trace, of=study.cost, pattern=pattern) for chip in chips}
    by_cost = {chip: planned(cost) for chip, cost in costs.items()}
    return {
        "seed": seed,
        "rise": rise,
        "dense": _network(dense, task, chips),
        "weights": planned(None),
        "cost": by_cost,
    }


def _chips(words: str) -> list[Accelerator]:
    """The chips; AcceleratorError where two share the name by which results are told apart."""
    chips = find_chips(words)
    names = [chip.name for chip in chips]
    for name in names:
        if names.count(name) > 1:
            raise AcceleratorError(
                f'two chips are called "{name}", and plans are told apart by that name. Name it once, or give each a '
                'name of its own: dataclasses.replace(chips.SCNN, name="mine").'
            )
    return chips


def _layers(task: Task, chips: Sequence[Accelerator]) -> dict[str, ChipLayers]:
    """What each chip runs, known before any training."""
    works, left_out, _ = simulate.whole_network(
        task_api.model(task, None).eval(), task_api.first(task, COST_EXAMPLES)
    )
    networks = (simulate.estimate(works, chip, left_out=left_out) for chip in chips)
    return {
        network.chip: ChipLayers(
            tuple(layer.name for layer in network.layers), tuple(network.refused), network.simulated
        )
        for network in networks
    }


def _network(model: nn.Module, task: Task, chips: Sequence[Accelerator]) -> _Network:
    examples = task_api.first(task, COST_EXAMPLES)
    sizes, works = measure.cost(model, examples), simulate.whole_network(model, examples).works
    estimates = [simulate.estimate(works, chip) for chip in chips]
    return {
        "zeros": 1 - sizes.kept / sizes.weights,
        "validation": task_api.evaluate(task, model, "validation"),
        "test": task_api.evaluate(task, model, "test"),
        "on": {each.chip: {"cycles": each.cycles, "joules": each.joules} for each in estimates},
    }


def _pair(result: _Result, chip: str) -> PlanPair:
    """A stored point as one chip sees it."""

    def on_chip(network: _Network) -> PlannedNetwork:
        costs = network["on"][chip]
        errors = network["validation"], network["test"]
        return PlannedNetwork(network["zeros"], *errors, int(costs["cycles"]), costs["joules"])

    networks = (result["dense"], result["weights"], result["cost"][chip])
    return PlanPair(chip, result["rise"], result["seed"], *map(on_chip, networks))
