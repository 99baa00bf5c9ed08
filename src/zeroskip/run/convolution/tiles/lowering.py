"""From operations and their places to steps in machine code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.arrangement import SCORES, Arrangement, Reading, arrange
from zeroskip.run.convolution.tiles.attention import AttentionMaps, attention
from zeroskip.run.convolution.tiles.attention_quads import attention_of_bytes
from zeroskip.run.convolution.tiles.baked_steps import bake_all, is_baked
from zeroskip.run.convolution.tiles.channels_last import read_channels_last, write_channels_last
from zeroskip.run.convolution.tiles.convolution_job import (
    Job,
    RowWeights,
    bias_of,
    row_weights,
    whole_weight,
)
from zeroskip.run.convolution.tiles.direct_bytes import is_of_bytes, made_directly
from zeroskip.run.convolution.tiles.elementwise import combine, pointwise, prelu
from zeroskip.run.convolution.tiles.forms import channels_first
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.mixing import mix
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.convolution.tiles.pooling import WindowTaps, pool
from zeroskip.run.convolution.tiles.quad_job import IntegerWeights, QuadJob, integer_weights
from zeroskip.run.convolution.tiles.quad_lowering import QuadOperation, quad_part, rescaled
from zeroskip.run.convolution.tiles.quad_moves import moved_quads, side_by_side
from zeroskip.run.convolution.tiles.rearrange import rearrange
from zeroskip.run.convolution.tiles.reductions import group_norm, layer_norm, mean
from zeroskip.run.convolution.tiles.relayout import Phase, Transfer, fill_ring, relayout
from zeroskip.run.convolution.tiles.segment_code import SegmentCode
from zeroskip.run.convolution.tiles.shared_weights import WeightSource, sharing
from zeroskip.run.convolution.tiles.steps import Epilogue, Step, joined
from zeroskip.run.convolution.tiles.streamed import block_height, depthwise, streamed
from zeroskip.run.convolution.tiles.streamed_quads import streamed_quads
from zeroskip.run.convolution.tiles.tensor_transfer import TensorSlot, read_quads, read_tensor, write_tensor
from zeroskip.run.element import FP32, Element

AnyJob = Job | QuadJob


@dataclass(frozen=True)
class _Context:
    """What the steps are made from; `slots` are the words of the workspace with the addresses of tensors."""

    subgraph: Subgraph
    arrangement: Arrangement
    slots: Mapping[str, int]
    machine: Machine

    def is_channels_last(self, name: str) -> bool:
        """Whether the tensor of a value that enters or leaves holds the channels of each pixel side by side."""
        form = self.subgraph.forms.get(name)
        return form is not None and form.is_channels_last


def lower(
    subgraph: Subgraph, machine: Machine, *, images: int = 1, methods: Mapping[str, str] | None = None,
    element: Element = FP32,
) -> SegmentCode:  # fmt: skip
    """The operations as steps for `images` examples at a time.

    `methods`: convolution -> "baked", "blocks" or "streamed" (the default); depthwise ones have one method only.
    Maps, weights and sums are of `element`; what enters and leaves is fp32. EngineError for another method, and
    where baked code is asked for and the machine cannot run it.
    """
    lanes = machine.vector_bytes // element.bytes
    subgraph = made_directly(subgraph, machine)
    arrangement = arrange(subgraph, images=images, lanes=lanes, element=element)
    slots = {name: slot for slot, name in enumerate([*subgraph.inputs, *subgraph.outputs])}
    context, methods = _Context(subgraph, arrangement, slots, machine), methods or {}
    if subgraph.scalings and element is not FP32:
        raise EngineError(f"8-bit numbers on tiles stand beside fp32, not {element.name}.")
    parts: list[Step | AnyJob] = []
    for operation in subgraph.operations:
        parts += _steps(operation, context, methods.get(operation.name, "streamed"))
    jobs = [part for part in parts if isinstance(part, AnyJob)]
    baked = iter(bake_all(jobs, machine) if jobs else [])
    steps = joined([next(baked) if isinstance(part, AnyJob) else part for part in parts], machine)
    shapes = {**subgraph.inputs, **subgraph.outputs}
    forms = {name: subgraph.forms.get(name, channels_first(shape)) for name, shape in shapes.items()}
    return SegmentCode(steps, images, dict(subgraph.inputs), dict(subgraph.outputs), arrangement.bytes, forms)


def _steps(operation: Operation, context: _Context, method: str) -> list[Step | AnyJob]:
    """Everything that an operation needs done: copies first, then itself, its ring, and its tensor."""
    name, machine = operation.name, context.machine
    y = context.arrangement.maps[name]
    quads = operation.kind == "convert" or {name, *operation.inputs} & set(context.subgraph.scalings)
    entering = _entering(operation, context, y)
    if entering is not None:
        return [entering]
    if operation.kind == "concat":
        steps: list[Step | AnyJob] = [*_parts(operation, context, y)]
    elif quads:
        steps = _in_quads(operation, context, y, method)
    elif operation.kind in ("conv", "depthwise"):
        steps = _convolution(operation, context, y, method)
    else:
        copies, x = _source(operation, context)
        steps = [*copies, *_simple(operation, context, x, y)]
    ring = fill_ring(name, y, machine, fill=_fill(name, 0.0, context))
    steps += [] if ring is None or operation.kind == "concat" else [ring]
    if name in context.slots:
        write = write_channels_last if context.is_channels_last(name) else write_tensor
        steps.append(write(name, y, context.slots[name], machine))
    return steps


def _entering(operation: Operation, context: _Context, y: Map) -> Step | None:
    """The step that reads a tensor of pictures as quads, ring included; None where the operation is another."""
    source, scaling = operation.inputs[0], context.subgraph.scalings.get(operation.name)
    shape = context.subgraph.inputs.get(source)
    if operation.kind != "convert" or scaling is None or shape is None or context.is_channels_last(source):
        return None
    return read_quads(TensorSlot(context.slots[source], shape), y, operation.name, scaling, context.machine)


def _simple(operation: Operation, context: _Context, x: Map, y: Map) -> list[Step]:
    """The operation itself, without weights that may be zero."""
    kind, machine = operation.kind, context.machine
    if kind in ("max", "average"):
        size = _shape(operation.inputs[0], context)[1:]
        return [pool(operation, x, y, _taps(operation, context, x), size, machine)]
    if kind == "rearrange":
        return rearrange(operation, x, y, machine)
    if kind == "attention":
        return _attention(operation, context, x, y)
    if kind in SINGLE:
        return [SINGLE[kind](operation, x, y, machine)]
    copies, other = _second(operation, context)
    if kind == "combine":
        assert other is not None
        return [*copies, combine(operation, x, other, y, machine)]
    return [*copies, pointwise(operation, x, other, y, machine)]


def _attention(operation: Operation, context: _Context, x: Map, y: Map) -> list[Step]:
    """Attention, with copies of what is read from elsewhere besides the queries."""
    maps, copies = [x], context.arrangement.copies
    steps: list[Step] = []
    for position, name in enumerate(operation.inputs[1:], 1):
        copy = copies.get((operation.name, position))
        if copy is not None:
            steps.append(_copied(name, Transfer(operation.name, copy), context))
        maps.append(copy or context.arrangement.maps[name])
    scores, mask = copies[operation.name, SCORES], maps[3] if len(maps) > 3 else None
    given = AttentionMaps(maps[0], maps[1], maps[2], scores, y, mask)
    if is_of_bytes(operation, context.subgraph, context.machine):
        output = context.subgraph.scalings.get(operation.name)
        return [*steps, attention_of_bytes(operation, given, output, context.machine)]
    return [*steps, attention(operation, given, context.machine)]


def _fill(name: str, fill: float, context: _Context) -> float:
    """What a map of the value holds where `fill` should be: for 8-bit numbers a word, of 0 for what is below all."""
    scaling = context.subgraph.scalings.get(name)
    if scaling is None:
        return fill
    return scaling.word if fill == 0 else 0


SINGLE: Mapping[str, Callable[[Operation, Map, Map, Machine], Step]] = {
    "mean": mean,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "group_norm": group_norm,
    "prelu": prelu,
    "mix": mix,
}


def _source(operation: Operation, context: _Context) -> tuple[list[Step], Map]:
    """The copies that put the first input into the layout that the operation reads, and the input in it."""
    reading, name = context.arrangement.readings[operation.name], operation.inputs[0]
    if not reading.copied:
        return [], context.arrangement.maps[name]
    copy, steps = context.arrangement.copies[operation.name, 0], []
    fill = _fill(name, reading.fill, context)
    for (row, column), places in reading.places().items():
        target, phase = replace(copy, read=(places,)), Phase(reading.phases, row, column)
        steps.append(_copied(name, Transfer(operation.name, target, phase, fill), context))
    return steps, copy


def _copied(name: str, transfer: Transfer, context: _Context) -> Step:
    """A value, made here or elsewhere, copied."""
    if name in context.subgraph.inputs:
        tensor = TensorSlot(context.slots[name], context.subgraph.inputs[name])
        read = read_channels_last if context.is_channels_last(name) else read_tensor
        return read(tensor, transfer, context.machine)
    return relayout(context.arrangement.maps[name], transfer, context.machine)


def _second(operation: Operation, context: _Context) -> tuple[list[Step], Map | None]:
    """The input that is added, and the step that brings it into the operation's tiles where it has others."""
    if len(operation.inputs) < 2:
        return [], None
    name = operation.inputs[1]
    copy = context.arrangement.copies.get((operation.name, 1))
    if copy is None:
        return [], context.arrangement.maps[name]
    transfer = Transfer(operation.name, copy, fill=_fill(name, 0.0, context))
    return [_copied(name, transfer, context)], copy


