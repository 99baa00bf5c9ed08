"""Whether operations on tiles fit their inputs: machine code trusts its arguments, and files may be damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.operations import Operation, Window

Shape = tuple[int, ...] | None


def check(operations: Sequence[Operation], shapes: Mapping[str, Shape]) -> None:
    """EngineError unless each operation, of inputs with these shapes (channels, height, width), has its own shape.

    >>> relu = Operation("y", "scale", ("x",), (3, 8, 8), ("y",), relu=True)
    >>> check([relu], {"x": (3, 8, 9), "y": (3, 8, 8)})
    Traceback (most recent call last):
    zeroskip.errors.EngineError: y is no scale of its inputs
    """
    for operation in operations:
        shape, kind = operation.shape, operation.kind
        # A mean may come without the axes that it is over.
        announced = shapes[operation.name] in (shape, shape[:1] if kind == "mean" else shape)
        fits = announced and _fits(operation, [shapes[name] for name in operation.inputs])
        if not fits or not _has_weights(operation):
            raise EngineError(f"{operation.name} is no {kind} of its inputs")


def _fits(operation: Operation, inputs: Sequence[Shape]) -> bool:
    first, (channels, height, width), window = inputs[0], operation.shape, operation.window
    if first is None or len(first) != 3 or min(first) < 1:
        return False
    if operation.kind == "concat":
        sizes = [shape[1:] for shape in inputs if shape is not None and len(shape) == 3]
        total = sum(shape[0] for shape in inputs if shape is not None)
        return sizes == [(height, width)] * len(inputs) and total == channels
    if operation.kind == "mean":
        return (channels, height, width) == (first[0], 1, 1)
    if window is None:
        return all(shape == operation.shape for shape in inputs)
    sides = _reaches(window, 0, first[1], height) and _reaches(window, 1, first[2], width)
    same = channels == first[0] if operation.layer is None else _passes(operation, first[0])
    return sides and same and all(shape == operation.shape for shape in inputs[1:])


def _reaches(window: Window, axis: int, size: int, made: int) -> bool:
    """Whether a window that moves over `size` pixels stands at `made` places; the last may hang over."""
    length, padding, step = window.size[axis], window.padding[axis], window.dilation[axis]
    if min(length, step, window.stride) < 1 or padding < 0:
        return False
    rest = size + 2 * padding - step * (length - 1) - 1
    return rest >= 0 and made in (rest // window.stride + 1, -(-rest // window.stride) + 1)


def _passes(operation: Operation, channels: int) -> bool:
    """Whether the layer takes that many channels and makes as many as the operation."""
    assert operation.layer is not None
    (out, inputs), groups = operation.layer.weight.shape[:2], operation.layer.groups
    return out == operation.shape[0] and inputs * groups == channels and out % groups == 0


def _has_weights(operation: Operation) -> bool:
    return all(factor.shape == operation.shape[:1] for factor in operation.factors or ())
