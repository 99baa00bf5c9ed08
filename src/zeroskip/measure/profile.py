"""All measurements of a network together."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from zeroskip import task_api
from zeroskip.concepts import Histogram, Layer, LayerProfile, Profile, Progress, silent, weight_sparsity
from zeroskip.errors import ModelError
from zeroskip.graph import layers
from zeroskip.measure.activation_zeros import activations
from zeroskip.measure.cost import cost
from zeroskip.measure.sensitivity import sensitivity


def profile(model: nn.Module, task: task_api.Task, *, progress: Progress = silent) -> Profile:
    """Cost, zeros, histogram and sensitivity of each layer that runs on the task's batch.

    Decisions are made on these figures, so the error is that of the validation split. The model comes back
    as it was. Raises ModelError where there is nothing to prune or the weights hold NaN.

    >>> fc1 = profile(model, task).layer("fc1")
    >>> fc1.macs, fc1.weight_sparsity
    (48, 0.75)
    """
    task_api.check_finite(model)
    pruneable = _unshared(layers(model, task_api.bridge(task_api.batch(task).take(1))))
    if not pruneable:
        raise ModelError("the network runs no linear or convolution layer. There is nothing to prune in it.")
    costs = cost(model, task_api.batch(task).take(1)).layers
    zeros = activations(model, map(task_api.bridge, task_api.batches(task)))
    error = task_api.evaluate(task, model, "validation")
    curves = sensitivity(
        model,
        lambda one: task_api.probe(task, one),
        names=[layer.name for layer in pruneable],
        progress=progress,
    )
    measured = []
    for layer in pruneable:
        spent, seen = costs[layer.name], zeros[layer.name]
        measured.append(
            LayerProfile(
                name=layer.name,
                op=layer.op,
                weight_shape=tuple(layer.weight.shape),
                input_shape=layer.input_shape,
                output_shape=layer.output_shape,
                weights=spent.weights,
                macs=spent.macs,
                stored_bytes=spent.stored_bytes,
                weight_sparsity=weight_sparsity(layer.weight),
                weight_std=float(layer.weight.float().std(correction=0)),
                histogram=histogram(layer.weight),
                input_sparsity=seen.input,
                output_sparsity=seen.output,
                input_sparsity_by_channel=seen.before.by_channel,
                output_sparsity_by_channel=seen.after.by_channel,
                sensitivity=curves[layer.name],
                kept_dense=spent.kept_dense,
            )
        )
    return Profile(tuple(measured), error)


def _unshared(all_layers: list[Layer]) -> list[Layer]:
    """Of layers that share a weight, the first."""
    return list({layer.weight.data_ptr(): layer for layer in reversed(all_layers)}.values())[::-1]


def histogram(weight: Tensor, *, bins: int = 61) -> Histogram:
    """Counts of the non-zero values in `bins` equal bins over a symmetric range (Han et al. 2015, figure 7).

    >>> sum(histogram(torch.tensor([-1.0, 0.0, 2.0])).counts)
    2
    """
    values = weight.detach().float().flatten().numpy()
    values = values[values != 0]
    reach = float(np.abs(values).max()) if len(values) else 1.0
    counts, edges = np.histogram(values, bins=bins, range=(-reach, reach))
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
