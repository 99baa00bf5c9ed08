"""Pooling, scales, sums and means on tiles, on every kind of map, against PyTorch in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from byhand import (
    add,
    average_pool,
    both,
    convolution,
    layer_of,
    max_pool,
    mean,
    norm,
    relu,
    relu6,
    whole_numbers,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from maps import HALF_MACHINES
from run.drawn import MACHINES
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.graph import Node
from zeroskip.run.element import FP16, FP32, Element

# Machines, and the element of maps
Host = tuple[Machine, Element]
HOST = st.sampled_from([(one, FP32) for one in MACHINES] + [(one, FP16) for one in HALF_MACHINES])
SIDES = st.one_of(st.integers(1, 3), st.integers(1, 40))


@dataclass(frozen=True)
class Case:
    """A window over a map, and what the map was made by: "outside", a scale on "tiles", or one with a ReLU."""

    window: dict[str, Any]
    largest: bool
    shape: tuple[int, int, int, int]
    made: str
    shift: int
    seed: int


@st.composite
def windows(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    stride = draw(st.sampled_from([[], 1, 2, 3, 4, (1, 3), (2, 1)]))
    if not stride and size[0] != size[1]:
        stride = 2
    padding = [draw(st.integers(0, length // 2)) for length in size]
    largest = draw(st.booleans())
    dilation = draw(st.sampled_from([1, 1, 2, (1, 3)])) if largest else 1
    steps = (dilation, dilation) if isinstance(dilation, int) else dilation
    given: dict[str, Any] = {"kernel_size": size, "stride": stride, "padding": padding}
    given["ceil_mode"] = draw(st.booleans())
    if largest:
        given["dilation"] = dilation
    else:
        given["count_include_pad"] = draw(st.booleans())
        given["divisor_override"] = draw(st.sampled_from([None, None, 5]))
    reach = [(length - 1) * step + 1 for length, step in zip(size, steps, strict=True)]
    sides = [max(draw(SIDES), length - 2 * pad) for length, pad in zip(reach, padding, strict=True)]
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 20)), sides[0], sides[1]
    made = draw(st.sampled_from(["outside", "tiles", "relu"]))
    # All numbers below 0: a border that takes part in a maximum shows.
    return Case(given, largest, shape, made, draw(st.sampled_from([0, -50])), draw(st.integers(0, 999)))


def source_of(case: Case) -> tuple[list[Node], dict[str, Tensor]]:
    x = whole_numbers(*case.shape, seed=case.seed) + case.shift
    channels = case.shape[1]
    scale, shift = whole_numbers(channels, seed=case.seed + 1), whole_numbers(channels, seed=case.seed + 2)
    nodes = {"outside": [], "tiles": [norm("map", "x", scale.abs() + 1, shift)]}
    nodes["relu"] = [*nodes["tiles"], relu("relu", "map")]
    return nodes[case.made], {"x": x}


def assert_window(case: Case, host: Host, behind: bool) -> None:
    nodes, given = source_of(case)
    machine, element = host
    source = nodes[-1].name if nodes else "x"
    node = (max_pool if case.largest else average_pool)("window", source, **case.window)
    _, [(ours, exact)] = both([*nodes, node], given, machine, behind=behind, element=element)
    # Sums are exact; a mean is rounded when its share is, and when it is multiplied with it; then to fp16.
    tolerance = 0.0 if case.largest else 2**-11 if element == FP16 else 2e-7
    torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=0)


@settings(max_examples=60, deadline=None)
@given(case=windows(), host=HOST, behind=st.booleans())
def test_60_poolings_equal_pytorch(case: Case, host: Host, behind: bool) -> None:
    assert_window(case, host, behind)


@pytest.mark.slow
@settings(max_examples=700, deadline=None)
@given(case=windows(), host=HOST, behind=st.booleans())
def test_700_more_poolings_equal_pytorch(case: Case, host: Host, behind: bool) -> None:
    assert_window(case, host, behind)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), host=HOST, behind=st.booleans())
def test_scales_sums_and_activations_are_exact(data: st.DataObject, host: Host, behind: bool) -> None:
    machine, element = host
    shape = tuple(data.draw(each) for each in (st.integers(1, 4), st.integers(1, 20), SIDES, SIDES))
    given = {name: whole_numbers(*shape, seed=seed) for name, seed in (("x", 1), ("other", 2))}
    factors = whole_numbers(shape[1], seed=3), whole_numbers(shape[1], seed=4)
    scaled = norm("scaled", data.draw(st.sampled_from(["x", "other"])), *factors)
    names = st.sampled_from(["scaled", "x", "other"])
    total = add("sum", data.draw(names), data.draw(names))
    end = data.draw(st.sampled_from([[], [relu("end", "sum")], [relu6("end", "sum")]]))
    nodes = [scaled, total, *end]
    _, pairs = both(nodes, given, machine, leaving=["scaled", nodes[-1].name], behind=behind, element=element)
    for ours, exact in pairs:
        assert torch.equal(ours.double(), exact)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40), SIDES, SIDES),
    host=HOST,
    from_tiles=st.booleans(),
    keepdim=st.booleans(),
    behind=st.booleans(),
)
def test_means_over_all_pixels_equal_pytorch(
    shape: tuple[int, int, int, int], host: Host, from_tiles: bool, keepdim: bool, behind: bool
) -> None:
    assume(shape[2:] != (1, 1))  # of which the mean is another name
    machine, element = host
    made = [norm("map", "x", torch.full((shape[1],), 2.0), torch.ones(shape[1]))] if from_tiles else []
    node = mean("mean", "map" if from_tiles else "x", keepdim=keepdim)
    _, [(ours, exact)] = both(
        [*made, node], {"x": whole_numbers(*shape, seed=1)}, machine, behind=behind, element=element
    )
    # It is summed in float, and is a number of the map like others.
    torch.testing.assert_close(ours.double(), exact, rtol=2e-7 if element == FP32 else 2**-11, atol=0)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_maximum_of_numbers_below_0_never_is_the_0_beyond_the_border(padding: int, ceil_mode: bool) -> None:
    weight, bias = torch.eye(4)[:, :, None, None], torch.full((4,), -100.0)
    nodes = [convolution("map", "x", layer_of(weight, bias))]
    nodes.append(max_pool("max", "map", kernel_size=3, stride=2, padding=padding, ceil_mode=ceil_mode))
    _, [(ours, exact)] = both(
        nodes, {"x": whole_numbers(1, 4, 16, 16, seed=0)}, MACHINES[0], method="streamed"
    )
    assert torch.equal(ours.double(), exact)
    assert ours.max() < -80


@pytest.mark.skipif(not HALF_MACHINES, reason="this processor cannot read fp16")
def test_the_mean_of_49_pixels_whose_sum_no_half_can_hold() -> None:
    x = torch.full((1, 3, 14, 14), 30000.0)
    x[0, 1] = -20000
    for node in (average_pool("mean", "x", kernel_size=7), mean("mean", "x")):
        _, [(ours, exact)] = both([node], {"x": x}, HALF_MACHINES[0], element=FP16)
        torch.testing.assert_close(ours.double(), exact, rtol=2**-11, atol=0)


def test_a_dilated_window_that_sees_no_pixel_at_all_has_the_maximum_minus_infinity() -> None:
    nodes = [relu("map", "x"), max_pool("max", "map", kernel_size=2, stride=2, padding=1, dilation=2)]
    _, [(ours, exact)] = both(nodes, {"x": torch.ones(1, 1, 1, 1)}, MACHINES[0])
    assert torch.equal(ours.double(), exact)
    assert ours.item() == -torch.inf
