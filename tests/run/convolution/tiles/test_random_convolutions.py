"""Convolutions of every size, stride, padding, dilation and grouping on tiles, against exact sums.

Weights and inputs are small whole numbers, so that results are equal to the last bit. A step that touches a byte
outside its maps ends the process (guarded.py), and one that leaves something out shows a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from byhand import add, both, convolution, layer_of, relu, relu6, whole_numbers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from interpreted import RUNS_AVX512, baking
from run.drawn import HERE, MACHINES

from zeroskip.graph import Node
from zeroskip.run.convolution.tiles import baked_steps, lowering
from zeroskip.run.convolution.tiles.streamed import streamed

FAR = 3, 40  # largest dilations to draw


@dataclass(frozen=True)
class Case:
    """A convolution and what is around it; `seed` draws the numbers."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: Any
    dilation: tuple[int, int]
    groups: int
    channels: tuple[int, int]
    map: tuple[int, int]
    images: int
    sparsity: float
    bias: bool
    activation: str
    residual: str
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    square = draw(st.integers(1, 7))
    size = draw(st.one_of(st.just((square, square)), st.tuples(st.integers(1, 7), st.integers(1, 7))))
    both = draw(st.sampled_from([1, 1, 2, 2, 3, 4]))
    stride = draw(st.one_of(st.just((both, both)), st.tuples(st.integers(1, 3), st.integers(1, 5))))
    dilation = draw(
        st.one_of(st.just((1, 1)), *[st.tuples(st.integers(1, far), st.integers(1, far)) for far in FAR])
    )
    reach = [(length - 1) * step + 1 for length, step in zip(size, dilation, strict=True)]
    paddings: list[Any] = [(draw(st.integers(0, 4)), draw(st.integers(0, 4))), "valid"]
    if max(dilation) > FAR[0]:  # most of such a window lies beyond the map, on both sides or on one of them
        paddings = [tuple(draw(st.integers(max(0, each // 2 - 4), each // 2 + 4)) for each in reach)]
    if stride == (1, 1) and all(each % 2 for each in reach):
        paddings.append("same")
    padding = draw(st.sampled_from(paddings))
    zeros = {"valid": (0, 0), "same": (reach[0] // 2, reach[1] // 2)}.get(padding, padding)
    sides = [draw(st.one_of(st.integers(1, 3), st.integers(1, 40))) for _ in range(2)]
    sides = [max(side, length - 2 * pad) for side, length, pad in zip(sides, reach, zeros, strict=True)]
    inputs, outputs = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, inputs]))
    channels = (
        (inputs, inputs) if groups == inputs else (inputs // groups * groups, -(-outputs // groups) * groups)
    )
    channels = (max(channels[0], groups), channels[1])
    return Case(
        size, stride, padding, dilation, groups, channels, (sides[0], sides[1]), draw(st.integers(1, 4)),
        draw(st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])), draw(st.booleans()),
        draw(st.sampled_from(["none", "relu", "relu6"])), draw(st.sampled_from(["none", "none", "outside", "inside"])),
        draw(st.integers(0, 999)),
    )  # fmt: skip


def nodes_of(case: Case) -> tuple[list[Node], dict[str, torch.Tensor]]:
    """The convolution, a sum with a value from outside or made on tiles, an activation; and the inputs."""
    seed, (inputs, outputs) = case.seed, case.channels
    weight = whole_numbers(outputs, inputs // case.groups, *case.size, seed=seed, most=4)
    weight *= torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) >= case.sparsity
    bias = whole_numbers(outputs, seed=seed + 1) if case.bias else None
    rest: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    layer = layer_of(weight, bias, groups=case.groups, **rest)
    nodes = [convolution("conv", "x", layer)]
    given = {"x": whole_numbers(case.images, inputs, *case.map, seed=seed + 2)}
    if case.residual != "none":
        made = nodes[0].function(given["x"].double())
        given["other"] = whole_numbers(*made.shape, seed=seed + 3)
        other = "other" if case.residual == "outside" else "inner"
        nodes = nodes if case.residual == "outside" else [relu("inner", "other"), *nodes]
        nodes.append(add("sum", *(("conv", other) if seed % 2 else (other, "conv"))))
    if case.activation != "none":
        nodes.append({"relu": relu, "relu6": relu6}[case.activation]("end", nodes[-1].name))
    return nodes, given


def assert_exact(case: Case, **options: Any) -> None:
    nodes, given = nodes_of(case)
    _, [(ours, exact)] = both(nodes, given, **options)
    assert torch.equal(ours.double(), exact)


def work(case: Case) -> float:
    """About how many instructions baked code for the case carries out."""
    weights = (1 - case.sparsity) * math.prod(case.channels) / case.groups * math.prod(case.size)
    return weights * math.prod(case.map) * case.images / 16


def assert_baked_is_exact(case: Case, chunk: tuple[int, int, int], behind: bool) -> None:
    assume(RUNS_AVX512 or work(case) < 10_000)
    groups, rows, band = chunk
    with mock.patch.multiple(baked_steps, GROUPS=groups, ROWS=rows), baking() as machine:
        assert_exact(case, machine=replace(machine, cache_bytes=band), method="baked", behind=behind)


CHUNKS = st.sampled_from(
    [(20, 256, 400_000), (20, 256, 400_000), (1, 256, 10_000), (1, 16, 400_000), (2, 40, 1_000)]
)


def baked(examples: int) -> Callable[..., Any]:
    """So many examples, or a tenth of them where code is interpreted."""
    count = examples if RUNS_AVX512 else examples // 10
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@baked(50)
@given(case=cases(), chunk=CHUNKS, behind=st.booleans())
def test_50_baked_convolutions_are_exact(case: Case, chunk: tuple[int, int, int], behind: bool) -> None:
    assert_baked_is_exact(case, chunk, behind)


@settings(max_examples=50, deadline=None)
@given(case=cases(), machine=st.sampled_from(MACHINES), behind=st.booleans())
def test_50_streamed_convolutions_are_exact_at_every_width(case: Case, machine: Any, behind: bool) -> None:
    assert_exact(case, machine=machine, method="streamed", behind=behind)


@pytest.mark.slow
@baked(1500)
@given(case=cases(), chunk=CHUNKS, behind=st.booleans())
def test_1500_more_baked_convolutions_are_exact(
    case: Case, chunk: tuple[int, int, int], behind: bool
) -> None:
    assert_baked_is_exact(case, chunk, behind)


@pytest.mark.slow
@settings(max_examples=700, deadline=None)
@given(case=cases(), machine=st.sampled_from(MACHINES), behind=st.booleans())
def test_700_more_streamed_convolutions_are_exact_at_every_width(
    case: Case, machine: Any, behind: bool
) -> None:
    assert_exact(case, machine=machine, method="streamed", behind=behind)


@pytest.mark.parametrize("block", [2, 4, 7, 14])
@pytest.mark.parametrize("residual", ["none", "inside"])
def test_blocks_of_output_channels_that_share_their_zeros_are_exact(block: int, residual: str) -> None:
    case = Case((3, 3), 1, (1, 1), (1, 1), 1, (5, 28), (9, 7), 2, 0.8, True, "relu", residual, 5)
    with mock.patch.object(lowering, "streamed", partial(streamed, block=block)):
        assert_exact(case, machine=HERE, method="streamed")


def test_a_pattern_of_8_equal_rows_runs_in_blocks_of_them() -> None:
    weight = whole_numbers(32, 7, 3, 3, seed=1, most=4) * (
        whole_numbers(4, 7, 3, 3, seed=3, most=2) == 0
    ).repeat_interleave(8, 0)
    assert lowering.block_height(weight.flatten(1).numpy()) == 8
    nodes = [convolution("conv", "x", layer_of(weight, whole_numbers(32, seed=2), padding=(1, 1)))]
    _, [(ours, exact)] = both(nodes, {"x": whole_numbers(2, 7, 12, 9, seed=0)}, HERE, method="blocks")
    assert torch.equal(ours.double(), exact)


@pytest.mark.parametrize("method", ["streamed", "baked"])
@pytest.mark.parametrize("outputs", [1, 28, 29, 56, 57, 600])
def test_groups_of_28_outputs_and_what_is_left_over(outputs: int, method: str) -> None:
    case = Case(
        (1, 1), 1, (0, 0), (1, 1), 1, (300, outputs), (6, 6), 1, 0.9, True, "relu6", "inside", outputs
    )
    with baking() if method == "baked" else nullcontext(HERE) as machine:
        assert_exact(case, machine=machine, method=method)


@pytest.mark.parametrize("method", ["streamed", "baked"])
def test_a_layer_with_a_single_weight_that_is_not_zero(method: str) -> None:
    weight = torch.zeros(40, 33, 3, 3)
    weight[37, 21, 2, 0] = 3
    nodes = [convolution("conv", "x", layer_of(weight, padding=(1, 1)))]
    with baking() if method == "baked" else nullcontext(HERE) as machine:
        _, [(ours, exact)] = both(nodes, {"x": whole_numbers(2, 33, 11, 5, seed=0)}, machine, method=method)
    assert torch.equal(ours.double(), exact)
    assert ours[:, 37].count_nonzero()
