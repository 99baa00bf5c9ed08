"""All measurements of a network together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from zeroskip import task_api
from zeroskip.concepts import Histogram, Layer, LayerProfile, Profile, Progress, silent, weight_sparsity
from zeroskip.errors import ModelError
from zeroskip.graph import Weight, layers, weights
from zeroskip.measure.activation_zeros import Zeros, activations
from zeroskip.measure.cost import LayerCost, cost
from zeroskip.measure.sensitivity import sensitivity


def profile(model: nn.Module, task: task_api.Task, *, progress: Progress = silent) -> Profile:
    """Cost, zeros, histogram and sensitivity of every weight of a network (see `graph.weights`).

    What stays dense, because it is no product or does not run on the task's batch, is listed with the reason and
    without a sensitivity. Decisions are made on these figures, so the error is that of the validation split. The model
    comes back as it was. Warns where inputs hold NaN or Inf. Raises ModelError where there is nothing to prune or the
    weights hold NaN.

    >>> fc1 = profile(model, task).layer("fc1")
    >>> fc1.macs, fc1.weight_sparsity
    (48, 0.75)
    """
    task_api.check_finite(model)
    listed, example = weights(model), task_api.batch(task).take(1)
    first: dict[str, Layer] = {layer.name: layer for layer in reversed(layers(model, example))}
    costs = cost(model, example).layers
    dense = {name: weight.kept_dense or costs[name].unmultiplied for name, weight in listed.items()}
    pruned = [name for name, reason in dense.items() if not reason]
    if not pruned:
        raise ModelError(
            "the network multiplies nothing with a weight that can be pruned. There is nothing to prune in it."
        )
    zeros = activations(model, task_api.batches(task))
    _warn_of_nonfinite(zeros)
    error = task_api.evaluate(task, model, "validation")
    curves = sensitivity(model, lambda one: task_api.probe(task, one), names=pruned, progress=progress)
    measured = (
        replace(
            _layer(weight, costs[name], first.get(name), zeros.get(name)),
            sensitivity=curves.get(name, {}),
            kept_dense=dense[name],
        )
        for name, weight in listed.items()
    )
    return Profile(tuple(measured), error)


def _warn_of_nonfinite(zeros: Mapping[str, Zeros]) -> None:
    """Layers hand NaN on to each other, so the first that reads it is named."""
    for name, seen in zeros.items():
        if count := seen.before.nonfinite:
            warnings.warn(
                f'the weight "{name}" is multiplied with {count:,} values that are NaN or Inf. They count as non-zero, '
                "so shares of zero inputs say little: look at the data and at the layers before it.",
                stacklevel=3,
            )
            return


def _layer(weight: Weight, spent: LayerCost, run: Layer | None, seen: Zeros | None) -> LayerProfile:
    tensor, after = weight.tensor.detach(), seen.after if seen else None
    return LayerProfile(
        name=weight.name,
        op=run.op if run else "",
        weight_shape=tuple(tensor.shape),
        input_shape=run.input_shape if run else (),
        output_shape=run.output_shape if run else (),
        weights=spent.weights,
        macs=spent.macs,
        stored_bytes=spent.stored_bytes,
        weight_sparsity=weight_sparsity(tensor),
        weight_std=float(tensor.float().std(correction=0)),
        histogram=histogram(tensor),
        input_sparsity=seen.input if seen else None,
        output_sparsity=after.share if after else None,
        input_sparsity_by_channel=seen.before.by_channel if seen else (),
        output_sparsity_by_channel=after.by_channel if after else (),
        runs=spent.runs,
    )


def histogram(weight: Tensor, *, bins: int = 61) -> Histogram:
    """Counts of the non-zero values in `bins` equal bins over a symmetric range (Han et al. 2015, figure 7).

    >>> sum(histogram(torch.tensor([-1.0, 0.0, 2.0])).counts)
    2
    """
    values = weight.detach().float().flatten().numpy()
    values = values[values != 0]
    reach = float(np.abs(values).max()) if len(values) else 1.0
    if reach / bins < np.finfo(np.float32).tiny:  # bins of the smallest numbers need more digits
        values = values.astype(np.float64)
    counts, edges = np.histogram(values, bins=bins, range=(-reach, reach))
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
