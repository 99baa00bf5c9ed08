"""`zeroskip prune --compare`: plans by what machines gain beside plans by the number of weights, seed by seed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroskip.cli.options import load_task, progress_bars, say, show
from zeroskip.cli.simulate import identity, machines
from zeroskip.errors import AcceleratorError, FileError

if TYPE_CHECKING:
    from torch import nn

    from zeroskip.concepts import Trace
    from zeroskip.prune.plan import Cost
    from zeroskip.simulate import Accelerator
    from zeroskip.task_api import Task

COST_EXAMPLES = 4  # cycles differ by the zeros of an example's activations


def compare_plans(
    task: Task,
    settings: dict[str, Any],
    out: Path,
    *,
    rises: Sequence[float | None],
    seeds: int,
    jobs: int,
    markdown: Path | None,
    as_json: bool,
) -> None:
    """Train, plan, prune and retrain with every seed and budget, and put both plans side by side.

    seeds     how many;  jobs: processes
    settings  "task" and "on": words for the task and the machines; "of": cycles or joules; "pattern"; "train":
              keywords of each retraining
    """
    from zeroskip import files, task_api
    from zeroskip.emit import detect
    from zeroskip.report.plan_tables import plans_markdown, plans_table
    from zeroskip.sweep import sweep

    chips = _chips(settings["on"])
    layers = _layers(task, chips)
    if markdown is not None:
        check_file(markdown)
    files.folder(out)
    described = [identity(chip, settings["on"]) for chip in chips]
    about = {**settings, "identity": task_api.identity(task), "machines": described}
    budgets = [task_api.one_example(task) if rise is None else rise for rise in rises]
    points = [{**about, "rise": rise, "seed": seed} for rise in budgets for seed in range(seeds)]
    with progress_bars() as progress:
        found = sweep(points, compared, folder=out, jobs=jobs, progress=progress)
    pairs = [{"machine": chip.name, **_pair(point, chip)} for chip in chips for point in found]
    told = {
        "task": task_api.name(task),
        "of": settings["of"],
        "pattern": settings["pattern"],
        "layers": layers,
        "pairs": pairs,
    }
    if markdown is not None:
        command = " ".join(["zeroskip", *sys.argv[1:]])
        origin = f"{date.today().isoformat()}, {detect().title}, `{command}`"
        files.write(markdown, plans_markdown(told, origin))
    show(told, plans_table(told), as_json=as_json)
    if not as_json and markdown is not None:
        say(f"wrote {markdown}")


def compared(point: Mapping[str, Any]) -> dict[str, Any]:
    """One seed and budget: the dense network, the one planned by weights, and one planned for each machine."""
    import torch

    from zeroskip import measure, prune, retrain, simulate, task_api

    task, chips, seed = load_task(point["task"], None), machines(point["on"]), point["seed"]
    torch.manual_seed(seed)  # of the first weights; a training sets its own
    dense = task_api.model(task, None)
    retrain.train(task, dense, stage="dense training", seed=seed)
    profile, trace = measure.profile(dense.eval(), task), traced(dense, task)

    def planned(cost: Cost | None) -> dict[str, Any]:
        words = {"pattern": point["pattern"], "max_error_rise": point["rise"], "train": point["train"]}
        recipe = prune.plan(profile, cost=cost, **words)
        return _told(retrain.loop(deepcopy(dense), recipe, task, seed=seed).model, task, chips)

    by_cost = {
        chip.name: planned(simulate.cost_on(chip, trace, of=point["of"], pattern=point["pattern"]))
        for chip in chips
    }
    return {
        "seed": seed,
        "rise": point["rise"],
        "dense": _told(dense, task, chips),
        "weights": planned(None),
        "cost": by_cost,
    }


def check_file(path: Path) -> None:
    """Make the folder of a file to be written; FileError where that fails, or where `path` is a folder itself.

    Better known before a training than after it.

    >>> check_file(Path("runs/sparse.safetensors"))
    """
    from zeroskip import files

    files.folder(path.parent)
    if path.is_dir():
        raise FileError(f"{path} is a folder. Name a file in it.")


def traced(model: nn.Module, task: Task) -> Trace:
    """What a few examples of the task's batch make the layers see."""
    from zeroskip import measure, task_api

    return measure.trace(model, task_api.batch(task)[:COST_EXAMPLES])


def _chips(words: str) -> list[Accelerator]:
    """The machines, each of a name of its own: results are told apart by it."""
    found = machines(words)
    names = [chip.name for chip in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise AcceleratorError(
            f'--cost-on names two machines "{twice[0]}", and plans are told apart by that name. Name it once, or give '
            'each a name of its own: dataclasses.replace(chips.SCNN, name="mine").'
        )
    return found


def _layers(task: Task, chips: Sequence[Accelerator]) -> dict[str, dict[str, list[str]]]:
    """Machine -> the layers it runs, and those it refuses, which are in no figure; known before any training."""
    from zeroskip import simulate, task_api

    trace = traced(task_api.model(task, None).eval(), task)
    found = [simulate.estimate_trace(trace, chip) for chip in chips]
    return {
        one.chip: {"run": [layer.name for layer in one.layers], "refused": list(one.refused)}
        for one in found
    }


def _told(model: nn.Module, task: Task, chips: Sequence[Accelerator]) -> dict[str, Any]:
    from zeroskip import prune, simulate, task_api

    weights = [one.detach() for one in prune.weights(model).values()]
    errors = {split: task_api.evaluate(task, model, split) for split in ("validation", "test")}
    found = [simulate.estimate_trace(traced(model, task), chip) for chip in chips]
    return {
        "zeros": 1 - sum(int(one.count_nonzero()) for one in weights) / sum(one.numel() for one in weights),
        **errors,
        "on": {one.chip: {"cycles": one.cycles, "joules": one.joules} for one in found},
    }


def _pair(point: Mapping[str, Any], chip: Accelerator) -> dict[str, Any]:
    """A point as one machine sees it: seed, rise, and for each network its zeros, errors, cycles and joules."""
    networks = {"dense": point["dense"], "weights": point["weights"], "cost": point["cost"][chip.name]}
    seen = {
        name: {key: value for key, value in one.items() if key != "on"} | one["on"][chip.name]
        for name, one in networks.items()
    }
    return {"seed": point["seed"], "rise": point["rise"], **seen}
