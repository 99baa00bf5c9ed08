"""Closed forms of every dataflow: dense layers of any shape, and masks whose cycles follow from the paper by hand."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroskip.errors import AcceleratorError
from zeroskip.simulate import CHIPS, Geometry, Workload, chips, of_masks
from zeroskip.simulate.dataflows import dense
from zeroskip.simulate.dataflows.eyeriss import PASSES, active, plan
from zeroskip.simulate.lane_counts import tiles

SIZES = st.integers(1, 40)


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bool)


def fc(outputs: int, inputs: int, positions: int = 1) -> Workload:
    return of_masks("fc", ones(outputs, inputs), ones(positions, inputs))


def conv(filters: int, channels: int, kernel: int, side: int, images: int = 1) -> Workload:
    """A square convolution without padding or zeros."""
    return of_masks("conv", ones(filters, channels, kernel, kernel), ones(images, channels, side, side))


def first(count: int, length: int) -> Tensor:
    """(1, length) whose first `count` are non-zero."""
    return torch.arange(length)[None] < count


# --- layers without a zero, of any shape


@settings(max_examples=60, deadline=None)
@given(outputs=SIZES, inputs=SIZES, positions=st.integers(1, 9))
def test_a_dense_array_takes_a_step_for_16_inputs_of_16_outputs_at_4_positions(outputs, inputs, positions):
    found = chips.DENSE.dataflow(fc(outputs, inputs, positions), chips.DENSE)
    assert found.cycles == ceil(outputs / 16) * ceil(inputs / 16) * ceil(positions / 4)
    assert found.busy == outputs * positions * ceil(inputs / 16)


@settings(max_examples=40, deadline=None)
@given(outputs=SIZES, inputs=SIZES, positions=st.integers(1, 4))
def test_minerva_takes_a_cycle_for_each_input_of_16_outputs(outputs, inputs, positions):
    found = chips.MINERVA.dataflow(fc(outputs, inputs, positions), chips.MINERVA)
    assert found.cycles == ceil(outputs / 16) * inputs * positions


@settings(max_examples=40, deadline=None)
@given(outputs=st.integers(1, 600), inputs=SIZES, positions=st.integers(1, 4))
def test_dadiannao_takes_16_inputs_of_256_filters_a_cycle(outputs, inputs, positions):
    found = chips.DADIANNAO.dataflow(fc(outputs, inputs, positions), chips.DADIANNAO)
    assert found.cycles == ceil(outputs / 256) * ceil(inputs / 16) * positions
    assert found.skips == ""


@settings(max_examples=40, deadline=None)
@given(outputs=SIZES, inputs=SIZES, positions=st.integers(1, 3))
def test_cambricon_x_takes_16_inputs_of_16_outputs_a_cycle_at_every_position(outputs, inputs, positions):
    found = chips.CAMBRICON_X.dataflow(fc(outputs, inputs, positions), chips.CAMBRICON_X)
    assert found.cycles == ceil(outputs / 16) * ceil(inputs / 16) * positions


@settings(max_examples=40, deadline=None)
@given(outputs=SIZES, inputs=SIZES, positions=st.integers(1, 3))
def test_without_zeros_cambricon_s_takes_the_cycles_of_cambricon_x(outputs, inputs, positions):
    work = fc(outputs, inputs, positions)
    assert (
        chips.CAMBRICON_S.dataflow(work, chips.CAMBRICON_S).cycles
        == chips.CAMBRICON_X.dataflow(work, chips.CAMBRICON_X).cycles
    )


@settings(max_examples=40, deadline=None)
@given(outputs=st.integers(1, 200), inputs=SIZES, positions=st.integers(1, 3))
def test_eie_takes_a_cycle_for_each_64th_output_of_each_input(outputs, inputs, positions):
    found = chips.EIE.dataflow(fc(outputs, inputs, positions), chips.EIE)
    assert found.cycles == ceil(outputs / 64) * inputs * positions
    assert found.useless == 0


@settings(max_examples=40, deadline=None)
@given(outputs=st.integers(1, 100), inputs=st.integers(1, 300), positions=st.integers(1, 40))
def test_sparten_takes_a_cycle_for_each_input_of_32_filters_on_32_clusters(outputs, inputs, positions):
    found = chips.SPARTEN.dataflow(fc(outputs, inputs, positions), chips.SPARTEN)
    assert found.cycles == ceil(ceil(outputs / 32) * positions / 32) * inputs
    assert found.busy == outputs * positions * inputs


@settings(max_examples=40, deadline=None)
@given(filters=SIZES, channels=st.integers(1, 6), side=st.integers(1, 20))
def test_scnn_takes_4_x_4_products_of_the_largest_tile_for_each_8_filters(filters, channels, side):
    found = chips.SCNN.dataflow(conv(filters, channels, 1, side), chips.SCNN)
    pixels = ceil(side / 8) ** 2
    groups = [8] * (filters // 8) + [filters % 8] * (filters % 8 > 0)
    assert found.cycles == channels * ceil(pixels / 4) * sum(ceil(group / 4) for group in groups)


@settings(max_examples=40, deadline=None)
@given(filters=SIZES, channels=SIZES, side=st.integers(2, 20))
def test_dcnn_takes_16_channels_of_the_largest_tile_for_each_filter(filters, channels, side):
    found = chips.DCNN.dataflow(conv(filters, channels, 1, side), chips.DCNN)
    assert found.cycles == filters * ceil(channels / 16) * ceil(side / 8) ** 2
    assert found.busy == filters * ceil(channels / 16) * side**2


@settings(max_examples=30, deadline=None)
@given(filters=st.integers(1, 6), channels=st.integers(1, 4), side=st.integers(1, 6))
def test_an_element_of_eyeriss_v2_takes_a_cycle_for_each_product(filters, channels, side):
    found = chips.EYERISS_V2_PE.dataflow(conv(filters, channels, 1, side), chips.EYERISS_V2_PE)
    assert found.cycles == filters * channels * side**2


@settings(max_examples=30, deadline=None)
@given(outputs=SIZES, inputs=SIZES, positions=st.integers(1, 20))
def test_a_tensor_core_takes_8_inputs_of_16_outputs_at_8_positions_where_weights_are_not_2_4(
    outputs, inputs, positions
):
    found = chips.TENSOR_CORE.dataflow(fc(outputs, inputs, positions), chips.TENSOR_CORE)
    assert found.cycles == ceil(outputs / 16) * ceil(inputs / 8) * ceil(positions / 8)


@settings(max_examples=20, deadline=None)
@given(outputs=st.integers(1, 70), inputs=st.integers(1, 70), positions=st.integers(1, 40))
def test_extensor_makes_one_comparison_for_each_product_of_full_lists(outputs, inputs, positions):
    chip = replace(chips.EXTENSOR, lanes=1)
    found = chip.dataflow(fc(outputs, inputs, positions), chip)
    assert found.cycles == found.busy == outputs * inputs * positions


@settings(max_examples=30, deadline=None)
@given(kernel=st.integers(1, 7), side=st.integers(7, 40), channels=st.integers(1, 9))
def test_eyeriss_has_as_many_elements_at_work_as_whole_sets_of_kernel_rows_fit(kernel, side, channels):
    work = conv(4, channels, kernel, side)
    at_work, strip = active(work, chips.EYERISS), plan(work, chips.EYERISS).rows
    assert 0 < at_work <= 168
    if (kernel, work.output.shape[3], channels) not in PASSES:
        assert at_work % kernel == 0
        assert 1 <= strip <= work.output.shape[3]
    assert chips.EYERISS.dataflow(work, chips.EYERISS).cycles == ceil(work.macs / at_work)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
@settings(max_examples=15, deadline=None)
@given(outputs=st.integers(1, 90), inputs=st.integers(1, 90), positions=st.integers(1, 5))
def test_no_dense_layer_takes_fewer_cycles_than_its_macs_on_all_multipliers(chip, outputs, inputs, positions):
    found = chip.dataflow(fc(outputs, inputs, positions), chip)
    work = outputs * inputs * positions
    assert found.cycles >= tiles(work, chip.lanes * chip.width)
    assert found.cycles <= found.busy <= found.cycles * chip.lanes
    assert found.busy * chip.width >= work


@given(macs=st.integers(1, 5000), lanes=st.integers(1, 64), width=st.integers(1, 16))
def test_a_perfect_chip_takes_its_macs_over_its_multipliers(macs, lanes, width):
    chip = replace(chips.DENSE, lanes=lanes, width=width)
    found = dense.perfect(fc(1, macs), chip)
    assert found.cycles == ceil(ceil(macs / width) / lanes)
    assert found.busy == ceil(macs / width)


# --- zeros, by hand


def test_cnvlutin_waits_for_the_lane_with_most_inputs_and_an_empty_brick_takes_a_cycle():
    x = torch.cat([first(5, 16), first(0, 16), first(9, 16)], dim=1)
    found = chips.CNVLUTIN.dataflow(of_masks("fc", ones(256, 48), x), chips.CNVLUTIN)
    assert (found.cycles, found.busy) == (9, 5 + 1 + 9)


def test_cnvlutin_deals_the_bricks_of_a_window_to_16_lanes_in_turn():
    x = torch.cat([first(count, 16) for count in (3,) * 16 + (4,)], dim=1)
    found = chips.CNVLUTIN.dataflow(of_masks("fc", ones(1, 17 * 16), x), chips.CNVLUTIN)
    assert found.cycles == 3 + 4  # the first lane has two bricks


def test_cnvlutin_shares_an_input_among_256_filters_and_goes_on_for_more():
    x = first(5, 16)
    cycles = [
        chips.CNVLUTIN.dataflow(of_masks("fc", ones(filters, 16), x), chips.CNVLUTIN).cycles
        for filters in (1, 256, 257)
    ]
    assert cycles == [5, 5, 10]


def test_cnvlutin_does_not_encode_the_three_channels_of_a_picture():
    picture = of_masks("conv", ones(8, 3, 3, 3), zeros(1, 3, 5, 5))
    found = chips.CNVLUTIN.dataflow(picture, chips.CNVLUTIN)
    assert (found.cycles, found.skips) == (9 * 9, "")  # a kernel place a cycle at each of 3 x 3 positions


def test_cambricon_x_looks_through_256_inputs_a_cycle_however_few_have_a_weight():
    work = of_masks("fc", first(1, 1024), ones(1, 1024))
    assert chips.CAMBRICON_X.dataflow(work, chips.CAMBRICON_X).cycles == 4


def test_cambricon_x_deals_outputs_to_16_lanes_so_that_the_17th_waits_for_the_first():
    weight = torch.cat([first(64, 64), zeros(15, 64), first(32, 64)])
    found = chips.CAMBRICON_X.dataflow(of_masks("fc", weight, ones(1, 64)), chips.CAMBRICON_X)
    assert (found.cycles, found.busy) == (4 + 2, 4 + 15 + 2)


def test_cambricon_s_works_on_the_union_of_16_filters_and_skips_zero_inputs():
    weight = torch.eye(64, dtype=torch.bool)[:16]  # 16 of the inputs have a weight in some filter
    work = of_masks("fc", weight, first(8, 64))
    assert chips.CAMBRICON_S.dataflow(work, chips.CAMBRICON_S).cycles == 1
    wider = of_masks("fc", ones(16, 64), first(40, 64))
    assert chips.CAMBRICON_S.dataflow(wider, chips.CAMBRICON_S).cycles == 3
    stored = chips.CAMBRICON_S.stored(work, chips.CAMBRICON_S)
    assert stored.sum() == 16 * 16


def test_eie_pads_runs_of_more_than_15_zeros_and_counts_the_padding_as_useless():
    weight = zeros(64 * 20, 1)
    weight[64 * 19] = True  # the first lane's 20th row: 19 zeros before it, so one entry of padding
    found = chips.EIE.dataflow(of_masks("fc", weight, ones(1, 1)), chips.EIE)
    assert (found.cycles, found.useless) == (2, 1)


def test_eie_broadcasts_only_inputs_that_are_not_zero_and_an_empty_column_takes_a_cycle():
    work = of_masks("fc", zeros(64, 8), first(3, 8))
    found = chips.EIE.dataflow(work, chips.EIE)
    assert (found.cycles, found.busy, found.useless) == (3, 3 * 64, 0)


def test_eie_hides_imbalance_behind_its_queue_and_a_queue_of_one_shows_it():
    weight = zeros(8, 8)
    weight[0::2, :4], weight[1::2, 4:] = (
        True,
        True,
    )  # first one lane has four entries a column, then the other
    work = of_masks("fc", weight, ones(1, 8))
    cycles = [
        chip.dataflow(work, chip).cycles
        for chip in (replace(chips.EIE, lanes=2, tile={"queue": depth, "inputs": 8}) for depth in (8, 1))
    ]
    assert cycles == [
        4 * 4 + 4 * 1,
        13 + 4 * 4,
    ]  # the fifth column is sent in cycle 13, when all queues have room


def test_scnn_skips_what_is_zero_in_either_and_rounds_up_to_4_of_each():
    weight, x = zeros(8, 1, 1, 1), zeros(1, 1, 8, 8)
    weight[:5], x[0, 0, 0, :] = True, True  # each of 8 lanes has one input, five filters one weight
    found = chips.SCNN.dataflow(of_masks("conv", weight, x), chips.SCNN)
    assert (found.cycles, found.busy) == (2, 8 * 2)


def test_scnn_makes_products_outside_the_output_of_a_convolution_without_padding():
    work = conv(1, 1, 3, 8)
    found = chips.SCNN.dataflow(work, chips.SCNN)
    assert found.useless == 9 * 64 - 9 * 36
    padded = of_masks("conv", ones(1, 1, 3, 3), ones(1, 1, 8, 8), Geometry(padding=(2, 2)))
    assert chips.SCNN.dataflow(padded, chips.SCNN).useless == 0


def test_scnn_multiplies_inputs_by_weights_of_their_own_phase_only_where_it_strides():
    weight, x = ones(8, 1, 2, 2), ones(1, 1, 16, 16)
    work = of_masks("conv", weight, x, Geometry(stride=(2, 2)))
    found = chips.SCNN.dataflow(work, chips.SCNN)
    assert found.useless == 0
    assert found.busy == 64 * 4 * 2  # four phases with one of 2 x 2 inputs and 8 weights in each lane


def test_scnn_waits_for_the_fullest_tile_after_each_8_filters():
    x = zeros(1, 1, 16, 16)
    x[0, 0, :2, :2] = True  # all in the tile of the first lane
    found = chips.SCNN.dataflow(of_masks("conv", ones(16, 1, 1, 1), x), chips.SCNN)
    assert (found.cycles, found.busy) == (2 * 2, 2 * 2)


def test_sparten_takes_a_cycle_for_each_match_and_one_for_a_chunk_without():
    weight = torch.cat([first(40, 128), zeros(1, 128)], dim=1)
    x = torch.cat([first(25, 128), ones(1, 128)], dim=1)
    found = chips.SPARTEN.dataflow(of_masks("fc", weight, x), chips.SPARTEN)
    assert found.cycles == 25 + 1


def test_sparten_waits_for_the_densest_filter_of_a_cluster_and_pairs_even_it_out():
    weight = torch.cat([first(count, 128) for count in (128,) * 32 + (2,) * 32])
    work = of_masks("fc", weight, ones(1, 128))
    one_cluster = [
        replace(chip, lanes=32) for chip in (chips.SPARTEN, chips.SPARTEN_GB_S, chips.SPARTEN_GB_H)
    ]
    plain, by_filter, by_chunk = (chip.dataflow(work, chip).cycles for chip in one_cluster)
    assert plain == 128 + 2
    assert by_filter == by_chunk == 128 + 2
    mixed = of_masks("fc", weight[torch.arange(64) // 2 + 32 * (torch.arange(64) % 2)], ones(1, 128))
    plain, by_filter, by_chunk = (chip.dataflow(mixed, chip).cycles for chip in one_cluster)
    assert plain == 2 * 128  # each load has dense filters
    assert by_filter == by_chunk == 130


def test_gb_h_pairs_anew_for_each_chunk_what_gb_s_pairs_once():
    # Two filters that are dense in one chunk each look alike as a whole.
    halves = torch.cat(
        [torch.cat([ones(1, 128), zeros(1, 128)], 1), torch.cat([zeros(1, 128), ones(1, 128)], 1)]
    )
    weight = torch.cat([halves[:1].expand(32, -1), halves[1:].expand(32, -1)])
    work = of_masks("fc", weight, ones(1, 256))
    chip = replace(chips.SPARTEN_GB_S, lanes=32)
    by_filter = chip.dataflow(work, chip).cycles
    chip = replace(chips.SPARTEN_GB_H, lanes=32)
    assert chip.dataflow(work, chip).cycles <= by_filter


def test_a_tensor_core_halves_2_4_weights_along_channels_not_along_the_kernel():
    along_channels = torch.tensor([1, 1, 0, 0], dtype=torch.bool).repeat(16, 4)[:, :, None, None]
    weight = along_channels.expand(16, 16, 3, 3)
    x = ones(1, 16, 5, 5)
    found = chips.TENSOR_CORE.dataflow(of_masks("conv", weight, x), chips.TENSOR_CORE)
    dense_cycles = chips.TENSOR_CORE.dataflow(
        of_masks("conv", ones(16, 16, 3, 3), x), chips.TENSOR_CORE
    ).cycles
    assert found.cycles * 2 == dense_cycles
    kernel = ones(16, 16, 4, 1)
    kernel[:, :, 2:] = False
    tall = of_masks("conv", kernel, x)
    assert chips.TENSOR_CORE.dataflow(tall, chips.TENSOR_CORE).cycles == ceil(64 / 8) * ceil(10 / 8)


def test_the_two_weights_of_four_that_are_worked_on_are_those_there_and_the_first_zeros():
    weight = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    taken = dense.two_of_four(of_masks("fc", weight, ones(1, 4)), chips.TENSOR_CORE).reshape(3, 4)
    assert taken.tolist() == [
        [False, True, False, True],
        [True, False, False, True],
        [True, True, False, False],
    ]
    full = of_masks("fc", ones(2, 4), ones(1, 4))
    assert dense.two_of_four(full, chips.TENSOR_CORE).all()


def test_extensor_jumps_over_what_only_one_list_has():
    even, odd = (torch.arange(32)[None] % 2 == parity for parity in (0, 1))
    chip = chips.EXTENSOR
    apart = chip.dataflow(of_masks("fc", even, odd), chip)
    assert apart.cycles == 31  # each coordinate but the last is compared with the next of the other
    ahead = of_masks("fc", first(4, 32), ~first(4, 32))
    assert chip.dataflow(ahead, chip).cycles == 1  # one jump past all four


# --- sizes that a dataflow needs


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_every_size_that_a_chip_names_is_one_that_its_dataflow_or_memories_need(chip):
    work = conv(4, 16, 1, 8) if "conv2d" in chip.ops else fc(4, 8)
    held = {name for memory in chip.memories for name in memory.held.values()}
    for name in set(chip.tile) - held - {"strip"}:
        less = replace(chip, tile={other: size for other, size in chip.tile.items() if other != name})
        if chip is chips.DADIANNAO and name == "empty":
            continue  # its bricks are taken whole: what an empty one takes only matters to Cnvlutin
        if chip in (chips.SCNN, chips.EYERISS_V2_PE) and name == "filters":
            continue  # without it all filters are one group
        with pytest.raises(AcceleratorError, match=rf"needs tile\['{name}'\]"):
            chip.dataflow(work, less)
