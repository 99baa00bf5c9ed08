"""The figures of a run: of each layer, of the whole network, and the means of several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from torch import nn

from zeroskip import measure, run, task_api
from zeroskip.concepts import (
    STAYS_DENSE,
    Choice,
    EightBits,
    Goal,
    LayerSummary,
    Packed,
    Recipe,
    Record,
    Sparse,
    Summary,
    Timing,
)
from zeroskip.verdict import verdict

SKIPS = {kernel.name: kernel.skips for kernel in run.kernels.ALL}
SKIP_WEIGHTS = ("weights", "both")
IN_INT8 = [kernel.name for kernel in run.kernels.ALL if kernel.element == "int8"]

Compared = Sequence[tuple[run.Program, Timing]]
"""For each batch size: the program compiled for it, and its time among those of the dense engines."""


@dataclass(frozen=True)
class Outcome:
    """What a run has at its end: the networks before pruning, pruned, read back from the file, and compiled."""

    dense: nn.Module
    recipe: Recipe
    sparse: Sparse
    packed: Packed
    unpacked: nn.Module
    quantisation: run.Quantisation | None
    compared: Compared

    @property
    def program(self) -> run.Program:
        """The program for one input at a time."""
        return self.compared[0][0]


def summary(task: task_api.Task, goal: Goal, seed: int, outcome: Outcome) -> Summary:
    """The figures of one seed; the test split is looked at here."""
    zeros = measure.activations(outcome.unpacked, task_api.batches(task))
    cost = measure.cost(outcome.unpacked, task_api.batch(task).take(1))
    layers = layer_summaries(cost, outcome.program, zeros, outcome.recipe.reasons)
    dense_bytes, stored_bytes = _stored_bytes(outcome.unpacked), outcome.packed.stored_bytes
    timing = outcome.compared[0][1]
    found = Summary(
        task=task_api.name(task),
        seeds=1,
        seed=seed,
        **asdict(goal),
        error_dense=task_api.evaluate(task, outcome.dense, "test"),
        error_sparse=task_api.evaluate(task, outcome.sparse.model, "test"),
        error_unpacked=task_api.evaluate(task, outcome.unpacked, "test"),
        error_run=error_run(task, outcome.unpacked, outcome.compared),
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
        machine=timing.machine,
        selected_on="validation" if task_api.has_splits(task) else "the reported set",
        splits=task_api.split_sizes(task),
        timings=tuple(timing for _, timing in outcome.compared),
        layers=layers,
        macs=cost.macs,
        macs_kept=sum(each.macs * each.weights_kept // max(each.weights, 1) for each in layers),
        activation_macs=cost.activation_macs,
        explanation=outcome.program.explanation,
        eight_bits=eight_bits(outcome.quantisation, [program for program, _ in outcome.compared]),
    )
    return replace(found, verdict=verdict(found, outcome.program.choices))


def error_run(task: task_api.Task, model: nn.Module, compared: Compared) -> float:
    """The test error of the compiled program; in eight bits, where programs round differently, of the worst one.

    >>> program = run.compile(model, x)
    >>> error_run(task, model, [(program, record.timings[0])]) == task_api.evaluate(task, model, "test")
    True
    """
    programs = [program for program, _ in compared]
    if all(program.origin.quantisation is None for program in programs):
        programs = programs[:1]
    return max(task_api.evaluate(task, run.as_module(program, model), "test") for program in programs)


def eight_bits(quantisation: run.Quantisation | None, programs: Sequence[run.Program]) -> EightBits | None:
    """What was calibrated, and which layers of the programs stay in fp32; None for programs in fp32.

    >>> print(eight_bits(None, [run.compile(model, x)]))
    None
    """
    if quantisation is None:
        return None
    in_fp32 = {program.batch: _in_fp32(program.choices) for program in programs}
    return EightBits(quantisation.error, quantisation.examples, quantisation.method, in_fp32)


def _in_fp32(choices: Sequence[Choice]) -> dict[str, str]:
    """Layers that compute in fp32 though eight bits were asked for, and why."""
    found: dict[str, str] = {}
    for choice in choices:
        if choice.kernel not in IN_INT8:
            refused = [choice.refused[name] for name in IN_INT8 if name in choice.refused]
            timed = any(name in choice.seconds for name in IN_INT8)
            found.setdefault(choice.layer, choice.reason if timed or not refused else refused[0])
    return found


def _stored_bytes(model: nn.Module) -> int:
    """Of all tensors that a file of the network holds, as they are; shared ones once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def layer_summaries(
    cost: measure.NetworkCost,
    program: run.Program,
    zeros: Mapping[str, measure.Zeros] | None = None,
    planned: Mapping[str, str] | None = None,
) -> tuple[LayerSummary, ...]:
    """Every weight of the network, joined by name with the kernels that run it and, where known, what it reads.

    planned  `Recipe.reasons`, which say why layers were left dense

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
        left = each.kept_dense or _left_dense((planned or {}).get(name, ""))
        layers.append(replace(layer, dense=_why_dense(layer, left, choices, why[0])))
    return tuple(layers)


def _left_dense(planned: str) -> str:
    """Why the plan left the layer dense; "" where it did not."""
    return planned.removeprefix(STAYS_DENSE) if planned.startswith(STAYS_DENSE) else ""


def _why_dense(layer: LayerSummary, left_dense: str, choices: Sequence[Choice], why: str) -> str:
    """Why no zero of the weight is skipped; "" where a kernel skips them."""
    if layer.weights_kept == layer.weights:
        return left_dense or "nothing of it was pruned"
    if any(choice.skips in SKIP_WEIGHTS for choice in choices):
        return ""
    return "dense was faster" if layer.raced else why


def mean(records: Sequence[Record]) -> Summary:
    """Means of all numbers; everything else as in the seed with the median error.

    >>> mean([record, record]).error_dense
    0.02
    """
    summaries = [record.summary for record in records]
    median = sorted(summaries, key=lambda each: (each.error_sparse, each.weights_kept))[len(summaries) // 2]
    varying = [field.name for field in fields(median) if isinstance(getattr(median, field.name), float)]
    means = {
        name: statistics.fmean(getattr(summary, name) for summary in summaries)
        for name in (*varying, "weights_kept", "macs_kept", "stored_bytes")
    }
    runs = tuple(replace(summary, layers=(), timings=(), explanation=None) for summary in summaries)
    found = replace(median, seeds=len(runs), shown=f"seed-{median.seed}", runs=runs)
    found = replace(found, **means)  # type: ignore[arg-type]  # names of numbers only
    return replace(found, verdict=verdict(found, records[summaries.index(median)].choices))
