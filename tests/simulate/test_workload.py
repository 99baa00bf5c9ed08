"""A layer as a chip meets it: shapes, windows and counts against PyTorch and loops; entry points that mix nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip import measure
from zeroskip.errors import ModelError
from zeroskip.simulate import (
    Geometry,
    Workload,
    chips,
    cost_on,
    estimate,
    estimate_trace,
    of_masks,
    of_trace,
    random_masks,
)
from zeroskip.simulate.recorded import in_network
from zeroskip.simulate.traffic import fetches, moved, stored
from zeroskip.simulate.workload import count_macs, padded, patches, windows


@st.composite
def geometries(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, Geometry]:
    """Masks of a weight and an input, and how the one passes over the other."""
    groups, channels, seed = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(0, 999))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    geometry = Geometry(
        (draw(st.integers(1, 2)), draw(st.integers(1, 3))),
        (draw(st.integers(0, 2)), draw(st.integers(0, 1))),
        (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        groups,
    )
    weight = random_masks.random((groups * draw(st.integers(1, 3)), channels, *kernel), 0.4, seed=seed)
    x = random_masks.random((2, groups * channels, 6, 5), 0.5, seed=seed + 1)
    return weight, x, geometry


@settings(max_examples=80, deadline=None)
@given(masks=geometries())
def test_effectual_macs_are_the_sum_of_a_convolution_of_zeros_and_ones(masks):
    weight, x, geometry = masks
    how = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation}
    convolve = lambda a, b: torch.nn.functional.conv2d(
        a.double(), b.double(), None, **how, groups=geometry.groups
    )
    found = count_macs(of_masks("conv", weight, x, geometry))
    assert found.both == convolve(x, weight).sum()
    assert found.input == convolve(x, torch.ones_like(weight)).sum()
    inside = torch.ones(2, x.shape[1], 6, 5)
    # Weights meet the zeros of the padding too, which a convolution of ones does not see.
    assert found.weight >= convolve(inside, weight).sum()
    assert found.total == convolve(inside, torch.ones_like(weight)).numel() * weight[0].numel()


@settings(max_examples=60, deadline=None)
@given(masks=geometries(), numbers=st.sampled_from([1, 50, 1 << 20]))
def test_windows_are_what_unfold_sees_in_blocks_of_any_size(masks, numbers):
    weight, x, geometry = masks
    work = of_masks("conv", weight, x, geometry)
    blocks = list(windows(work, numbers=numbers))
    seen = torch.cat(blocks)  # (positions, groups, kernel places, inputs)
    unfolded = torch.nn.functional.unfold(
        x.float(), tuple(weight.shape[2:]), geometry.dilation, geometry.padding, geometry.stride
    )
    columns = unfolded.transpose(1, 2).reshape(len(seen), geometry.groups, weight.shape[1], -1)
    assert torch.equal(seen.float(), columns.transpose(2, 3))
    assert numbers > 1 or len(blocks) > 1 or len(seen) == 1


@settings(max_examples=40, deadline=None)
@given(masks=geometries())
def test_positions_inputs_and_macs_are_those_of_the_output_s_shape(masks):
    weight, x, geometry = masks
    work = of_masks("conv", weight, x, geometry)
    assert work.positions == work.output[:, 0, 0].numel()
    assert work.inputs == weight[0].numel()
    assert work.macs == work.output.numel() * work.inputs
    assert (work.stride, work.dilation) == (geometry.stride, geometry.dilation)


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize(
    ("padding", "sides"), [("same", (1, 1, 1, 2)), ("valid", (0, 0, 0, 0)), ((2, 1), (2, 2, 1, 1))]
)
def test_padding_by_name_is_what_pytorch_pads(padding, sides):
    work = of_masks(
        "conv", torch.ones(2, 3, 3, 4) != 0, torch.ones(1, 3, 8, 8) != 0, Geometry(padding=padding)
    )
    assert work.padding == sides
    assert padded(work).shape[3:] == (8 + sides[0] + sides[1], 8 + sides[2] + sides[3])


def test_patches_of_counts_are_the_counts_that_windows_see():
    work = of_masks("conv", torch.ones(2, 4, 2, 2) != 0, random_masks.random((1, 4, 5, 5), 0.5))
    counts = padded(work).sum(2, keepdim=True)
    sums = torch.cat([block.sum((2, 3)) for block in patches(counts, work)])
    assert torch.equal(sums, torch.cat([block.sum((2, 3)) for block in windows(work)]))


def test_a_chip_that_works_on_more_weights_than_there_are_does_their_macs_too():
    work = of_masks("fc", random_masks.random((8, 16), 0.9), torch.ones(3, 16) != 0)
    full = replace(work, weight=torch.ones_like(work.weight))
    assert count_macs(full).both == work.macs > count_macs(work).both


def test_only_the_ends_of_a_network_are_outside_and_one_layer_is_both():
    work = of_masks("fc", torch.ones(4, 4) != 0, torch.ones(1, 4) != 0)
    assert [place.outside for place in in_network([work] * 4)] == ["A", "", "", "O"]
    assert [place.outside for place in in_network([work])] == ["AO"]


def test_sequences_of_several_lengths_are_the_examples_of_the_first_layer():
    first = of_masks("first", torch.ones(4, 6) != 0, torch.ones(2, 6) != 0)
    second = of_masks("second", torch.ones(4, 6) != 0, torch.ones(2, 5, 6) != 0)
    found = in_network([first, second])
    assert [work.examples for work in found] == [2, 2]
    assert [work.positions for work in found] == [2, 10]


# --- two entry points


@pytest.fixture
def mixed(mlp: nn.Sequential) -> list[object]:
    """A workload, and an entry of a trace, which is none."""
    trace = measure.trace(mlp, torch.rand(2, 6))
    return [of_trace(trace)[0], trace[1]]


def test_a_trace_among_workloads_is_refused_by_its_place_and_with_the_way_out(mixed):
    with pytest.raises(
        ModelError, match=r"layer 1 is a tuple, no Workload.* use `estimate_trace`, or `of_trace`"
    ):
        estimate(mixed, chips.EIE)
    with pytest.raises(ModelError, match="layer 0 is a tuple"):
        estimate(mixed[::-1], chips.EIE)


def test_a_trace_given_for_workloads_is_refused(mlp):
    trace = measure.trace(mlp, torch.rand(2, 6))
    with pytest.raises(ModelError, match="layer 0 is a tuple"):
        estimate(trace, chips.EIE)


def test_a_trace_is_estimated_as_the_workloads_that_it_holds(mlp):
    trace = measure.trace(mlp, torch.rand(4, 6))
    for words in ({}, {"energy": "sparseloop", "dram": "ddr3"}, {"sample": 2}):
        assert estimate_trace(trace, chips.EIE, **words) == estimate(of_trace(trace), chips.EIE, **words)


def test_recorded_and_made_layers_can_be_put_together_as_workloads(mlp, mixed):
    trace = measure.trace(mlp, torch.rand(2, 6))
    made = of_masks("made", torch.ones(4, 8) != 0, torch.ones(2, 8) != 0)
    found = estimate([*of_trace(trace), made], chips.DENSE)
    assert [layer.name for layer in found.layers] == ["0", "2", "4", "made"]


def test_a_cost_is_that_of_the_estimate_and_falls_as_weights_go(mlp):
    trace = measure.trace(mlp, torch.rand(2, 6))
    for of in ("cycles", "joules"):
        cost = cost_on(chips.EYERISS_V2_PE, trace, of=of)
        assert cost({}) == pytest.approx(getattr(estimate_trace(trace, chips.EYERISS_V2_PE), of))
        falling = [cost({"2": sparsity}) for sparsity in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert falling == sorted(falling, reverse=True)
        together = cost({"0": 0.5, "2": 0.5})
        alone = [cost({"0": 0.5}), cost({"2": 0.5})]
        assert together == pytest.approx(sum(alone) - cost({}))  # layers cost one after the other


def test_a_cost_counts_the_weights_that_the_pattern_keeps(mlp):
    trace = measure.trace(mlp, torch.rand(2, 6))
    free, blocks = (cost_on(chips.TENSOR_CORE, trace, pattern=pattern) for pattern in ("free", "2:4"))
    assert blocks({"2": 0.5}) <= free({"2": 0.5})


# --- bytes


def sized(work: Workload, chip: chips.Accelerator) -> dict[tuple[str, str], int]:
    """The bytes of a layer done densely."""
    from zeroskip.simulate.slot_audit import kinds

    return dict(moved(work, chip, stored(work, chip), kinds(count_macs(work), "", ""), 0))


@settings(max_examples=40, deadline=None)
@given(outputs=st.integers(1, 40), inputs=st.integers(1, 40), positions=st.integers(1, 5))
def test_a_dense_buffer_is_read_once_for_each_so_many_macs(outputs, inputs, positions):
    work = of_masks("fc", torch.ones(outputs, inputs) != 0, torch.ones(positions, inputs) != 0)
    found, macs = sized(work, chips.DENSE), outputs * inputs * positions
    assert found["buffer", "A"] == -(-macs * 2 // 16)
    assert found["buffer", "W"] == -(-macs * 2 // 4)
    assert found["buffer", "O"] == -(-2 * macs * 2 // 16)  # read and written
    assert found["DRAM", "O"] == 2 * outputs * positions


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(64, 4000),
    outputs=st.integers(1, 60),
    inputs=st.integers(1, 60),
    positions=st.integers(1, 20),
)
def test_what_does_not_fit_comes_again_in_the_cheaper_of_the_two_ways(capacity, outputs, inputs, positions):
    work = of_masks("fc", torch.ones(outputs, inputs) != 0, torch.ones(positions, inputs) != 0)
    chip = replace(chips.DENSE, memories=(replace(chips.DENSE.memories[0], capacity=capacity),))
    often = fetches(work, chip, stored(work, chip))
    weights, maps = 2 * outputs * inputs, 2 * positions * inputs
    inputs_stay = weights * max(1, -(-maps // capacity)) + maps
    weights_stay = weights + maps * max(1, -(-weights // capacity))
    assert often["W"] * weights + often["A"] * maps == min(inputs_stay, weights_stay)
    assert 1 in (often["W"], often["A"])
    assert often["O"] == 1


def test_weights_come_for_each_example_where_maps_stay_on_the_chip():
    work = of_masks("conv", torch.ones(4, 2, 1, 1) != 0, torch.ones(3, 2, 8, 8) != 0)
    inside = replace(work, outside="")
    often = fetches(inside, chips.DCNN, stored(work, chips.DCNN))
    assert often == {"W": 3, "A": 0, "O": 0}
    assert fetches(replace(work, outside="AO"), chips.DCNN, stored(work, chips.DCNN)) == {
        "W": 3,
        "A": 1,
        "O": 1,
    }


def test_an_operand_that_is_compressed_brings_its_index_through_the_buffers():
    mask = random_masks.random((32, 128), 0.5)
    work = of_masks("fc", mask, torch.ones(1, 128) != 0)
    sizes = stored(work, chips.SPARTEN)
    index = sizes["W"].bits / sizes["W"].value_bits
    macs = int(mask.sum())
    found = estimate([work], chips.SPARTEN).layers[0].bytes
    assert found["unit buffers", "W"] == -(-macs * 8 * index // 8)


def test_of_a_gated_mac_only_the_input_is_read():
    x = torch.arange(64)[None] < 16
    work = of_masks("fc", torch.ones(16, 64) != 0, x)
    found = estimate([work], chips.MINERVA).layers[0]
    assert found.bytes["weights", "W"] == 16 * 16  # 8 bits for each MAC that is done
    assert found.bytes["activities", "A"] == 16 * 64 // 16  # all inputs, shared by 16 lanes
