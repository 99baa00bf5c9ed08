"""From operations and their places to steps in machine code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from zeroskip.concepts import Layer, Machine
from zeroskip.run.convolution.tiles.arrangement import Arrangement, Reading, arrange, reach
from zeroskip.run.convolution.tiles.convolution_job import Job, bake_all
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.pointwise import mean, pointwise, pool
from zeroskip.run.convolution.tiles.relayout import WHOLE, enter, fill_ring, relayout
from zeroskip.run.convolution.tiles.steps import Chain, Step, joined
from zeroskip.run.convolution.tiles.streamed import block_height, depthwise, streamed
from zeroskip.run.convolution.tiles.tensors import enter_whole, leave


@dataclass(frozen=True)
class Lowered:
    """A part of a network that runs on tiles.

    chain    its steps, one call for `images` examples
    entering, leaving  values whose tensors it reads and writes: the words 0, 1, ... of a workspace in this order
    needs, shapes  of the values that enter and that leave, for one example
    bytes    size of a workspace
    """

    chain: Chain
    images: int
    entering: tuple[str, ...]
    leaving: tuple[str, ...]
    needs: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    bytes: int


@dataclass(frozen=True)
class _Place:
    """What the steps are made from."""

    arrangement: Arrangement
    outside: Mapping[str, tuple[int, int, int]]
    slots: Mapping[str, int]
    images: int
    machine: Machine


def lower(
    chain: Sequence[Operation], outside: Mapping[str, tuple[int, int, int]], leaving: Mapping[str, tuple[int, ...]],
    machine: Machine, *, images: int = 1, kernels: Mapping[str, str] | None = None, half: bool = False,
) -> Lowered:  # fmt: skip
    """The operations as steps for `images` examples at a time.

    `outside` are the values made elsewhere, with their shapes, and `leaving` those that are needed elsewhere.
    `kernels` says by operation what computes a convolution: "baked", "blocks", or "streamed", which is
    used where nothing is said. With `half` maps, weights and sums are fp16; what enters and leaves is fp32.

    >>> lower(operations(graph), {"x": (3, 32, 32)}, {"mean": (64, 1, 1)}, detect()).images
    1
    """
    size = 2 if half else 4
    lanes = machine.vector_bytes // size
    arrangement = arrange(chain, outside, list(leaving), images=images, lanes=lanes, lane_bytes=size)
    entering = tuple(outside)
    slots = {name: number for number, name in enumerate([*entering, *leaving])}
    kernels = kernels or {}
    place = _Place(arrangement, outside, slots, images, machine)
    parts: list[list[Step | Job]] = [_steps(one, place, kernels.get(one.name, "")) for one in chain]
    jobs = [each for part in parts for each in part if isinstance(each, Job)]
    baked = iter(bake_all(jobs, machine) if jobs else [])
    steps = [next(baked) if isinstance(each, Job) else each for part in parts for each in part]
    whole = joined(steps, machine)
    shapes = tuple(outside.values()), tuple(leaving.values())
    return Lowered(whole, images, entering, tuple(leaving), *shapes, arrangement.bytes)


def _steps(one: Operation, place: _Place, kernel: str) -> list[Step | Job]:
    """Everything that an operation needs done: copies first, then itself, its ring, and the way out."""
    node, machine = one.name, place.machine
    if one.kind == "mean":
        copies, x = _source(one, place)
        return [*copies, mean(node, x, place.slots[node], machine)]
    y = place.arrangement.maps[node]
    found: list[Step | Job] = []
    if one.kind == "concat":
        found += _parts(one, place, y)
    elif one.kind in ("conv", "depthwise"):
        found += _convolution(one, place, y, kernel)
    elif one.window is not None:
        copies, x = _source(one, place)
        taps, stride = _taps(one, place.arrangement.readings[node], x.layout)
        size = _size(one.inputs[0], place)
        found += [*copies, pool(node, one, x, y, taps, stride, size, machine)]
    else:
        copies, x = _source(one, place)
        more, other = _second(one, place)
        found += [*copies, *more, pointwise(node, one, x, other, y, machine)]
    ring = fill_ring(node, y, machine)
    found += [] if ring is None or one.kind == "concat" else [ring]
    if node in place.slots:
        found.append(leave(node, y, place.slots[node], machine))
    return found


def _read(one: Operation, arrangement: Arrangement) -> Map:
    """The first input as the operation reads it."""
    copied = arrangement.readings[one.name].copied
    return arrangement.copies[one.name, 0] if copied else arrangement.maps[one.inputs[0]]


def _source(one: Operation, place: _Place) -> tuple[list[Step], Map]:
    """The first input as the operation reads it, and the steps that bring it there."""
    reading, name = place.arrangement.readings[one.name], one.inputs[0]
    copy = _read(one, place.arrangement)
    if not reading.copied:
        return [], copy
    count = reading.phases
    phases = [(count, *divmod(number, count)) for number in range(count * count)]
    steps = [
        _copied(one, name, copy, phase, number, place, reading.fill) for number, phase in enumerate(phases)
    ]
    return steps, copy


def _copied(
    one: Operation, name: str, copy: Map, phase: tuple[int, int, int], number: int, place: _Place, fill: float
) -> Step:
    if name in place.outside and phase == WHOLE and number == 0:
        slot, shape = place.slots[name], place.outside[name]
        return enter_whole(one.name, slot, shape, copy, place.machine, fill=fill)
    if name in place.outside:
        slot, shape = place.slots[name], place.outside[name]
        return enter(one.name, slot, shape, copy, phase, number, place.machine, fill=fill)
    return relayout(one.name, place.arrangement.maps[name], copy, phase, number, place.machine, fill=fill)


def _second(one: Operation, place: _Place) -> tuple[list[Step], Map | None]:
    """The input that is added, and the step that brings it into the operation's tiles where it has others."""
    if len(one.inputs) < 2:
        return [], None
    name = one.inputs[1]
    copy = place.arrangement.copies.get((one.name, 1))
    if copy is None:
        return [], place.arrangement.maps[name]
    return [_copied(one, name, copy, WHOLE, 0, place, 0.0)], copy


