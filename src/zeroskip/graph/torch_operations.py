"""One operation of a network: as a function of the values that change, and what else it is given."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

Constants = Mapping[fx.Node, Any]
"""Nodes that depend on parameters and buffers alone, with their values."""


@dataclass(frozen=True)
class Slot:
    """Stands among an operation's arguments for the changing value at `number` of its inputs."""

    number: int


class Bound:
    """An operation of torch (or of Python) as a function of its changing inputs.

    target            the operation itself
    arguments, named  what it is called with: constants, and Slots for the inputs; also in lists

    >>> Bound(torch.ops.aten.mul.Tensor, [Slot(0), 2.0], {})(torch.ones(1))
    tensor([2.])
    """

    def __init__(
        self, target: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]
    ) -> None:
        self.target, self.arguments, self.named = target, list(arguments), dict(named)
        self._readers = [_reader(each) for each in self.arguments]
        self._named = {key: _reader(each) for key, each in self.named.items()}

    def __call__(self, *values: Any) -> Any:
        return self.target(
            *[read(values) for read in self._readers],
            **{key: read(values) for key, read in self._named.items()},
        )


def bind(node: fx.Node, constants: Constants) -> tuple[Bound, list[fx.Node]]:
    """The node's operation as a function of those inputs that are not constants, and these inputs.

    >>> function, inputs = bind(node, constants)
    """
    inputs = [each for each in node.all_input_nodes if each not in constants]
    given = [_slotted(each, inputs, constants) for each in node.args]
    named = {key: _slotted(each, inputs, constants) for key, each in node.kwargs.items()}
    target: Any = node.target
    return Bound(target, given, named), inputs


def known_arguments(bound: Bound) -> dict[str, Any]:
    """What the operation is given besides changing values, by the names in its schema, defaults filled in.

    A plain function (getitem) has its positions for names. A list of changing values and others has None in place
    of the former; a list of changing values alone is left out.

    >>> known_arguments(bound)  # torch.cat([x, y], 1)
    {'dim': 1}
    """
    schema = getattr(bound.target, "_schema", None)
    slots = schema.arguments if schema else ()
    names = [each.name for each in slots] or [str(position) for position in range(len(bound.arguments))]
    defaults = {each.name: each.default_value for each in slots if each.has_default_value()}
    given = {**defaults, **dict(zip(names, bound.arguments, strict=False)), **bound.named}
    return {name: _known(value) for name, value in given.items() if not _changes(value)}


def title(target: Any) -> str:
    """The name of an operation, which torch's own have.

    >>> title(torch.ops.aten.cat.default)
    'aten.cat.default'
    """
    return str(target) if hasattr(target, "_schema") else target.__name__


def _slotted(argument: Any, inputs: list[fx.Node], constants: Constants) -> Any:
    """The argument with constants for their nodes, and slots for those that change."""
    if isinstance(argument, (list, tuple)):
        return [_slotted(each, inputs, constants) for each in argument]
    if isinstance(argument, fx.Node):
        return constants[argument] if argument in constants else Slot(inputs.index(argument))
    return argument


def _reader(argument: Any) -> Callable[[Any], Any]:
    """values of the inputs -> the argument with values for its slots."""
    if isinstance(argument, Slot):
        return operator.itemgetter(argument.number)
    if isinstance(argument, list):
        readers = [_reader(each) for each in argument]
        return lambda values: [read(values) for read in readers]
    return lambda values: argument


def _changes(argument: Any) -> bool:
    """Whether it is a changing value, or a list of nothing else."""
    if isinstance(argument, list):
        return bool(argument) and all(map(_changes, argument))
    return isinstance(argument, Slot)


def _known(argument: Any) -> Any:
    """The argument with None for what changes."""
    if isinstance(argument, list):
        return [_known(each) for each in argument]
    return None if isinstance(argument, Slot) else argument
