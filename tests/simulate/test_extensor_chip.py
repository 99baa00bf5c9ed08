"""ExTensor: what meets what at each level, and the bytes that follow, against loops over sets and closed forms."""

from __future__ import annotations

import weakref
from dataclasses import replace

import naive_chips as naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_against_naive_chips import convolutions, linears

from zeroskip.errors import AcceleratorError
from zeroskip.simulate import Geometry, chips, formats, random_masks
from zeroskip.simulate.chips import EXTENSOR
from zeroskip.simulate.dataflows import extensor, intersection
from zeroskip.simulate.dataflows.sparse_tiles import TiledMatrix, of_places, of_rows, packed
from zeroskip.simulate.operations import of_masks
from zeroskip.simulate.simulation import estimate
from zeroskip.simulate.workload import Workload, count_macs

LEVELS = ("buffers", "elements", "scalars")
SIDES = ("outputs", "positions", "inputs")


@st.composite
def small_tiles(draw: st.DrawFn) -> chips.Accelerator:
    """Tiles of 1 to 9 for an element, of 1 to 3 of these for the buffer, and up to 4 elements."""
    element = draw(st.sampled_from([1, 2, 3, 9]))
    sides = {name: element * draw(st.integers(1, 3)) for name in SIDES}
    return replace(EXTENSOR, lanes=draw(st.integers(1, 4)), tile={"element": element, **sides})


@settings(max_examples=60, deadline=None)
@given(work=st.one_of(convolutions(), linears()), chip=small_tiles())
def test_pairs_comparisons_loads_and_bytes_are_those_of_loops_over_sets(work, chip):
    found, naively = extensor.joins(work, chip), naive.extensor_joins(work, chip)
    assert [list(getattr(found, name)) for name in LEVELS] == naively["levels"]
    assert found.loads.tolist() == naively["lanes"]
    assert found.moved == naively["moved"]


@settings(max_examples=200, deadline=None)
@given(one=st.sets(st.integers(0, 199)), two=st.sets(st.integers(0, 199)))
def test_comparisons_of_lists_of_up_to_200_coordinates_in_words_of_64_are_those_of_two_fingers(one, two):
    lists = [np.array([[k in some for k in range(200)]]) for some in (one, two)]
    bits = [packed(each, 200)[:, 0].T.copy() for each in lists]
    assert intersection.compare(*bits) == naive.steps(sorted(one), sorted(two))


def test_comparisons_lie_between_those_both_have_and_all_of_both():
    work = linear(0.3, 0.4, seed=5)
    scalars = extensor.joins(work, EXTENSOR).scalars
    tiles = 70 * 3 * 5  # rows of weights x rows of inputs x tiles of places: at most so many lists
    dense = count_macs(work)
    assert scalars.met == dense.both < scalars.steps < dense.weight + dense.input - dense.both
    assert scalars.steps <= 32 * tiles


def linear(weights: float, inputs: float, *, seed: int = 0) -> Workload:
    weight = random_masks.random((70, 150), 1 - weights, seed=seed)
    return of_masks("fc", weight, random_masks.random((3, 150), 1 - inputs, seed=seed + 1))


# --- matrices in tiles


@pytest.mark.parametrize("side", [1, 3, 8, 70])
def test_a_matrix_by_its_places_is_the_same_as_by_its_rows(side):
    mask = random_masks.random((80, 100), 0.97, seed=2)
    by_rows = of_rows(packed(mask.numpy(), side), 100, side)
    by_places = of_places(mask.nonzero().numpy()[::-1], (80, 100), side)
    for name in TiledMatrix._fields:
        assert np.array_equal(getattr(by_rows, name), getattr(by_places, name)), name
    assert by_rows.nonzeros.sum() == mask.sum()


def test_a_place_that_is_given_twice_counts_once():
    assert of_places(np.array([[1, 1], [1, 1]]), (2, 2), 2).nonzeros.tolist() == [1]


def test_weights_that_all_meet_inputs_come_once_with_the_bytes_they_are_stored_in():
    work = of_masks("fc", random_masks.random((70, 150), 0.9), torch.ones(3, 150) != 0)
    stored = formats.fibers(32)(work.weight.numpy(), 64)
    found = estimate([work], EXTENSOR).layers[0]
    assert found.bytes["DRAM", "W"] == stored.bits // 8
    assert found.bytes["DRAM", "A"] == formats.fibers(32)(work.input.movedim(0, 1).numpy(), 64).bits // 8


def test_ones_take_12_bytes_a_number_8_a_row_of_a_tile_and_12_a_tile():
    stored = formats.fibers(32)(np.ones((1, 64, 96, 1, 1), bool), 64)
    assert stored.bits // 8 == 12 * 64 * 96 + 8 * 64 * 3 + 12 * 2 * 3


