"""What every estimate promises: sums that are exact, and zeros that never cost."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip import measure
from zeroskip.concepts import Layer
from zeroskip.errors import AcceleratorError
from zeroskip.papers import published_shares
from zeroskip.simulate import CHIPS, Geometry, chips, cost_on, formats, parameters, random_masks, vary
from zeroskip.simulate.estimates import Estimate, LayerEstimate, less_energy
from zeroskip.simulate.operations import of_layer, of_masks
from zeroskip.simulate.recorded import of_trace
from zeroskip.simulate.simulation import estimate, estimate_trace
from zeroskip.simulate.workload import Workload

RUNS_CONVOLUTIONS = [chip for chip in CHIPS if "conv2d" in chip.ops]


def conv(weights: float, inputs: float, *, seed: int = 0, groups: int = 1, **place) -> Workload:
    """12 filters of 8 channels (in groups: of 8 / groups), 3 x 3, on two images of 9 x 10."""
    weight = random_masks.random((12, 8 // groups, 3, 3), 1 - weights, seed=seed)
    return of_masks(
        "conv",
        weight,
        random_masks.random((2, 8, 9, 10), 1 - inputs, seed=seed + 1),
        Geometry(groups=groups, **place),
    )


def one_group(work: Workload, g: int) -> Workload:
    return replace(work, weight=work.weight[[g]], input=work.input[:, [g]], output=work.output[:, [g]])


def linear(weights: float, inputs: float, *, seed: int = 0) -> Workload:
    weight = random_masks.random((70, 150), 1 - weights, seed=seed)
    return of_masks("fc", weight, random_masks.random((3, 150), 1 - inputs, seed=seed + 1))


def layer_of(work: Workload, chip: chips.Accelerator, **words) -> LayerEstimate:
    return estimate([work], chip, **words).layers[0]


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
@settings(max_examples=12, deadline=None)
@given(
    weights=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    inputs=st.sampled_from([0.05, 0.4, 1.0]),
    groups=st.sampled_from([1, 2, 4]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_macs_and_slots_of_every_chip_sum_exactly(chip, weights, inputs, groups, stride, padding):
    place = {"stride": (stride, stride), "padding": (padding, padding)}
    works = [linear(weights, inputs)]
    works += [conv(weights, inputs, groups=groups, **place)] if "conv2d" in chip.ops else []
    for work in works:
        found = layer_of(work, chip)
        assert found.done + found.gated + found.skipped == found.macs == work.macs
        assert found.slots == found.cycles * chip.lanes * chip.width
        assert found.done + found.gated + sum(found.idle.values()) == found.slots
        assert min(found.idle.values()) >= 0


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_macs_with_two_factors_are_always_done_and_all_ones_leave_nothing_to_skip(chip):
    found, ones = layer_of(linear(0.3, 0.5), chip), layer_of(linear(1.0, 1.0), chip)
    work = linear(0.3, 0.5)
    assert found.done >= int((work.weight_counts * work.input_counts).sum())
    assert (ones.done, ones.gated, ones.skipped) == (ones.macs, 0, 0)


@pytest.mark.parametrize("chip", RUNS_CONVOLUTIONS, ids=lambda chip: chip.name)
def test_weights_of_zeros_leave_no_mac_to_a_chip_that_skips_weights(chip):
    found = layer_of(conv(0.0, 0.6), chip)
    if chip.skips == "AW":
        assert found.done == 0
    assert found.done + found.gated + found.skipped == found.macs


def test_gating_changes_energy_and_not_a_cycle():
    gated = layer_of(conv(0.7, 0.3), replace(chips.DENSE, gates="AW"))
    plain = layer_of(conv(0.7, 0.3), chips.DENSE)
    assert gated.cycles == plain.cycles
    assert gated.joules < plain.joules


@pytest.mark.parametrize(
    "chip", [chips.SCNN, chips.EYERISS_V2_PE, chips.CAMBRICON_S], ids=lambda chip: chip.name
)
def test_one_more_zero_input_never_costs_cycles_where_counts_alone_decide(chip):
    work, cycles = conv(0.5, 0.9), []
    for _ in range(12):
        place = torch.nonzero(work.input)[len(cycles) * 7]
        sparser = work.input.clone()
        sparser[tuple(place)] = False
        work = replace(work, input=sparser)
        cycles.append(layer_of(work, chip).cycles)
    assert cycles == sorted(cycles, reverse=True)


def test_the_order_of_filters_changes_nothing_on_chips_without_groups_of_them():
    work = conv(0.4, 0.5)
    turned = replace(work, weight=work.weight.flip(1))
    for chip in (chips.DENSE, chips.EYERISS_V2_PE, chips.CNVLUTIN, chips.SPARTEN_GB_S):
        assert layer_of(turned, chip).cycles == layer_of(work, chip).cycles


def test_a_group_costs_what_the_same_layer_alone_costs():
    work = conv(0.5, 0.5, groups=2)
    for chip in (chips.DENSE, chips.SCNN, chips.CNVLUTIN, chips.CAMBRICON_S):
        alone = [one_group(work, g) for g in (0, 1)]
        assert chip.dataflow(work, chip).cycles == sum(chip.dataflow(one, chip).cycles for one in alone)


def test_2_4_weights_halve_the_cycles_of_a_tensor_core_and_others_do_not():
    half = torch.tensor([True, False, False, True]).repeat(64, 64)
    x = torch.ones(128, 256, dtype=torch.bool)
    compute = lambda weight: chips.TENSOR_CORE.dataflow(of_masks("fc", weight, x), chips.TENSOR_CORE).cycles
    assert compute(half) * 2 == compute(torch.ones(64, 256, dtype=torch.bool))
    done = layer_of(of_masks("fc", half & (torch.arange(256) > 7), x), chips.TENSOR_CORE).done
    assert done == 64 * 128 * 128  # two of every four, zeros among them


def test_dense_twin_of_scnn_takes_225_positions_of_each_filter_for_113_rows_on_8_x_8_elements():
    work = of_masks("conv", torch.ones(3, 16, 1, 1) != 0, torch.ones(1, 16, 113, 113) != 0)
    assert chips.DCNN.dataflow(work, chips.DCNN).cycles == 3 * 225


def test_a_narrow_dram_binds_and_the_time_is_its_bytes():
    chip = replace(chips.DENSE, dram_bytes_per_cycle=1)
    found = layer_of(linear(1.0, 1.0), chip)
    assert found.roof == "DRAM"
    assert found.cycles == found.moved("DRAM") == 2 * (70 * 150 + 3 * 150 + 3 * 70)
    assert found.idle["bandwidth"] == (found.cycles - chip.dataflow(linear(1, 1), chip).cycles) * 1024


def test_weights_that_do_not_fit_come_again_or_the_inputs_do_whichever_is_less():
    small = replace(chips.DENSE, memories=(replace(chips.DENSE.memories[0], capacity=1000),))
    found = layer_of(linear(1.0, 1.0), small)
    assert found.bytes["DRAM", "A"] == 900  # they stay
    assert found.bytes["DRAM", "W"] == 21_000
    smaller = replace(chips.DENSE, memories=(replace(chips.DENSE.memories[0], capacity=600),))
    again = layer_of(linear(1.0, 1.0), smaller)
    assert again.bytes["DRAM", "A"] + again.bytes["DRAM", "W"] == min(900 + 2 * 21_000, 35 * 900 + 21_000)


def ones(channels: int, side: int, filters: int) -> Workload:
    """A 1 x 1 convolution without a zero."""
    shape = (1, channels, side, side)
    return of_masks("conv", torch.ones(filters, channels, 1, 1) != 0, torch.ones(shape) != 0)


def test_an_input_that_is_held_is_read_once_for_each_8_filters_and_an_output_is_written_once():
    found = layer_of(ones(16, 16, filters=20), chips.SCNN)
    assert found.bytes["inputs", "A"] == 3 * (16 * 16**2) * 20 // 8  # 16 bits and 4 of zeros before them
    assert found.bytes["outputs", "O"] == (20 * 16**2) * 20 // 8
    twin = layer_of(ones(16, 16, filters=20), chips.DCNN)
    assert twin.bytes["inputs", "A"] == 3 * (16 * 16**2) * 2
    assert twin.bytes["weights", "W"] == 16 * twin.bytes["sums", "O"] // 2 == 2 * twin.macs


def test_what_a_held_operand_shares_follows_a_sweep_of_the_filters():
    found = layer_of(ones(16, 16, filters=20), vary(chips.SCNN, {"tile.filters": 4}))
    assert found.bytes["inputs", "A"] == 5 * (16 * 16**2) * 20 // 8


def between(work: Workload, chip: chips.Accelerator) -> LayerEstimate:
    """The layer with one before it and one behind it."""
    return estimate(in_a_row(work), chip).layers[1]


def in_a_row(work: Workload) -> list[Workload]:
    """Three layers of the same shape and zeros."""
    return [replace(work, name=name) for name in ("first", "second", "third")]


def test_maps_that_fit_stay_on_the_chip_and_those_that_do_not_come_and_take_the_weights_with_them():
    small = between(ones(16, 16, filters=20), chips.DCNN)
    large = between(ones(64, 96, filters=300), chips.DCNN)
    assert (small.bytes["DRAM", "A"], small.bytes["DRAM", "O"]) == (0, 0)
    assert small.bytes["DRAM", "W"] == 2 * 16 * 20
    assert large.bytes["DRAM", "A"] == 2 * 64 * 96**2  # 1.125 of the memory
    assert large.bytes["DRAM", "W"] == 2 * (2 * 64 * 300)
    assert large.bytes["DRAM", "O"] == 2 * 300 * 96**2


@pytest.mark.parametrize("chip", [chips.SCNN, chips.DCNN], ids=lambda chip: chip.name)
def test_the_first_of_3_layers_has_its_input_from_dram_and_the_last_its_output_there_although_both_fit(
    chip,
):
    found = estimate(in_a_row(ones(16, 16, filters=16)), chip).layers
    plain = 16**3 * (20 if chip is chips.SCNN else 16) // 8
    assert [one.bytes["DRAM", "A"] for one in found] == [plain, 0, 0]
    assert [one.bytes["DRAM", "O"] for one in found] == [0, 0, plain]
    alone = layer_of(ones(16, 16, filters=16), chip)
    assert (alone.bytes["DRAM", "A"], alone.bytes["DRAM", "O"]) == (plain, plain)


def test_of_scnn_s_alexnet_conv1_has_its_picture_from_dram():
    layers = published_shares.workloads("alexnet", published_shares.HAN)
    picture = formats.zero_runs(layers[0].input.numpy(), 16)
    assert estimate(layers, chips.SCNN).layers[0].bytes["DRAM", "A"] == -(-picture.bits // 8)


@pytest.mark.parametrize("pictures", [2, 5])
@pytest.mark.parametrize("side", [16, 96])  # maps that fit, and that do not
def test_bytes_from_dram_per_picture_do_not_depend_on_how_many_there_are_where_maps_are_kept(side, pictures):
    one = ones(64, side, filters=300)
    x = one.input[:, 0].repeat(pictures, 1, 1, 1)
    many = of_masks("conv", one.weight[0], x)
    for layer, all_ in zip(
        *(estimate(in_a_row(work), chips.DCNN).layers for work in (one, many)), strict=True
    ):
        for operand in "AWO":
            assert all_.bytes["DRAM", operand] == pictures * layer.bytes["DRAM", operand]


def test_a_sequence_of_7_vectors_is_one_example_and_stays_only_where_all_of_it_fits():
    work = of_masks("fc", torch.ones(60, 60) != 0, torch.ones(2, 7, 60) != 0)
    inputs, *others = chips.DCNN.memories
    assert estimate([work], chips.DCNN).examples == 2
    for capacity, stays in ((2 * 7 * 60, True), (2 * 7 * 60 - 1, False)):
        chip = replace(chips.DCNN, memories=(replace(inputs, capacity=capacity), *others))
        assert (between(work, chip).bytes["DRAM", "A"] == 0) is stays


def test_pruning_alone_costs_a_layer_what_it_costs_in_its_place_in_the_network(network):
    trace = measure.trace(network, torch.randn(2, 3, 8, 8))
    cost = cost_on(chips.SCNN, trace, of="joules")
    layer = trace[1][0]
    for place in (0, 1, 2):
        assert cost({trace[place][0].name: 0.0}) == pytest.approx(cost({}))
    assert cost({layer.name: 0.9}) < cost({})


def test_a_map_fits_only_where_the_tile_of_the_fullest_lane_does():
    # 9 rows on 8 lanes are tiles of 2: the fullest lane has 2 x 2 of a mean of 81 / 64 pixels.
    work = ones(64, 9, filters=8)
    inputs, *others = chips.DCNN.memories
    for lane, stays in ((2 * 64 * 4, True), (2 * 64 * 4 - 1, False)):
        chip = replace(chips.DCNN, memories=(replace(inputs, capacity=64 * lane), *others))
        assert (between(work, chip).bytes["DRAM", "A"] == 0) is stays


def test_operations_that_are_no_mac_of_the_layer_use_the_energy_of_one():
    # A 3 x 3 filter on one pixel: 9 products, 8 of them outside the output.
    work = of_masks(
        "conv", torch.ones(1, 1, 3, 3) != 0, torch.ones(1, 1, 1, 1) != 0, Geometry(padding=(1, 1))
    )
    found = layer_of(work, chips.SCNN)
    assert (found.done, found.idle["useless"]) == (1, 8)
    assert found.picojoules["MAC"] == pytest.approx(9 * 0.9)


@pytest.mark.parametrize("name", ["lanes", "width", "tile.queue", "memory.entries"])
def test_a_sweep_takes_32_0_for_32_where_numbers_are_whole_and_refuses_halves(name):
    given = 512
    found = parameters(vary(chips.EIE, {name: float(given)}))[name]
    assert (found, type(found)) == (given, int)
    for wrong in (given + 0.5, math.inf, math.nan):
        with pytest.raises(AcceleratorError, match=f"EIE: {name} = {wrong} must be a whole number"):
            vary(chips.EIE, {name: wrong})


def test_a_sweep_of_bytes_a_cycle_takes_fractions_although_the_chip_has_a_whole_number():
    assert vary(chips.DENSE, {"dram_bytes_per_cycle": 12.8}).dram_bytes_per_cycle == 12.8
    assert layer_of(linear(0.5, 0.5), vary(chips.EIE, {"lanes": 32.0})).cycles > 0


@pytest.mark.parametrize("lanes", [16, 32, 64])
def test_a_format_that_depends_on_the_lanes_follows_a_sweep_of_them(lanes):
    work = linear(0.1, 0.5)
    found = layer_of(work, vary(chips.EIE, {"lanes": lanes}))
    stored = formats.columns(lanes)(work.weight.numpy(), 4)
    assert found.bytes["DRAM", "W"] == -(-stored.bits // 8)


def test_energy_is_the_sum_of_its_events_by_hand():
    found = layer_of(linear(1.0, 1.0), chips.DENSE, dram="han2015")
    macs, buffer = 3 * 70 * 150, 10 / 64 * math.sqrt(256)
    words = macs / 16 + macs / 4 + 2 * macs / 16
    expected = {"MAC": 0.9 * macs, "buffer": words * 16 * buffer, "DRAM": 20 * 8 * found.moved("DRAM")}
    for event, picojoules in expected.items():
        assert found.picojoules[event] == pytest.approx(picojoules, rel=1e-4)
    assert found.joules == pytest.approx(sum(expected.values()) * 1e-12, rel=1e-4)


def test_every_result_names_its_energy_table_and_its_dram():
    found = estimate([linear(0.5, 0.5)], chips.EIE, energy="eyeriss2016", dram="hbm2")
    assert (found.chip, found.energy, found.dram) == ("EIE", "eyeriss2016", "hbm2")


def test_a_cheaper_dram_never_raises_energy():
    by_dram = [
        estimate([linear(0.5, 0.5)], chips.EIE, dram=name).joules for name in ("hbm2", "lpddr4", "ddr3")
    ]
    assert by_dram == sorted(by_dram)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(1)
    first, second = nn.Conv2d(3, 8, 3, padding="same"), nn.Conv2d(8, 8, 3, stride=2, groups=8)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 10))


def test_a_recorded_network_is_estimated_layer_by_layer_and_in_all(network):
    trace = measure.trace(network, torch.randn(2, 3, 8, 8))
    found = estimate_trace(trace, chips.DENSE)
    assert [layer.name for layer in found.layers] == ["0", "2", "5"]
    assert [layer.macs for layer in found.layers] == [2 * layer.macs for layer, _, _ in trace]
    assert found.total.macs == sum(layer.macs for layer in found.layers)
    assert found.cycles == found.total.cycles
    assert found.seconds == found.cycles / 1e9
    assert found.joules == pytest.approx(found.total.joules)


def test_outputs_are_stored_after_relu_where_the_next_layer_sees_nothing_negative(network):
    trace = measure.trace(network, torch.randn(2, 3, 8, 8))
    first, _, last = of_trace(trace)
    assert torch.equal(first.output.flatten(), (trace[0][2] > 0).flatten())
    assert bool(last.output.all())


def test_a_layer_keeps_its_own_macs_whatever_form_its_padding_is_given_in(network):
    for layer, x, y in measure.trace(network, torch.randn(1, 3, 8, 8)):
        assert of_layer(layer, x, y).macs == layer.macs


def test_nan_and_infinity_are_no_zeros():
    x = torch.tensor([[0.0, math.nan, math.inf, -0.0]])
    layer = Layer("fc", "linear", torch.ones(1, 4), None, (4,), (1,))
    assert of_layer(layer, x, torch.ones(1, 1)).input.flatten().tolist() == [False, True, True, False]


def test_a_sequence_of_vectors_is_as_many_positions():
    work = of_masks("fc", torch.ones(4, 6) != 0, torch.ones(2, 5, 6) != 0)
    assert (work.positions, work.macs) == (10, 240)


def test_layers_that_a_chip_cannot_run_are_refused_with_the_reason_and_in_no_sum(network):
    found = estimate_trace(measure.trace(network, torch.randn(1, 3, 8, 8)), chips.EIE)
    assert list(found.refused) == ["0", "2"]
    assert found.refused["0"] == 'EIE has no way to run "0", a conv2d'
    assert found.total.macs == 720


def test_or_counted_as_dense_where_its_data_says_so():
    found = estimate([linear(0.1, 0.1)], chips.SCNN)
    assert found.layers[0].done == found.layers[0].macs
    assert found.layers[0].note.endswith("counted as dense on the same multipliers")
    assert found.refused == {}


def test_an_estimate_is_plain_data_and_goes_through_json(network):
    found: Estimate = estimate_trace(measure.trace(network, torch.randn(1, 3, 8, 8)), chips.SCNN)
    assert all(
        type(count) is int for layer in found.layers for count in [layer.cycles, *layer.bytes.values()]
    )
    again = json.loads(json.dumps(found.to_json()))
    assert again["total"]["bytes"]["DRAM W"] == found.total.bytes["DRAM", "W"]
    assert [layer["cycles"] for layer in again["layers"]] == [layer.cycles for layer in found.layers]


def test_another_dram_changes_the_energy_as_if_it_had_been_given():
    work = [linear(0.5, 0.5)]
    given = estimate(work, chips.EIE, dram="ddr3").joules
    assert estimate(work, chips.EIE, dram="hbm2").joules_with("ddr3") == pytest.approx(given)


def test_a_comparison_that_turns_with_the_dram_is_given_for_each():
    works, buffer = [conv(1.0, 1.0)], chips.DENSE.memories[0]
    small = replace(chips.DENSE, name="small", memories=(replace(buffer, capacity=700),))
    found = less_energy(estimate(works, small), estimate(works, chips.DENSE))
    assert found["hbm2"] == "small"  # a small buffer is cheap to read
    assert found["ddr3"] == "dense array"  # and has operands fetched again


def test_a_sample_of_all_examples_has_no_error_and_the_figures_of_all():
    works = [linear(0.5, 0.5), linear(0.2, 0.5, seed=3)]
    sampled, whole = estimate(works, chips.SPARTEN, sample=3), estimate(works, chips.SPARTEN)
    assert (sampled.cycles, sampled.examples, sampled.standard_error) == (whole.cycles, 3, 0.0)


def test_a_sample_of_8_of_64_examples_is_within_4_standard_errors_of_all():
    weight, x = (
        random_masks.random((32, 64), 0.5),
        random_masks.over_dispersed((64, 64), 0.5, variation=0.5, seed=4),
    )
    works, chip = [of_masks("fc", weight, x)], chips.EYERISS_V2_PE
    sampled, whole = estimate(works, chip, sample=8), estimate(works, chip)
    assert 0.01 < sampled.standard_error < 0.3
    assert abs(sampled.cycles * 8 / whole.cycles - 1) < 4 * sampled.standard_error


def test_a_sample_takes_all_positions_of_an_example():
    x = torch.zeros(4, 5, 6, dtype=torch.bool)
    x[2] = True
    works = [
        of_masks("first", torch.ones(6, 6) != 0, torch.ones(4, 6) != 0),
        of_masks("second", torch.ones(3, 6) != 0, x),
    ]
    found = estimate(works, chips.EYERISS_V2_PE, sample=2)  # examples 0 and 2
    assert found.layers[1].done == 5 * 6 * 3
