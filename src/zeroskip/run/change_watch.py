"""Whether a network was changed since it was compiled: what PyTorch counts, and some numbers of each tensor."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, detect

LOOKED = 4096  # numbers of a tensor from which those that are compared are taken, at equal distances
NONZEROS, ZEROS = 12, 4  # that are compared: pruning changes small ones, scaling none of the zeros
WORD = 4  # bytes that are compared at a time


def watch(model: nn.Module) -> Callable[[], bool]:
    """A function that tells whether the parameters, buffers, modules or thresholds of `model` are others than now.

    It sees tensors that were replaced, moved, transposed or written to. PyTorch does not count writes through `.data`
    and numpy; for them 16 numbers of each tensor are compared: what changes all of it is noticed, and a few numbers
    seldom. A tensor cut short through `.data`, attributes (`eps`) and forward hooks are not noticed, nor is `train()`,
    since a program answers as in evaluation mode. About 2.5 us for ten tensors.
    The memory as it is now is kept, so that no other tensor can come to lie there.

    >>> changed = watch(model)
    >>> changed()
    False
    """
    places: list[tuple[Any, ...]] = [
        (table, key, value)
        for module in model.modules()
        for table in (module._parameters, module._buffers, module._modules, module._forward_pre_hooks)
        for key, value in table.items()
    ]
    tables, keys, values = ([place[part] for place in places] for part in range(3))
    tensors = [value for value in values if isinstance(value, Tensor)]
    # Tensors made under torch.inference_mode() do not count their changes; the others share the count with what
    # they are detached from.
    counted = [tensor.detach() for tensor in tensors if not tensor.is_inference()]
    matrices = [tensor for tensor in tensors if tensor.ndim > 1 and tensor.layout is torch.strided]
    # A threshold is a hook, and one that comes new changes answers as well.
    hooks = [module._forward_pre_hooks for module in model.modules()]
    hooked = list(map(len, hooks))
    version = operator.attrgetter("_version")
    versions, addresses = list(map(version, counted)), list(map(Tensor.data_ptr, tensors))
    strides, differs = list(map(Tensor.stride, matrices)), _comparison(tensors)

    def changed() -> bool:
        # This runs at every call of a program; `map` over C functions is three times faster than a loop.
        same = all(map(operator.is_, map(dict.get, tables, keys), values))
        same = same and list(map(version, counted)) == versions and list(map(len, hooks)) == hooked
        same = same and list(map(Tensor.data_ptr, tensors)) == addresses
        # Addresses first: what lies at another one may not be read here any more.
        return not (same and list(map(Tensor.stride, matrices)) == strides) or differs()

    return changed


def _comparison(tensors: Sequence[Tensor]) -> Callable[[], bool]:
    """A function that tells whether one of the chosen numbers of the tensors was ever found to be another."""
    addresses = [address for tensor in tensors for address in _addresses(tensor)]
    rows = [number for place in addresses for number in (place, ctypes.c_int32.from_address(place).value)]
    memory = (ctypes.c_int64 * (len(rows) + 1))(*rows)  # the last one is written when a word differs
    compare, place = _code(detect()), ctypes.addressof(memory)
    count, last = len(addresses), place + 8 * len(rows)

    def differs() -> bool:
        compare(place, count, last)
        return bool(memory[-1])

    return differs


def _addresses(tensor: Tensor) -> Iterator[int]:
    """Where words of a tensor lie that are compared; none of one whose numbers do not fill words, or lie scattered."""
    if not _is_plain(tensor):
        return
    strides = tensor.stride()
    laid = tensor.detach().permute(sorted(range(tensor.ndim), key=lambda axis: -strides[axis]))
    if not laid.is_contiguous():
        return
    positions = torch.arange(min(LOOKED, laid.numel())) * laid.numel() // min(LOOKED, laid.numel())
    values = laid.view(-1)[positions].abs()
    order = values.argsort()
    zeros = int((values == 0).sum())
    chosen = [*_spread(order[:zeros], ZEROS), *_spread(order[zeros:], NONZEROS)]
    for number in positions[chosen].tolist():
        start = tensor.data_ptr() + number * tensor.element_size()
        yield from range(start, start + tensor.element_size(), WORD)


def _is_plain(tensor: Tensor) -> bool:
    """Whether the tensor is memory that can be read here, in whole words."""
    is_memory = tensor.is_cpu and tensor.layout is torch.strided and type(tensor) in (Tensor, nn.Parameter)
    return is_memory and tensor.numel() > 0 and tensor.element_size() % WORD == 0


def _spread(order: Tensor, most: int) -> list[int]:
    """The first, the last, and at equal distances some in between."""
    count = min(most, len(order))
    return [int(order[number * (len(order) - 1) // max(1, count - 1)]) for number in range(count)]


@cache
def _code(machine: Machine) -> Callable[..., None]:
    """(rows of an address and the word that was there, how many, where a 1 goes if one has another)."""
    f = Function("differs", {"rows": POINTER, "count": INTEGER, "seen": POINTER})
    any_other = f.slot(INTEGER, "0")
    with f.loop(0, "%count") as number:
        place, word = f.fields(f.at("%rows", f.multiply(number, 2), INTEGER), [POINTER, INTEGER])
        now = f.value(f"sext i32 {f.load('i32', place)} to i64")
        other = f.value(f"xor i64 {now}, {word}")
        f.store(INTEGER, f.value(f"or i64 {f.load(INTEGER, any_other)}, {other}"), any_other)
    found = f.load(INTEGER, any_other)
    with f.when(f.value(f"icmp ne i64 {found}, 0")):
        f.store(INTEGER, "1", "%seen")
    return compile_function(f.text(machine), f.name, machine, 3)
