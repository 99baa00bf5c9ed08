"""A network in plain PyTorch that rounds where the eight-bit network does, for torch.onnx to write down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroskip.graph import Graph, Node
from zeroskip.graph.nodes import kind_of
from zeroskip.graph.torch_operations import Bound
from zeroskip.run import integer_reference as reference
from zeroskip.run.convolution.tiles.forms import Form, MapShape, channels_first, from_map, to_map
from zeroskip.run.convolution.tiles.operations import Operation, Window, behind
from zeroskip.run.convolution.tiles.quantising import values_in_bytes
from zeroskip.run.element import SUM_LIMIT, Scaling, whole_bias, whole_steps
from zeroskip.run.integer_network import (
    ByteOperation,
    ByteStep,
    byte_operations,
    byte_weight_of,
    in_bytes,
    layers_in_bytes,
    same_scales,
    steps_of,
)
from zeroskip.run.quantisation import Quantisation


@dataclass(frozen=True)
class StoredBytes:
    """Whole numbers, int8 or int32 (out, ...), and the float32 scale of each output."""

    numbers: Tensor
    scales: Tensor

    @property
    def real(self) -> Tensor:
        """The float32 numbers that they stand for."""
        return self.numbers.float() * self.scales.reshape(-1, *[1] * (self.numbers.ndim - 1))


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a network by the names that they have in a file.

    plain   in float32, as the network has them
    bytes_  those that are whole numbers with scales
    """

    plain: dict[str, Tensor] = field(default_factory=dict)
    bytes_: dict[str, StoredBytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layer:
    """A layer that computes on bytes: its weights and bias as the numbers that the bytes stand for."""

    weight: Tensor
    bias: Tensor | None


class RoundingNetwork(nn.Module):
    """The graph with `fake_quantize` wherever its eight-bit network has bytes; without a quantisation, the graph.

    stored  its tensors, of which each is a buffer, so that torch.onnx writes it down once
    names   buffer -> the name of its tensor
    layers  those that compute in eight bits

    >>> torch.equal(RoundingNetwork(graph, None)(x)[0], model(x))
    True
    """

    def __init__(self, graph: Graph, quantisation: Quantisation | None) -> None:
        super().__init__()
        self.graph, self.stored, self.names = graph, StoredTensors(), dict[str, str]()
        computing = _computing(graph, quantisation)
        self._values = {} if quantisation is None else quantisation.values
        self._computing = {each.name: each for each in computing}
        self._kept = values_in_bytes(each.operation for each in computing)
        self._kept |= _moved_alone(graph, computing, self._values, self._kept)
        self._steps: list[ByteStep] = steps_of(_sized(graph), computing)
        weights = {} if quantisation is None else quantisation.weights
        self.layers = {each.name: self._layer(each, weights) for each in computing if each.is_layer}
        for node in graph.nodes:
            for layer in node.layers if node.name in {name for name, *_ in self._steps} else ():
                self._store(f"{layer.name}.weight", layer.weight)
                self._store(f"{layer.name}.bias", layer.bias)

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """The outputs of the graph."""
        held: dict[str, Tensor] = dict(zip(self.graph.names, tensors, strict=True))
        rounded: dict[str, tuple[Tensor, Scaling]] = {}
        for name, reads, function, _ in self._steps:
            if function is not None:
                held[name] = cast("Tensor", function(*[held[each] for each in reads]))
                continue
            given = [self._rounded_(rounded, held, each, self._values[each]) for each in reads]
            held[name] = _computed(self._computing[name], self.layers.get(name), [x for x, _ in given])
            if name in self._kept:
                at = given[0][1] if self._computing[name].operation.kind == "max" else self._values[name]
                held[name], _ = self._rounded_(rounded, held, name, at)
        return [held[name] for name in self.graph.outputs]

    def _rounded_(
        self, rounded: dict[str, tuple[Tensor, Scaling]], held: Mapping[str, Tensor], name: str, at: Scaling
    ) -> tuple[Tensor, Scaling]:
        if name not in rounded:
            y = torch.fake_quantize_per_tensor_affine(held[name], at.scale, at.zero_point, 0, 255)
            rounded[name] = y, at
        return rounded[name]

    def _layer(self, each: ByteOperation, scales: Mapping[str, Tensor]) -> _Layer:
        layer, window, weight = each.operation.layer, each.operation.window, byte_weight_of(each, scales)
        assert layer is not None
        assert window is not None
        taps = weight.numbers.to(torch.int8).reshape(*weight.numbers.shape[:2], *window.size)
        numbers = StoredBytes(taps, weight.scales)
        stored = self._store_bytes(f"{layer.name}.weight", numbers)
        if layer.bias is None:
            return _Layer(stored, None)
        x = self._values[each.reads[0]]
        by_output, steps = (
            reference.single(x.scale) * weight.scales,
            whole_steps(layer.bias, x, weight.scales),
        )
        if float(steps.abs().max()) + reference.largest_sum(weight) >= SUM_LIMIT:  # int32 cannot hold the sum
            bias = whole_bias(layer.bias, x, weight.scales)
            self._store(f"{layer.name}.bias", bias)
            return _Layer(stored, bias)
        bias = self._store_bytes(f"{layer.name}.bias", StoredBytes(steps.to(torch.int32), by_output))
        return _Layer(stored, bias)

    def _store_bytes(self, name: str, numbers: StoredBytes) -> Tensor:
        real = numbers.real
        self.stored.bytes_[self._store(name, real)] = numbers
        return real

    def _store(self, name: str, tensor: Tensor | None) -> str:
        """The name under which the tensor is stored: another one where that is taken."""
        known = {id(each): name for name, each in self.stored.plain.items()}
        if tensor is None or id(tensor) in known:
            return "" if tensor is None else known[id(tensor)]
        number, own = 2, name
        while own in self.stored.plain:
            own, number = f"{name}.{number}", number + 1
        self.stored.plain[own] = tensor
        buffer = f"tensor_{len(self.names)}"
        self.names[buffer] = own
        self.register_buffer(buffer, tensor)
        return own


def _computing(graph: Graph, quantisation: Quantisation | None) -> list[ByteOperation]:
    if quantisation is None:
        return []
    operations = [each for each in byte_operations(graph) if each.maps]
    return in_bytes(operations, {*quantisation.values}, layers_in_bytes(quantisation))


def _moved_alone(
    graph: Graph, computing: Sequence[ByteOperation], values: Mapping[str, Scaling], kept: set[str]
) -> set[str]:
    """Values that are only padded or moved and then rounded with the same scale: rounding them first changes nothing.

    It lets engines compute the layer before the padding on bytes.
    """
    same = same_scales(graph, computing)
    found = set()
    for each in computing:
        readers = [node.name for node in graph.nodes if each.name in node.inputs]
        moves = [name in kept and same.get(name) == each.name for name in readers]
        alike = [values.get(name) == values.get(each.name) for name in readers]
        if readers and all(moves) and all(alike) and each.name not in graph.outputs:
            found.add(each.name)
    return found


def _computed(each: ByteOperation, layer: _Layer | None, inputs: Sequence[Tensor]) -> Tensor:
    """What `integer_network.computed` makes, of the numbers that bytes stand for and without rounding."""
    maps = [_to_map(form, shape, x) for x, (shape, form) in zip(inputs, each.maps, strict=False)]
    shape, form = each.maps[-1]
    y = _of_maps(each.operation, layer, maps)
    return y if form == channels_first(shape) else from_map(form, y)


def _to_map(form: Form, shape: MapShape, x: Tensor) -> Tensor:
    return x if form == channels_first(shape) else to_map(form, shape, x)


def _of_maps(operation: Operation, layer: _Layer | None, maps: Sequence[Tensor]) -> Tensor:
    kind, window, x = operation.kind, operation.window, maps[0]
    if kind == "concat":
        return torch.cat(list(maps), 1)
    if kind == "mean":
        return functional.adaptive_avg_pool2d(x, 1)
    if kind == "add":
        return reference.activated(x + maps[1], operation.activation)
    if kind == "combine":
        return reference.activated(x * maps[1], operation.activation)
    if kind == "scale":
        first, second = operation.factors or (torch.ones(1), torch.zeros(1))
        return reference.activated(
            x * first.reshape(-1, 1, 1) + second.reshape(-1, 1, 1), operation.activation
        )
    if kind == "rearrange":
        return _rearranged(operation, x)
    assert window is not None
    if layer is not None:
        assert operation.layer is not None
        x, padding = _padded(x, window, operation.shape[1:])
        y = functional.conv2d(
            x, layer.weight, layer.bias, window.stride, padding, window.dilation, operation.layer.groups
        )  # fmt: skip
        return reference.activated(y + maps[1] if len(maps) > 1 else y, operation.activation)
    up = _rounds_up(window, x.shape[2:], operation.shape[1:])
    if kind == "max":
        return functional.max_pool2d(x, window.size, window.stride, window.padding, window.dilation, up)
    y = functional.avg_pool2d(x, window.size, window.stride, window.padding, up, operation.counts_padding)
    pixels = window.size[0] * window.size[1]
    return y if operation.divisor in (None, pixels) else y * (pixels / operation.divisor)


def _padded(x: Tensor, window: Window, made: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """The map, and the padding with which a convolution makes that many pixels of it; unlike sides are padded here."""
    below, right = behind(window, [int(size) for size in x.shape[2:]], made)
    rows, columns = window.padding
    if 0 <= rows - below < window.stride[0] and 0 <= columns - right < window.stride[1]:
        return x, window.padding
    return functional.pad(x, (columns, right, rows, below)), (0, 0)


def _rearranged(operation: Operation, x: Tensor) -> Tensor:
    """The numbers in other places, by operations that an ONNX file has: the sum of what each movement brings."""
    parts = []
    for each in operation.movements:
        from_channel = dict(zip(each.targets, each.sources, strict=True))
        channels = [from_channel.get(to, -1) for to in range(operation.shape[0])]
        part = x
        for axis, places in enumerate((channels, each.rows, each.columns), 1):
            part = _taken(part, axis, places)
        parts.append(part)
    return sum(parts[1:], parts[0])


def _taken(x: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    """The numbers at these places of an axis (1 to 3); 0 for a place of -1."""
    size = int(x.shape[axis])
    if min(places) < 0:  # one place more, which holds 0
        x = functional.pad(x, [0, 0] * (3 - axis) + [0, 1])
    return x.index_select(axis, torch.tensor([size if place < 0 else place for place in places]))


def _rounds_up(window: Window, given: Sequence[int], made: Sequence[int]) -> bool:
    """Whether a pooling makes more pixels than have whole windows."""
    rows = zip(given, made, window.size, window.stride, window.padding, window.dilation, strict=True)
    return any(
        (int(old) + 2 * padding - dilation * (size - 1) - 1) // stride + 1 < new
        for old, new, size, stride, padding, dilation in rows
    )


def _sized(graph: Graph) -> Graph:
    """The graph with sizes of tensors, and what is made with them, by functions that torch.onnx can follow."""
    sizes: set[str] = set()
    nodes = []
    for node in graph.nodes:
        if kind_of(node) == "sym_size":
            sizes.add(node.name)
            node = replace(node, function=_size_of(cast(int, node.arguments["dim"])))
        elif sizes.intersection(node.inputs):
            if sizes.issuperset(node.inputs) and not node.op.startswith("aten."):
                sizes.add(node.name)
            node = replace(node, function=_by_python(node))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _size_of(axis: int) -> Callable[[Tensor], int]:
    return lambda x: x.shape[axis]


def _by_python(node: Node) -> Callable[..., object]:
    """The operation as Python calls it: there, a size may be a value that is followed."""
    bound, kind = node.function, kind_of(node)
    target = getattr(Tensor, kind, None) or getattr(torch, kind, None)
    if not isinstance(bound, Bound) or not node.op.startswith("aten.") or target is None:
        return bound
    return Bound(target, bound.arguments, bound.named)
