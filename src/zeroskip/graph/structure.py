"""What a network takes or returns as a structure: where tensors are in tuples, dicts and objects, and what else is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zeroskip.errors import EngineError
from zeroskip.graph.torch_operations import Slot

NUMBERS = (Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)  # that may be others at each call
PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type(None))

USE_CACHE = (
    "the network returns a {name}, in which a decoder keeps what it has read for the next token; a program keeps "
    "nothing between calls. Put use_cache=False into the example, as run.compile(model, dict(batch, use_cache=False)), "
    "or set model.config.use_cache = False."
)


Make: TypeAlias = Callable[[Sequence[Any]], Any]
"""The parts of a container, in order -> the container."""


@dataclass(frozen=True)
class Branch:
    """A container: `make` puts it together from its parts; `keys` name them.

    >>> taken_apart((x, None), [])
    Branch(kind=<class 'tuple'>, keys=(0, 1), parts=(Slot(number=0), None), make=<class 'tuple'>)
    """

    kind: type
    keys: tuple[Any, ...]
    parts: tuple[Tree, ...]
    make: Make


Tree: TypeAlias = Any
"""A Slot for a tensor, a Branch, or a constant."""


def taken_apart(value: object, leaves: list[object]) -> Tree:
    """The structure of the value, whose tensors are appended to `leaves`.

    >>> leaves = []
    >>> taken_apart({"scale": 2.0, "x": x}, leaves).parts, leaves[0] is x
    ((2.0, Slot(number=0)), True)
    """
    if isinstance(value, NUMBERS):
        leaves.append(value)
        return Slot(len(leaves) - 1)
    container = None if isinstance(value, PLAIN) else opened(value)
    if container is None:
        return value
    keys, parts, make = container
    return Branch(type(value), keys, tuple(taken_apart(part, leaves) for part in parts), make)


def tensors_in(value: object) -> list[Tensor]:
    """The tensors in the value, in tuples, lists, mappings and dataclasses too.

    >>> [tensor is x for tensor in tensors_in({"scale": 2.0, "x": [x]})]
    [True]
    """
    leaves: list[object] = []
    taken_apart(value, leaves)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def opened(value: object) -> tuple[tuple[Any, ...], list[Any], Make] | None:
    """The keys and parts of a container, and what makes one of other parts; None where it is none.

    Tuples, lists, mappings, dataclasses, and what is registered with torch's pytree.

    >>> opened([5, 6])[:2], opened("text")
    (((0, 1), [5, 6]), None)
    """
    kind: Any = type(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(field.name for field in dataclasses.fields(value) if hasattr(value, field.name))
        return names, [getattr(value, name) for name in names], partial(_dataclass, kind, names)
    if isinstance(value, (tuple, list)):
        named = isinstance(value, tuple) and hasattr(value, "_fields")
        make = (lambda parts: kind(*parts)) if named else kind
        return tuple(range(len(value))), list(value), make
    if type(value) is dict:
        return tuple(value), list(value.values()), partial(_mapping, dict, tuple(value))
    if kind in pytree.SUPPORTED_NODES:
        node = pytree.SUPPORTED_NODES[kind]
        parts, context = node.flatten_fn(value)
        return tuple(range(len(parts))), parts, lambda parts: node.unflatten_fn(list(parts), context)
    if isinstance(value, Mapping):
        return tuple(value), list(value.values()), partial(_mapping, kind, tuple(value))
    return None


def maker(tree: Tree) -> Make:
    """values of the slots -> the value.

    >>> maker(taken_apart((x, {"y": None}), []))(["one"])
    ('one', {'y': None})
    """
    if isinstance(tree, Slot):
        number = tree.number
        return lambda values: values[number]
    if isinstance(tree, Branch):
        makers, make = [maker(part) for part in tree.parts], tree.make
        return lambda values: make([each(values) for each in makers])
    return lambda values: tree


def check_returned(tree: Tree) -> None:
    """EngineError unless a program can give back what the network returns.

    >>> check_returned(taken_apart((x, 1), []))
    """
    if isinstance(tree, Branch):
        _refuse_cache(tree.kind)
        for part in tree.parts:
            check_returned(part)
    elif not isinstance(tree, (Slot, *PLAIN)):
        _refuse_cache(type(tree))
        raise EngineError(
            f"the network returns a {type(tree).__name__}, which a program cannot give back: it gives tensors, "
            "numbers, None, and tuples, lists, dicts and dataclasses of them. Compile a module that returns those."
        )


def _refuse_cache(kind: type) -> None:
    if any(base.__name__.endswith("Cache") for base in kind.__mro__):
        raise EngineError(USE_CACHE.format(name=kind.__name__))


def _mapping(kind: Any, keys: Sequence[Any], parts: Sequence[Any]) -> Any:
    return kind(zip(keys, parts, strict=True))


def _dataclass(kind: Any, names: Sequence[str], parts: Sequence[Any]) -> Any:
    values = dict(zip(names, parts, strict=True))
    given = {field.name for field in dataclasses.fields(kind) if field.init}
    made = kind(**{name: value for name, value in values.items() if name in given})
    for name in values.keys() - given:
        object.__setattr__(made, name, values[name])
    return made
