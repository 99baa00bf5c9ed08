"""Zeros that enter and leave each layer on real data: one pass over a data set, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from zeroskip.concepts import Progress, silent
from zeroskip.errors import DataError, ModelError
from zeroskip.graph import evaluating
from zeroskip.measure.layer_outputs import Outputs
from zeroskip.measure.tensor_zeros import CountMemory, TensorZeros, count_zeros
from zeroskip.measure.zero_sums import BY, Batch, Count, Sums, add_, count

COUNTED = (nn.Linear, nn.Conv2d, nn.RNNBase)
Batches = Iterable[Tensor | tuple[Tensor, Tensor] | list[Tensor]]


@dataclass(frozen=True)
class Zeros:
    """Exact zeros of one layer over a data set.

    before  in its input
    after   in its output after its activation function and its pooling

    >>> from zeroskip import measure
    >>> zeros = measure.activations(model, [x])["fc2"]
    >>> zeros.before.zeros, zeros.before.elements, zeros.output
    (10, 24, 0.0)
    """

    before: Count
    after: Count

    @property
    def input(self) -> float:
        """Share of zeros in what the layer reads."""
        return self.before.share

    @property
    def output(self) -> float:
        """Share of zeros in what leaves it."""
        return self.after.share


def activations(
    model: nn.Module,
    batches: Batches,
    *,
    by: Collection[str] = (),
    resume: Sums | None = None,
    on_batch: Callable[[int, Sums], None] | None = None,
    progress: Progress = silent,
) -> dict[str, Zeros]:
    """Layer name -> Zeros of every linear, convolution and recurrent layer; in eval mode, without gradients.

    batches   inputs, or pairs (inputs, classes), batch axis first; empty ones are passed over
    by        counts besides those by layer and channel, of "position", "class", "example"
    on_batch  called as on_batch(batches done, sums); sums are plain tensors, and `resume=sums` continues the count
              with the batch after, of the same batches in the same order
    A layer that runs twice counts twice; examples are the first axis of every tensor. Raises ModelError where there
    is nothing to count.

    >>> {name: (zeros.before.zeros, zeros.after.zeros) for name, zeros in activations(model, [x]).items()}
    {'fc1': (0, 10), 'fc2': (10, 0)}
    """
    sums = _start(model, by, resume)
    start, memory = int(sums["batches"]), CountMemory()
    with evaluating(model):
        for done, batch in enumerate(islice(batches, start, None), start + 1):
            inputs, classes = _pair(batch)
            if len(inputs):
                sizes = _batch(len(inputs), classes, by)
                for side, runs in _counted(model, inputs, memory, positions="position" in by).items():
                    add_(sums, side, runs, sizes, by)
            sums["batches"] = torch.tensor(done)
            if on_batch is not None:
                on_batch(done, dict(sums))
            progress("activations", done, max(done, length_hint(batches)))
    return results(model, sums)


def _pair(batch: Tensor | tuple[Tensor, Tensor] | list[Tensor]) -> tuple[Tensor, Tensor | None]:
    if isinstance(batch, Tensor):
        return batch, None
    if len(batch) != 2:
        raise DataError(
            f"a batch is inputs, or a pair of inputs and classes; this one has {len(batch)} parts."
        )
    return batch[0], batch[1]


def results(model: nn.Module, sums: Sums) -> dict[str, Zeros]:
    """The zeros that the sums of a pass, finished or not, hold of each layer of `model`, in the order of its modules.

    Raises ModelError where nothing was counted.

    >>> kept = []
    >>> _ = activations(model, [x, x], on_batch=lambda done, sums: kept.append(sums))
    >>> results(model, kept[0])["fc2"].before.elements, results(model, kept[1])["fc2"].before.elements
    (24, 48)
    """
    names = [name for name in _layers(model).values() if f"{name}.input.zeros" in sums]
    if not names:
        raise ModelError(
            "no zeros could be counted: there was no batch with an example in it, or no linear, convolution or "
            "recurrent layer was used. Give at least one batch."
        )
    return {name: Zeros(count(sums, f"{name}.input"), count(sums, f"{name}.output")) for name in names}


def _start(model: nn.Module, by: Collection[str], resume: Sums | None) -> Sums:
    if unknown := sorted(set(by) - set(BY)):
        raise ModelError(f"zeros cannot be counted by {', '.join(unknown)}. Choose of {', '.join(BY)}.")
    sums = dict(resume or {"batches": torch.tensor(0)})
    kinds = {kind for kind in BY if any(key.endswith(f".{kind}") for key in sums)}
    layers = {key.rsplit(".", 2)[0] for key in sums if key != "batches"}
    if layers and (kinds != set(by) or not layers <= set(_layers(model).values())):
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


def _layers(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules() if isinstance(module, COUNTED)}


def _counted(
    model: nn.Module, inputs: Tensor, memory: CountMemory, *, positions: bool
) -> dict[str, list[TensorZeros]]:
    """Side -> its zeros in each run of the layer while `model` ran on `inputs` once; all or nothing where it fails."""
    memory.clear()
    names = _layers(model)
    runs: dict[str, list[TensorZeros]] = {}
    counter = _Counter({name: module for module, name in names.items()}, memory, positions)
    outputs = Outputs(counter.count)

    def ended(name: str) -> None:
        if (zeros := outputs.take(name)) is not None:
            runs.setdefault(f"{name}.output", []).append(zeros)

    def ran(module: nn.Module, args: tuple[object, ...], named: dict[str, object], output: object) -> None:
        name, read = names[module], args[0] if args else named["input"]
        with torch._C.DisableTorchFunction():  # our own operations are not the network's
            runs.setdefault(f"{name}.input", []).append(counter.count(_values(read), name))
            ended(name)  # a second call of a layer must not hide its first
            if isinstance(module, nn.RNNBase) and isinstance(output, tuple):  # of outputs and states
                output = output[0]
            outputs.begin(name, _values(output))

    with _hooked(names, ran), outputs:
        model(inputs)
    for name in names.values():
        ended(name)
    return runs


@contextmanager
def _hooked(modules: Iterable[nn.Module], ran: Callable[..., None]) -> Iterator[None]:
    hooks: list[RemovableHandle] = []
    try:
        hooks += [module.register_forward_hook(ran, with_kwargs=True) for module in modules]
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Counter:
    """Counts a tensor once, though it is the output of one layer and the input of others."""

    def __init__(self, modules: dict[str, nn.Module], memory: CountMemory, positions: bool) -> None:
        self._modules, self._memory, self._positions = modules, memory, positions
        self._counted = WeakTensorKeyDictionary()  # tensor -> (its version, whether it is maps), TensorZeros

    def count(self, tensor: Tensor, layer: str) -> TensorZeros:
        module = self._modules[layer]
        maps = isinstance(module, nn.Conv2d)
        version = None if tensor.is_inference() else tensor._version  # grows with each operation in place
        key = version, maps
        counted: tuple[object, TensorZeros] | None = self._counted.get(tensor)
        if counted is not None and version is not None and counted[0] == key:
            return counted[1]
        rows = _examples_first(tensor, module)
        zeros = count_zeros(rows, self._memory, maps=maps, positions=self._positions)
        self._counted[tensor] = key, zeros
        return zeros


def _values(argument: object) -> Tensor:
    return argument.data if isinstance(argument, PackedSequence) else cast(Tensor, argument)


def _examples_first(tensor: Tensor, module: nn.Module) -> Tensor:
    """(n, steps, features) for a recurrent layer; a packed sequence counts as one example."""
    if not isinstance(module, nn.RNNBase):
        return tensor
    if tensor.ndim == 2:
        return tensor[None]
    return tensor if module.batch_first else tensor.transpose(0, 1)
