"""From nodes of a graph to the operations that can work on tiles, with what follows them fused in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import cast

import torch
from torch import Tensor

from zeroskip.concepts import Layer, pair
from zeroskip.graph import Graph, Node
from zeroskip.graph.fold_norms import batch_norm
from zeroskip.graph.nodes import kind_of
from zeroskip.graph.torch_operations import Argument, schema_of
from zeroskip.run.captured import overwrites

MAX_NONZEROS = 1 << 23  # non-zeros of a layer whose code would fill 90 MB


@dataclass(frozen=True)
class Window:
    """Which rows and columns of the input an output pixel sees; all sizes for (rows, columns)."""

    size: tuple[int, int]
    stride: int
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Operation:
    """Something done to maps, named after the value it makes.

    kind      "conv", "depthwise", "max", "average", "mean" (over all pixels), "scale", "add", "concat"
    inputs    the values it reads; a convolution's second one is added to its result
    shape     (channels, height, width) of its value
    layer     of a convolution
    factors   scale and shift of each channel, of a "scale"
    relu, bound  what is done to the result: values below 0 become 0, those above `bound` become `bound`
    names     the nodes it stands for
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, int, int]
    names: tuple[str, ...]
    window: Window | None = None
    layer: Layer | None = None
    factors: tuple[Tensor, Tensor] | None = None
    relu: bool = False
    bound: float | None = None
    counts_padding: bool = True
    divisor: int | None = None


@dataclass(frozen=True)
class Subgraph:
    """Operations that one call computes, in running order.

    inputs   values made elsewhere -> their shapes
    outputs  values needed elsewhere -> their shapes
    """

    operations: tuple[Operation, ...]
    inputs: Mapping[str, tuple[int, int, int]]
    outputs: Mapping[str, tuple[int, ...]]


def operations_of(graph: Graph) -> list[Operation]:
    """What of the graph can work on tiles, in running order; nodes that cannot are left out.

    >>> from zeroskip.graph import capture
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.MaxPool2d(2))
    >>> graph = capture(network, torch.zeros(1, 3, 8, 8))
    >>> [(operation.kind, operation.shape, operation.bound) for operation in operations_of(graph)]
    [('conv', (8, 6, 6), 6.0), ('max', (8, 3, 3), None)]
    """
    if barrier(graph):
        return []
    uses, shapes = _uses(graph), graph.shapes
    possible = [made for made in (_operation(node, shapes) for node in graph.nodes) if made is not None]
    # Means are tensors at once, which are no maps to read.
    means = {made.name for made in possible if made.kind == "mean"}
    return _fused([made for made in possible if not means & {*made.inputs}], uses, graph.names)


def barrier(graph: Graph) -> str:
    """What keeps the whole network off tiles; "" where nothing does.

    >>> barrier(replace(graph, batch=3))
    'the network is bound to 3 examples'
    """
    if graph.batch is not None:
        return f"the network is bound to {graph.batch} examples"
    uses = _uses(graph)
    shared = {name for name in uses if uses[name] > 1} | {node.name for node in graph.nodes if _is_view(node)}
    writer = next((node for node in graph.nodes if overwrites(node) and node.inputs[0] in shared), None)
    return "" if writer is None else f"{writer.op.split('.')[1]} overwrites what others read"


def _uses(graph: Graph) -> Counter[str]:
    """Value -> how many read it."""
    return Counter([*graph.outputs, *(name for node in graph.nodes for name in node.inputs)])


def is_too_large(layer: Layer) -> bool:
    """Whether a layer has too many non-zeros for code of its own."""
    # Counting reads all weights, which takes longer than the rest for layers that are small anyway.
    return layer.weight.numel() > MAX_NONZEROS and int(layer.weight.count_nonzero()) > MAX_NONZEROS


Shapes = Mapping[str, tuple[int, ...] | None]


def _is_view(node: Node) -> bool:
    """Whether the value may lie in the memory of an earlier one, as PyTorch's schema of the operation says."""
    schema = schema_of(node.op)
    if schema is None:
        return True
    return any(each.alias_info is not None and not each.alias_info.is_write for each in schema.returns)


