"""Whether operations on tiles fit their inputs: machine code believes what it is told, and files may be damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.operations import Operation, Window

Shape = tuple[int, ...] | None


def check(chain: Sequence[Operation], shapes: Mapping[str, Shape]) -> None:
    """EngineError unless each operation, of inputs with these shapes (channels, height, width), has its own shape.

    >>> check(operations(graph), {"x": (3, 32, 32), "conv2d": (16, 32, 32)})
    """
    for one in chain:
        # A mean may come without the axes that it is over.
        announced = shapes[one.name] in (one.shape, one.shape[:1] if one.kind == "mean" else one.shape)
        if not announced or not _fits(one, [shapes[name] for name in one.inputs]) or not _has_weights(one):
            raise EngineError(f"{one.name} is no {one.kind} of its inputs")


def _fits(one: Operation, inputs: Sequence[Shape]) -> bool:
    first, (channels, height, width) = inputs[0], one.shape
    if first is None or len(first) != 3 or min(first) < 1:
        return False
    if one.kind == "concat":
        sizes = [shape[1:] for shape in inputs if shape is not None and len(shape) == 3]
        total = sum(shape[0] for shape in inputs if shape is not None)
        return sizes == [(height, width)] * len(inputs) and total == channels
    if one.kind == "mean":
        return (channels, height, width) == (first[0], 1, 1)
    if one.window is None:
        return all(shape == one.shape for shape in inputs)
    sides = all(_reaches(one.window, axis, first[axis + 1], one.shape[axis + 1]) for axis in (0, 1))
    same = channels == first[0] if one.layer is None else _passes(one, first[0])
    return sides and same and all(shape == one.shape for shape in inputs[1:])


def _reaches(window: Window, axis: int, size: int, made: int) -> bool:
    """Whether a window that moves over `size` pixels stands at `made` places; a last one may hang over."""
    length, padding, step = window.size[axis], window.padding[axis], window.dilation[axis]
    if min(length, step, window.stride) < 1 or padding < 0:
        return False
    rest = size + 2 * padding - step * (length - 1) - 1
    return rest >= 0 and made in (rest // window.stride + 1, -(-rest // window.stride) + 1)


def _passes(one: Operation, channels: int) -> bool:
    """Whether the layer takes that many channels and makes as many as the operation."""
    assert one.layer is not None
    out, inputs = one.layer.weight.shape[:2]
    return out == one.shape[0] and inputs * one.layer.groups == channels and out % one.layer.groups == 0


def _has_weights(one: Operation) -> bool:
    return one.factors is None or all(factor.shape == one.shape[:1] for factor in one.factors)
