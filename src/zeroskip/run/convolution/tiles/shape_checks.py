"""Whether operations on tiles fit their inputs: machine code trusts its arguments, and files may be damaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from zeroskip.errors import EngineError
from zeroskip.graph import Graph
from zeroskip.run.convolution.tiles.activation import NUMBERS
from zeroskip.run.convolution.tiles.elementwise import FUNCTIONS
from zeroskip.run.convolution.tiles.forms import Form, MapShape, channels_first
from zeroskip.run.convolution.tiles.graph_operations import entering
from zeroskip.run.convolution.tiles.operations import Movement, Operation, Window, reaches

Shape = tuple[int, ...] | None


def check(operations: Sequence[Operation], graph: Graph) -> None:
    """EngineError unless each operation makes what the graph says, out of maps that it can read.

    >>> from zeroskip.run.convolution.tiles.tiling import graph_of
    >>> from zeroskip.run.convolution.tiles.graph_operations import operations_of
    >>> (operation,) = operations_of(graph_of(conv, True))
    >>> check([replace(operation, shape=(99, 9, 9))], graph_of(conv, True))
    Traceback (most recent call last):
    zeroskip.errors.EngineError: y is no conv of its inputs
    """
    outside = {name: value.shape for name, value in entering(graph).items()}
    check_all(operations, outside, graph.shapes)


def check_all(
    operations: Sequence[Operation], outside: Mapping[str, MapShape], announced: Mapping[str, Shape]
) -> None:
    """EngineError unless each operation fits its inputs, which are `outside` or made by an earlier operation.

    `announced`: the shapes of the tensors, of those values that are known by then.

    >>> from zeroskip.run.convolution.tiles.activation import RELU
    >>> relu = Operation("y", "scale", ("x",), (3, 8, 8), ("y",), activation=RELU)
    >>> check_all([relu], {"x": (3, 8, 9)}, {})
    Traceback (most recent call last):
    zeroskip.errors.EngineError: y is no scale of its inputs
    """
    maps = dict(outside)
    for operation in operations:
        inputs = [maps[name] for name in operation.inputs if name in maps]
        fits = len(inputs) == len(operation.inputs) > 0 and operation.name not in maps
        if not fits or not _is_announced(operation, announced) or not _fits(operation, inputs):
            raise EngineError(f"{operation.name} is no {operation.kind} of its inputs")
        maps[operation.name] = operation.shape


def _is_announced(operation: Operation, announced: Mapping[str, Shape]) -> bool:
    """Whether PyTorch would make a tensor of the operation's form, which holds the map."""
    form = operation.form or channels_first(operation.shape)
    return announced.get(operation.name, form.shape) == form.shape and is_whole(form, operation.shape)


def is_whole(form: Form, shape: MapShape) -> bool:
    """Whether a tensor of that form holds each number of a map of that shape, and each once.

    >>> is_whole(channels_first((8, 4, 4)), (8, 4, 4)), is_whole(channels_first((8, 4, 4)), (8, 4, 2))
    (True, False)
    """
    atoms = [atom for axis in form.axes for atom in axis]
    for name, size in zip("chw", shape, strict=True):
        step = 1
        for atom in sorted((each for each in atoms if each.axis == name), key=lambda each: each.step):
            if atom.step != step or atom.size < 2:
                return False
            step *= atom.size
        if step != size:
            return False
    return all(atom.axis in "chw" for atom in atoms)


