"""Nodes made by hand, and nodes that read constants in place of values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.graph.nodes import Node
from zeroskip.graph.torch_operations import Argument, Bound, Slot, known_arguments, title


def made(
    name: str, bound: Bound, inputs: Sequence[str], shape: tuple[int, ...] | None,
    dtype: torch.dtype | None = torch.float32,
) -> Node:  # fmt: skip
    """The node of an operation of torch.

    >>> made("y", Bound(torch.ops.aten.neg.default, [Slot(0)], {}), ["x"], (1,)).function(torch.ones(1, 1))
    tensor([[-1.]])
    """
    return Node(
        name,
        title(bound.target),
        tuple(inputs),
        bound,
        arguments=known_arguments(bound),
        shape=shape,
        dtype=dtype,
    )


def with_constant(node: Node, number: int, value: Tensor) -> Node:
    """The node that reads a constant in place of its input with that number.

    >>> double = made("y", Bound(torch.ops.aten.add.Tensor, [Slot(0), Slot(1)], {}), ["x", "two"], (1,))
    >>> with_constant(double, 1, torch.tensor(2.0)).function(torch.ones(1, 1))
    tensor([[3.]])
    """
    bound = node.function
    assert isinstance(bound, Bound)
    arguments = [_filled(each, number, value) for each in bound.arguments]
    bound = Bound(
        bound.target, arguments, {key: _filled(each, number, value) for key, each in bound.named.items()}
    )
    inputs = (*node.inputs[:number], *node.inputs[number + 1 :])
    return replace(node, inputs=inputs, function=bound, arguments=known_arguments(bound))


def slot_of(node: Node, name: str) -> int | None:
    """The number of the input that is an operation's argument of that name; None where none is.

    >>> difference = made("y", Bound(torch.ops.aten.sub.Tensor, [1.0, Slot(0)], {}), ["x"], (1,))
    >>> slot_of(difference, "self"), slot_of(difference, "other")
    (None, 0)
    """
    value = given(node, name)
    return value.number if isinstance(value, Slot) else None


def given(node: Node, name: str) -> Argument:
    """An operation's argument by torch's name, a Slot where it is an input; None where it has none or another form.

    >>> given(made("y", Bound(torch.ops.aten.leaky_relu.default, [Slot(0), 0.5], {}), ["x"], (1,)), "negative_slope")
    0.5
    """
    bound = node.function
    schema = getattr(getattr(bound, "target", None), "_schema", None)
    if not isinstance(bound, Bound) or schema is None:
        return None
    for place, each in enumerate(schema.arguments):
        if each.name == name:
            if place < len(bound.arguments):
                return bound.arguments[place]
            default: Argument = each.default_value
            return bound.named.get(name, default)
    return None


def free(wanted: str, taken: set[str]) -> str:
    """A name that no value has yet, which is taken from now on.

    >>> free("mask", {"mask"})
    'mask_'
    """
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def comparable(argument: object) -> Hashable:
    """Something that two arguments of operations have in common if, and only if, they are the same.

    >>> comparable([torch.ones(1), 2]) == comparable([torch.ones(1), 2.0])
    False
    """
    if isinstance(argument, (list, tuple)):
        return tuple(map(comparable, argument))
    if isinstance(argument, Tensor):
        numbers = argument.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(argument.dtype), tuple(argument.shape), numbers
    return argument if isinstance(argument, Slot) else (type(argument).__name__, str(argument))


def needed(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[Node, ...]:
    """The nodes without those that nothing reads; those stay that write into an input or check a value.

    >>> needed(graph.nodes, ["linear"]) == graph.nodes[:1]
    True
    """
    kept: list[Node] = []
    read, known = set(outputs), {node.name for node in nodes}
    for node in reversed(nodes):
        # What a captured node writes into, nobody else reads.
        writes_inside = is_written(node) and node.inputs[0] in known
        if node.name in read or (has_effects(node) and not writes_inside):
            kept.append(node)
            read |= {*node.inputs}
    return tuple(kept[::-1])


def is_written(node: Node) -> bool:
    """Whether the node writes its value into its first input, as `relu_` does.

    >>> is_written(made("y", Bound(torch.ops.aten.relu_.default, [Slot(0)], {}), ["x"], (1,)))
    True
    """
    name = node.op.split(".")[1] if node.op.count(".") == 2 else node.op
    return name.endswith("_") and not name.startswith("__") and bool(node.inputs)


def has_effects(node: Node) -> bool:
    """Whether the node writes into a value or checks one, so that it may matter though nothing reads it.

    >>> has_effects(made("y", Bound(torch.ops.aten.relu.default, [Slot(0)], {}), ["x"], (1,)))
    False
    """
    return is_written(node) or node.op.removeprefix("aten.").startswith(("_assert", "sym_constrain"))


def _filled(argument: Argument, number: int, value: Tensor) -> Argument:
    if isinstance(argument, list):
        return [_filled(part, number, value) for part in argument]
    if not isinstance(argument, Slot):
        return argument
    return value if argument.number == number else Slot(argument.number - (argument.number > number))
