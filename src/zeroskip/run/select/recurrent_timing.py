"""One LSTM, GRU or RNN, every kernel that can run it: compared with PyTorch, then timed in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from zeroskip.concepts import Choice, Kernel, Machine, Precision, weight_sparsity
from zeroskip.graph.recurrent import Recurrent, function_of
from zeroskip.run.dense import pytorch
from zeroskip.run.output_difference import agree, relative_error
from zeroskip.run.select.layer_timing import LayerTiming, reason_for
from zeroskip.run.timing import preferred, raced, stop_watch

TOLERANCE = 1e-4  # of the largest output; rounding may grow from step to step


def time_recurrent(
    recurrent: Recurrent, *values: Tensor, machine: Machine, precision: Precision, kernels: Sequence[Kernel]
) -> LayerTiming:
    """Build, compare and time the kernels on the real sequence and the first states, where they are given.

    The choice is that of the whole operation, as a layer called after its module. A kernel that differs from its
    reference is refused: in some networks rounding grows from step to step.

    >>> asked = {"machine": machine, "precision": Precision(), "kernels": [pytorch.KERNEL]}
    >>> time_recurrent(recurrent, torch.zeros(2, 3, 5), **asked).choice.kernel
    'dense'
    """
    refused = {each.name: each.accepts(recurrent, machine, precision) for each in kernels}
    accepted = [kernel for kernel in kernels if refused[kernel.name] is None]
    built = {kernel.name: kernel.build(recurrent, machine, precision, False) for kernel in accepted}
    exact = function_of(recurrent)(*values)
    errors: dict[str, float] = {}
    for kernel in accepted:
        expected = exact if kernel.weights == "fp32" else kernel.reference(recurrent, *values)
        answer = exact if kernel is pytorch.KERNEL else built[kernel.name](*values)
        errors[kernel.name] = 0.0 if kernel.weights == "fp32" else relative_error(answer, exact)
        if not agree(answer, expected, tolerance=TOLERANCE):
            error = relative_error(answer, expected)
            refused[kernel.name] = (
                f"differs by {error:.2g} of the largest output, as rounding grows with the steps"
            )
            del built[kernel.name]
    seconds = raced({name: partial(call, *values) for name, call in built.items()}, stop_watch())
    name = preferred(seconds)
    choice = Choice(
        layer=recurrent.name,
        op=recurrent.kind,
        weight_shape=(),
        sparsity=0.0,
        kernel=name,
        seconds=seconds,
        refused={each: why for each, why in refused.items() if why is not None},
        reason=reason_for(seconds, name),
        error=errors[name],
        skips=next(kernel.skips for kernel in accepted if kernel.name == name),
    )
    kept = {each: call for each, call in built.items() if each in (name, "dense")}
    return LayerTiming(tuple(kernels), choice, kept, name, errors)


def by_matrix(choice: Choice, recurrent: Recurrent) -> list[Choice]:
    """The choice as one for each matrix, whose seconds are its share of the operation's by multiplications."""
    total = sum(layer.macs for layer in recurrent.matrices) or 1
    return [
        replace(
            choice,
            layer=layer.name,
            weight_shape=tuple(layer.weight.shape),
            sparsity=weight_sparsity(layer.weight),
            seconds={name: took * layer.macs / total for name, took in choice.seconds.items()},
        )
        for layer in recurrent.matrices
    ]
