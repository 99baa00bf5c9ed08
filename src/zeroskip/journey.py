"""The whole path in one function, to be read first: from a dense network to a measured table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from torch import Tensor, nn

from zeroskip import files, measure, pack, prune, report, retrain, run, run_folder, task_api
from zeroskip.concepts import (
    Choice,
    LayerSummary,
    Packed,
    Profile,
    Progress,
    Recipe,
    Record,
    Sparse,
    Summary,
    Timing,
    silent,
)
from zeroskip.errors import ModelError, RecipeError, TaskError
from zeroskip.verdict import verdict


@dataclass(frozen=True)
class Goal:
    """What is asked for: where zeros may lie, and how far to go.

    pattern         see `zeroskip.patterns`
    max_error_rise  what pruning may cost on validation; None: one example, the smallest difference there is
    sparsity        prune to this in one training, by saliency, instead of rounds within max_error_rise
    bits            each layer ends with 2^bits values, trained; None: values are not shared
    """

    pattern: str = "free"
    max_error_rise: float | None = None
    sparsity: float | None = None
    bits: int | None = None


@dataclass(frozen=True)
class RunSetup:
    """What a run starts from, and with how many threads programs are timed.

    weights  state dict of a trained network to start from, instead of training one
    permute  put channels in an order in which blocks of inputs (`1x4`) keep more: the same function
    """

    seed: int = 0
    weights: Mapping[str, Tensor] | None = None
    threads: int = 1
    permute: bool = True


DEFAULT_GOAL, DEFAULT_SETUP = Goal(), RunSetup()
SKIPS = {kernel.name: kernel.skips for kernel in run.kernels.ALL}
SKIP_WEIGHTS = ("weights", "both")
SIZES = 256  # a data set has sentences of many lengths, and a run of hours must not end at the ninth

Compared = Sequence[tuple[run.Program, Timing]]
"""For each batch size: the program compiled for it, and its time among those of the dense engines."""


def sparsify(
    task: task_api.Task,
    out: str | Path,
    goal: Goal = DEFAULT_GOAL,
    setup: RunSetup = DEFAULT_SETUP,
    *,
    progress: Progress = silent,
) -> Record:
    """Train, measure, plan, prune and retrain, pack, run; leaves tables and pictures in the RUN folder `out`.

    Killed and called again with the same arguments, it continues and ends with the same network.
    Decisions look at the validation split only; the test split is looked at once, at the end.
    What cannot be had is refused before anything is trained: RecipeError, PatternError, EngineError.
    """
    goal = _checked(task, goal, setup.weights)
    folder = run_folder.claim(out, _command(task, goal, setup))
    if (folder / "summary.json").exists():
        return _record(folder)
    seed = setup.seed
    dense = _dense(task, folder, goal.pattern, setup, progress)
    profile = _profile(task, dense, folder, progress)
    recipe = _recipe(profile, goal, folder)
    start = task_api.model(task, dense.state_dict())
    sparse = retrain.loop(start, recipe, task, folder=folder, seed=seed, progress=progress)
    if goal.bits is not None:
        shared = retrain.CodebookRecipe(bits=goal.bits, max_error=_limit(profile, goal))
        sparse = retrain.centroids(sparse, shared, task, folder=folder, seed=seed, progress=progress)
    packed, unpacked = _pack(task, sparse, folder)
    compared = compile_and_compare(task, unpacked, threads=setup.threads, progress=progress)
    outcome = _Outcome(dense, sparse, packed, unpacked, compared)
    summary = _summary(task, goal, seed, outcome)
    run_folder.save_findings(folder, sparse.history, outcome.program.choices, summary.timings, packed)
    run_folder.finish(folder, summary)
    return _record(folder)


def sparsify_seeds(
    task: task_api.Task,
    out: str | Path,
    seeds: int,
    goal: Goal = DEFAULT_GOAL,
    setup: RunSetup = DEFAULT_SETUP,
    *,
    progress: Progress = silent,
) -> Record:
    """`sparsify` for seeds 0 .. seeds - 1, each in its own RUN folder inside `out`; resumes likewise.

    The summary's numbers are means over the seeds and `runs` has one summary each; layers and pictures are
    those of the seed with the median error.
    """
    folder = run_folder.claim(out, {"task": task_api.identity(task), "seeds": seeds})
    records = []
    for seed in range(seeds):

        def of_this_seed(what: str, done: int, total: int, seed: int = seed) -> None:
            progress(f"seed {seed + 1} of {seeds}: {what}", done, total)

        own = replace(setup, seed=seed)
        records.append(sparsify(task, folder / f"seed-{seed}", goal, own, progress=of_this_seed))
    run_folder.finish(folder, _mean(records))
    return _record(folder)


def dense_network(
    task: task_api.Task,
    weights: Mapping[str, Tensor] | None = None,
    *,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = silent,
) -> nn.Module:
    """The task's network with these weights, or trained; a training continues in `folder` where it was killed."""
    task_api.seed_all(seed)  # its first weights too
    model = task_api.model(task, None if weights is None else dict(weights))
    if weights is None:
        retrain.train(task, model, stage="dense training", seed=seed, folder=folder, progress=progress)
    return model.eval()


