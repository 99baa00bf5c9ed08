"""Zeros that enter and leave each layer on real data: one pass over a data set, in constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from zeroskip.concepts import Progress, silent
from zeroskip.errors import DataError, ModelError
from zeroskip.graph import Given, Inputs, evaluating, forward, weights
from zeroskip.graph.inputs import of
from zeroskip.graph.weight_runs import Run, watched
from zeroskip.measure.layer_outputs import Output, Outputs, version_of
from zeroskip.measure.tensor_zeros import CountMemory, TensorZeros, count_zeros
from zeroskip.measure.zero_sums import BY, Batch, Count, Sums, add_, count

Batches = Iterable[Given | Inputs | tuple[Given | Inputs, Tensor]]


@dataclass(frozen=True)
class Zeros:
    """Exact zeros that one weight meets over a data set, in all its runs.

    before  in what it is multiplied with
    after   in what leaves its layer after the normalisation, the activation function and the pooling that follow; of
            an LSTM's weights, in what leaves the LSTM. None where it is unknown: before any ReLU it went into
            something else, as a sum of two branches

    >>> from zeroskip import measure
    >>> zeros = measure.activations(model, [x])["fc2"]
    >>> zeros.before.zeros, zeros.before.elements, zeros.output
    (10, 24, 0.0)
    """

    before: Count
    after: Count | None

    @property
    def input(self) -> float:
        """Share of zeros in what the layer reads."""
        return self.before.share

    @property
    def output(self) -> float | None:
        """Share of zeros in what leaves it; None where it is unknown."""
        return None if self.after is None else self.after.share


def activations(
    model: nn.Module,
    batches: Batches,
    *,
    by: Collection[str] = (),
    resume: Sums | None = None,
    on_batch: Callable[[int, Sums], None] | None = None,
    progress: Progress = silent,
) -> dict[str, Zeros]:
    """Name -> Zeros of every weight that is multiplied (see `graph.layers`), in eval mode, without gradients.

    batches   inputs (a tensor, a dict, Inputs), or pairs (inputs, classes), where inputs may be a tuple for
              model(*inputs); a tuple of two is always such a pair. Empty ones are passed over
    by        counts besides those by layer and channel, of "position", "class", "example"
    on_batch  called as on_batch(batches done, sums); sums are plain tensors, and `resume=sums` continues the count
              with the batch after, of the same batches in the same order
    What runs twice counts twice; examples are the first axis of every tensor. ModelError where nothing is counted.

    >>> {name: (zeros.before.zeros, zeros.after.zeros) for name, zeros in activations(model, [x]).items()}
    {'fc1': (0, 10), 'fc2': (10, 0)}
    """
    sums = _start(model, by, resume)
    start, memory = int(sums["batches"]), CountMemory()
    with evaluating(model):
        for done, batch in enumerate(islice(batches, start, None), start + 1):
            inputs, classes = _pair(batch)
            if inputs.size:
                sizes = _batch(inputs.size, classes, by)
                sides, unknown = _counted(model, inputs, memory, positions="position" in by)
                for side, runs in sides.items():
                    add_(sums, side, runs, sizes, by)
                for side, times in unknown.items():
                    sums[f"{side}.unknown"] = sums.get(f"{side}.unknown", torch.tensor(0)) + times
            sums["batches"] = torch.tensor(done)
            if on_batch is not None:
                on_batch(done, dict(sums))
            progress("activations", done, max(done, length_hint(batches)))
    return results(model, sums)


def _pair(batch: object) -> tuple[Inputs, Tensor | None]:
    if not isinstance(batch, tuple | list):
        return of(cast(Given, batch)), None
    if len(batch) != 2:
        raise DataError(
            f"a batch is inputs, or a pair of inputs and classes; this one has {len(batch)} parts. Give several "
            "inputs as a dict of forward's keywords, or in such a pair: ((first, second), classes)."
        )
    return of(batch[0]), batch[1]


def results(model: nn.Module, sums: Sums) -> dict[str, Zeros]:
    """The zeros that the sums of a pass, finished or not, hold of each weight of `model`, in the order of `weights`.

    Raises ModelError where nothing was counted.

    >>> kept = []
    >>> _ = activations(model, [x, x], on_batch=lambda done, sums: kept.append(sums))
    >>> results(model, kept[0])["fc2"].before.elements, results(model, kept[1])["fc2"].before.elements
    (24, 48)
    """
    names = [name for name in weights(model) if f"{name}.input.zeros" in sums]
    if not names:
        raise ModelError(
            "no zeros could be counted: there was no batch with an example in it, or nothing was multiplied with a "
            "weight. Give at least one batch."
        )
    return {name: Zeros(count(sums, f"{name}.input"), _after(sums, f"{name}.output")) for name in names}


def _after(sums: Sums, side: str) -> Count | None:
    unknown = f"{side}.zeros" not in sums or int(sums.get(f"{side}.unknown", 0))
    return None if unknown else count(sums, side)


def _start(model: nn.Module, by: Collection[str], resume: Sums | None) -> Sums:
    if unknown := sorted(set(by) - set(BY)):
        raise ModelError(f"zeros cannot be counted by {', '.join(unknown)}. Choose of {', '.join(BY)}.")
    sums = dict(resume or {"batches": torch.tensor(0)})
    kinds = {kind for kind in BY if any(key.endswith(f".{kind}") for key in sums)}
    layers = {key.rsplit(".", 2)[0] for key in sums if key != "batches"}
    if layers and (kinds != set(by) or not layers <= set(weights(model))):
        raise ModelError(
            f"the sums to continue are of {len(layers)} layers, counted by {sorted(kinds) or 'channel only'}: not of "
            f"this network, or not by {sorted(by) or 'channel only'}. Continue as they were begun, or begin anew."
        )
    return sums


def _batch(size: int, classes: object, by: Collection[str]) -> Batch:
    if "class" not in by:
        return Batch(size)
    if not isinstance(classes, Tensor):
        raise DataError(
            'zeros by class need batches of (inputs, classes). Give such pairs, or leave "class" out.'
        )
    return Batch(size, classes)


def _counted(
    model: nn.Module, inputs: Inputs, memory: CountMemory, *, positions: bool
) -> tuple[dict[str, list[TensorZeros]], Counter[str]]:
    """Side -> its zeros in each run while `model` ran on `inputs` once, and in how many they are not all."""
    memory.clear()
    sides: dict[str, list[TensorZeros]] = {}
    unknown: Counter[str] = Counter()
    counter = _Counter(memory, positions)

    def ran(run: Run) -> None:
        with torch._C.DisableTorchFunction():  # our own operations are not the network's
            zeros = counter.count(run.x, maps=run.op.startswith("conv"))
        sides.setdefault(f"{run.name}.input", []).append(zeros)
        outputs.ran(run)

    def left(tensor: Tensor, output: Output) -> TensorZeros:
        return counter.count(tensor.transpose(0, 1) if output.steps_first else tensor, maps=output.maps)

    with watched(model, inputs.tensors, ran) as products:
        outputs = Outputs(products, left)
        with outputs:
            forward(model, inputs)
    outputs.finish()
    for output in outputs.all:
        for name in output.names:
            sides.setdefault(f"{name}.output", []).append(cast(TensorZeros, output.zeros))
            unknown[f"{name}.output"] += output.unknown
    return sides, unknown


class _Counter:
    """Counts a tensor once, though it is the output of one layer and the input of others."""

    def __init__(self, memory: CountMemory, positions: bool) -> None:
        self._memory, self._positions = memory, positions
        self._counted = WeakTensorKeyDictionary()  # tensor -> (its version, whether it is maps), TensorZeros

    def count(self, tensor: Tensor, *, maps: bool) -> TensorZeros:
        version = version_of(tensor)
        key = version, maps
        counted: tuple[object, TensorZeros] | None = self._counted.get(tensor)
        if counted is not None and version is not None and counted[0] == key:
            return counted[1]
        zeros = count_zeros(
            _flat(tensor) if maps else tensor, self._memory, maps=maps, positions=self._positions
        )
        self._counted[tensor] = key, zeros
        return zeros


def _flat(maps: Tensor) -> Tensor:
    """(n, channels, height, width) of maps with any number of axes: a volume's layers lie one above the other."""
    if maps.ndim == 4:
        return maps
    first = maps.shape[:2] if maps.ndim > 2 else (*maps.shape, 1)[:2]
    return maps.reshape(*first, -1, maps.shape[-1] if maps.ndim > 2 else 1)