@pytest.mark.parametrize(
    ("memory", "side", "number"), [("element buffers", "element", 128), ("buffer", "outputs", 1)]
)
def test_tiles_are_the_largest_multiples_of_32_of_which_two_and_their_sums_fit_with_no_zero(
    memory, side, number
):
    def taken(size: int) -> int:
        tile = formats.in_tiles(size**2, size * size // 32, (size // 32) ** 2, 64)
        return 2 * tile.bits // 8 + 16 * size**2

    room = next(one.capacity for one in EXTENSOR.memories if one.name == memory) // number
    assert taken(EXTENSOR.tile[side]) <= room < taken(EXTENSOR.tile[side] + 32)


# --- levels


def blocks_of(count: int, side: int) -> torch.Tensor:
    """Ones in `count` blocks along the diagonal."""
    return torch.block_diag(*[torch.ones(side, side)] * count) != 0


def test_of_8_blocks_on_a_diagonal_8_of_512_pairs_of_tiles_meet_and_only_they_are_fetched():
    ones = blocks_of(8, 32)
    found = extensor.joins(of_masks("blocks", ones, ones), EXTENSOR)
    assert (found.buffers.pairs, found.buffers.met) == (1, 1)
    assert (found.elements.pairs, found.elements.met) == (512, 8)
    assert found.scalars == (8 * 32**3,) * 3
    assert found.moved["DRAM", "W"] == 8 * (12 * 1024 + 8 * 32 + 12)
    half = ones.clone()
    half[128:] = False  # the inputs of four blocks are zeros: their weights stay where they are
    half = extensor.joins(of_masks("half", ones, half), EXTENSOR)
    assert half.moved["DRAM", "W"] * 2 == found.moved["DRAM", "W"]


def test_tiles_of_the_buffer_that_meet_none_are_not_asked_for_their_tiles():
    ones = blocks_of(2, 64)
    chip = replace(EXTENSOR, tile=EXTENSOR.tile | dict.fromkeys(SIDES, 64))
    found = extensor.joins(of_masks("blocks", ones, ones), chip)
    assert found.buffers[:2] == (8, 2)
    assert found.elements[:2] == (2 * 8, 2 * 8)


def test_sums_of_a_second_tile_of_places_are_read_and_written_again():
    ones = torch.ones(32, 64) != 0
    once = extensor.joins(of_masks("fc", ones, ones), EXTENSOR).moved["DRAM", "O"]
    chip = replace(EXTENSOR, tile=EXTENSOR.tile | {"inputs": 32})
    twice = extensor.joins(of_masks("fc", ones, ones), chip).moved["DRAM", "O"]
    assert (once, twice) == (16 * 1024, 3 * 16 * 1024)


def test_inputs_of_zeros_move_and_take_nothing():
    work = of_masks("fc", torch.ones(8, 8) != 0, torch.zeros(2, 8) != 0)
    found = extensor.joins(work, EXTENSOR)
    assert [getattr(found, name)[1:] for name in LEVELS] == [(0, 0)] * 3
    assert not any(found.moved.values())
    assert EXTENSOR.dataflow(work, EXTENSOR)[:4] == (0, 0, 0, None)


def test_a_layer_is_counted_anew_when_its_masks_change_and_is_let_go_after_that():
    work = linear(0.5, 0.5)
    before = EXTENSOR.dataflow(work, EXTENSOR)
    work.input.fill_(False)
    assert before.cycles > EXTENSOR.dataflow(work, EXTENSOR).cycles == 0
    known = weakref.ref(work)
    del work
    assert known() is None


def test_groups_go_on_where_the_last_one_ended_so_that_two_of_one_tile_each_take_as_long_as_one():
    weight, x = torch.ones(2, 1, 1, 1) != 0, torch.ones(1, 2, 3, 3) != 0
    apart = of_masks("depthwise", weight, x, Geometry(groups=2))
    one = of_masks("one", weight[:1], x[:, :1])
    assert EXTENSOR.dataflow(apart, EXTENSOR).cycles == EXTENSOR.dataflow(one, EXTENSOR).cycles == 9


def test_a_side_of_the_buffer_that_an_element_s_does_not_divide_is_refused():
    chip = replace(EXTENSOR, tile=EXTENSOR.tile | {"inputs": 100})
    with pytest.raises(
        AcceleratorError, match=r"tile\['inputs'\] = 100 does not divide by tile\['element'\] = 32"
    ):
        estimate([linear(0.5, 0.5)], chip)


def test_weights_of_9_percent_and_one_vector_wait_for_dram():
    work = of_masks(
        "fc6", random_masks.random((1024, 2304), 0.91), random_masks.random((1, 2304), 0.65, seed=1)
    )
    found = estimate([work], EXTENSOR).layers[0]
    assert found.roof == "DRAM"
    assert found.idle["bandwidth"] > found.slots / 2
