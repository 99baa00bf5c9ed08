"""Chips of the papers on layers small enough for loops: cycles counted one by one, and closed forms without zeros."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.papers.cambricon_s.rows import in_blocks
from zeroskip.papers.common.masked_layers import DENSE, NonZeros, convolutions, cycles, faster, masked
from zeroskip.papers.common.rules import figure
from zeroskip.papers.eie import published as eie
from zeroskip.papers.eie import rows as eie_rows
from zeroskip.papers.eyeriss import published as eyeriss
from zeroskip.papers.han2015 import published as han2015
from zeroskip.papers.published_shares import EYERISS, HAN, READINGS, kept, seen, workloads
from zeroskip.papers.sparten.rows import UNITS, WAYS, one_sided
from zeroskip.simulate import Workload, of_masks
from zeroskip.simulate.chips import (
    CAMBRICON_S,
    CAMBRICON_X,
    CNVLUTIN,
    DADIANNAO,
    DCNN,
    EIE,
    SCNN,
    SPARTEN,
    SPARTEN_GB_H,
    SPARTEN_GB_S,
)
from zeroskip.simulate.workload import Geometry

CLUSTERS, CHUNK = SPARTEN.lanes // UNITS, SPARTEN.tile["chunk"]
SIZES = st.integers(1, 70)


def linear(outputs: int, inputs: int, positions: int, seed: int) -> Workload:
    random = torch.Generator().manual_seed(seed)
    weight = torch.rand(outputs, inputs, generator=random) < 0.4
    return of_masks("fc", weight, torch.rand(positions, inputs, generator=random) < 0.5)


def full(work: Workload) -> Workload:
    return replace(work, weight=torch.ones_like(work.weight), input=torch.ones_like(work.input))


def sparten_by_loops(weight: np.ndarray, inputs: np.ndarray) -> int:
    """Each cluster-load of 32 filters at each position: in every chunk the filter with most matches, at least one."""
    clusters = [0] * CLUSTERS
    chunk = min(CHUNK, weight.shape[1])
    units = [(first, place) for first in range(0, len(weight), UNITS) for place in range(len(inputs))]
    for number, (first, place) in enumerate(units):
        for start in range(0, weight.shape[1], chunk):
            part = slice(start, start + chunk)
            matches = (weight[first : first + UNITS, part] & inputs[place, part]).sum(1)
            clusters[number % CLUSTERS] += max(1, int(matches.max()))
    return max(clusters)


@given(SIZES, st.integers(1, 300), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_sparten_takes_the_cycles_of_loops_over_its_clusters_and_chunks(
    outputs: int, inputs: int, positions: int, seed: int
) -> None:
    work = linear(outputs, inputs, positions, seed)
    weight, x = work.weight[0, :, :, 0, 0].numpy(), work.input[:, 0, :, 0, 0].numpy()
    assert WAYS["none"](work) == sparten_by_loops(weight, x)
    assert WAYS["one-sided"](work) == sparten_by_loops(np.ones_like(weight), x)


@given(st.sampled_from([(1, 40, 3), (2, 33, 1), (4, 8, 3)]), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_one_filter_of_each_cluster_load_stands_for_all_where_every_weight_is_met(
    shape: tuple[int, int, int], seed: int
) -> None:
    groups, outputs, side = shape
    random = torch.Generator().manual_seed(seed)
    weight = torch.rand(groups * outputs, 5, side, side, generator=random) < 0.5
    x = torch.rand(2, groups * 5, 6, 6, generator=random) < 0.5
    work = of_masks("conv", weight, x, Geometry(padding=(1, 1), groups=groups))
    whole = replace(work, weight=torch.ones_like(work.weight))
    assert WAYS["one-sided"](work) == SPARTEN.dataflow(whole, SPARTEN).cycles
    assert one_sided(work).weight.shape[1] == -(-outputs // UNITS)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2 * CLUSTERS))
@settings(max_examples=20, deadline=None)
def test_without_zeros_sparten_s_three_balances_take_every_input_of_each_pair_of_filters(
    loads: int, chunks: int, positions: int
) -> None:
    work = full(linear(2 * UNITS * loads, CHUNK * chunks, positions, 0))
    single, paired = (-(-count * positions // CLUSTERS) for count in (2 * loads, loads))
    assert SPARTEN.dataflow(work, SPARTEN).cycles == single * CHUNK * chunks
    for chip in (SPARTEN_GB_S, SPARTEN_GB_H):
        assert chip.dataflow(work, chip).cycles == paired * 2 * CHUNK * chunks


@given(SIZES, SIZES, st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_eie_waits_between_its_even_share_and_its_fullest_element(
    outputs: int, inputs: int, seed: int
) -> None:
    work = linear(outputs, inputs, 1, seed)
    weight, x = work.weight[0, :, :, 0, 0].numpy(), work.input[0, 0, :, 0, 0].numpy()
    read = weight[:, x]
    by_element = [int(read[element :: EIE.lanes].sum()) for element in range(EIE.lanes)]
    slowest_by_column = sum(
        max(int(column[element :: EIE.lanes].sum()) for element in range(EIE.lanes)) for column in read.T
    )
    columns = int(x.sum())
    assert max(by_element) <= cycles([work], EIE) <= slowest_by_column + columns + 1


@pytest.mark.parametrize("layer", eie.LAYERS[:3], ids=lambda layer: layer.name)
def test_a_layer_of_eie_never_takes_less_with_waiting_than_shared_out_evenly(layer: eie.EieLayer) -> None:
    actual, even = eie_rows._layer(layer, "random places", eie_rows.workload(layer, 0.0))
    assert isinstance(actual.ours, float)
    assert isinstance(even.ours, float)
    assert actual.ours >= even.ours
    assert (actual.published, even.published) == (float(layer.actual), float(layer.theoretical))


def test_without_zeros_skipping_inputs_gains_nothing_on_cnvlutin_but_the_padding() -> None:
    weight, x = torch.ones(16, 256, 3, 3) != 0, torch.ones(1, 256, 8, 8) != 0  # a brick for each of 16 lanes
    assert faster([of_masks("conv", weight, x)], CNVLUTIN, DADIANNAO) == 1
    assert faster([of_masks("conv", weight, x, Geometry(padding=(1, 1)))], CNVLUTIN, DADIANNAO) > 1
    half = torch.rand(1, 256, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    assert (
        1 < faster([of_masks("conv", weight, half)], CNVLUTIN, DADIANNAO) < 2
    )  # the fullest lane is waited for


@pytest.mark.parametrize("share", [0.125, 0.5])
def test_blocks_have_the_share_of_single_weights_and_make_cambricon_s_faster_than_x(share: float) -> None:
    (work,) = masked(convolutions("alexnet")[3:4], NonZeros([share], [DENSE]))
    blocks = in_blocks(work, share)
    assert float(blocks.weight.float().mean()) == pytest.approx(share, abs=0.01)
    assert cycles([blocks], CAMBRICON_S) < cycles([work], CAMBRICON_X)


@pytest.mark.parametrize("channels", [4, 16, 20])
def test_dcnn_takes_16_channels_of_one_output_at_a_time_and_scnn_no_useless_product_of_one_pixel(
    channels: int,
) -> None:
    work = of_masks("conv", torch.ones(16, channels, 1, 1) != 0, torch.ones(1, channels, 16, 16) != 0)
    dense, sparse = (chip.dataflow(work, chip) for chip in (DCNN, SCNN))
    outputs = 16 * 2 * 2  # of an element, in a grid of 8 x 8
    assert dense.cycles == outputs * math.ceil(channels / DCNN.width)
    assert sparse.cycles >= work.macs / (SCNN.lanes * SCNN.width)
    assert sparse.useless == 0  # a kernel of one pixel makes no product outside the output


# --- the published shares that the chips' rows rest on


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_weights_kept_and_inputs_seen_are_the_published_ones_layer_by_layer(network: str) -> None:
    printed = han2015.LAYERS[network][: len(convolutions(network))]
    assert kept(network) == [pytest.approx(float(layer.kept) / 100) for layer in printed]
    assert seen(network, HAN)[1:] == [float(layer.output) / 100 for layer in printed[:-1]]
    zeros = [figure(share).value / 100 for share in eyeriss.ZEROS[network]]
    assert [1 - share for share in seen(network, EYERISS)] == pytest.approx(zeros)
    assert seen(network, HAN)[0] == DENSE  # a picture


@pytest.mark.parametrize("reading", READINGS)
def test_masks_of_published_shares_have_them_and_an_output_those_of_the_next_input(reading: str) -> None:
    works, inputs = workloads("alexnet", reading), seen("alexnet", reading)
    for work, weights, share, written in zip(works, kept("alexnet"), inputs, inputs[1:], strict=False):
        assert float(work.weight.float().mean()) == pytest.approx(weights, abs=0.01)
        assert float(work.input.float().mean()) == pytest.approx(share, abs=0.01)
        assert float(work.output.float().mean()) == pytest.approx(written, abs=0.01)
