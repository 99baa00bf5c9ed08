"""Rings, copies, and tensors read and written, against padding and slicing in PyTorch, in guarded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from guarded import PAGE, memory, tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import HALF_MACHINES, everywhere, images_of, layouts, read, reads, seen, write_
from run.drawn import MACHINES
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.run.convolution.tiles.channels_last import read_channels_last, write_channels_last
from zeroskip.run.convolution.tiles.layout import Layout, Map, ReadPlaces
from zeroskip.run.convolution.tiles.relayout import WHOLE, Phase, Transfer, fill_ring, relayout
from zeroskip.run.convolution.tiles.steps import Step, joined
from zeroskip.run.convolution.tiles.tensor_transfer import TensorSlot, _read_phase, read_tensor, write_tensor
from zeroskip.run.element import FP16, FP32, Element

MANY = settings(max_examples=50, deadline=None)
Host = tuple[Machine, Element]
HOSTS = st.sampled_from([(one, FP32) for one in MACHINES] + [(one, FP16) for one in HALF_MACHINES])
FILLS = st.sampled_from([0.0, -math.inf])


def vectors(host: Host) -> dict[str, Any]:
    """How many numbers the machine's vectors hold, and what they are."""
    return {"lanes": host[0].vector_bytes // host[1].bytes, "element": host[1]}


def run(step: Step | None, machine: Machine, work: np.ndarray, tensors: Sequence[Tensor] = ()) -> None:
    assert step is not None
    work[: 8 * len(tensors)].view(np.int64)[:] = [each.data_ptr() for each in tensors]
    chain = joined([step], machine)
    chain.run(work.ctypes.data)


def sliced(x: Tensor, phase: Phase) -> Tensor:
    return x[..., phase.row :: phase.stride[0], phase.column :: phase.stride[1]]


def unread(y: Map) -> np.ndarray:
    """(count, 3) places of the ring that nobody reads."""
    read = {*map(tuple, y.around().tolist())}
    return np.array([place for place in y.layout.around().tolist() if tuple(place) not in read], int).reshape(
        -1, 3
    )


@st.composite
def phased(draw: st.DrawFn, x: Layout, host: Host) -> tuple[Layout, Phase]:
    """A layout for one phase of x and those before it, of its size or of more or less, as windows ask for."""
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    row, column = (draw(st.integers(0, step - 1)) for step in stride)
    pairs = zip((x.height, x.width), stride, strict=True)
    sides = [max(1, -(-side // step) + draw(st.integers(-1, 1))) for side, step in pairs]
    like = replace(x, height=sides[0], width=sides[1])
    phase = Phase(stride, row, column)
    target = replace(draw(layouts(**vectors(host), like=like)), channels=x.channels * (phase.number + 1))
    return target, phase


def assert_read(work: np.ndarray, transfer: Transfer, x: Tensor) -> None:
    """The phase of x is in its channels of the map, wherever that is read, and nothing is in the other channels."""
    to, channels = transfer.target, x.shape[1]
    first = transfer.phase.number * channels
    mine, places = slice(first, first + channels), to.everywhere()
    found = read(work, to.layout, to.base, places, to.layout.channels)
    np.testing.assert_array_equal(
        found[:, mine], seen(to.layout, sliced(x, transfer.phase), places, transfer.fill)
    )
    assert np.isnan(np.delete(found, mine, axis=1)).all()


@MANY
@given(data=st.data(), host=HOSTS)
def test_a_ring_holds_what_padding_with_0_holds_there_wherever_it_is_read(
    data: st.DataObject, host: Host
) -> None:
    machine, layout = host[0], data.draw(layouts(**vectors(host)))
    first = data.draw(st.integers(0, layout.channels - 1))
    y = Map(layout, PAGE, range(first, layout.channels), data.draw(reads(layout)))
    if not len(y.around()):
        assert fill_ring("n", y, machine) is None
        return
    x, work = images_of(layout), memory(PAGE + layout.bytes)
    inside = everywhere(layout)[: layout.vectors]
    # As steps leave a map: zeros in the lanes without a pixel, anything in the ring.
    work[(PAGE + layout.offset(*inside.T))[:, None] + np.arange(layout.place_bytes)] = 0
    write_(work, layout, PAGE, x)
    run(fill_ring("n", y, machine), machine, work)
    found = read(work, layout, PAGE, y.around(), layout.channels)
    np.testing.assert_array_equal(found[:, first:], seen(layout, x, y.around())[:, first:])
    assert np.isnan(found[:, :first]).all()
    assert np.isnan(read(work, layout, PAGE, unread(y), layout.channels)).all()
    np.testing.assert_array_equal(read(work, layout, PAGE, inside, layout.channels), seen(layout, x, inside))


@MANY
@given(data=st.data(), host=HOSTS, fill=FILLS)
def test_relayout_brings_every_stride_th_pixel_and_fills_what_lies_beyond(
    data: st.DataObject, host: Host, fill: float
) -> None:
    machine = host[0]
    source = data.draw(layouts(**vectors(host)))
    target, phase = data.draw(phased(source, host))
    second = PAGE + -(-source.bytes // PAGE) * PAGE
    x, work = images_of(source), memory(second + target.bytes)
    write_(work, source, PAGE, x)  # all else, the lanes without pixels too, is NaN and must not be seen
    first = data.draw(st.integers(0, source.channels - 1))
    channels = range(first, source.channels)
    to = Map(target, second, range(1), data.draw(reads(target)))
    transfer = Transfer("n", to, phase, fill)
    run(relayout(Map(source, PAGE, channels), transfer, machine), machine, work)
    places, first_mine = to.everywhere(), phase.number * len(channels)
    mine = slice(first_mine, first_mine + len(channels))
    found = read(work, target, second, places, target.channels)
    expected = seen(target, sliced(x[:, first:], phase), places, fill)
    np.testing.assert_array_equal(found[:, mine], expected)
    assert np.isnan(np.delete(found, mine, axis=1)).all()
    assert np.isnan(read(work, target, second, unread(to), target.channels)).all()


@MANY
@given(data=st.data(), host=HOSTS, fill=FILLS)
def test_every_stride_th_pixel_of_a_tensor_is_read_and_not_a_byte_beyond_it(
    data: st.DataObject, host: Host, fill: float
) -> None:
    machine = host[0]
    like = data.draw(layouts(**vectors(host)))
    target, phase = data.draw(phased(like, host))
    x, work = images_of(like), memory(PAGE + target.bytes)
    shape = like.channels, like.height, like.width
    to = Map(target, PAGE, range(1), data.draw(reads(target)))
    transfer = Transfer("n", to, phase, fill)
    run(_read_phase(TensorSlot(1, shape), transfer, machine), machine, work, [x, tensor(x)])
    assert_read(work, transfer, x)


@MANY
@given(data=st.data(), host=HOSTS, fill=FILLS)
def test_a_whole_tensor_is_read_with_its_ring(data: st.DataObject, host: Host, fill: float) -> None:
    machine, like = host[0], data.draw(layouts(**vectors(host)))
    target = replace(data.draw(layouts(**vectors(host), like=like)), channels=like.channels)
    x, work = images_of(like), memory(PAGE + target.bytes)
    shape = like.channels, like.height, like.width
    to = Map(target, PAGE, range(1), data.draw(reads(target)))
    step = read_tensor(TensorSlot(0, shape), Transfer("n", to, fill=fill), machine)
    run(step, machine, work, [tensor(x)])
    found = read(work, target, PAGE, to.everywhere(), target.channels)
    np.testing.assert_array_equal(found, seen(target, x, to.everywhere(), fill))


@MANY
@given(data=st.data(), host=HOSTS)
def test_a_tensor_is_written_with_every_pixel_of_the_channels_asked_for(
    data: st.DataObject, host: Host
) -> None:
    machine, layout = host[0], data.draw(layouts(**vectors(host)))
    x, work = images_of(layout), memory(PAGE + layout.bytes)
    write_(work, layout, PAGE, x)
    first = data.draw(st.integers(0, layout.channels - 1))
    y = tensor(torch.full_like(x[:, first:], torch.nan))
    run(write_tensor("n", Map(layout, PAGE, range(first, layout.channels)), 0, machine), machine, work, [y])
    assert torch.equal(y, x[:, first:])


FEW = settings(max_examples=20, deadline=None)


@st.composite
def with_channels(draw: st.DrawFn, host: Host) -> Layout:
    """A layout with fewer channels than lanes, as many, and more."""
    layout = draw(layouts(**vectors(host)))
    return replace(layout, channels=draw(st.sampled_from([3, layout.lanes, 2 * layout.lanes + 3])))


@FEW
@given(data=st.data(), host=HOSTS, fill=FILLS)
def test_a_tensor_with_channels_side_by_side_is_read_in_phases_and_not_a_byte_beyond_it(
    data: st.DataObject, host: Host, fill: float
) -> None:
    machine, like = host[0], data.draw(with_channels(host))
    target, phase = data.draw(phased(like, host))
    x, work = images_of(like), memory(PAGE + target.bytes)
    to = Map(target, PAGE, range(1), data.draw(reads(target)))
    transfer = Transfer("n", to, phase, fill)
    slot = TensorSlot(1, (like.channels, like.height, like.width))
    pixels = tensor(x.permute(0, 2, 3, 1).contiguous())
    run(read_channels_last(slot, transfer, machine), machine, work, [x, pixels])
    assert_read(work, transfer, x)


@FEW
@given(data=st.data(), host=HOSTS)
def test_a_tensor_is_written_with_its_channels_side_by_side(data: st.DataObject, host: Host) -> None:
    machine, layout = host[0], data.draw(with_channels(host))
    x, work = images_of(layout), memory(PAGE + layout.bytes)
    write_(work, layout, PAGE, x)
    first = data.draw(st.integers(0, 2))
    expected = x[:, first:].permute(0, 2, 3, 1).contiguous()
    y = tensor(torch.full_like(expected, torch.nan))
    source = Map(layout, PAGE, range(first, layout.channels))
    run(write_channels_last("n", source, 0, machine), machine, work, [y])
    assert torch.equal(y, expected)


@pytest.mark.parametrize(
    "host",
    [(MACHINES[0], FP32), *[(one, FP16) for one in HALF_MACHINES[:1]]],
    ids=lambda host: host[1].name,
)
def test_nan_and_infinity_survive_every_transfer(host: Host) -> None:
    machine, (lanes, element) = host[0], vectors(host).values()
    layout = Layout(1, 3, 3, 1, (1, 1, lanes), (3, -(-3 // lanes)), (1, 1, 1, 1), element)
    x = torch.tensor([1.0, math.nan, math.inf, -math.inf, -0.0, 5, 6, 7, 8]).reshape(1, 1, 3, 3)
    second = PAGE + -(-layout.bytes // PAGE) * PAGE
    work, y, middle = memory(second + layout.bytes), torch.empty_like(x), torch.empty_like(x)
    tensors = [x, y, middle]
    a, b = (Map(layout, base, range(1), (ReadPlaces((-1, 0), (-1, 0)),)) for base in (PAGE, second))
    steps = [
        read_tensor(TensorSlot(0, (1, 3, 3)), Transfer("n", a), machine),
        write_tensor("n", a, 2, machine),
        _read_phase(TensorSlot(2, (1, 3, 3)), Transfer("n", a, WHOLE), machine),
        fill_ring("n", a, machine),
        relayout(a, Transfer("n", b), machine),
        write_tensor("n", b, 1, machine),
    ]
    for step in steps:
        run(step, machine, work, tensors)
    torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)