def _operation(node: Node, shapes: Shapes) -> Operation | None:
    """The node as an operation, or None where it cannot work on tiles."""
    makers = {
        "conv2d": _convolution, "max_pool2d": _pool, "avg_pool2d": _pool, "adaptive_avg_pool2d": _global,
        "mean": _global, "relu": _pointwise, "relu6": _pointwise, "hardtanh": _pointwise, "clamp": _pointwise,
        "batch_norm": _norm, "add": _add, "cat": _concat,
    }  # fmt: skip
    maker = makers.get(kind_of(node))
    maps = [shapes.get(name) for name in node.inputs]
    if maker is None or not maps or any(shape is None or len(shape) != 3 for shape in maps):
        return None
    return maker(node, [(int(s[0]), int(s[1]), int(s[2])) for s in maps if s is not None])


_Maps = Sequence[tuple[int, int, int]]


def _plain(node: Node, kind: str) -> Operation | None:
    shape = node.shape
    if shape is None or len(shape) != 3 or 0 in shape or node.dtype not in (None, torch.float32):
        return None
    return Operation(node.name, kind, node.inputs, (shape[0], shape[1], shape[2]), (node.name,))


def _convolution(node: Node, maps: _Maps) -> Operation | None:
    layer = node.layer
    plain = _plain(node, "conv")
    if layer is None or plain is None or layer.weight.dtype is not torch.float32:
        return None
    if layer.stride[0] != layer.stride[1] or is_too_large(layer):
        return None
    size = layer.weight.shape[2], layer.weight.shape[3]
    padding = _padding(layer, size)
    if padding is None:
        return None
    window = Window(size, layer.stride[0], padding, pair(layer.dilation))
    depthwise = layer.groups == maps[0][0] == layer.weight.shape[0] and layer.groups > 1
    kind = "depthwise" if depthwise and size[0] * size[1] <= 25 else "conv"
    return replace(plain, kind=kind, layer=layer, window=window, relu=node.relu)


