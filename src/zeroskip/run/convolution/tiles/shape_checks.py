"""Whether operations on tiles fit their inputs: machine code trusts its arguments, and files may be damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.operations import Operation, Window

Shape = tuple[int, ...] | None


def check(chain: Sequence[Operation], shapes: Mapping[str, Shape]) -> None:
    """EngineError unless each operation, of inputs with these shapes (channels, height, width), has its own shape.

    >>> relu = Operation("y", "scale", ("x",), (3, 8, 8), ("y",), relu=True)
    >>> check([relu], {"x": (3, 8, 9), "y": (3, 8, 8)})
    Traceback (most recent call last):
    zeroskip.errors.EngineError: y is no scale of its inputs
    """
    for operation in chain:
        # A mean may come without the axes that it is over.
        announced = shapes[operation.name] in (
            operation.shape,
            operation.shape[:1] if operation.kind == "mean" else operation.shape,
        )
        if (
            not announced
            or not _fits(operation, [shapes[name] for name in operation.inputs])
            or not _has_weights(operation)
        ):
            raise EngineError(f"{operation.name} is no {operation.kind} of its inputs")


def _fits(operation: Operation, inputs: Sequence[Shape]) -> bool:
    first, (channels, height, width) = inputs[0], operation.shape
    if first is None or len(first) != 3 or min(first) < 1:
        return False
    if operation.kind == "concat":
        sizes = [shape[1:] for shape in inputs if shape is not None and len(shape) == 3]
        total = sum(shape[0] for shape in inputs if shape is not None)
        return sizes == [(height, width)] * len(inputs) and total == channels
    if operation.kind == "mean":
        return (channels, height, width) == (first[0], 1, 1)
    if operation.window is None:
        return all(shape == operation.shape for shape in inputs)
    sides = all(
        _reaches(operation.window, axis, first[axis + 1], operation.shape[axis + 1]) for axis in (0, 1)
    )
    same = channels == first[0] if operation.layer is None else _passes(operation, first[0])
    return sides and same and all(shape == operation.shape for shape in inputs[1:])


def _reaches(window: Window, axis: int, size: int, made: int) -> bool:
    """Whether a window that moves over `size` pixels stands at `made` places; a last operation may hang over."""
    length, padding, step = window.size[axis], window.padding[axis], window.dilation[axis]
    if min(length, step, window.stride) < 1 or padding < 0:
        return False
    rest = size + 2 * padding - step * (length - 1) - 1
    return rest >= 0 and made in (rest // window.stride + 1, -(-rest // window.stride) + 1)


def _passes(operation: Operation, channels: int) -> bool:
    """Whether the layer takes that many channels and makes as many as the operation."""
    assert operation.layer is not None
    out, inputs = operation.layer.weight.shape[:2]
    return (
        out == operation.shape[0]
        and inputs * operation.layer.groups == channels
        and out % operation.layer.groups == 0
    )


def _has_weights(operation: Operation) -> bool:
    return operation.factors is None or all(
        factor.shape == operation.shape[:1] for factor in operation.factors
    )
