"""Plans by what chips gain, and plans by the number of weights: both trained, carried out and estimated alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn

from zeroskip import measure, prune, retrain, simulate, task_api, tasks
from zeroskip.concepts import Progress, Trace, silent
from zeroskip.concepts.plan_comparison import ChipLayers, PlanComparison, PlannedNetwork, PlanPair
from zeroskip.errors import AcceleratorError
from zeroskip.exploration.chip_lookup import find_chips, identity
from zeroskip.prune.plan import NetworkCost
from zeroskip.simulate import Accelerator
from zeroskip.sweep import sweep
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


class _Costs(TypedDict):
    cycles: int
    joules: float


class _Network(TypedDict):
    """A network in a stored point; on: chip -> what it costs there."""

    zeros: float
    validation: float
    test: float
    on: dict[str, _Costs]


class _Result(TypedDict):
    """A stored point: the networks of one seed and budget; cost: chip -> the one planned for it."""

    seed: int
    rise: float
    dense: _Network
    weights: _Network
    cost: dict[str, _Network]


class _Point(TypedDict):
    """All that decides a result."""

    task: str
    on: str
    of: str
    pattern: str
    train: Mapping[str, float] | None
    identity: str
    machines: list[dict[str, object]]
    rise: float
    seed: int


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
    points: list[_Point] = [
        {
            "task": study.task,
            "on": study.chips,
            "of": study.cost,
            "pattern": study.pattern,
            "train": study.train,
            "identity": task_api.identity(task),
            "machines": [identity(chip, study.chips).to_json() for chip in chips],
            "rise": task_api.one_example(task) if rise is None else rise,
            "seed": seed,
        }
        for rise in max_error_rises
        for seed in range(seeds)
    ]
    results = sweep(points, _compared, folder=folder, jobs=jobs, progress=progress)
    pairs = tuple(_pair(result, chip.name) for chip in chips for result in results)
    return PlanComparison(task_api.name(task), study.cost, study.pattern, layers, pairs)


def example_trace(model: nn.Module, task: Task) -> Trace:
    """What a few examples of the task's batch make the layers see: what a cost on a chip is estimated of.

    >>> from zeroskip import tasks
    >>> [layer.name for layer, _, _ in example_trace(tasks.digits.model(), tasks.digits)]
    ['fc1', 'fc2', 'fc3']
    """
    return measure.trace(model, task_api.batch(task)[:COST_EXAMPLES])


def _compared(point: _Point) -> _Result:
    """One seed and budget: the dense network, the one planned by weights, and one planned for each chip."""
    task, chips, seed = tasks.load(point["task"]), find_chips(point["on"]), point["seed"]
    torch.manual_seed(seed)  # of the first weights; a training sets its own
    dense = task_api.model(task, None)
    retrain.train(task, dense, stage="dense training", seed=seed)
    profile, trace = measure.profile(dense.eval(), task), example_trace(dense, task)
    pattern = point["pattern"]

    def planned(cost: NetworkCost | None) -> _Network:
        budget, train = point["rise"], point["train"]
        recipe = prune.plan(profile, cost=cost, pattern=pattern, max_error_rise=budget, train=train)
        return _network(retrain.loop(deepcopy(dense), recipe, task, seed=seed).model, task, chips)

    by_cost = {
        chip.name: planned(simulate.cost_on(chip, trace, of=point["of"], pattern=pattern)) for chip in chips
    }
    return {
        "seed": seed,
        "rise": point["rise"],
        "dense": _network(dense, task, chips),
        "weights": planned(None),
        "cost": by_cost,
    }


def _chips(words: str) -> list[Accelerator]:
    """The chips, each of a name of its own, by which results are told apart."""
    chips = find_chips(words)
    names = [chip.name for chip in chips]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise AcceleratorError(
            f'two chips are called "{twice[0]}", and plans are told apart by that name. Name it once, or give each a '
            'name of its own: dataclasses.replace(chips.SCNN, name="mine").'
        )
    return chips


def _layers(task: Task, chips: Sequence[Accelerator]) -> dict[str, ChipLayers]:
    """What each chip runs, known before any training."""
    trace = example_trace(task_api.model(task, None).eval(), task)
    estimates = [simulate.estimate_trace(trace, chip) for chip in chips]
    return {
        estimate.chip: ChipLayers(tuple(layer.name for layer in estimate.layers), tuple(estimate.refused))
        for estimate in estimates
    }


def _network(model: nn.Module, task: Task, chips: Sequence[Accelerator]) -> _Network:
    weights = [weight.detach() for weight in prune.weights(model).values()]
    kept = sum(int(weight.count_nonzero()) for weight in weights)
    estimates = [simulate.estimate_trace(example_trace(model, task), chip) for chip in chips]
    return {
        "zeros": 1 - kept / sum(weight.numel() for weight in weights),
        "validation": task_api.evaluate(task, model, "validation"),
        "test": task_api.evaluate(task, model, "test"),
        "on": {found.chip: {"cycles": found.cycles, "joules": found.joules} for found in estimates},
    }


def _pair(result: _Result, chip: str) -> PlanPair:
    """A stored point as one chip sees it."""
    networks = (result["dense"], result["weights"], result["cost"][chip])
    return PlanPair(chip, result["rise"], result["seed"], *(_on(network, chip) for network in networks))


def _on(network: _Network, chip: str) -> PlannedNetwork:
    errors = network["validation"], network["test"]
    return PlannedNetwork(network["zeros"], *errors, **network["on"][chip])