def check_plan(model: nn.Module, pattern: str, max_error_rise: float | None) -> None:
    """RecipeError or PatternError where no plan can be made for this network.

    >>> check_plan(model, "channel", 0.01)
    >>> check_plan(model, "7x1", 0.01)
    Traceback (most recent call last):
    zeroskip.errors.RecipeError: no layer of the network can take the pattern "7x1". Try "free".
    """
    shapes = {name: tuple(weight.shape) for name, weight in prune.weights(model).items()}
    prune.check(shapes, pattern, max_error_rise)


def compile_and_compare(
    task: task_api.Task,
    model: nn.Module,
    *,
    batch: int | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> Compared:
    """Programs and their times among dense engines: for one input at a time and for the task's batch; or `batch`.

    Each program is compiled for its batch size, as the engines are.
    """
    inputs = task_api.batch(task)
    if batch not in (None, 1) and inputs.batch_axis is None:
        raise TaskError(
            f"{task_api.name(task)} has no axis of examples to make a batch of {batch} of. Leave it out."
        )
    compared = []
    for size in sorted({1, inputs.size}) if batch is None else [batch]:
        example = inputs.take(size)
        program = run.compile(model, example, threads=threads, sizes=SIZES)
        timing = run.compare(program, model, example, threads=threads, progress=progress)
        compared.append((program, timing))
    return compared


def _checked(task: task_api.Task, goal: Goal, weights: Mapping[str, Tensor] | None) -> Goal:
    """The goal with its budget filled in, or an error, before an hour of training and before a folder is made."""
    if goal.sparsity is not None and goal.max_error_rise is not None:
        raise RecipeError("give a sparsity or max_error_rise, not both: how far to go or how bad it may get")
    if goal.max_error_rise is None:
        goal = replace(goal, max_error_rise=task_api.one_example(task))
    if goal.sparsity is not None:
        if goal.pattern != "free":
            raise RecipeError(f'a sparsity goes with pattern "free", not "{goal.pattern}". Leave one out.')
        prune.while_training(goal.sparsity)
        task_api.check_on_step(task)
    model = task_api.model(task, None if weights is None else dict(weights))
    batch = task_api.batch(task)
    check_plan(model, goal.pattern, goal.max_error_rise)
    if goal.bits is not None:
        retrain.widths(model, goal.bits)
    run.check(model, batch)
    return goal


def _command(task: task_api.Task, goal: Goal, setup: RunSetup) -> dict[str, object]:
    """What run.json holds: a folder belongs to one command."""
    return {
        "task": task_api.identity(task),
        "seed": setup.seed,
        **asdict(goal),
        "started_from": None if setup.weights is None else run_folder.fingerprint(setup.weights),
        "threads": setup.threads,
    } | ({} if setup.permute else {"permute": False})


def _dense(task: task_api.Task, folder: Path, pattern: str, setup: RunSetup, progress: Progress) -> nn.Module:
    stored = folder / "dense.safetensors"
    if stored.exists():
        return task_api.model(task, run_folder.load_tensors(stored))
    model = dense_network(task, setup.weights, seed=setup.seed, folder=folder, progress=progress)
    if setup.permute and prune.gains_by_order(pattern):
        model = prune.permute_channels(model, task_api.batch(task), pattern).model
    run_folder.save_tensors(stored, model.state_dict())
    return model


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
    """The validation error that shared values may not exceed: the budget, where there is one."""
    return math.inf if goal.sparsity is not None else profile.error + (goal.max_error_rise or 0.0) + 1e-9


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


@dataclass(frozen=True)
class _Outcome:
    """The networks at the end of a run: before pruning, pruned, stored, read back from the file, compiled."""

    dense: nn.Module
    sparse: Sparse
    packed: Packed
    unpacked: nn.Module
    compared: Compared

    @property
    def program(self) -> run.Program:
        """The program for one input at a time."""
        return self.compared[0][0]


def _summary(task: task_api.Task, goal: Goal, seed: int, outcome: _Outcome) -> Summary:
    zeros = measure.activations(outcome.sparse.model, task_api.batches(task))
    cost = measure.cost(outcome.sparse.model, task_api.batch(task).take(1))
    layers = layer_summaries(cost, outcome.program, zeros)
    dense_bytes, stored_bytes = _stored_bytes(outcome.sparse.model), outcome.packed.stored_bytes
    timing = outcome.compared[0][1]
    summary = Summary(
        task=task_api.name(task),
        seeds=1,
        seed=seed,
        **asdict(goal),
        error_dense=task_api.evaluate(task, outcome.dense, "test"),
        error_sparse=task_api.evaluate(task, outcome.sparse.model, "test"),
        error_unpacked=task_api.evaluate(task, outcome.unpacked, "test"),
        error_run=task_api.evaluate(task, run.as_module(outcome.program, outcome.unpacked), "test"),
        weights=cost.weights,
        weights_kept=cost.kept,
        weights_times_fewer=cost.weights / max(cost.kept, 1),
        stored_bytes_dense=dense_bytes,
        stored_bytes=stored_bytes,
        stored_times_smaller=dense_bytes / stored_bytes,
        dense_seconds=timing.dense_seconds,
        sparse_seconds=timing.sparse_seconds,
        dense_engine=timing.dense_engine,
        batch=timing.batch,
        threads=timing.threads,
        precision=timing.precision,
        machine=timing.machine,
        selected_on="validation" if task_api.has_splits(task) else "the reported set",
        splits=task_api.split_sizes(task),
        timings=tuple(timing for _, timing in outcome.compared),
        layers=layers,
        macs=cost.macs,
        macs_kept=sum(each.macs * each.weights_kept // max(each.weights, 1) for each in layers),
        activation_macs=cost.activation_macs,
        explanation=outcome.program.explanation,
    )
    return replace(summary, verdict=verdict(summary, outcome.program.choices))


def _stored_bytes(model: nn.Module) -> int:
    """Of all tensors that a file of the network holds, as they are; shared ones once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def layer_summaries(
    cost: measure.NetworkCost, program: run.Program, zeros: Mapping[str, measure.Zeros] | None = None
) -> tuple[LayerSummary, ...]:
    """Every weight of the network, joined by name with the kernels that run it and, where known, what it reads.

    >>> [layer.name for layer in layer_summaries(measure.cost(model, x), run.compile(model, x))]
    ['fc1', 'fc2']
    """
    layers, unreached = [], {each.name: each.why for each in program.unreached}
    for name, each in cost.layers.items():
        choices = [choice for choice in program.choices if choice.layer == name]
        raced = any(SKIPS.get(kernel) in SKIP_WEIGHTS for choice in choices for kernel in choice.seconds)
        why = list(dict.fromkeys(choice.reason for choice in choices))
        if choices and not raced and each.kept < each.weights:
            why = [f"{choices[0].op}: no sparse kernel"]
        elif not choices:
            why = [
                each.kept_dense or unreached.get(name) or each.unmultiplied or "not run as a layer of its own"
            ]
        layer = LayerSummary(
            name,
            weights=each.weights,
            weights_kept=each.kept,
            weight_sparsity=1 - each.kept / max(each.weights, 1),
            input_sparsity=zeros[name].input if zeros and name in zeros else None,
            kernel=", ".join(dict.fromkeys(choice.kernel for choice in choices)) or "none",
            reason=(f"runs {each.runs} times; " if each.runs > 1 else "") + ", ".join(why),
            macs=each.macs,
            runs=each.runs,
            raced=raced,
        )
        layers.append(replace(layer, dense=_why_dense(layer, each.kept_dense, choices, why[0])))
    return tuple(layers)


def _why_dense(layer: LayerSummary, kept_dense: str, choices: Sequence[Choice], why: str) -> str:
    """Why no zero of the weight is skipped; "" where a kernel skips them."""
    if layer.weights_kept == layer.weights:
        return kept_dense or "nothing of it was pruned"
    if any(choice.skips in SKIP_WEIGHTS for choice in choices):
        return ""
    return "dense was faster" if layer.raced else why


def _mean(records: Sequence[Record]) -> Summary:
    """Means of all numbers; everything else as in the seed with the median error."""
    summaries = [record.summary for record in records]
    median = sorted(summaries, key=lambda each: (each.error_sparse, each.weights_kept))[len(summaries) // 2]
    varying = [field.name for field in fields(median) if isinstance(getattr(median, field.name), float)]
    means = {
        name: statistics.fmean(getattr(summary, name) for summary in summaries)
        for name in (*varying, "weights_kept", "macs_kept", "stored_bytes")
    }
    runs = tuple(replace(summary, layers=(), timings=(), explanation=None) for summary in summaries)
    mean = replace(median, seeds=len(runs), shown=f"seed-{median.seed}", runs=runs)
    mean = replace(mean, **means)  # type: ignore[arg-type]  # names of numbers only
    return replace(mean, verdict=verdict(mean, records[summaries.index(median)].choices))
