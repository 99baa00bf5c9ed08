"""Rings, copies, and the way in and out, against padding and slicing in PyTorch; every move in guarded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from guarded import PAGE, memory, tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import HALF_MACHINES, everywhere, images_of, layouts, read, seen, write_
from run.drawn import MACHINES
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.relayout import enter, fill_ring, relayout
from zeroskip.run.convolution.tiles.steps import Step, joined
from zeroskip.run.convolution.tiles.tensors import enter_whole, leave

MANY = settings(max_examples=50, deadline=None)
Host = tuple[Machine, int]
# Machines, and bytes of a number: 2 where the processor can convert them.
HOSTS = st.sampled_from([(one, 4) for one in MACHINES] + [(one, 2) for one in HALF_MACHINES])
FILLS = st.sampled_from([0.0, -math.inf])


def vectors(host: Host) -> dict[str, int]:
    """How many numbers the machine's vectors hold, and their size."""
    return {"lanes": host[0].vector_bytes // host[1], "lane_bytes": host[1]}


def run(step: Step | None, machine: Machine, work: np.ndarray, tensors: Sequence[Tensor] = ()) -> None:
    assert step is not None
    work[: 8 * len(tensors)].view(np.int64)[:] = [each.data_ptr() for each in tensors]
    chain = joined([step], machine)
    chain.run(work.ctypes.data)


def sliced(x: Tensor, phase: tuple[int, int, int]) -> Tensor:
    stride, row, column = phase
    return x[..., row::stride, column::stride]


@st.composite
def phased(draw: st.DrawFn, x: Layout, host: Host) -> tuple[Layout, tuple[int, int, int], int]:
    """A layout for one phase of x behind `number` others, or for some more or less of it, as windows ask for."""
    stride = draw(st.integers(1, 3))
    row, column = draw(st.integers(0, stride - 1)), draw(st.integers(0, stride - 1))
    sides = [max(1, -(-side // stride) + draw(st.integers(-1, 1))) for side in (x.height, x.width)]
    like = replace(x, height=sides[0], width=sides[1])
    number = draw(st.integers(0, 2))
    target = replace(draw(layouts(**vectors(host), like=like)), channels=x.channels * (number + 1))
    return target, (stride, row, column), number


@MANY
@given(data=st.data(), host=HOSTS)
def test_a_ring_holds_what_padding_with_0_holds_there(data: st.DataObject, host: Host) -> None:
    machine, layout = host[0], data.draw(layouts(**vectors(host)))
    if not len(layout.around()):
        assert fill_ring("n", Map(layout, PAGE, range(1)), machine) is None
        return
    x, work = images_of(layout), memory(PAGE + layout.bytes)
    inside = everywhere(layout)[: layout.vectors]
    # As steps leave a map: zeros in the lanes without a pixel, anything in the ring.
    work[(PAGE + layout.offset(*inside.T))[:, None] + np.arange(layout.place_bytes)] = 0
    write_(work, layout, PAGE, x)
    first = data.draw(st.integers(0, layout.channels - 1))
    run(fill_ring("n", Map(layout, PAGE, range(first, layout.channels)), machine), machine, work)
    found = read(work, layout, PAGE, layout.around(), layout.channels)
    np.testing.assert_array_equal(found[:, first:], seen(layout, x, layout.around())[:, first:])
    assert np.isnan(found[:, :first]).all()
    np.testing.assert_array_equal(read(work, layout, PAGE, inside, layout.channels), seen(layout, x, inside))


@MANY
@given(data=st.data(), host=HOSTS, fill=FILLS)
def test_relayout_brings_every_stride_th_pixel_and_fills_what_lies_beyond(
    data: st.DataObject, host: Host, fill: float
) -> None:
    machine = host[0]
    source = data.draw(layouts(**vectors(host)))
    target, phase, number = data.draw(phased(source, host))
    second = PAGE + -(-source.bytes // PAGE) * PAGE
    x, work = images_of(source), memory(second + target.bytes)
    write_(work, source, PAGE, x)  # all else, the lanes without pixels too, is NaN and must not be seen
    first = data.draw(st.integers(0, source.channels - 1))
    channels = range(first, source.channels)
    step = relayout(
        "n", Map(source, PAGE, channels), Map(target, second, range(1)), phase, number, machine, fill=fill
    )
    run(step, machine, work)
    places, mine = everywhere(target), slice(number * len(channels), (number + 1) * len(channels))
    found = read(work, target, second, places, target.channels)
    expected = seen(target, sliced(x[:, first:], phase), places, fill)
    np.testing.assert_array_equal(found[:, mine], expected)
    assert np.isnan(np.delete(found, mine, axis=1)).all()


@MANY
@given(data=st.data(), host=HOSTS, fill=FILLS)
def test_enter_reads_every_stride_th_pixel_of_a_tensor_and_not_a_byte_beyond_it(
    data: st.DataObject, host: Host, fill: float
) -> None:
    machine = host[0]
    like = data.draw(layouts(**vectors(host)))
    target, phase, number = data.draw(phased(like, host))
    x, work = images_of(like), memory(PAGE + target.bytes)
    shape = like.channels, like.height, like.width
    step = enter("n", 1, shape, Map(target, PAGE, range(1)), phase, number, machine, fill=fill)
    run(step, machine, work, [x, tensor(x)])
    places, mine = everywhere(target), slice(number * like.channels, (number + 1) * like.channels)
    found = read(work, target, PAGE, places, target.channels)
    np.testing.assert_array_equal(found[:, mine], seen(target, sliced(x, phase), places, fill))
    assert np.isnan(np.delete(found, mine, axis=1)).all()


@MANY
@given(data=st.data(), host=HOSTS, fill=FILLS)
def test_enter_whole_does_the_same_for_all_pixels(data: st.DataObject, host: Host, fill: float) -> None:
    machine, like = host[0], data.draw(layouts(**vectors(host)))
    target = replace(data.draw(layouts(**vectors(host), like=like)), channels=like.channels)
    x, work = images_of(like), memory(PAGE + target.bytes)
    shape = like.channels, like.height, like.width
    step = enter_whole("n", 0, shape, Map(target, PAGE, range(1)), machine, fill=fill)
    run(step, machine, work, [tensor(x)])
    found = read(work, target, PAGE, everywhere(target), target.channels)
    np.testing.assert_array_equal(found, seen(target, x, everywhere(target), fill))


@MANY
@given(data=st.data(), host=HOSTS)
def test_leave_writes_every_pixel_of_the_channels_asked_for(data: st.DataObject, host: Host) -> None:
    machine, layout = host[0], data.draw(layouts(**vectors(host)))
    x, work = images_of(layout), memory(PAGE + layout.bytes)
    write_(work, layout, PAGE, x)
    first = data.draw(st.integers(0, layout.channels - 1))
    y = tensor(torch.full_like(x[:, first:], torch.nan))
    run(leave("n", Map(layout, PAGE, range(first, layout.channels)), 0, machine), machine, work, [y])
    assert torch.equal(y, x[:, first:])


@pytest.mark.parametrize(
    "host",
    [(MACHINES[0], 4), *[(one, 2) for one in HALF_MACHINES[:1]]],
    ids=["fp32", "fp16"][: 1 + len(HALF_MACHINES[:1])],
)
def test_nan_and_infinity_survive_every_move(host: Host) -> None:
    machine, (lanes, size) = host[0], vectors(host).values()
    layout = Layout(1, 3, 3, 1, (1, 1, lanes), (3, -(-3 // lanes)), (1, 1, 1, 1), size)
    x = torch.tensor([1.0, math.nan, math.inf, -math.inf, -0.0, 5, 6, 7, 8]).reshape(1, 1, 3, 3)
    second = PAGE + -(-layout.bytes // PAGE) * PAGE
    work, y, middle = memory(second + layout.bytes), torch.empty_like(x), torch.empty_like(x)
    tensors = [x, y, middle]
    run(enter_whole("n", 0, (1, 3, 3), Map(layout, PAGE, range(1)), machine), machine, work, tensors)
    run(leave("n", Map(layout, PAGE, range(1)), 2, machine), machine, work, tensors)
    run(enter("n", 2, (1, 3, 3), Map(layout, PAGE, range(1)), (1, 0, 0), 0, machine), machine, work, tensors)
    run(fill_ring("n", Map(layout, PAGE, range(1)), machine), machine, work, tensors)
    run(
        relayout("n", Map(layout, PAGE, range(1)), Map(layout, second, range(1)), (1, 0, 0), 0, machine),
        machine,
        work,
        tensors,
    )
    run(leave("n", Map(layout, second, range(1)), 1, machine), machine, work, tensors)
    torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)
