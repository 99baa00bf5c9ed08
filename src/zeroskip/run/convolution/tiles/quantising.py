"""Which operations compute in eight bits, and where maps become bytes or numbers again.

One rule for the code on tiles and for its reference. Layers compute in eight bits where that is asked for, other
operations where they read bytes anyway. A value that one of them makes and another reads is kept as bytes; what
anything else reads is fp32, and a value that both kinds read is there twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from zeroskip.run.convolution.tiles.forms import MapShape
from zeroskip.run.convolution.tiles.operations import InBytes, Operation, Subgraph, Window
from zeroskip.run.convolution.tiles.quad_job import QUAD
from zeroskip.run.convolution.tiles.taps import touching
from zeroskip.run.element import Scaling, whole_bias

LAYERS = ("conv", "depthwise")
# Compute on bytes where they read bytes anyway.
FOLLOWING = ("max", "average", "mean", "add", "concat", "combine", "scale", "rearrange")
KEEPING = ("max", "rearrange")  # make bytes that mean what those mean which they read
ALWAYS = ("concat", "combine")  # make bytes of a scale of their own, whoever reads them
AS_BYTES, AS_FP32 = " in int8", " in fp32"  # behind the name of a value: what it was converted to


def has_bytes(operation: Operation, shapes: Mapping[str, MapShape]) -> bool:
    """Whether code on tiles can compute the operation on maps of bytes; `shapes` are those of its inputs.

    >>> has_bytes(Operation("y", "mean", ("x",), (3, 1, 1), ("y",)), {"x": (3, 8, 8)})
    True
    """
    kind, inputs = operation.kind, [shapes[name] for name in operation.inputs]
    if kind == "combine":
        return operation.function == "multiply"
    if kind == "rearrange":
        known = operation.name in operation.names  # else it is no value of the graph, and has no scale
        return known and not operation.fill and all(each.weights is None for each in operation.movements)
    if kind == "max" and operation.window is not None:
        taps = touching(operation.window, operation.shape[1:], inputs[0][1:])
        return len(taps.rows) * len(taps.columns) > 0
    if kind == "average":
        return is_even(operation, inputs[0])
    return kind in (*LAYERS, *FOLLOWING)


def is_even(operation: Operation, x: MapShape) -> bool:
    """Whether an average pooling divides by the same number everywhere.

    >>> pool = Operation("y", "average", ("x",), (3, 8, 8), ("y",), Window((3, 3), (1, 1), (1, 1)))
    >>> is_even(pool, (3, 8, 8)), is_even(replace(pool, counts_padding=False), (3, 8, 8))
    (True, False)
    """
    window = operation.window
    assert window is not None
    return operation.divisor is not None or all(
        _is_even(window, axis, operation.shape[axis + 1], x[axis + 1], operation.counts_padding)
        for axis in (0, 1)
    )


def _is_even(window: Window, axis: int, made: int, size: int, padded: bool) -> bool:
    last = (made - 1) * window.stride[axis] + window.size[axis] - window.padding[axis]
    margin = window.padding[axis] if padded else 0
    return made == 1 or (window.padding[axis] <= margin and last <= size + margin)


def chosen(
    operations: Sequence[Operation], scales: Collection[str], layers: Collection[str]
) -> list[Operation]:
    """Those of `operations`, all of which can compute on bytes, that do: these layers, and what follows on bytes.

    All that they read must have a scale.

    >>> mean = Operation("y", "mean", ("x",), (3, 1, 1), ("y",))
    >>> chosen([mean], ["x", "y"], [])  # it reads fp32, and is no layer
    []
    """
    found: list[Operation] = []
    made: set[str] = set()
    for each in operations:
        wanted = bool(made & {*each.inputs}) if each.kind in FOLLOWING else each.name in layers
        needed = {*each.inputs, *([each.name] if each.kind in ALWAYS else [])}
        if wanted and needed <= {*scales}:
            found.append(each)
            made.add(each.name)
    return found


def values_in_bytes(computing: Iterable[Operation]) -> set[str]:
    """The values that are bytes where these operations compute in eight bits: what they read, and what is made so.

    >>> product = Operation("y", "combine", ("x", "z"), (3, 8, 8), ("y",), function="multiply")
    >>> sorted(values_in_bytes([product]))
    ['x', 'y', 'z']
    """
    return {name for each in computing for name in (*each.inputs, *[each.name] * (each.kind in ALWAYS))}


def in_bytes(
    operations: Sequence[Operation], shapes: Mapping[str, MapShape], scales: Mapping[str, Scaling],
    weights: Mapping[str, Tensor],
) -> list[Operation]:  # fmt: skip
    """All operations, of which some now compute in eight bits.

    shapes   of the maps that enter
    scales   value -> what its bytes mean
    weights  layer that may compute in eight bits -> the scales of its weights

    >>> mean = Operation("y", "mean", ("x",), (3, 1, 1), ("y",))
    >>> in_bytes([mean], {"x": (3, 8, 8)}, {"x": Scaling(0.5, 0)}, {}) == [mean]
    True
    """
    known = {**shapes, **{each.name: each.shape for each in operations}}
    possible = [each for each in operations if has_bytes(each, known)]
    those = {each.name: each for each in chosen(possible, {*scales}, {*weights})}
    kept = values_in_bytes(those.values())
    made: dict[str, Scaling] = {}
    found: list[Operation] = []
    for each in operations:
        if each.name in those:
            inputs = tuple(made.get(name) or scales[name] for name in each.inputs)
            output = scales[each.name] if each.name in kept else None
            output = inputs[0] if each.kind in KEEPING else output
            made |= {} if output is None else {each.name: output}
            each = _with_whole_bias(each, inputs[0], weights.get(each.name))
            each = replace(each, in_bytes=InBytes(inputs, output, weights.get(each.name)))
        elif each.attention is not None and {*each.inputs[:3]} <= {*those}:
            each = replace(each, attention=replace(each.attention, in_bytes=True))
        found.append(each)
    return found


def _with_whole_bias(operation: Operation, x: Scaling, weights: Tensor | None) -> Operation:
    layer = operation.layer
    if layer is None or layer.bias is None or weights is None or len(weights) != len(layer.bias):
        return operation  # scales of another layer are refused where code is made of them
    return replace(operation, layer=replace(layer, bias=whole_bias(layer.bias, x, weights)))


def converted(subgraph: Subgraph) -> Subgraph:
    """The subgraph with the operations that convert maps, and the scalings of those that are bytes.

    >>> relu = Operation("y", "scale", ("x",), (3, 8, 8), ("y",))
    >>> one = Subgraph((relu,), {"x": (3, 8, 8)}, {"y": (3, 8, 8)})
    >>> converted(one) == one
    True
    """
    shapes = {**subgraph.inputs, **{each.name: each.shape for each in subgraph.operations}}
    made = {each.name: each.in_bytes.output for each in subgraph.operations if each.in_bytes is not None}
    scalings = {name: scaling for name, scaling in made.items() if scaling is not None}
    operations: dict[str, Operation] = {}

    def given(name: str, wanted: Scaling | None) -> str:
        """The name of the value as bytes, or as fp32, converted if need be."""
        known = made.get(name)
        if wanted == known:
            return name
        other = name + (AS_FP32 if wanted is None else AS_BYTES)
        if None not in (wanted, known):
            other += f" of {wanted}"
        operations.setdefault(other, Operation(other, "convert", (name,), shapes[name], (name,)))
        shapes[other], made[other] = shapes[name], wanted
        if wanted is not None:
            scalings[other] = wanted
        return other

    for each in subgraph.operations:
        known = each.in_bytes
        wanted: Sequence[Scaling | None] = (None,) * len(each.inputs) if known is None else known.inputs
        inputs = tuple(given(name, scaling) for name, scaling in zip(each.inputs, wanted, strict=True))
        if known is not None and _is_uneven(each, shapes):  # its parts are bytes of their own scales first
            each, inputs = replace(each, kind="join"), tuple(given(name, known.output) for name in inputs)
        operations[each.name] = replace(each, inputs=inputs)
    names = {name: given(name, None) for name in subgraph.outputs}
    outputs = {names[name]: shape for name, shape in subgraph.outputs.items()}
    forms = {names.get(name, name): form for name, form in subgraph.forms.items()}
    return replace(
        subgraph, operations=tuple(operations.values()), outputs=outputs, forms=forms, scalings=scalings
    )


def _is_uneven(operation: Operation, shapes: Mapping[str, MapShape]) -> bool:
    """Whether the operation is a concatenation of which a part begins within a quad."""
    return operation.kind == "concat" and any(shapes[name][0] % QUAD for name in operation.inputs[:-1])
