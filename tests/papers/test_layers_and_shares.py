"""Layers as masks and networks as sizes, against counts by hand and against the models themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip.concepts import FrontierPoint, Layer, PrunedFrontier
from zeroskip.models import LeNet5, LeNet300100
from zeroskip.papers import published_shares
from zeroskip.papers.cambricon_s.rows import in_blocks
from zeroskip.papers.common import frontier_rows
from zeroskip.papers.common.frontier_training import mean
from zeroskip.papers.common.masked_layers import NonZeros, convolutions, cycles, faster, masked
from zeroskip.papers.common.network_sizes import NETWORKS, parameters, sizes, without_memory
from zeroskip.papers.eie import rows as eie
from zeroskip.papers.eie.measure import ELEMENTS, OUTPUTS, weight_mask
from zeroskip.papers.eie.published import LAYERS, EieLayer
from zeroskip.papers.extensor.measure import squared
from zeroskip.papers.extensor.published import SquaredMatrix
from zeroskip.papers.scnn.inception import modules, share_at
from zeroskip.papers.scnn.rows import energies
from zeroskip.papers.sparten.measure import balanced_layer
from zeroskip.papers.sparten.rows import one_sided
from zeroskip.simulate import Geometry, Workload, chips, dataflows, of_masks, random_masks
from zeroskip.simulate.workload import count_macs


def conv(name: str = "conv", *, inputs: int = 3, outputs: int = 5, size: int = 6) -> Layer:
    weight = torch.empty(outputs, inputs, 3, 3, device="meta")
    return Layer(name, "conv2d", weight, None, (inputs, size, size), (outputs, size, size), padding=(1, 1))


# --- sizes


@pytest.mark.parametrize("network", ["lenet-300-100", "lenet-5"])
def test_sizes_are_those_of_a_model_with_memory_that_runs(network: str) -> None:
    model = {"lenet-300-100": LeNet300100, "lenet-5": LeNet5}[network]().eval()
    layers = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    macs: dict[str, int] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(
            lambda layer, _, y, name=name: macs.update({name: layer.weight[0].numel() * y.numel()})
        )
    model(torch.zeros(1, *NETWORKS[network][1]))
    for size in sizes(network):
        assert (size.weights, size.macs) == (layers[size.name].weight.numel(), macs[size.name])
    assert parameters(network) == sum(tensor.numel() for tensor in model.parameters())


def test_a_network_without_memory_has_the_shapes_of_one_with_memory() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4, bias=False))

    model, example = without_memory(build, (6,))
    assert example.is_meta
    assert all(tensor.is_meta for tensor in model.parameters())
    assert model(example.expand(3, 6)).shape == build()(torch.zeros(3, 6)).shape


# --- masks


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 3))
def test_masks_have_their_shares_and_are_the_same_at_every_call(
    weights: float, inputs: float, outputs: float, images: int
) -> None:
    shares = NonZeros([weights], [inputs], [outputs])
    (work,) = masked([conv(inputs=16, outputs=32, size=12)], shares, images=images)
    (again,) = masked([conv(inputs=16, outputs=32, size=12)], shares, images=images)
    for name, share in (("weight", weights), ("input", inputs), ("output", outputs)):
        mask = getattr(work, name)
        assert torch.equal(mask, getattr(again, name))
        # Five standard deviations of the mean of so many places.
        assert (
            abs(float(mask.float().mean()) - share) <= 5 * (share * (1 - share) / mask.numel()) ** 0.5 + 1e-6
        )


def test_outputs_that_are_not_given_are_all_there_and_layers_differ() -> None:
    first, second = masked([conv("a"), conv("b")], NonZeros([0.5, 0.5], [0.5, 0.5]))
    assert bool(first.output.all())
    assert not torch.equal(first.weight, second.weight)


def test_the_macs_of_a_masked_layer_are_those_of_a_loop_over_every_product() -> None:
    (work,) = masked([conv()], NonZeros([0.4], [0.5]))
    x = torch.nn.functional.pad(work.input[0, 0], (1, 1, 1, 1))
    count = 0
    for out, row, column in itertools.product(range(5), range(6), range(6)):
        window = x[:, row : row + 3, column : column + 3]
        count += int((window & work.weight[0, out]).sum())
    assert count_macs(work).both == count


def test_cycles_add_up_over_layers_and_faster_is_their_ratio() -> None:
    works = masked([conv("a"), conv("b")], NonZeros([0.5, 1.0], [0.5, 1.0]))
    alone = [chips.SCNN.dataflow(work, chips.SCNN).cycles for work in works]
    assert cycles(works, chips.SCNN) == sum(alone)
    assert faster(works, chips.SCNN, chips.DCNN) == cycles(works, chips.DCNN) / sum(alone)


@pytest.mark.parametrize(("network", "count"), [("alexnet", 5), ("vgg16", 13)])
@pytest.mark.parametrize("reading", published_shares.READINGS)
def test_an_output_has_the_zeros_of_the_input_that_it_becomes(network: str, count: int, reading: str) -> None:
    inputs = published_shares.seen(network, reading)
    assert len(inputs) == len(convolutions(network)) == count
    if network == "vgg16":
        return  # as the others, and large
    works = published_shares.workloads(network, reading)
    outputs = [float(work.output.float().mean()) for work in works]
    assert outputs[:-1] == pytest.approx(inputs[1:], abs=0.01)


def test_filters_whose_shares_are_spread_differ_more_than_those_at_random_places() -> None:
    spread = [
        float(work.weight[0].float().mean((1, 2, 3)).std())
        for variation in (0.0, 0.4)
        for work in masked([conv(inputs=64, outputs=64)], NonZeros([0.4], [0.5], variation=variation))
    ]
    assert spread[1] > 5 * spread[0]


# --- EIE


def test_eie_s_entries_become_the_mask_that_they_were_made_from() -> None:
    """Runs of up to 15 zeros before an entry, a filler of code 0 where it is longer; row i on element i mod 64."""
    random = np.random.default_rng(0)
    mask = random.random((OUTPUTS, 12)) < 0.03
    rows = -(-OUTPUTS // ELEMENTS)
    whole = np.zeros((rows * ELEMENTS, 12), bool)
    whole[:OUTPUTS] = mask
    pointers, offsets, codes, runs = np.zeros((ELEMENTS, 13), np.int64), [0], [], []
    for element in range(ELEMENTS):
        own_codes: list[int] = []
        for column in range(12):
            pointers[element, column] = len(own_codes)
            run = 0
            for present in whole[element::ELEMENTS, column]:
                if present or run == 15:
                    own_codes.append(int(random.integers(1, 16)) if present else 0)
                    runs.append(run)
                    run = 0
                else:
                    run += 1
        pointers[element, 12] = len(own_codes)
        codes += own_codes
        offsets.append(len(codes))
    arrays = {
        "activations": np.ones(12), "pointers": pointers, "entry_offsets": np.array(offsets),
        "codes": np.array(codes), "zero_runs": np.array(runs),
    }  # fmt: skip
    assert np.array_equal(weight_mask(arrays), whole)


def test_a_layer_of_eie_has_its_printed_shares_or_the_highest_that_are_printed_so() -> None:
    layer = EieLayer("tiny", "", 400, 300, "10", "50", "1", "1")
    at, most = (eie.workload(layer, 0.0, most=most).weight.float().mean() for most in (False, True))
    assert float(at) == pytest.approx(0.10, abs=0.005)
    assert float(most) == pytest.approx(0.10499, abs=0.005)


def test_cycles_of_eie_are_at_least_the_entries_over_the_elements_and_at_most_the_longest_queue() -> None:
    layer = EieLayer("tiny", "", 60, 640, "10", "50", "1", "1")
    work = eie.workload(layer, 0.0)
    columns = work.weight[0, :, :, 0, 0][:, work.input[0, 0, :, 0, 0]]
    per_element = torch.stack(
        [columns[element::64].sum(0) for element in range(64)], 1
    )  # rows of 10: no fillers
    schedule = dataflows.columns(work, chips.EIE)
    assert schedule.useless == 0
    assert int(per_element.sum(0).max()) <= schedule.cycles
    assert schedule.cycles <= int(per_element.amax(1).clamp(min=1).sum()) + 1
    assert len(LAYERS) == 9


# --- SCNN, SparTen, Cambricon-S, ExTensor


def test_products_of_scnn_are_weights_times_inputs_of_each_channel() -> None:
    weight, x = random_masks.random((8, 4, 3, 3), 0.5), random_masks.random((1, 4, 16, 16), 0.5, seed=1)
    work = of_masks("conv", weight, x, Geometry(padding=(1, 1)))
    products = int((weight.sum((0, 2, 3)) * x.sum((0, 2, 3))).sum())
    assert energies([work]).products == products


def test_modules_are_made_once_for_their_shares() -> None:
    assert modules(0.05, 0.05) is modules(0.05, 0.05)
    assert len(modules(0.05, 0.05)) == 54


@given(st.floats(0.21, 4.9))
def test_the_share_at_which_a_falling_ratio_is_reached_is_found_from_two_neighbours_alone(
    wanted: float,
) -> None:
    asked: list[float] = []

    def ratio(share: float) -> float:
        asked.append(share)
        return 5 - 5 * share

    shares = [place / 10 for place in range(11)]
    assert share_at(shares, ratio, wanted) == pytest.approx(1 - wanted / 5)
    assert len(set(asked)) < len(shares)


def test_a_chip_that_skips_inputs_alone_sees_every_weight_and_the_same_inputs() -> None:
    work = of_masks("fc", torch.eye(8) != 0, torch.eye(8)[:1] != 0)
    assert one_sided(work).weight.all()
    assert torch.equal(one_sided(work).input, work.input)


def test_the_spread_of_a_layer_s_filters_is_that_of_their_shares() -> None:
    weight = torch.zeros(4, 8, dtype=torch.bool)
    weight[0, :8] = weight[1, :4] = True
    layer = balanced_layer(of_masks("fc", weight, torch.ones(1, 8) != 0))
    shares = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.double)
    assert (layer.filters, layer.kept) == (4, 0.375)
    assert layer.spread == pytest.approx(float(shares.std() / shares.mean()), abs=1e-4)
    assert "SCNN" not in layer.cycles


@pytest.mark.parametrize("outputs", [16, 20, 33])
def test_sixteen_filters_of_an_input_share_their_zeros(outputs: int) -> None:
    work: Workload = of_masks("fc", torch.ones(outputs, 50) != 0, torch.ones(1, 50) != 0)
    weight = in_blocks(work, 0.3).weight[0, :, :, 0, 0]
    assert weight.shape == (outputs, 50)
    for first in range(0, outputs, 16):
        block = weight[first : first + 16]
        assert torch.equal(block, block[:1].expand_as(block))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2])
def test_a_squared_matrix_has_the_products_and_sums_of_numpy(share: float) -> None:
    mask = np.random.default_rng(1).random((140, 140)) < share
    mask[0, 0] = True
    matrix = SquaredMatrix("tiny", 140, int(mask.sum()), 0, (1, 1, 2), *"1234567")
    counted, square = squared(np.argwhere(mask), matrix), mask.astype(int) @ mask.astype(int)
    assert (counted["products"], counted["sums"]) == (square.sum(), 16 * np.count_nonzero(square))


# --- zeroskip's own frontier


def test_a_mean_over_seeds_keeps_counts_that_agree_and_lists_the_errors_it_is_made_of() -> None:
    seeds = [
        {
            "bits": 4,
            "points": [{"error": error, "error_stored": 2 * error}],
            "stored_bytes": {"huffman": size},
        }
        for error, size in ((0.01, 100), (0.03, 102))
    ]
    means = mean(seeds)
    assert (means["bits"], means["stored_bytes"]["huffman"]) == (4, 101)
    assert means["points"][0]["error"] == pytest.approx(0.02)
    assert (means["points"][0]["errors"], means["points"][0]["errors_stored"]) == ([0.01, 0.03], [0.02, 0.06])


POINT = FrontierPoint(30, 0.0079, 4, 0.0080, {"huffman": 100, "arithmetic": 80})


@pytest.mark.parametrize(("dense", "holds"), [(0.0069, True), (0.0068, False)])
def test_a_rise_of_a_tenth_of_a_point_is_no_loss_and_more_is(dense: float, holds: bool) -> None:
    frontier = PrunedFrontier(4000, 0.0060, dense, (POINT,))
    (row,) = [
        row
        for row in frontier_rows.weights_rows("han2015", "lenet-5", {"frontier": frontier}, "0.80")
        if row.column.startswith("rise")
    ]
    assert row.holds is holds


def test_frontiers_are_listed_from_plain_images_to_moved_ones_and_absent_ones_are_not() -> None:
    frontier = PrunedFrontier(4000, 0.0060, 0.0070, (POINT,))
    listed = frontier_rows.bytes_rows(
        "deep-compression", "lenet-5", {"frontier_shifts": frontier, "frontier_plain": frontier}, "0.80", "39"
    )
    assert list(dict.fromkeys(row.table for row in listed)) == [
        "Beyond the paper: LeNet-5",
        "Beyond the paper: LeNet-5, images with noise and moved by up to a pixel",
    ]
    assert [row.ours for row in listed[2:4]] == [40, 50]
    assert frontier_rows.weights_rows("han2015", "lenet-5", {}, "0.80") == []
