"""The whole path in one function, to be read first: from a dense network to a measured table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip import files, measure, pack, prune, report, retrain, run, run_folder, task_api
from zeroskip.concepts import Packed, Profile, Progress, Recipe, Record, Sparse, Timing, silent
from zeroskip.errors import ModelError, RecipeError
from zeroskip.verdict import verdict


def sparsify(
    task: task_api.Task,
    out: str | Path,
    *,
    seed: int = 0,
    pattern: str = "free",
    max_error_rise: float | None = None,
    sparsity: float | None = None,
    bits: int | None = None,
    weights: Mapping[str, Tensor] | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> Record:
    """Train, measure, plan, prune and retrain, pack, run; leaves tables and pictures in the RUN folder `out`.

    Killed and called again with the same arguments, it continues and ends with the same network.
    Decisions look at the validation split only; the test split is looked at once, at the end.

    max_error_rise  what pruning may cost on validation; None: one example, the smallest difference there is
    sparsity        prune to this in one training, by saliency, instead of rounds within max_error_rise
    bits            each layer ends with 2^bits values, trained
    weights         state dict of a trained network to start from, instead of training one

    >>> sparsify(tasks.digits, "runs/demo").summary["verdict"]
    'Ship model.zs and run it with zeroskip: ...'
    """
    goal = _goal(task, pattern, max_error_rise, sparsity, bits)
    _ready(task, weights, goal)
    folder = run_folder.claim(out, _command(task, seed, goal, weights, threads))
    if (folder / "summary.json").exists():
        return _record(folder)
    dense = _dense(task, folder, seed, weights, progress)
    profile = _profile(task, dense, folder, progress)
    recipe = _recipe(profile, goal, folder)
    start = task_api.model(task, dense.state_dict())
    sparse = retrain.loop(start, recipe, task, folder=folder, seed=seed, progress=progress)
    if bits is not None:
        told: dict[str, Any] = {"folder": folder, "seed": seed, "progress": progress}
        sparse = retrain.centroids(sparse, task, bits=bits, max_error=_limit(profile, goal), **told)
    packed, unpacked = _pack(task, sparse, folder)
    raced = race(task, unpacked, threads=threads, progress=progress)
    errors = {
        "error_dense": task_api.evaluate(task, dense, "test"),
        "error_sparse": task_api.evaluate(task, sparse.model, "test"),
        "error_unpacked": task_api.evaluate(task, unpacked, "test"),
        "error_run": task_api.evaluate(task, run.as_module(raced[0][0], unpacked), "test"),
    }
    run_folder.save_findings(
        folder, sparse.history, raced[0][0].choices, [timing for _, timing in raced], packed
    )
    options = {"task": task_api.name(task), "seeds": 1, "seed": seed, **asdict(goal)}
    summary = {
        **options,
        **errors,
        **_sizes(sparse, packed),
        **_speeds(raced),
        **_layers(task, sparse, raced),
    }
    summary |= {"selected_on": _selected_on(task), "splits": task_api.split_sizes(task)}
    run_folder.finish(folder, {**summary, "verdict": verdict(summary)})
    return _record(folder)


def sparsify_seeds(
    task: task_api.Task, out: str | Path, *, seeds: int, progress: Progress = silent, **options: Any
) -> Record:
    """`sparsify` for seeds 0 .. seeds - 1, each in its own RUN folder inside `out`; resumes likewise.

    The summary's numbers are means over the seeds and `runs` has one record each; layers and pictures are
    those of the seed with the median error. `options` are those of `sparsify`.

    >>> sparsify_seeds(tasks.digits, "runs/three", seeds=3).summary["seeds"]
    3
    """
    folder = run_folder.claim(out, {"task": task_api.identity(task), "seeds": seeds})
    records = []
    for seed in range(seeds):

        def told(what: str, done: int, total: int, seed: int = seed) -> None:
            progress(f"seed {seed + 1} of {seeds}: {what}", done, total)

        records.append(sparsify(task, folder / f"seed-{seed}", seed=seed, progress=told, **options))
    run_folder.finish(folder, _mean([record.summary for record in records]))
    return _record(folder)


def race(
    task: task_api.Task,
    model: nn.Module,
    *,
    batch: int | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> list[tuple[run.Program, Timing]]:
    """Programs beside every dense engine: for one input at a time, and for the task's batch; or for `batch`.

    Each program is compiled for its batch size, as the engines are.

    >>> race(tasks.digits, model)[0][1].speedup
    3.1
    """
    inputs = task_api.batch(task)
    sizes = sorted({1, len(inputs)}) if batch is None else [batch]
    inputs = inputs[torch.arange(max(sizes)) % len(inputs)]
    raced = []
    for size in sizes:
        program = run.compile(model, inputs[:size], threads=threads)
        timing = run.compare(program, model, inputs[:size], threads=threads, progress=progress)
        raced.append((program, timing))
    return raced


@dataclass(frozen=True)
class Goal:
    """What is asked for: where zeros may lie, and how far to go."""

    pattern: str
    max_error_rise: float
    sparsity: float | None
    bits: int | None


def _goal(
    task: task_api.Task, pattern: str, rise: float | None, sparsity: float | None, bits: int | None
) -> Goal:
    if sparsity is not None and rise is not None:
        raise RecipeError(
            "give a sparsity or max_error_rise, not both: one says how far to go, the other how bad."
        )
    return Goal(pattern, task_api.one_example(task) if rise is None else rise, sparsity, bits)


def _ready(task: task_api.Task, weights: Mapping[str, Tensor] | None, goal: Goal) -> None:
    """Refuse now what can be refused, before an hour of training and before a folder is made."""
    if goal.sparsity is not None:
        if goal.pattern != "free":
            raise RecipeError(
                f'a sparsity goes with the pattern "free", not "{goal.pattern}". Leave one of them out.'
            )
        prune.while_training(goal.sparsity)
        task_api.check_on_step(task)
    model = task_api.model(task, dict(weights) if weights is not None else None)
    batch = task_api.batch(task)
    shapes = {name: tuple(weight.shape) for name, weight in prune.weights(model).items()}
    prune.check(shapes, goal.pattern, goal.max_error_rise)
    if goal.bits is not None:
        retrain.widths(model, goal.bits)
    run.check(model, batch)


def _command(
    task: task_api.Task,
    seed: int,
    goal: Goal,
    weights: Mapping[str, Tensor] | None,
    threads: int,
) -> dict[str, Any]:
    return {
        "task": task_api.identity(task),
        "seed": seed,
        **asdict(goal),
        "started_from": None if weights is None else run_folder.fingerprint(weights),
        "threads": threads,
    }


def _dense(
    task: task_api.Task,
    folder: Path,
    seed: int,
    weights: Mapping[str, Tensor] | None,
    progress: Progress,
) -> nn.Module:
    stored = folder / "dense.safetensors"
    if stored.exists():
        return task_api.model(task, run_folder.load_tensors(stored))
    torch.manual_seed(seed)
    model = task_api.model(task, dict(weights) if weights is not None else None)
    if weights is None:
        retrain.train(task, model, stage="dense training", seed=seed, folder=folder, progress=progress)
    run_folder.save_tensors(stored, model.state_dict())
    return model.eval()


def _profile(task: task_api.Task, dense: nn.Module, folder: Path, progress: Progress) -> Profile:
    stored = folder / "profile.json"
    if not stored.exists():
        run_folder.save_json(stored, measure.profile(dense, task, progress=progress))
    return run_folder.from_json(Profile, files.read_json(stored))


def _recipe(profile: Profile, goal: Goal, folder: Path) -> Recipe:
    stored = folder / "recipe.json"
    if not stored.exists():
        if goal.sparsity is None:
            recipe = prune.plan(profile, pattern=goal.pattern, max_error_rise=goal.max_error_rise)
        else:
            recipe = prune.while_training(goal.sparsity)
        files.write_json(stored, recipe.to_json())
    return Recipe.from_json(files.read_json(stored))


def _limit(profile: Profile, goal: Goal) -> float:
    """The validation error that sharing may not exceed: the budget, where there is one."""
    return math.inf if goal.sparsity is not None else profile.error + goal.max_error_rise + 1e-9


def _pack(task: task_api.Task, sparse: Sparse, folder: Path) -> tuple[Packed, nn.Module]:
    """Store the outcome and read it back: the same, bit for bit."""
    run_folder.save_tensors(folder / "sparse.safetensors", sparse.model.state_dict())
    packed = pack.encode(sparse)
    pack.save(packed, folder / "model.zs")
    decoded = pack.decode(pack.load(folder / "model.zs"))
    for name, tensor in sparse.model.state_dict().items():
        assert tensor.cpu().numpy().tobytes() == decoded[name].numpy().tobytes(), name
    unpacked = task_api.model(task, decoded)
    if task_api.probe(task, unpacked) != task_api.probe(task, sparse.model):
        raise ModelError(
            "the network read back from its file gives another error: it depends on something that is not in its "
            "state_dict (a random buffer with persistent=False?). Make model() build the same network each time."
        )
    return packed, unpacked


def _record(folder: Path) -> Record:
    record = run_folder.load(folder)
    if not (folder / "report.html").exists():
        report.html(folder / "report.html", record)
    return record


def _selected_on(task: task_api.Task) -> str:
    return "validation" if task_api.has_splits(task) else "the reported set"


def _sizes(sparse: Sparse, packed: Packed) -> dict[str, Any]:
    weights = sum(mask.numel() for mask in sparse.masks.values())
    kept = sum(int(mask.sum()) for mask in sparse.masks.values())
    dense_bytes = 4 * sum(parameter.numel() for parameter in sparse.model.parameters())
    return {
        "weights": weights,
        "weights_kept": kept,
        "weights_times_fewer": weights / max(kept, 1),
        "stored_bytes_dense": dense_bytes,
        "stored_bytes": packed.stored_bytes,
        "stored_times_smaller": dense_bytes / packed.stored_bytes,
    }


def _speeds(raced: list[tuple[run.Program, Timing]]) -> dict[str, Any]:
    timing = raced[0][1]
    return {
        "dense_seconds": timing.dense_seconds,
        "sparse_seconds": timing.sparse_seconds,
        "dense_engine": timing.dense_engine,
        "batch": timing.batch,
        "threads": timing.threads,
        "precision": timing.precision,
        "machine": timing.machine,
        "spread": timing.spread,
        "timings": [asdict(one) for _, one in raced],
    }


def _layers(
    task: task_api.Task, sparse: Sparse, raced: list[tuple[run.Program, Timing]]
) -> dict[str, list[dict[str, Any]]]:
    zeros = measure.activations(sparse.model, task_api.batches(task))
    choices = {choice.layer: choice for choice in raced[0][0].choices}
    layers = []
    for name, mask in sparse.masks.items():
        choice, seen = choices.get(name), zeros.get(name)
        layers.append(
            {
                "name": name,
                "weights": mask.numel(),
                "weights_kept": int(mask.sum()),
                "weight_sparsity": 1 - float(mask.float().mean()),
                "input_sparsity": seen.input if seen else None,
                "kernel": choice.kernel if choice else "none",
                "reason": choice.reason if choice else "not run as a layer of its own",
            }
        )
    return {"layers": layers}


def _mean(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of all numbers; everything else as in the seed with the median error."""
    by_error = sorted(summaries, key=lambda one: (one["error_sparse"], one["weights_kept"]))
    median = by_error[len(by_error) // 2]
    varying = [key for key, value in median.items() if isinstance(value, float)]
    means = {
        key: statistics.fmean(one[key] for one in summaries)
        for key in (*varying, "weights_kept", "stored_bytes")
    }
    scalars = [
        {k: v for k, v in one.items() if k not in ("layers", "timings", "spread")} for one in summaries
    ]
    mean = {**median, **means, "seeds": len(summaries), "shown": f"seed-{median['seed']}", "runs": scalars}
    return {**mean, "verdict": verdict(mean)}
