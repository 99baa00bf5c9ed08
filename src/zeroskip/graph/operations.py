"""One exported operation: as a function of the values that change, and what else it is given."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

Constants = Mapping[fx.Node, Any]
"""Nodes that depend on parameters and buffers alone, with their values."""


def bind(node: fx.Node, constants: Constants) -> tuple[Callable[..., Any], list[fx.Node]]:
    """The node's operation as a function of those inputs that are not constants, and these inputs.

    >>> function, inputs = bind(node, constants)
    """
    inputs = [each for each in node.all_input_nodes if each not in constants]
    readers = [_reader(argument, inputs, constants) for argument in node.args]
    named = {key: _reader(argument, inputs, constants) for key, argument in node.kwargs.items()}
    target: Any = node.target

    def function(*values: Any) -> Any:
        return target(
            *[read(values) for read in readers], **{key: read(values) for key, read in named.items()}
        )

    return function, inputs


def known_arguments(node: fx.Node, constants: Constants) -> dict[str, Any]:
    """What the operation is given besides changing values, by the names in its schema, defaults filled in.

    A plain function (getitem) has its positions for names. A list of changing values and others has None in place
    of the former; a list of changing values alone is left out.

    >>> known_arguments(node, constants)  # torch.cat([x, y], 1)
    {'dim': 1}
    """
    schema = getattr(node.target, "_schema", None)
    slots = schema.arguments if schema else ()
    names = [each.name for each in slots] or [str(position) for position in range(len(node.args))]
    defaults = {each.name: each.default_value for each in slots if each.has_default_value()}
    given = {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    return {name: _known(value, constants) for name, value in given.items() if not _changes(value, constants)}


def title(node: fx.Node) -> str:
    """torch's name of the operation.

    >>> title(node)
    'aten.cat.default'
    """
    target: Any = node.target
    return str(target) if hasattr(target, "_schema") else target.__name__


def _reader(argument: Any, inputs: list[fx.Node], constants: Constants) -> Callable[[Any], Any]:
    """values of `inputs` -> the argument with its nodes replaced by values."""
    if isinstance(argument, fx.Node) and argument in constants:
        argument = constants[argument]
    elif isinstance(argument, fx.Node):
        return operator.itemgetter(inputs.index(argument))
    elif isinstance(argument, (list, tuple)):
        readers = [_reader(each, inputs, constants) for each in argument]
        return lambda values: [read(values) for read in readers]
    return lambda values: argument


def _changes(argument: Any, constants: Constants) -> bool:
    """Whether it is a changing value, or a list of nothing else."""
    if isinstance(argument, (list, tuple)):
        return bool(argument) and all(_changes(each, constants) for each in argument)
    return isinstance(argument, fx.Node) and argument not in constants


def _known(argument: Any, constants: Constants) -> Any:
    """The argument with constants for their nodes, and None for nodes that change."""
    if isinstance(argument, (list, tuple)):
        return [_known(each, constants) for each in argument]
    return constants.get(argument) if isinstance(argument, fx.Node) else argument
