"""One operation of a network: a function of the values that change, with its other arguments bound."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor, fx


@dataclass(frozen=True)
class Slot:
    """Stands among an operation's arguments for the changing value at `number` of its inputs."""

    number: int


TorchType: TypeAlias = torch.dtype | torch.memory_format | torch.layout
Argument: TypeAlias = (
    Tensor | bool | int | float | str | TorchType | torch.device | Slot | Sequence["Argument"] | None
)
"""What an operation takes or returns."""
Constants: TypeAlias = Mapping[fx.Node, Argument]
"""Nodes that depend on parameters and buffers alone, with their values."""


class Bound:
    """An operation of torch (or of Python) as a function of its changing inputs.

    target            the operation itself
    arguments, named  what it is called with: constants, and Slots for the inputs; also in lists

    >>> Bound(torch.ops.aten.mul.Tensor, [Slot(0), 2.0], {})(torch.ones(1))
    tensor([2.])
    """

    def __init__(
        self, target: Callable[..., Argument], arguments: Sequence[Argument], named: Mapping[str, Argument]
    ) -> None:
        self.target, self.arguments, self.named = target, list(arguments), dict(named)
        self._readers = [_reader(argument) for argument in self.arguments]
        self._named = {key: _reader(argument) for key, argument in self.named.items()}

    def __call__(self, *values: Argument) -> Argument:
        return self.target(
            *[read(values) for read in self._readers],
            **{key: read(values) for key, read in self._named.items()},
        )


def bind(node: fx.Node, constants: Constants) -> tuple[Bound, list[fx.Node]]:
    """The node's operation as a function of those inputs that are not constants, and these inputs.

    >>> network = fx.symbolic_trace(lambda x: torch.add(x, 1, alpha=2)).graph
    >>> function, inputs = bind(list(network.nodes)[1], {})
    >>> inputs, function(torch.ones(2))
    ([x], tensor([3., 3.]))
    """
    inputs = [node for node in node.all_input_nodes if node not in constants]
    arguments = [_slotted(argument, inputs, constants) for argument in node.args]
    named = {key: _slotted(argument, inputs, constants) for key, argument in node.kwargs.items()}
    return Bound(cast(Callable[..., Argument], node.target), arguments, named), inputs


def known_arguments(bound: Bound) -> dict[str, Argument]:
    """The arguments besides changing values, by the names in the operation's schema, defaults filled in.

    A plain function (getitem) has its positions for names. A list of changing values and others has None in place
    of the former; a list of changing values alone is left out.

    >>> known_arguments(Bound(torch.ops.aten.cat.default, [[Slot(0), Slot(1)], 1], {}))
    {'dim': 1}
    """
    schema = getattr(bound.target, "_schema", None)
    slots = schema.arguments if schema else ()
    names = [slot.name for slot in slots] or [str(position) for position in range(len(bound.arguments))]
    defaults = {slot.name: slot.default_value for slot in slots if slot.has_default_value()}
    arguments = {**defaults, **dict(zip(names, bound.arguments, strict=False)), **bound.named}
    return {name: _known(value) for name, value in arguments.items() if not _changes(value)}


def title(target: object) -> str:
    """The name of an operation, which torch's own have.

    >>> title(torch.ops.aten.cat.default)
    'aten.cat.default'
    """
    return str(target) if hasattr(target, "_schema") else getattr(target, "__name__", "")


def schema_of(op: str) -> torch.FunctionSchema | None:
    """torch's schema of the operation with this title; None where it is none of torch's.

    >>> schema_of("aten.relu_.default").is_mutable, schema_of("getitem")
    (True, None)
    """
    parts = op.split(".")
    if len(parts) != 3:
        return None
    namespace, name, overload = parts
    target = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
    return getattr(target, "_schema", None)


def may_share_memory(schema: torch.FunctionSchema | None) -> bool:
    """Whether what the operation makes may lie in the memory of what it reads; of an unknown one it may.

    >>> may_share_memory(schema_of("aten.view.default")), may_share_memory(schema_of("aten.add.Tensor"))
    (True, False)
    """
    if schema is None:
        return True
    return any(each.alias_info is not None and not each.alias_info.is_write for each in schema.returns)


def _slotted(argument: object, inputs: list[fx.Node], constants: Constants) -> Argument:
    """The argument with constants for their nodes, and slots for those that change."""
    if isinstance(argument, (list, tuple)):
        return [_slotted(part, inputs, constants) for part in argument]
    if isinstance(argument, fx.Node):
        return constants[argument] if argument in constants else Slot(inputs.index(argument))
    return cast(Argument, argument)


def _reader(argument: Argument) -> Callable[[Sequence[Argument]], Argument]:
    """values of the inputs -> the argument with values for its slots."""
    if isinstance(argument, Slot):
        return operator.itemgetter(argument.number)
    if isinstance(argument, list):
        readers = [_reader(part) for part in argument]
        return lambda values: [read(values) for read in readers]
    return lambda values: argument


def _changes(argument: Argument) -> bool:
    """Whether it is a changing value, or a list of nothing else."""
    if isinstance(argument, list):
        return bool(argument) and all(map(_changes, argument))
    return isinstance(argument, Slot)


def _known(argument: Argument) -> Argument:
    """The argument with None for what changes."""
    if isinstance(argument, list):
        return [_known(part) for part in argument]
    return None if isinstance(argument, Slot) else argument