def _fits(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    kind = operation.kind
    if min(map(min, [*inputs, operation.shape])) < 1 or kind not in CHECKS:
        return False
    return _has_weights(operation) and _is_function(operation) and CHECKS[kind](operation, inputs)


def _is_concat(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    sizes = [shape[1:] for shape in inputs]
    total = sum(shape[0] for shape in inputs)
    return sizes == [operation.shape[1:]] * len(inputs) and total == operation.shape[0]


def _is_mean(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    return len(inputs) == 1 and operation.shape == (inputs[0][0], 1, 1)


def _is_pointwise(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    return len(inputs) == 1 and inputs[0] == operation.shape


def _is_prelu(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    return _is_pointwise(operation, inputs) and operation.factors is not None


def _is_sum(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    return list(inputs) == [operation.shape] * 2


def _is_combination(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    pixel = operation.shape[0], 1, 1
    known = operation.function in FUNCTIONS
    return known and len(inputs) == 2 and inputs[0] == operation.shape and inputs[1] in (inputs[0], pixel)


def _is_norm(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    groups = operation.groups > 0 and operation.shape[0] % operation.groups == 0
    return groups and _is_prelu(operation, inputs)


def _is_pool(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    window = operation.window
    divides = operation.divisor is None or operation.divisor > 0
    same = len(inputs) == 1 and inputs[0][0] == operation.shape[0]
    return window is not None and divides and same and _stands(window, inputs[0], operation.shape)


def _is_convolution(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    layer, window = operation.layer, operation.window
    if layer is None or window is None or layer.weight.ndim != 4 or layer.groups < 1:
        return False
    out, per_group, *size = layer.weight.shape
    fits = tuple(size) == window.size and (layer.bias is None or layer.bias.shape == (out,))
    passes = per_group * layer.groups == inputs[0][0] and out % layer.groups == 0
    added = all(shape == operation.shape for shape in inputs[1:]) and len(inputs) <= 2
    stands = out == operation.shape[0] and _stands(window, inputs[0], operation.shape)
    return fits and passes and added and stands


def _is_depthwise(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    layer, channels = operation.layer, inputs[0][0]
    alone = layer is not None and len(inputs) == 1 and layer.groups == channels == operation.shape[0]
    return alone and _is_convolution(operation, inputs)


def _is_rearrangement(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    """Whether each movement's places are places of the input, and all channels are filled before one is added to."""
    started: set[int] = set()
    for movement in operation.movements:
        targets = {*movement.targets}
        if len(inputs) != 1 or not _is_movement(movement, inputs[0], operation.shape):
            return False
        if started & targets and not targets <= started:
            return False
        started |= targets
    return started == {*range(operation.shape[0])} and math.isfinite(operation.fill)


def _is_movement(movement: Movement, source: MapShape, made: MapShape) -> bool:
    weights = movement.weights or (movement.rows, movement.columns)
    sizes = [
        (movement.rows, made[1]),
        (movement.columns, made[2]),
        (weights[0], made[1]),
        (weights[1], made[2]),
    ]
    places = zip((movement.rows, movement.columns), source[1:], strict=True)
    channels = _within(movement.targets, 0, made[0]) and _within(movement.sources, 0, source[0])
    single = len({*movement.targets}) == len(movement.targets) == len(movement.sources)
    inside = all(_within(several, -1, size) for several, size in places)
    return channels and single and inside and all(len(each) == size for each, size in sizes)


def _within(numbers: Sequence[int], least: int, end: int) -> bool:
    return all(least <= number < end for number in numbers)


def _is_attention(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    given = operation.attention
    if given is None or len(inputs) not in (3, 4) or min(given.heads, given.key_heads) < 1:
        return False
    (channels, *places), (theirs, *seen), (values, *also), *masks = inputs
    count, queries = math.prod(seen), math.prod(places)
    shared = given.heads % given.key_heads == 0 and values % given.key_heads == 0 and seen == also
    sizes = channels % given.heads == 0 and channels // given.heads * given.key_heads == theirs
    made = (values // given.key_heads * given.heads, *places)
    rows = ([1, 1], list(places))
    masked = all(each[0] in (count, given.heads * count) and list(each[1:]) in rows for each in masks)
    constant = given.mask is None or given.mask.shape in ((1, queries, count), (given.heads, queries, count))
    return shared and sizes and operation.shape == made and masked and constant


def _is_mixture(operation: Operation, inputs: Sequence[MapShape]) -> bool:
    """Whether each channel takes from channels that there are, by a weight for each pixel."""
    given = operation.mixing
    if given is None or len(inputs) != 1 or inputs[0][1:] != operation.shape[1:]:
        return False
    tables = [*given.weights, *([] if given.shift is None else [given.shift])]
    whole = all(tuple(each.shape) == operation.shape for each in tables)
    inside = all(len(each) == operation.shape[0] and _within(each, 0, inputs[0][0]) for each in given.sources)
    return whole and inside and len(given.sources) == len(given.weights)


CHECKS: Mapping[str, Callable[[Operation, Sequence[MapShape]], bool]] = {
    "conv": _is_convolution,
    "depthwise": _is_depthwise,
    "max": _is_pool,
    "average": _is_pool,
    "mean": _is_mean,
    "scale": _is_pointwise,
    "prelu": _is_prelu,
    "add": _is_sum,
    "combine": _is_combination,
    "concat": _is_concat,
    "layer_norm": _is_norm,
    "rms_norm": _is_norm,
    "group_norm": _is_norm,
    "rearrange": _is_rearrangement,
    "attention": _is_attention,
    "mix": _is_mixture,
}


def _stands(window: Window, source: MapShape, made: MapShape) -> bool:
    """Whether a window that moves over the source stands at as many places as are made; the last may hang over."""
    return all(reaches(window, axis, source[axis + 1], made[axis + 1]) for axis in (0, 1))


def _has_weights(operation: Operation) -> bool:
    return all(factor.shape == operation.shape[:1] for factor in operation.factors or ())


def _is_function(operation: Operation) -> bool:
    """Whether the activation is known, with as many numbers as it takes."""
    activation = operation.activation
    return activation is None or NUMBERS.get(activation.kind) == len(activation.numbers)
