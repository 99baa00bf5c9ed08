"""Nodes that put numbers into other places: slices, padding, upsampling, rolling, shuffled channels and pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch.nn import functional

from zeroskip.graph import Node
from zeroskip.graph.nodes import kind_of
from zeroskip.run.convolution.tiles.activation import RELU
from zeroskip.run.convolution.tiles.forms import MapShape, channels_first, sequence
from zeroskip.run.convolution.tiles.node_operations import Operations, sizes
from zeroskip.run.convolution.tiles.operations import Movement, Operation, Window, is_too_large
from zeroskip.run.convolution.tiles.slices import (
    MadeMap,
    Places,
    axis_at,
    moved,
    movement,
    place_of,
    slice_of,
)
from zeroskip.run.convolution.tiles.values import MapValue, Values, integers


def rearrangement(node: Node, values: Values) -> Operations:
    """The node as an operation that rearranges; none where it is no such node, or one that tiles cannot do."""
    maker = MAKERS.get(kind_of(node))
    # A second input would be a number that differs from call to call, such as that of the examples.
    return maker(node, values) if maker is not None and len(node.inputs) == 1 else ()


def _dim(node: Node, x: MapValue) -> int:
    """The axis of the tensor, the batch not counted; -1 is the batch."""
    return int(cast(int, node.arguments.get("dim", 0))) % (len(x.form.axes) + 1) - 1


def _slice(node: Node, values: Values) -> Operations:
    x, arguments = values.any(node.inputs[0]), node.arguments
    if x is None or (dim := _dim(node, x)) < 0:
        return ()
    length = x.form.shape[dim]
    given = [arguments.get(name) for name in ("start", "end", "step")]
    if not all(each is None or isinstance(each, int) for each in given) or cast(int, given[2] or 1) < 1:
        return ()
    return slice_of(node, x, dim, range(length)[slice(*cast("list[int | None]", given))])


def _narrow(node: Node, values: Values) -> Operations:
    x, arguments = values.any(node.inputs[0]), node.arguments
    start, length = arguments.get("start"), arguments.get("length")
    if x is None or not isinstance(start, int) or not isinstance(length, int) or (dim := _dim(node, x)) < 0:
        return ()
    return slice_of(node, x, dim, range(x.form.shape[dim])[start:][: max(0, length)])


def _select(node: Node, values: Values) -> Operations:
    x, index = values.any(node.inputs[0]), node.arguments.get("index")
    if x is None or not isinstance(index, int) or (dim := _dim(node, x)) < 0:
        return ()
    return place_of(node, x, dim, range(x.form.shape[dim])[index])


BORDERS = {"reflection_pad1d": "reflect", "reflection_pad2d": "reflect", "replication_pad1d": "replicate",
           "replication_pad2d": "replicate"}  # fmt: skip


def _padded(node: Node, values: Values) -> Operations:
    x, arguments = values.any(node.inputs[0]), node.arguments
    kind = kind_of(node)
    mode = BORDERS.get(kind, str(arguments.get("mode", "constant")))
    amounts = integers(arguments.get("pad", arguments.get("padding")))
    known = mode in ("constant", "reflect", "replicate") and node.shape is not None
    if (
        x is None
        or len(amounts) % 2
        or not known
        or max(map(abs, amounts), default=0) > max(node.shape or (0,))
    ):
        return ()
    value = arguments.get("value") or 0
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return ()
    taken: dict[str, Places] = {name: range(size) for name, size in zip("chw", x.shape, strict=True)}
    form = x.form
    for number, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        dim = len(form.axes) - 1 - number
        axis = axis_at(x, dim)
        if (before, after) == (0, 0):
            continue
        if axis is None or (axis == "c" and mode != "constant"):
            return ()
        taken[axis] = _with_border(len(taken[axis]), before, after, mode)
        form = form.with_axis(dim, axis, len(taken[axis]))
    made = tuple(len(taken[name]) for name in "chw")
    if 0 in made or form.shape != node.shape:
        return ()
    target, rows, columns = MadeMap((made[0], made[1], made[2]), form), tuple(taken["h"]), tuple(taken["w"])
    channels = list(enumerate(taken["c"]))
    full = [(to, source) for to, source in channels if source >= 0]
    movements = [Movement(tuple(to for to, _ in full), tuple(source for _, source in full), rows, columns)]
    empty = tuple(to for to, source in channels if source < 0)
    if empty:  # channels of nothing but the value
        movements.append(Movement(empty, (0,) * len(empty), (-1,) * made[1], (-1,) * made[2]))
    return (moved(node, x, target, movements, float(value)),)


def _with_border(length: int, before: int, after: int, mode: str) -> Places:
    places = list(range(-before, length + after))
    if mode == "reflect":
        return [abs(place) if place < length else 2 * (length - 1) - place for place in places]
    if mode == "replicate":
        return [min(max(place, 0), length - 1) for place in places]
    return [place if 0 <= place < length else -1 for place in places]


def _upsampled(node: Node, values: Values) -> Operations:
    flat = kind_of(node).endswith("1d")
    x = values.sequences(node.inputs[0]) if flat else values.images(node.inputs[0])
    shape = node.shape
    if x is None or shape is None or 0 in shape:
        return ()
    made = (shape[0], 1, shape[1]) if flat else (shape[0], shape[1], shape[2])
    (up, rest), (across, more) = divmod(made[1], x.shape[1]), divmod(made[2], x.shape[2])
    form = sequence(made[0], made[2]) if flat else channels_first(made)
    if rest or more or made[0] != x.shape[0] or not _is_scaled_by(node, up, across):
        return ()
    if kind_of(node).startswith("upsample_nearest"):
        places = _nearest(x.shape[1], up), _nearest(x.shape[2], across)
        return (moved(node, x, MadeMap(made, form), [movement(range(made[0]), *places)]),)
    if node.arguments.get("align_corners"):
        return ()
    channels = tuple(range(made[0]))
    movements = [
        Movement(channels, channels, rows, columns, (row_weights, column_weights))
        for rows, row_weights in _neighbours(x.shape[1], up)
        for columns, column_weights in _neighbours(x.shape[2], across)
    ]
    return (moved(node, x, MadeMap(made, form), movements),)


def _is_scaled_by(node: Node, up: int, across: int) -> bool:
    """Whether the factors by which PyTorch finds the sources, where the node has them, are these."""
    arguments, flat = node.arguments, kind_of(node).endswith("1d")
    named = [arguments.get("scales")] if flat else [arguments.get("scales_h"), arguments.get("scales_w")]
    factors = arguments.get("scale_factors")
    given = list(factors) if isinstance(factors, (list, tuple)) else named
    wanted = [across] if flat else [up, across]
    return all(each is None or each == factor for each, factor in zip(given, wanted, strict=True))


def _nearest(length: int, factor: int) -> list[int]:
    """Where each place of an axis, `factor` times as long, comes from, as PyTorch rounds it."""
    numbers = torch.arange(length, dtype=torch.float64).reshape(1, 1, length)
    return [int(place) for place in functional.interpolate(numbers, length * factor).flatten()]


def _neighbours(length: int, factor: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """The two neighbours that each place of an axis, `factor` times as long, lies between, and their weights."""
    centers = [max(0.0, (place + 0.5) / factor - 0.5) for place in range(length * factor)]
    lower = [int(center) for center in centers]
    upper = [min(place + 1, length - 1) for place in lower]
    shares = [center - place for center, place in zip(centers, lower, strict=True)]
    return [(tuple(lower), tuple(1 - share for share in shares)), (tuple(upper), tuple(shares))]


def _rolled(node: Node, values: Values) -> Operations:
    x, arguments = values.any(node.inputs[0]), node.arguments
    shifts, dims = integers(arguments.get("shifts")), integers(arguments.get("dims"))
    if x is None or len(shifts) != len(dims) or not dims:
        return ()
    taken: dict[str, Places] = {name: range(size) for name, size in zip("chw", x.shape, strict=True)}
    for shift, dim in zip(shifts, dims, strict=True):
        place = dim % (len(x.form.axes) + 1) - 1
        axis = axis_at(x, place)
        if axis is None:
            return ()
        before = taken[axis]
        taken[axis] = [before[(number - shift) % len(before)] for number in range(len(before))]
    return (moved(node, x, MadeMap(x.shape, x.form), [movement(*(taken[name] for name in "chw"))]),)


def _channel_shuffle(node: Node, values: Values) -> Operations:
    x, groups = values.any(node.inputs[0]), node.arguments.get("groups")
    if (
        x is None
        or not isinstance(groups, int)
        or groups < 1
        or x.shape[0] % groups
        or not x.form.holds(0, "c")
    ):
        return ()
    each = x.shape[0] // groups
    order = [group * each + number for number in range(each) for group in range(groups)]
    return (
        moved(node, x, MadeMap(x.shape, x.form), [movement(order, range(x.shape[1]), range(x.shape[2]))]),
    )


def _pixel_shuffle(node: Node, values: Values) -> Operations:
    x, factor = values.images(node.inputs[0]), node.arguments.get("upscale_factor")
    if x is None or not isinstance(factor, int) or factor < 1:
        return ()
    made = x.shape[0] // factor**2, x.shape[1] * factor, x.shape[2] * factor
    if made != node.shape or made[0] * factor**2 != x.shape[0]:
        return ()
    return (
        moved(node, x, MadeMap(made, channels_first(made)), _interleaved(made, (factor, factor), (0, 0))),
    )


def _pixel_unshuffle(node: Node, values: Values) -> Operations:
    x, factor = values.images(node.inputs[0]), node.arguments.get("downscale_factor")
    if x is None or not isinstance(factor, int) or factor < 1:
        return ()
    made = x.shape[0] * factor**2, x.shape[1] // factor, x.shape[2] // factor
    if made != node.shape or (made[1] * factor, made[2] * factor) != x.shape[1:]:
        return ()
    sources, movements = tuple(range(x.shape[0])), []
    for row in range(factor):
        for column in range(factor):
            targets = tuple(source * factor**2 + row * factor + column for source in sources)
            rows, columns = range(row, x.shape[1], factor), range(column, x.shape[2], factor)
            movements.append(Movement(targets, sources, tuple(rows), tuple(columns)))
    return (moved(node, x, MadeMap(made, channels_first(made)), movements),)


def _interleaved(made: MapShape, steps: tuple[int, int], cut: tuple[int, int]) -> list[Movement]:
    """A movement for each phase: pixel p is pixel (p + cut) // step of the channel for (p + cut) % step."""
    channels, movements = range(made[0]), []
    for row in range(steps[0]):
        for column in range(steps[1]):
            phase = row * steps[1] + column
            rows, columns = (
                tuple((p + c) // s if (p + c) % s == mine else -1 for p in range(size))
                for size, s, c, mine in zip(made[1:], steps, cut, (row, column), strict=True)
            )
            sources = tuple(channel * steps[0] * steps[1] + phase for channel in channels)
            movements.append(Movement(tuple(channels), sources, rows, columns))
    return movements


def _transposed(node: Node, values: Values) -> Operations:
    """A transposed convolution: one convolution for each phase of its stride, whose pixels are then interleaved."""
    layer, shape = node.layer, node.shape
    if layer is None or shape is None or 0 in shape or layer.weight.dtype is not torch.float32:
        return ()
    flat = layer.op == "conv_transpose1d"
    x = values.sequences(node.inputs[0]) if flat else values.images(node.inputs[0])
    if x is None or set(layer.dilation) != {1} or isinstance(layer.padding, str) or is_too_large(layer):
        return ()
    steps, cut = sizes(list(layer.stride), flat), sizes(list(layer.padding), flat, other=0)
    weight = layer.weight[:, :, None] if flat else layer.weight
    phases = phase_weights(weight, steps, layer.groups)
    taps = phases.shape[2], phases.shape[3]
    made = (shape[0], 1, shape[1]) if flat else (shape[0], shape[1], shape[2])
    ends = [(size + c - 1) // s + 1 for size, c, s in zip(made[1:], cut, steps, strict=True)]
    # Output padding may want more than the input reaches, of which only the bias is left.
    more = [max(0, end - (size + tap - 1)) for end, size, tap in zip(ends, x.shape[1:], taps, strict=True)]
    padding = taps[0] - 1 + more[0], taps[1] - 1 + more[1]
    inner = phases.shape[0], x.shape[1] + padding[0] + more[0], x.shape[2] + padding[1] + more[1]
    bias = None if layer.bias is None else layer.bias.repeat_interleave(steps[0] * steps[1])
    window = Window(taps, (1, 1), padding)
    convolution = replace(
        layer, op="conv2d", weight=phases, bias=bias, stride=(1, 1), padding=window.padding, dilation=(1, 1)
    )
    name = f"{node.name}.phases"
    active = RELU if node.relu else None
    first = Operation(
        name, "conv", (x.base,), inner, (node.name,), window=window, layer=convolution, activation=active
    )
    value = MapValue(name, inner, channels_first(inner))
    form = sequence(made[0], made[2]) if flat else channels_first(made)
    cut = cut[0] + more[0] * steps[0], cut[1] + more[1] * steps[1]
    return first, moved(node, value, MadeMap(made, form), _interleaved(made, steps, cut))


def phase_weights(weight: torch.Tensor, steps: tuple[int, int], groups: int) -> torch.Tensor:
    """(out x phases, in / groups, taps, taps): the convolutions of a transposed one of weight (in, out / groups, h, w).

    Phase r of an axis has the weights r, r + step, r + 2 step, ..., the last first.
    """
    inputs, each, *size = weight.shape
    taps = [-(-length // step) for length, step in zip(size, steps, strict=True)]
    padded = weight.new_zeros(inputs, each, taps[0] * steps[0], taps[1] * steps[1])
    padded[:, :, : size[0], : size[1]] = weight
    cut = padded.reshape(groups, inputs // groups, each, taps[0], steps[0], taps[1], steps[1]).flip(3, 5)
    ordered = cut.permute(0, 2, 4, 6, 1, 3, 5)  # (groups, out, phase rows, phase columns, in, taps, taps)
    return ordered.reshape(
        groups * each * steps[0] * steps[1], inputs // groups, taps[0], taps[1]
    ).contiguous()


MAKERS: Mapping[str, Callable[[Node, Values], Operations]] = {
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    **dict.fromkeys(
        (
            "pad",
            "constant_pad_nd",
            "reflection_pad1d",
            "reflection_pad2d",
            "replication_pad1d",
            "replication_pad2d",
        ),
        _padded,
    ),
    **dict.fromkeys(
        ("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_linear1d"), _upsampled
    ),
    "roll": _rolled,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channel_shuffle),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _transposed),
}