def _parts(one: Operation, place: _Place, y: Map) -> list[Step]:
    """Copies of those inputs of a concatenation that were not made in their place."""
    steps, start = [], y.channels.start
    for name in one.inputs:
        known = place.arrangement.maps.get(name)
        channels = place.outside[name][0] if known is None else len(known.channels)
        at = y.base + start * y.layout.vector_bytes
        if known is None or (known.base, known.channels.start) != (y.base, start):
            target = Map(y.layout, at, range(channels))
            steps.append(_copied(one, name, target, WHOLE, 0, place, 0.0))
        start += channels
    return steps


def _size(name: str, place: _Place) -> tuple[int, int]:
    """Height and width of a value."""
    known = place.arrangement.maps.get(name)
    return place.outside[name][1:] if known is None else (known.layout.height, known.layout.width)


def _taps(one: Operation, reading: Reading, layout: Layout, channels: int = 0) -> tuple[np.ndarray, int]:
    """(taps,) byte offsets of the window's taps, row by row, and the places from one window to the next.

    Where rows and columns lie in phases, each phase has `channels` channels.
    """
    assert one.window is not None
    (top, _), (left, _) = reach(one.window)
    rows, columns = (
        np.arange(size) * step for size, step in zip(one.window.size, one.window.dilation, strict=True)
    )
    row, row_phase = np.divmod(top + rows, reading.phases)
    column, column_phase = np.divmod(left + columns, reading.phases)
    phase = row_phase[:, None] * reading.phases + column_phase
    places = row[:, None] * layout.pitch + column
    count = channels or (layout.channels // reading.phases**2)
    offsets = places * layout.place_bytes + phase * count * layout.vector_bytes
    return offsets.ravel(), reading.stride


def _convolution(one: Operation, place: _Place, y: Map, kernel: str) -> list[Step | Job]:
    copies, x = _source(one, place)
    more, residual = _second(one, place)
    reading, layer = place.arrangement.readings[one.name], one.layer
    assert layer is not None
    taps, stride = _taps(one, reading, x.layout, len(x.channels) // reading.phases**2)
    bias = np.zeros(one.shape[0], np.float32) if layer.bias is None else layer.bias.detach().numpy()
    job = partial(
        Job,
        one.name,
        taps=len(taps),
        stride=stride,
        x=x,
        y=y,
        residual=residual,
        relu=one.relu,
        most=one.most,
    )
    if one.kind == "depthwise":
        weight = np.ascontiguousarray(layer.weight.detach().flatten(1).numpy())
        return [*copies, depthwise(job(weight, bias, taps), place.machine)]
    weight = _whole(layer).flatten(1).numpy()
    channels = np.arange(len(x.channels) // reading.phases**2) * x.layout.vector_bytes
    offsets = (channels[:, None] + taps).ravel()
    work = job(weight, bias, offsets)
    if kernel == "baked":
        return [*copies, *more, work]
    block = block_height(weight) if kernel == "blocks" else 1
    return [*copies, *more, streamed(work, place.machine, block=block)]


def _whole(layer: Layer) -> torch.Tensor:
    """(out, in, height, width): the weight of a layer with groups, with zeros between groups."""
    weight = layer.weight.detach()
    if layer.groups == 1:
        return weight
    out, inputs, *size = weight.shape
    whole = weight.new_zeros(out, inputs * layer.groups, *size)
    for group, part in enumerate(weight.chunk(layer.groups)):
        rows = slice(group * len(part), (group + 1) * len(part))
        whole[rows, group * inputs : (group + 1) * inputs] = part
    return whole
