"""How many zeros enter and leave each layer on real data: one pass over a data set, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from zeroskip.concepts import Progress, silent
from zeroskip.errors import DataError, ModelError
from zeroskip.graph import evaluating
from zeroskip.measure.layer_outputs import Outputs
from zeroskip.measure.zero_sums import BY, Batch, Count, Sums, add_, count
from zeroskip.measure.zeros import Room, Tally, tally

COUNTED = (nn.Linear, nn.Conv2d, nn.RNNBase)
Batches = Iterable[Tensor | tuple[Tensor, Tensor] | list[Tensor]]


@dataclass(frozen=True)
class Zeros:
    """Exact zeros of one layer over a data set.

    before  what the layer reads
    after   what leaves it for the next: after its activation function and its pooling
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
    by        what to count besides layer and channel, of "position", "class", "example"
    on_batch  called as on_batch(batches done, sums); sums are plain tensors, and `resume=sums` continues the count
              with the batch after, of the same batches in the same order
    A layer that runs twice counts twice; examples are the first axis of every tensor. Raises ModelError where there
    is nothing to count.

    >>> activations(lenet, [images])["fc2"].input
    0.62
    """
    sums = _start(model, by, resume)
    start, room = int(sums["batches"]), Room()
    with evaluating(model):
        for done, batch in enumerate(islice(batches, start, None), start + 1):
            inputs, classes = _pair(batch)
            if len(inputs):
                known = _batch(len(inputs), classes, by)
                for side, tallies in _counted(model, inputs, room, positions="position" in by).items():
                    add_(sums, side, tallies, known, by)
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
    """What the sums of a pass, finished or not, say of each layer of `model`, in the order of its modules.

    Raises ModelError where nothing was counted.

    >>> results(lenet, runs.load_tensors("sums.safetensors"))["fc2"].input
    0.62
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


def _batch(size: int, classes: Any, by: Collection[str]) -> Batch:
    if "class" not in by:
        return Batch(size)
    if not isinstance(classes, Tensor):
        raise DataError(
            'zeros by class need batches of (inputs, classes). Give such pairs, or leave "class" out.'
        )
    return Batch(size, classes)


def _layers(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules() if isinstance(module, COUNTED)}


def _counted(model: nn.Module, inputs: Tensor, room: Room, *, positions: bool) -> dict[str, list[Tally]]:
    """Side -> what was counted there while `model` ran on `inputs` once; all or nothing where it fails."""
    room.clear()
    names = _layers(model)
    found: dict[str, list[Tally]] = {}
    counter = _Counter({name: module for module, name in names.items()}, room, positions)
    outputs = Outputs(counter.count)

    def ended(name: str) -> None:
        if (one := outputs.ends(name)) is not None:
            found.setdefault(f"{name}.output", []).append(one)

    def ran(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        name, read = names[module], args[0] if args else named["input"]
        with torch._C.DisableTorchFunction():  # our own operations are not the network's
            found.setdefault(f"{name}.input", []).append(counter.count(_values(read), name))
            ended(name)  # a second call of a layer must not hide its first
            outputs.starts(name, _values(output[0] if isinstance(module, nn.RNNBase) else output))

    with _hooked(names, ran), outputs:
        model(inputs)
    for name in names.values():
        ended(name)
    return found


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

    def __init__(self, modules: dict[str, nn.Module], room: Room, positions: bool) -> None:
        self._modules, self._room, self._positions = modules, room, positions
        self._known = WeakTensorKeyDictionary()  # tensor -> (its version, whether it is maps, Tally)

    def count(self, tensor: Tensor, layer: str) -> Tally:
        module = self._modules[layer]
        maps = isinstance(module, nn.Conv2d)
        version = None if tensor.is_inference() else tensor._version  # grows with each operation in place
        key = version, maps
        known = self._known.get(tensor)
        if known is not None and version is not None and known[0] == key:
            return known[1]
        seen = tally(_examples_first(tensor, module), self._room, maps=maps, positions=self._positions)
        self._known[tensor] = key, seen
        return seen


def _values(given: Any) -> Tensor:
    return given.data if isinstance(given, PackedSequence) else given


def _examples_first(tensor: Tensor, module: nn.Module) -> Tensor:
    """(n, steps, features) for a recurrent layer; packed sequences are one example, unknown whose their steps are."""
    if not isinstance(module, nn.RNNBase):
        return tensor
    if tensor.ndim == 2:
        return tensor[None]
    return tensor if module.batch_first else tensor.transpose(0, 1)