def _parts(operation: Operation, context: _Context, y: Map) -> list[Step]:
    """Copies of those inputs of a concatenation that were not made in their place."""
    steps, start = [], y.channels.start
    for position, name in enumerate(operation.inputs):
        known, vectors = context.arrangement.maps.get(name), _shape(name, context)[0]
        if known is None or (known.base, known.channels.start) != (y.base, start):
            target = Map(y.layout, y.base + start * y.layout.vector_bytes, range(vectors), y.read)
            steps += _part(operation, position, target, context)
        start += vectors
    return steps


def _part(operation: Operation, position: int, target: Map, context: _Context) -> list[Step]:
    """An input of a concatenation, copied to its place; 8-bit numbers of another scale are rounded again."""
    scalings, name = context.subgraph.scalings, operation.inputs[position]
    before, after = scalings.get(name), scalings.get(operation.name)
    fill = _fill(name, 0.0, context)
    if before == after:
        return [_copied(name, Transfer(operation.name, target, fill=fill), context)]
    known = context.arrangement.maps.get(name)
    if before is None or after is None or known is None:
        raise EngineError(f"{operation.name} joins maps of other kinds. Use fp32 for it.")
    channels = next(each.shape[0] for each in context.subgraph.operations if each.name == name)
    copy = context.arrangement.copies.get((operation.name, position))
    moved = [] if copy is None else [_copied(name, Transfer(operation.name, copy, fill=fill), context)]
    job = rescaled(operation.name, (copy or known, target), channels, (before, after))
    ring = fill_ring(operation.name, target, context.machine, fill=_fill(operation.name, 0.0, context))
    return [*moved, streamed_quads(job, context.machine), *([] if ring is None else [ring])]


