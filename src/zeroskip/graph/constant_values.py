"""Which values of an exported network depend on its inputs, and which are the same at every call."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import fx

from zeroskip.errors import EngineError
from zeroskip.graph.torch_operations import title

# They say that they write to a tensor, and change no number in it.
HARMLESS = (torch.ops.aten.detach_.default,)


def changing(graph: fx.Graph, inputs: Collection[fx.Node]) -> set[fx.Node]:
    """The values that may be others at each call: what is made from inputs or random numbers, or overwritten by those.

    Raises EngineError where the network overwrites its own buffers or parameters.
    """
    roots = {node: _root(node) for node in graph.nodes}
    writes = [(node, roots[written]) for node in graph.nodes for written in _written(node)]
    for node, root in writes:
        if root.op in ("placeholder", "get_attr") and root not in inputs:
            raise EngineError(
                f"the network overwrites its own buffer or parameter ({title(node.target)}), so its answers depend on "
                "the calls before. Take that out of forward in evaluation mode, then compile."
            )
    found, before = {*inputs, *filter(_is_random, graph.nodes)}, -1
    while len(found) > before:  # a write may come after a view of what it changes
        before = len(found)
        for node in graph.nodes:
            if any(each in found for each in node.all_input_nodes) or roots[node] in found:
                found.add(node)
        found |= {root for node, root in writes if node in found}
    return found


def _root(node: fx.Node) -> fx.Node:
    """The value in whose memory this one lies; itself where it has memory of its own."""
    while (base := next(_aliased(node), None)) is not None:
        node = base
    return node


def _aliased(node: fx.Node) -> Iterator[fx.Node]:
    """The arguments in whose memory the node's value may lie, by the operation's schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        yield from (
            each for each in node.args[:1] if isinstance(each, fx.Node) and node.op == "call_function"
        )
    elif any(each.alias_info is not None for each in schema.returns):
        for slot, argument in zip(schema.arguments, node.args, strict=False):
            if slot.alias_info is not None and isinstance(argument, fx.Node):
                yield argument


def _written(node: fx.Node) -> Iterator[fx.Node]:
    """The arguments that the node overwrites."""
    schema = getattr(node.target, "_schema", None)
    for slot, argument in zip(schema.arguments if schema else (), node.args, strict=False):
        written = slot.alias_info is not None and slot.alias_info.is_write and node.target not in HARMLESS
        if written and isinstance(argument, fx.Node):
            yield argument


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
