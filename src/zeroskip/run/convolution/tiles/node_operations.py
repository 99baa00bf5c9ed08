"""One node of a graph as an operation on tiles, where it can be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from zeroskip.concepts import Layer, pair
from zeroskip.graph import Node
from zeroskip.graph.fold_norms import batch_norm
from zeroskip.graph.nodes import kind_of
from zeroskip.graph.torch_operations import Argument
from zeroskip.run.convolution.tiles.activation import RELU, activation_of
from zeroskip.run.convolution.tiles.forms import Atom, Form, MapShape, channels_first, sequence
from zeroskip.run.convolution.tiles.mixtures import movements_between
from zeroskip.run.convolution.tiles.operations import Operation, Window, is_too_large
from zeroskip.run.convolution.tiles.values import MapValue, Values

Operations = tuple[Operation, ...]
"""The operations that a node becomes, the last of which makes its value; none where it stays with PyTorch."""

FEW_ROWS = 8  # of a linear layer; for fewer there are kernels that read weights faster
LARGEST_WINDOW = 49  # pixels that a pool may see


def operations_of_node(node: Node, values: Values) -> Operations:
    """The node as operations; none where it cannot work on tiles."""
    if activation_of(node) is not None:
        return _activation(node, values)
    kind = kind_of(node)
    # A second input of other kinds is a number that differs from call to call, such as that of the examples.
    few = kind in CONCATS or len(node.inputs) <= (2 if kind in FUNCTIONS else 1)
    return MAKERS[kind](node, values) if kind in MAKERS and node.inputs and few else ()


def plain(
    node: Node, kind: str, x: MapValue, shape: MapShape | None = None, form: Form | None = None
) -> Operation:
    """An operation of one input that makes the node's value; without a shape its map is as large as the input."""
    return Operation(node.name, kind, (x.base,), shape or x.shape, (node.name,), form=form or x.form)


def _activation(node: Node, values: Values) -> Operations:
    x = values.any(node.inputs[0])
    return () if x is None else (replace(plain(node, "scale", x), activation=activation_of(node)),)


def _convolution(node: Node, values: Values) -> Operations:
    layer = node.layer
    if layer is None or layer.weight.dtype is not torch.float32:
        return ()
    if layer.op == "linear":
        return _linear(node, layer, values)
    flat = layer.op == "conv1d"
    x = values.sequences(node.inputs[0]) if flat else values.images(node.inputs[0])
    layer = as_conv2d(layer)
    if x is None or is_too_large(layer):
        return ()
    size = layer.weight.shape[2], layer.weight.shape[3]
    padding, shape = _padding(layer, size), node.shape
    if padding is None or shape is None or 0 in shape:
        return ()
    made = (shape[0], 1, shape[1]) if flat else (shape[0], shape[1], shape[2])
    window = Window(size, pair(layer.stride), padding, pair(layer.dilation))
    depthwise = layer.groups == x.shape[0] == layer.weight.shape[0] and layer.groups > 1
    kind = "depthwise" if depthwise and size[0] * size[1] <= 25 else "conv"
    operation = plain(node, kind, x, made, sequence(shape[0], shape[1]) if flat else channels_first(made))
    return (replace(operation, layer=layer, window=window, activation=RELU if node.relu else None),)


def _linear(node: Node, layer: Layer, values: Values) -> Operations:
    x = values.rows(node.inputs[0])
    if x is None or is_too_large(layer) or x.shape[1] * x.shape[2] < FEW_ROWS:
        return ()
    shape = layer.weight.shape[0], *x.shape[1:]
    operation = plain(node, "conv", x, shape, x.form.with_axis(len(x.form.axes) - 1, "c", shape[0]))
    window = Window((1, 1), (1, 1), (0, 0))
    return (
        replace(operation, layer=as_conv2d(layer), window=window, activation=RELU if node.relu else None),
    )


def as_conv2d(layer: Layer) -> Layer:
    """A linear layer as a convolution of 1x1, one over sequences as one over maps of one row."""
    if layer.op == "linear":
        return replace(layer, op="conv2d", weight=layer.weight[:, :, None, None])
    if layer.op != "conv1d":
        return layer
    padding = layer.padding if isinstance(layer.padding, str) else (0, layer.padding[0])
    return replace(
        layer,
        op="conv2d",
        weight=layer.weight[:, :, None],
        stride=(1, layer.stride[0]),
        padding=padding,
        dilation=(1, layer.dilation[0]),
    )


