"""Convolutions of 8-bit numbers of every size, stride, padding, dilation and grouping, from fp32 to fp32."""

from __future__ import annotations

from dataclasses import dataclass

import guarded
import numpy as np
import pytest
import torch
from byhand import layer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from quad_reference import activated, convolved, rounded
from run.drawn import HERE, MACHINES

from zeroskip.concepts import Machine
from zeroskip.run.convolution.tiles.activation import RELU, Activation
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph, Window
from zeroskip.run.convolution.tiles.quad_job import integer_weights
from zeroskip.run.element import INT8, Scaling

Pair = tuple[int, int]
CAN_BAKE = INT8.can_be_baked(HERE) and HERE.vector_bytes == 64
ACTIVATIONS = (
    None, RELU, Activation("bounded", (6.0,)), Activation("clamp", (-1.0, 2.0)), Activation("leaky_relu", (0.125,)),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A convolution; `seed` draws the numbers."""

    size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    channels: Pair
    map: Pair
    images: int
    zero_points: Pair
    activation: Activation | None
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size, dilation = ((draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (4, 2))
    padding = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    least = [
        (length - 1) * step + 1 - 2 * pad for length, step, pad in zip(size, dilation, padding, strict=True)
    ]
    sides = tuple(max(1, draw(st.integers(1, 18)), side) for side in least)
    groups = draw(st.sampled_from([1, 1, 2]))
    inputs, outputs = (draw(st.integers(1, 20)) * groups for _ in range(2))
    zero_point = st.sampled_from([0, 128])
    return Case(
        size, (draw(st.integers(1, 3)), draw(st.integers(1, 3))), padding, dilation, groups, (inputs, outputs), sides,  # type: ignore[arg-type]
        draw(st.integers(1, 3)), (draw(zero_point), draw(zero_point)), draw(st.sampled_from(ACTIVATIONS)),
        draw(st.integers(0, 999)),
    )  # fmt: skip


def assert_equal(case: Case, machine: Machine, method: str) -> None:
    draw = torch.Generator().manual_seed(case.seed)
    weight = torch.randn(case.channels[1], case.channels[0] // case.groups, *case.size, generator=draw)
    weight *= torch.rand(case.channels[1], 1, *case.size, generator=draw) > 0.4
    bias = torch.randn(case.channels[1], generator=draw)
    x = torch.randn(case.images, case.channels[0], *case.map, generator=draw) * 2
    before, after = Scaling(0.021, case.zero_points[0]), Scaling(0.043, case.zero_points[1])
    q = rounded(x.numpy(), before)
    numbers = integer_weights(weight.flatten(2).numpy(), bias.numpy())
    window = Window(case.size, case.stride, case.padding, case.dilation)
    y = convolved(q, numbers, window, before, case.groups)
    exact = rounded(activated(y, case.activation), after).astype(np.float32) - after.zero_point
    shape = (case.channels[1], *y.shape[2:])
    layer = layer_of(
        weight, bias, stride=case.stride, padding=case.padding, dilation=case.dilation, groups=case.groups
    )
    subgraph = Subgraph(
        (
            Operation("q", "convert", ("x",), (case.channels[0], *case.map), ("q",)),
            Operation("y", "conv", ("q",), shape, ("y",), window, layer, activation=case.activation),
            Operation("o", "convert", ("y",), shape, ("o",)),
        ),
        {"x": (case.channels[0], *case.map)},
        {"o": shape},
        scalings={"q": before, "y": after},
    )
    options = {"images": case.images, "methods": {"y": method}, "behind": bool(case.seed % 2)}
    part, guards = guarded.lowered(subgraph, machine, **options)  # type: ignore[arg-type]
    (ours,) = guarded.call(part, guards, [x])
    np.testing.assert_array_equal(ours.numpy(), exact * np.float32(after.scale))


@settings(max_examples=6, deadline=None)
@given(case=cases(), machine=st.sampled_from(MACHINES))
def test_6_streamed_convolutions_equal_the_reference(case: Case, machine: Machine) -> None:
    assert_equal(case, machine, "streamed")


@pytest.mark.skipif(not CAN_BAKE, reason="this processor lacks AVX512-VNNI")
@settings(max_examples=5, deadline=None)
@given(case=cases())
def test_5_baked_convolutions_equal_the_reference(case: Case) -> None:
    assert_equal(case, HERE, "baked")


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(case=cases(), machine=st.sampled_from(MACHINES))
def test_500_more_streamed_convolutions_equal_the_reference(case: Case, machine: Machine) -> None:
    assert_equal(case, machine, "streamed")