def _padding(layer: Layer, size: tuple[int, int]) -> tuple[int, int] | None:
    if not isinstance(layer.padding, str):
        return pair(layer.padding)
    if layer.padding == "valid":
        return 0, 0
    reach = [step * (length - 1) for step, length in zip(layer.dilation, size, strict=True)]
    return None if any(each % 2 for each in reach) else (reach[0] // 2, reach[1] // 2)


def _pool(node: Node, maps: _Maps) -> Operation | None:
    arguments = node.arguments
    plain = _plain(node, "max" if kind_of(node) == "max_pool2d" else "average")
    stride = _pair(arguments["stride"] or arguments["kernel_size"])
    size = _pair(arguments["kernel_size"])
    if plain is None or stride[0] != stride[1] or size[0] * size[1] > 49:
        return None
    window = Window(size, stride[0], _pair(arguments["padding"]), _pair(arguments.get("dilation", 1)))
    divisor, counted = arguments.get("divisor_override"), arguments.get("count_include_pad", True)
    return replace(
        plain,
        window=window,
        counts_padding=bool(counted),
        divisor=divisor if isinstance(divisor, int) else None,
    )


def _global(node: Node, maps: _Maps) -> Operation | None:
    """The mean over all pixels; pooling to the size that is there already changes nothing and stays out."""
    arguments = node.arguments
    if kind_of(node) == "mean":
        dim = arguments.get("dim")
        axes = dim if isinstance(dim, (list, tuple)) else ()
        places = [axis % 4 for axis in axes if isinstance(axis, int)]
        if sorted(places) != [2, 3] or arguments.get("dtype") is not None:
            return None
    elif _pair(arguments["output_size"]) != (1, 1):
        return None
    return Operation(node.name, "mean", node.inputs, (maps[0][0], 1, 1), (node.name,))


def _pointwise(node: Node, maps: _Maps) -> Operation | None:
    plain = _plain(node, "scale")
    kind, arguments = kind_of(node), node.arguments
    least: Argument = 0 if kind in ("relu", "relu6") else None
    bound: Argument = 6 if kind == "relu6" else None
    if kind == "hardtanh":
        least, bound = arguments["min_val"], arguments["max_val"]
    elif kind == "clamp":
        least, bound = arguments.get("min"), arguments.get("max")
    if plain is None or least != 0 or not isinstance(bound, (int, float, NoneType)):
        return None
    return replace(plain, relu=True, bound=None if bound is None else float(bound))


def _norm(node: Node, maps: _Maps) -> Operation | None:
    plain, norm = _plain(node, "scale"), batch_norm(node.arguments)
    if plain is None or len(node.inputs) != 1 or norm is None:
        return None
    scale = norm.scale
    shift = -norm.mean.double() * scale
    if norm.beta is not None:
        shift = shift + norm.beta.double()
    return replace(plain, factors=(scale.float(), shift.float()))


def _add(node: Node, maps: _Maps) -> Operation | None:
    plain = _plain(node, "add")
    same = len(maps) == 2 and maps[0] == maps[1]
    return plain if same and node.arguments.get("alpha", 1) == 1 else None


def _concat(node: Node, maps: _Maps) -> Operation | None:
    plain = _plain(node, "concat")
    # Inputs name each value once, and changing ones only, while `torch.cat([x, x, weight])` takes more than those.
    whole = plain is not None and plain.shape[0] == sum(channels for channels, _, _ in maps)
    return plain if whole and node.arguments.get("dim", 0) in (1, -3) else None


def _pair(argument: Argument) -> tuple[int, int]:
    # torch writes a size that is the same in both directions once or twice.
    sizes = [argument] if isinstance(argument, int) else list(cast("Sequence[int]", argument))
    return sizes[0], sizes[-1]


def _fused(operations: Sequence[Operation], uses: Counter[str], sources: Sequence[str]) -> list[Operation]:
    """Activations join what they follow, and sums the later of the two convolutions they add to something."""
    fused: list[Operation] = []
    for operation in operations:
        last = next((earlier for earlier in fused if earlier.name == operation.inputs[0]), None)
        if last is not None and uses[last.name] == 1 and _takes_activation(last, operation):
            joined = replace(last, name=operation.name, relu=operation.relu, bound=operation.bound)
            fused[fused.index(last)] = replace(joined, names=(*last.names, *operation.names))
            continue
        position, other = _summand(operation, fused, uses, sources)
        if position is None:
            fused.append(operation)
            continue
        before = fused.pop(position)
        names = (*before.names, *operation.names)
        fused.append(replace(before, name=operation.name, inputs=(before.inputs[0], other), names=names))
    return fused


def _summand(
    total: Operation, before: Sequence[Operation], uses: Counter[str], sources: Sequence[str]
) -> tuple[int | None, str]:
    """Where in `before` the convolution stands that can add the other input of the sum `total` to its own result.

    The other one must be there by then: it is an input of the network, or made before on tiles.
    """
    if total.kind != "add" or total.inputs[0] == total.inputs[1]:
        return None, ""
    names = [operation.name for operation in before]
    places = [(names.index(name) if name in names else -1, name) for name in total.inputs]
    (_, other), (position, name) = sorted(places)
    if position < 0 or (other not in names and other not in sources):
        return None, ""
    last = before[position]
    fits = last.kind == "conv" and len(last.inputs) == 1 and uses[name] == 1 and not _is_active(last)
    # What runs between the two must not need the sum earlier; nothing can, as only the sum reads it.
    return (position, other) if fits else (None, "")


def _takes_activation(last: Operation, operation: Operation) -> bool:
    activation = operation.kind == "scale" and operation.factors is None
    return activation and not _is_active(last) and last.kind in ("conv", "depthwise", "scale", "add")


def _is_active(operation: Operation) -> bool:
    return operation.relu or operation.bound is not None
