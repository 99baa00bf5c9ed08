"""Masks made from sparsities, and the closed forms that chips follow on random ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from zeroskip.codecs import eie, relative
from zeroskip.simulate import Geometry, chips, formats, random_masks
from zeroskip.simulate.lane_counts import interleaved
from zeroskip.simulate.operations import of_masks
from zeroskip.simulate.workload import count_macs


def within_4_standard_errors(drawn: list[float], expected: float) -> bool:
    values = np.array(drawn, float)
    return abs(values.mean() - expected) <= 4 * values.std(ddof=1) / math.sqrt(len(values)) + 1e-9


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_random_masks_have_their_share_of_zeros_within_4_standard_errors(sparsity):
    mask = random_masks.random((400, 500), sparsity)
    assert (
        abs(1 - mask.float().mean() - sparsity) <= 4 * math.sqrt(sparsity * (1 - sparsity) / 200_000) + 1e-6
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_over_dispersed_masks_have_the_variation_asked_for_along_their_axis_only(axis):
    mask = random_masks.over_dispersed((2000, 2000), 0.7, variation=0.4, axes=(axis,)).double()
    along, across = mask.mean(1 - axis), mask.mean(axis)
    assert mask.mean() == pytest.approx(0.3, abs=0.012)
    assert along.std() / along.mean() == pytest.approx(0.4, rel=0.08)
    assert across.std() / across.mean() < 0.06


def test_over_dispersed_masks_without_variation_are_random_and_the_seed_makes_them_again():
    even = random_masks.over_dispersed((100, 4000), 0.5, variation=0.0).double().mean(1)
    assert even.std() < 0.015
    one, same, other = (
        random_masks.over_dispersed((40, 40), 0.5, variation=0.3, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.75, 1.0])
def test_clustered_masks_meet_their_share_exactly(sparsity):
    assert int(random_masks.clustered((2, 4, 10, 12), sparsity).sum()) == round((1 - sparsity) * 960)


def test_in_clustered_masks_neighbours_agree_more_often_than_by_chance():
    agree = lambda mask: (mask[..., 1:] == mask[..., :-1]).double().mean()
    by_chance = agree(random_masks.random((8, 8, 32, 32), 0.5))
    assert by_chance == pytest.approx(0.5, abs=0.01)
    assert agree(random_masks.clustered((8, 8, 32, 32), 0.5)) > 0.75


def test_clustered_inputs_unbalance_the_tiles_of_scnn():
    weight = random_masks.random((16, 16, 3, 3), 0.5)
    cycles = [
        chips.SCNN.dataflow(
            of_masks("c", weight, make((1, 16, 32, 32), 0.7), Geometry(padding=(1, 1))), chips.SCNN
        ).cycles
        for make in (random_masks.random, lambda *words: random_masks.clustered(*words, reach=6))
    ]
    assert cycles[1] > 1.3 * cycles[0]


def test_effectual_macs_of_random_masks_are_the_product_of_the_shares():
    drawn = []
    for seed in range(30):
        weight, x = (
            random_masks.random((30, 40), 0.7, seed=2 * seed),
            random_masks.random((5, 40), 0.4, seed=2 * seed + 1),
        )
        drawn.append(count_macs(of_masks("fc", weight, x)).both)
    assert within_4_standard_errors(drawn, 30 * 40 * 5 * 0.3 * 0.6)


def test_cambricon_x_takes_the_mean_of_a_rounded_up_binomial():
    chip = replace(chips.CAMBRICON_X, lanes=1, tile={"window": 10_000})
    places = np.arange(301)
    expected = 40 * (stats.binom.pmf(places, 300, 0.2) @ np.maximum(-(-places // 16), 1))
    x, drawn = torch.ones(1, 300, dtype=torch.bool), []
    for seed in range(30):
        work = of_masks("fc", random_masks.random((40, 300), 0.8, seed=seed), x)
        drawn.append(chip.dataflow(work, chip).cycles)
    assert within_4_standard_errors(drawn, expected)


def test_sparten_takes_the_mean_of_the_largest_of_32_binomials():
    places = np.arange(129)
    below = stats.binom.cdf(places, 128, 0.3) ** 32  # of the largest of 32
    expected = np.diff(below, prepend=0) @ np.maximum(places, 1)
    x, chip, drawn = torch.ones(1, 128, dtype=torch.bool), replace(chips.SPARTEN, lanes=32), []
    for seed in range(60):
        work = of_masks("fc", random_masks.random((32, 128), 0.7, seed=seed), x)
        drawn.append(chip.dataflow(work, chip).cycles)
    assert within_4_standard_errors(drawn, expected)


@pytest.mark.parametrize("rows", [1, 64, 130, 2000])
@pytest.mark.parametrize("sparsity", [0.0, 0.9, 0.99, 1.0])
def test_entries_of_eie_columns_are_those_of_its_codec(rows, sparsity):
    mask = random_masks.random((rows, 7), sparsity).numpy()
    pointers = eie.encode(mask.astype(np.uint8), 64)[2]
    np.testing.assert_array_equal(interleaved(mask, 64), np.diff(pointers, axis=1).T)
    assert formats.columns(64)(mask[None, :, :, None, None], 4).bits == eie.bits(mask, 64)


def test_cnvlutin_s_bricks_are_larger_than_the_values_above_80_percent_of_non_zeros():
    for kept, larger in ((0.79, False), (0.81, True)):
        mask = np.arange(10_000) < kept * 10_000
        assert (formats.bricks(mask, 16).bits > formats.dense(mask, 16).bits) == larger


def test_eyeriss_stores_inputs_as_they_are_where_its_code_would_be_larger():
    assert formats.run_length(np.ones(999, bool), 16) == formats.dense(np.ones(999, bool), 16)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.97, 1.0])
def test_zero_runs_are_the_entries_of_the_relative_index_over_more_than_one_part(sparsity):
    mask = random_masks.random((5_000_000,), sparsity).numpy()
    assert formats.zero_runs(mask, 16).bits == relative.bits(mask, 4, 16)
