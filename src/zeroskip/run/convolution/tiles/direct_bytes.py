"""Which operations that compute in fp32 make the bytes that follow themselves, instead of a conversion."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from zeroskip.concepts import Machine
from zeroskip.run.convolution.tiles.attention_quads import has_products_of_bytes
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.element import FP32


def made_directly(subgraph: Subgraph, machine: Machine) -> Subgraph:
    """The subgraph in which operations that can make bytes do, where only these are read.

    >>> from zeroskip.run.element import Scaling
    >>> scalings = {"z": Scaling(0.5, 128)}
    >>> norm = Operation("y", "layer_norm", ("x",), (4, 1, 8), ("y",))
    >>> both = norm, Operation("z", "convert", ("y",), (4, 1, 8), ("y",))
    >>> made_directly(Subgraph(both, {"x": (4, 1, 8)}, {}, scalings=scalings), any_machine).operations[0].name
    'z'
    """
    scalings, read = subgraph.scalings, (name for each in subgraph.operations for name in each.inputs)
    uses = Counter([*subgraph.outputs, *read])
    direct = {
        each.inputs[0]: each.name
        for each in subgraph.operations
        if each.kind == "convert" and each.name in scalings and uses[each.inputs[0]] == 1
    }
    able = (each for each in subgraph.operations if each.name in direct)
    gone = {each.name: direct[each.name] for each in able if _makes_bytes(each, subgraph, machine)}
    operations = (
        replace(each, name=gone.get(each.name, each.name))
        for each in subgraph.operations
        if each.kind != "convert" or each.inputs[0] not in gone
    )
    return replace(subgraph, operations=tuple(operations)) if gone else subgraph


def _makes_bytes(operation: Operation, subgraph: Subgraph, machine: Machine) -> bool:
    norm = operation.kind in ("layer_norm", "rms_norm") and operation.groups == 1
    return norm or is_of_bytes(operation, subgraph, machine)


def is_of_bytes(operation: Operation, subgraph: Subgraph, machine: Machine) -> bool:
    """Whether the operation is attention whose products are of bytes on this machine.

    >>> is_of_bytes(Operation("y", "layer_norm", ("x",), (4, 1, 8), ("y",)), Subgraph((), {}, {}), any_machine)
    False
    """
    given = operation.attention
    if (
        given is None or not given.in_bytes or given.scale <= 0
    ):  # the largest product is then the largest score
        return False
    shapes = {**subgraph.inputs, **{each.name: each.shape for each in subgraph.operations}}
    keys, values = (shapes[name][0] // given.key_heads for name in operation.inputs[1:3])
    return has_products_of_bytes(machine, machine.vector_bytes // FP32.bytes, (keys, values))