def _padding(layer: Layer, size: tuple[int, int]) -> tuple[int, int] | None:
    if not isinstance(layer.padding, str):
        return pair(layer.padding)
    if layer.padding == "valid":
        return 0, 0
    reach = [step * (length - 1) for step, length in zip(layer.dilation, size, strict=True)]
    return None if any(each % 2 for each in reach) else (reach[0] // 2, reach[1] // 2)


def _pool(node: Node, values: Values) -> Operations:
    arguments, kind, shape = node.arguments, kind_of(node), node.shape
    flat = kind.endswith("1d")
    x = values.sequences(node.inputs[0]) if flat else values.images(node.inputs[0])
    if x is None or shape is None or 0 in shape:
        return ()
    size = sizes(arguments["kernel_size"], flat)
    stride = sizes(arguments["stride"] or arguments["kernel_size"], flat)
    divisor = arguments.get("divisor_override")
    odd = divisor is not None and (not isinstance(divisor, int) or divisor < 1)
    if size[0] * size[1] > LARGEST_WINDOW or odd:
        return ()
    padding = sizes(arguments["padding"], flat, other=0)
    window = Window(size, stride, padding, sizes(arguments.get("dilation", 1), flat))
    made = (x.shape[0], 1, shape[1]) if flat else (shape[0], shape[1], shape[2])
    form = sequence(made[0], made[2]) if flat else channels_first(made)
    operation = replace(
        plain(node, "max" if kind.startswith("max") else "average", x, made, form),
        window=window,
        counts_padding=bool(arguments.get("count_include_pad", True)),
        divisor=divisor if isinstance(divisor, int) else None,
    )
    return (operation,)


def sizes(argument: Argument, flat: bool = False, *, other: int = 1) -> tuple[int, int]:
    """A size for rows and columns; of a sequence that of the rows is `other`."""
    # torch writes a size that is the same in both directions once or twice.
    given = [argument] if isinstance(argument, int) else list(cast("Sequence[int]", argument))
    return (other, given[-1]) if flat else (given[0], given[-1])


def _mean(node: Node, values: Values) -> Operations:
    """The mean over all pixels."""
    x = values.any(node.inputs[0])
    if x is None or node.shape is None or is_over_batch(node, x):
        return ()
    axes, places = x.form.axes, _averaged(node, x)
    over = {atom.axis for place in places for atom in axes[place]}
    left = [atom for place, axis in enumerate(axes) if place not in places for atom in axis]
    if "c" in over or any(atom.axis != "c" for atom in left):
        return ()
    form = Form((tuple(left),)).reshaped(node.shape)
    return () if form is None else (plain(node, "mean", x, (x.shape[0], 1, 1), form),)


def is_over_batch(node: Node, x: MapValue) -> bool:
    """Whether a mean is over several examples, or of another type."""
    return -1 in _averaged(node, x) or node.arguments.get("dtype") is not None


def _averaged(node: Node, x: MapValue) -> list[int]:
    """The axes of the tensor that a mean is over, the batch not counted; -1 is the batch."""
    axes = len(x.form.axes) + 1
    if kind_of(node) != "mean":
        return list(range(1, axes - 1)) if set(sizes(node.arguments["output_size"])) == {1} else []
    dim = node.arguments.get("dim")
    given = dim if isinstance(dim, (list, tuple)) and dim else range(axes)
    return [axis % axes - 1 for axis in given if isinstance(axis, int)]


MEANS = ("mean", "adaptive_avg_pool2d", "adaptive_avg_pool1d")


def _norm(node: Node, values: Values) -> Operations:
    x, norm = values.any(node.inputs[0]), batch_norm(node.arguments)
    if x is None or norm is None or not x.form.holds(0, "c"):
        return ()
    scale = norm.scale
    shift = -norm.mean.double() * scale
    if norm.beta is not None:
        shift = shift + norm.beta.double()
    return (replace(plain(node, "scale", x), factors=(scale.float(), shift.float())),)


def _layer_norm(node: Node, values: Values) -> Operations:
    """A norm over the last axis: all channels of a pixel, or those of each head."""
    arguments = node.arguments
    size = list(cast("Sequence[int]", arguments["normalized_shape"]))
    x = values.maps.get(node.inputs[0]) or values.rows(node.inputs[0])
    if x is None or len(size) != 1 or x.form.axes[-1] != (Atom("c", size[0], 1),):
        return ()
    groups, epsilon = x.shape[0] // size[0], arguments["eps"]
    factors = [each.repeat(groups) for each in _factors(arguments, size[0])]
    epsilon = torch.finfo(torch.float32).eps if epsilon is None else float(cast(float, epsilon))
    return (replace(plain(node, kind_of(node), x), factors=(factors[0], factors[1]), epsilon=epsilon,
                    groups=groups),)  # fmt: skip


def _group_norm(node: Node, values: Values) -> Operations:
    x, arguments = values.any(node.inputs[0]), node.arguments
    if x is None or not x.form.holds(0, "c"):
        return ()
    groups = arguments.get("num_groups", x.shape[0])
    if kind_of(node) == "instance_norm" and not arguments.get("use_input_stats"):
        return ()
    return (replace(plain(node, "group_norm", x), factors=_factors(arguments, x.shape[0]),
                    epsilon=float(cast(float, arguments["eps"])), groups=int(cast(int, groups))),)  # fmt: skip


def _factors(arguments: Mapping[str, Argument], channels: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel."""
    weight, bias = arguments.get("weight"), arguments.get("bias")
    scale = weight.detach().float() if isinstance(weight, Tensor) else torch.ones(channels)
    shift = bias.detach().float() if isinstance(bias, Tensor) else torch.zeros(channels)
    return scale.contiguous(), shift.contiguous()


def _prelu(node: Node, values: Values) -> Operations:
    x, slopes = values.any(node.inputs[0]), node.arguments.get("weight")
    if x is None or not isinstance(slopes, Tensor) or not x.form.holds(0, "c"):
        return ()
    whole = slopes.detach().float().expand(x.shape[0]).contiguous()
    return (replace(plain(node, "prelu", x), factors=(whole, whole)),)


FUNCTIONS = {"mul": "multiply", "multiply": "multiply", "sub": "subtract", "subtract": "subtract", "rsub": "subtract",
             "add": "add", "div": "divide", "divide": "divide", "maximum": "maximum", "minimum": "minimum"}  # fmt: skip


def _combined(node: Node, values: Values) -> Operations:
    """A sum, product, ... of two maps, of a map and one pixel of each channel, or of a map and constants."""
    function, arguments = FUNCTIONS[kind_of(node)], node.arguments
    if arguments.get("alpha", 1) != 1 or arguments.get("rounding_mode") is not None:
        return ()
    if len(node.inputs) == 1:
        return _with_constant(node, function, values)
    x, other = (values.any(name) for name in (reversed(node.inputs) if _is_reversed(node) else node.inputs))
    if x is None or other is None or function == "divide":
        return ()
    if x.is_pixel and not other.is_pixel and function != "subtract":
        x, other = other, x
    before, other = _as_it_lies(node, x, other)
    same = x.shape == other.shape and x.form == other.form
    if not same and not (other.is_pixel and x.shape[0] == other.shape[0] and _aligned(other.form, x.form)):
        return ()
    kind = "add" if same and function == "add" else "combine"
    operation = replace(plain(node, kind, x), inputs=(x.base, other.base))
    return (*before, operation if kind == "add" else replace(operation, function=function))


def _as_it_lies(node: Node, x: MapValue, other: MapValue) -> tuple[Operations, MapValue]:
    """The other value with its pixels where those of x are, and what moves them; itself where none move."""
    fits = x.form.shape == other.form.shape and x.form != other.form and x.shape[0] == other.shape[0]
    movements = movements_between((other.shape, other.form), (x.shape, x.form)) if fits else None
    if movements is None:
        return (), other
    name = f"{node.name}.moved"
    moved = Operation(
        name, "rearrange", (other.base,), x.shape, (node.name,), form=x.form, movements=movements
    )
    return (moved,), MapValue(name, x.shape, x.form)


def _is_reversed(node: Node) -> bool:
    """Whether the node subtracts its first argument from its second, as `1 - x` does."""
    return kind_of(node) == "rsub"


def _aligned(pixel: Form, form: Form) -> bool:
    """Whether PyTorch gives one pixel's tensor to all places of the other: channels stand at the same axis."""
    if len(pixel.axes) != len(form.axes):
        return False  # its batch would be another axis of the other
    return all(not mine or mine == theirs for mine, theirs in zip(pixel.axes, form.axes, strict=True))


def _with_constant(node: Node, function: str, values: Values) -> Operations:
    """A map times, plus, ... a number, or a number for each channel."""
    x, arguments = values.any(node.inputs[0]), node.arguments
    constant = arguments.get("other", arguments.get("self"))
    first = ("other" not in arguments) != _is_reversed(node)
    if x is None or isinstance(constant, (bool, complex)):
        return ()
    numbers = _by_channel(constant, x)
    if numbers is None or function in ("maximum", "minimum") or (first and function == "divide"):
        return ()
    ones, zeros = torch.ones(x.shape[0]), torch.zeros(x.shape[0])
    scale, shift = {
        "multiply": (numbers, zeros),
        "divide": (1 / numbers, zeros),
        "add": (ones, numbers),
        "subtract": (-ones, numbers) if first else (ones, -numbers),
    }[function]
    return (replace(plain(node, "scale", x), factors=(scale.float(), shift.float())),)


def _by_channel(constant: Argument, x: MapValue) -> Tensor | None:
    """(channels,) the constant for each channel of x; None where it differs from pixel to pixel."""
    if isinstance(constant, (int, float)):
        return torch.full((x.shape[0],), float(constant), dtype=torch.float64)
    if not isinstance(constant, Tensor) or constant.dtype is not torch.float32:
        return None
    if constant.numel() == 1 and constant.ndim <= len(x.form.axes) + 1:
        return constant.detach().reshape(1).double().expand(x.shape[0])
    places = [place for place, axis in enumerate(x.form.axes) if axis and x.form.holds(place, "c")]
    if len(places) != 1 or constant.numel() != x.shape[0]:
        return None
    at = places[0] - len(x.form.axes)  # counted from the last axis
    fits = constant.ndim >= -at and constant.shape[at] == x.shape[0] and constant.ndim <= len(x.form.axes) + 1
    return constant.detach().flatten().double() if fits else None


CONCATS = ("cat", "concat", "concatenate")


def _concat(node: Node, values: Values) -> Operations:
    parts = [values.any(name) for name in node.inputs]
    if any(part is None for part in parts) or node.shape is None:
        return ()
    known = [part for part in parts if part is not None]
    axes = len(known[0].form.axes)
    dim = int(cast(int, node.arguments.get("dim", 0))) % (axes + 1) - 1
    channels = sum(part.shape[0] for part in known)
    # Inputs name each value once, and changing ones only, while `torch.cat([x, x, weight])` takes more than those.
    whole = dim >= 0 and len(node.shape) == axes and node.shape[dim] == channels
    same = all(part.shape[1:] == known[0].shape[1:] and _is_channels(part, dim, known[0]) for part in known)
    if not whole or not same:
        return ()
    form = known[0].form.with_axis(dim, "c", channels)
    made = plain(node, "concat", known[0], (channels, *known[0].shape[1:]), form)
    return (replace(made, inputs=tuple(part.base for part in known)),)


def _is_channels(part: MapValue, dim: int, first: MapValue) -> bool:
    form = part.form
    others = [axis for place, axis in enumerate(form.axes) if place != dim]
    return form.holds(dim, "c") and others == [
        axis for place, axis in enumerate(first.form.axes) if place != dim
    ]


MAKERS: Mapping[str, Callable[[Node, Values], Operations]] = {
    **dict.fromkeys(("conv2d", "conv1d", "linear"), _convolution),
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "max_pool1d", "avg_pool1d"), _pool),
    **dict.fromkeys(MEANS, _mean),
    **dict.fromkeys(FUNCTIONS, _combined),
    "batch_norm": _norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("group_norm", "instance_norm"), _group_norm),
    "prelu": _prelu,
    **dict.fromkeys(CONCATS, _concat),
}