def _shape(name: str, context: _Context) -> tuple[int, int, int]:
    """Channels, height and width of a value."""
    known = context.arrangement.maps.get(name)
    if known is None:
        return context.subgraph.inputs[name]
    return len(known.channels), known.layout.height, known.layout.width


def _taps(operation: Operation, context: _Context, x: Map) -> WindowTaps:
    """The taps of an operation's window that touch the map, in `x`, whose rows and columns may lie in phases."""
    reading = context.arrangement.readings[operation.name]
    assert reading.taps is not None
    row, row_phase = np.divmod(reading.taps.down, reading.phases[0])
    column, column_phase = np.divmod(reading.taps.right, reading.phases[1])
    phase = row_phase[:, None] * reading.phases[1] + column_phase
    places = row[:, None] * x.layout.pitch + column
    offsets = places * x.layout.place_bytes + phase * _channels(reading, x) * x.layout.vector_bytes
    return WindowTaps(offsets.ravel(), reading.stride)


def _channels(reading: Reading, x: Map) -> int:
    """Channels of one phase."""
    return len(x.channels) // math.prod(reading.phases)


def _convolution(operation: Operation, context: _Context, y: Map, method: str) -> list[Step | AnyJob]:
    copies, x = _source(operation, context)
    more, residual = _second(operation, context)
    layer, reading = operation.layer, context.arrangement.readings[operation.name]
    assert layer is not None
    assert reading.taps is not None
    taps = _taps(operation, context, x)
    if operation.kind == "depthwise":
        weight, offsets = reading.taps.of(layer.weight.detach().numpy()), taps.offsets
        weights, shared = RowWeights(weight, bias_of(operation), offsets, max(1, len(offsets))), None
    else:
        channels = np.arange(_channels(reading, x)) * x.layout.vector_bytes
        offsets = (channels[:, None] + taps.offsets).ravel()
        shared = sharing(WeightSource((layer.weight, layer.bias), offsets), operation.known)
        weights = row_weights(operation, reading.taps, shared, max(1, len(taps.offsets)))
    job = Job(
        operation.name,
        weights,
        taps.stride,
        x=x,
        y=y,
        residual=residual,
        epilogue=Epilogue(residual is not None, operation.activation),
        sharing=shared,
    )
    if operation.kind == "depthwise":
        return [*copies, depthwise(job, context.machine)]
    if method == "baked":
        return [*copies, *more, job]
    if method not in ("streamed", "blocks"):
        raise EngineError(f'no convolution on tiles is computed by the method "{method}".')
    block = block_height(weights.weight) if method == "blocks" else 1
    return [*copies, *more, streamed(job, context.machine, block=block)]


