"""The whole path in one function, to be read first: from a dense network to a measured table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from zeroskip import files, measure, outcome, pack, prune, report, retrain, run, run_folder, task_api
from zeroskip.concepts import Goal, Packed, Profile, Progress, Recipe, Record, Sparse, silent
from zeroskip.errors import ModelError, RecipeError, TaskError


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
PRECISIONS = ("fp32", "int8")
SIZES = 256  # a data set has sentences of many lengths, and a run of hours must not end at the ninth
CALIBRATED_ON = 512  # examples


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
    stored, quantisation = sparse, None
    if goal.precision == "int8":
        stored, quantisation = _in_eight_bits(task, sparse, folder)
    packed, unpacked = _pack(task, stored, folder)
    compared = compile_and_compare(
        task, unpacked, quantisation=quantisation, threads=setup.threads, progress=progress
    )
    reached = outcome.Outcome(dense, recipe, sparse, packed, unpacked, quantisation, compared)
    summary = outcome.summary(task, goal, seed, reached)
    run_folder.save_findings(folder, sparse.history, reached.program.choices, summary.timings, packed)
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
    run_folder.finish(folder, outcome.mean(records))
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
    >>> check_plan(model, "9x1", 0.01)
    Traceback (most recent call last):
    zeroskip.errors.RecipeError: no layer of the network can take the pattern "9x1". Try "free".
    """
    shapes = {name: tuple(weight.shape) for name, weight in prune.weights(model).items()}
    prune.check(shapes, pattern, max_error_rise)


def compile_and_compare(
    task: task_api.Task,
    model: nn.Module,
    *,
    batch: int | None = None,
    quantisation: run.Quantisation | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> outcome.Compared:
    """Programs and their times among dense engines: for one input at a time and for the task's batch; or `batch`.

    Each program is compiled for its batch size, as the engines are, which compute in fp32; with a quantisation it
    computes in eight bits.
    """
    inputs = task_api.batch(task)
    if batch not in (None, 1) and inputs.batch_axis is None:
        raise TaskError(
            f"{task_api.name(task)} has no axis of examples to make a batch of {batch} of. Leave it out."
        )
    compared = []
    for size in sorted({1, inputs.size}) if batch is None else [batch]:
        example = inputs.take(size)
        precision = "fp32" if quantisation is None else "int8"
        program = run.compile(
            model, example, precision=precision, quantisation=quantisation, threads=threads, sizes=SIZES
        )
        timing = run.compare(program, model, example, threads=threads, progress=progress)
        compared.append((program, timing))
    return compared


def calibrated(task: task_api.Task, model: nn.Module) -> run.Quantisation:
    """How the network computes in eight bits: calibrated on batches of the task's `batches()`, up to 512 examples.

    >>> calibrated(task, model).examples
    64
    """
    return run.calibrate(model, task_api.equal_batches(task, CALIBRATED_ON))


def _checked(task: task_api.Task, goal: Goal, weights: Mapping[str, Tensor] | None) -> Goal:
    """The goal with its budget filled in, or an error, before an hour of training and before a folder is made."""
    if goal.sparsity is not None and goal.max_error_rise is not None:
        raise RecipeError("give a sparsity or max_error_rise, not both: how far to go or how bad it may get")
    if goal.max_error_rise is None:
        goal = replace(goal, max_error_rise=task_api.one_example(task))
    if goal.precision not in PRECISIONS:
        raise RecipeError(f'precision "{goal.precision}" is unknown. Give one of {", ".join(PRECISIONS)}.')
    if goal.sparsity is not None:
        prune.while_training(goal.sparsity, pattern=goal.pattern)
        task_api.check_on_step(task)
    model = task_api.model(task, None if weights is None else dict(weights))
    batch = task_api.batch(task)
    check_plan(model, goal.pattern, goal.max_error_rise)
    if goal.bits is not None and goal.precision == "int8":
        raise RecipeError("bits and int8 are two ways to store weights in fewer bits. Leave one of them out.")
    if goal.bits is not None:
        retrain.widths(model, goal.bits)
    run.check(model, batch)
    if goal.precision == "int8":
        run.calibrate(model, task_api.equal_batches(task, 8), method="min-max")  # a network may refuse
    return goal


def _command(task: task_api.Task, goal: Goal, setup: RunSetup) -> dict[str, object]:
    """What run.json holds: a folder belongs to one command."""
    asked = asdict(goal)
    if goal.precision == "fp32":
        del asked["precision"]  # as before there was a choice, so that older folders are continued
    return {
        "task": task_api.identity(task),
        "seed": setup.seed,
        **asked,
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
            recipe = prune.while_training(goal.sparsity, pattern=goal.pattern, profile=profile)
        files.write_json(stored, recipe.to_json())
    return Recipe.from_json(files.read_json(stored))


def _limit(profile: Profile, goal: Goal) -> float:
    """The validation error that shared values may not exceed: the budget, where there is one."""
    return math.inf if goal.sparsity is not None else profile.error + (goal.max_error_rise or 0.0) + 1e-9


def _in_eight_bits(task: task_api.Task, sparse: Sparse, folder: Path) -> tuple[Sparse, run.Quantisation]:
    """The outcome as it is stored, its weights bytes times scales, and the scales with which it computes."""
    made = run.rounded(sparse.model, task_api.batch(task), calibrated(task, sparse.model))
    run.quantisation.save(made.quantisation, folder / run_folder.QUANTISATION)
    return replace(sparse, model=made.model), made.quantisation


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