def _in_quads(operation: Operation, context: _Context, y: Map, method: str) -> list[Step | AnyJob]:
    """An operation that reads or makes 8-bit numbers, with the copies that it needs."""
    name, scalings, machine = operation.name, context.subgraph.scalings, context.machine
    copies, x = _source(operation, context)
    of_fp32 = not {*operation.inputs} & {*scalings}
    if operation.kind == "attention" and of_fp32:
        return [*copies, *_attention(operation, context, x, y)]
    if operation.kind in ("layer_norm", "rms_norm") and of_fp32:
        return [*copies, layer_norm(operation, x, y, machine, scalings[name])]
    more, added = _second(operation, context)
    taps = (
        WindowTaps(np.zeros(1, np.int64), (1, 1))
        if operation.window is None
        else _taps(operation, context, x)
    )
    rows = np.arange(_channels(context.arrangement.readings[name], x)) * x.layout.vector_bytes
    given = QuadOperation(
        operation, tuple(scalings.get(each) for each in operation.inputs), scalings.get(name), x, added, y,
        rows[:, None] + taps.offsets, taps.stride, _shape(operation.inputs[0], context)[1:],
    )  # fmt: skip
    if operation.kind in ("rearrange", "join"):
        return [*copies, *_moved(operation, context, x, y)]
    numbers = None if operation.layer is None else partial(_integer_weights, operation, context)
    part = quad_part(given, numbers, context.machine)
    return [*copies, *more, _by(method, part, context)]


def _moved(operation: Operation, context: _Context, x: Map, y: Map) -> list[Step]:
    """Bytes in other places, or those of several maps side by side."""
    sources = [(x, movement) for movement in operation.movements]
    if operation.kind == "join":
        channels = {each.name: each.shape[0] for each in context.subgraph.operations}
        sources = side_by_side(
            [(context.arrangement.maps[name], channels[name]) for name in operation.inputs]
        )
    return moved_quads(operation.name, sources, y, context.subgraph.scalings[operation.name], context.machine)


def _integer_weights(operation: Operation, context: _Context) -> IntegerWeights:
    """Those of the taps that touch the map; scales are of all weights."""
    assert operation.layer is not None
    taps, weight = context.arrangement.readings[operation.name].taps, whole_weight(operation.layer).numpy()
    assert taps is not None
    scales = None if operation.in_bytes is None else operation.in_bytes.weights
    numbers = weight.reshape(*weight.shape[:2], -1), bias_of(operation)
    found = integer_weights(*numbers, None if scales is None else scales.numpy())
    mine = taps.of(found.weight.reshape(weight.shape))
    return replace(found, weight=mine.reshape(*weight.shape[:2], len(taps.rows) * len(taps.columns)))


def _by(method: str, part: Step | QuadJob, context: _Context) -> Step | AnyJob:
    baked = method == "baked" or (
        method == "depthwise" and not isinstance(part, Step) and is_baked(part, context.machine)
    )
    if isinstance(part, Step) or baked:
        return part
    if method not in ("streamed", "depthwise"):
        raise EngineError(f'no convolution of 8-bit numbers is computed by the method "{method}".')
    return streamed_quads(part, context.machine)
