"""What chips count and how lanes share work, against loops that are written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroskip.simulate import lane_counts, random_masks

SPARSITIES = st.sampled_from([0.0, 0.4, 0.9, 1.0])


@given(size=st.integers(0, 200), tile=st.integers(1, 20))
def test_tiles_cover_a_size_and_one_fewer_does_not(size, tile):
    count = lane_counts.tiles(size, tile)
    assert count * tile >= size > (count - 1) * tile


@settings(max_examples=60, deadline=None)
@given(outputs=st.integers(1, 30), filters=st.integers(1, 12), sparsity=SPARSITIES, seed=st.integers(0, 99))
def test_filter_counts_are_sums_over_each_group_of_filters(outputs, filters, sparsity, seed):
    weight = random_masks.random((2, outputs, 3, 2, 1), sparsity, seed=seed)
    found = lane_counts.filter_counts(weight, filters)
    expected = torch.stack([part.sum(1) for part in weight.split(filters, dim=1)], dim=1)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("filters", [100, 255, 256, 300, 1000])
def test_counts_of_more_filters_than_a_byte_holds_are_exact(filters):
    weight = torch.ones(1, 700, 2, 1, 1, dtype=torch.bool)
    found = lane_counts.filter_counts(weight, filters)[0, :, 0].flatten().tolist()
    whole, rest = divmod(700, filters)
    assert found == [filters] * whole + [rest] * (rest > 0)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 700), size=st.sampled_from([1, 3, 64, 255, 256, 500]), sparsity=SPARSITIES)
def test_blocks_count_non_zeros_of_each_part(length, size, sparsity):
    mask = random_masks.random((2, length), sparsity, seed=length)
    expected = [[int(part.sum()) for part in row.split(size)] for row in mask]
    assert lane_counts.blocks(mask, size).tolist() == expected


@given(length=st.integers(1, 40), size=st.integers(1, 12))
def test_rows_of_a_size_hold_the_values_in_order_and_zeros_behind(length, size):
    values = torch.arange(1, length + 1)
    rows = lane_counts.grouped(values, size)
    assert rows.shape == (lane_counts.tiles(length, size), size)
    assert rows.flatten()[:length].tolist() == values.tolist()
    assert not rows.flatten()[length:].any()


@settings(max_examples=40, deadline=None)
@given(high=st.integers(1, 6), wide=st.integers(1, 6), seed=st.integers(0, 99))
def test_pixels_are_summed_by_the_weights_of_their_row_and_column(high, wide, seed):
    mask = random_masks.random((2, high, wide), 0.5, seed=seed)
    up = random_masks.random((high, 3), 0.5, seed=seed + 1).float()
    across = random_masks.random((wide, 2), 0.5, seed=seed + 2).float()
    expected = torch.einsum("nhw,hi,wj->nij", mask.float(), up, across)
    assert torch.equal(lane_counts.folded(mask, up, across), expected)


def test_products_of_counts_stay_exact_where_float32_would_round():
    a = torch.tensor([[16_777_217]])
    assert lane_counts.products(a, torch.ones(1, 1)).item() == 16_777_217


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 8), positions=st.integers(1, 4), length=st.integers(1, 70), seed=st.integers(0, 99)
)
def test_matches_are_places_where_both_are_non_zero(outputs, positions, length, seed):
    weight = random_masks.random((outputs, length), 0.5, seed=seed)
    window = random_masks.random((positions, length), 0.5, seed=seed + 1)
    expected = (weight[:, None] & window).sum(-1)
    assert torch.equal(lane_counts.matches(weight, window).long(), expected)


@settings(max_examples=60, deadline=None)
@given(costs=st.lists(st.integers(0, 9), min_size=1, max_size=20), lanes=st.integers(1, 6))
def test_dealt_units_take_as_long_as_the_lane_with_most_work(costs, lanes):
    assert int(lane_counts.dealt(torch.tensor(costs), lanes)) == max(
        sum(costs[i::lanes]) for i in range(lanes)
    )


def entries_of(column: list[bool], longest: int) -> int:
    """Entries of one lane's column: each weight, and one before each full run of zeros in front of it."""
    entries = zeros = 0
    for weight in column:
        if weight:
            entries, zeros = entries + 1 + zeros // (longest + 1), 0
        else:
            zeros += 1
    return entries


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 70), lanes=st.integers(1, 5), longest=st.sampled_from([1, 3, 15]), sparsity=SPARSITIES
)
def test_interleaved_entries_are_those_of_each_lane_with_its_padding(rows, lanes, longest, sparsity):
    mask = random_masks.random((rows, 3), sparsity, seed=rows).numpy()
    found = lane_counts.interleaved(mask, lanes, longest)
    expected = [
        [entries_of(mask[lane::lanes, k].tolist(), longest) for lane in range(lanes)] for k in range(3)
    ]
    assert found.tolist() == expected


COSTS = st.lists(st.lists(st.integers(1, 5), min_size=3, max_size=3), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(costs=COSTS)
def test_a_queue_for_all_steps_leaves_no_lane_waiting_but_for_the_steps_themselves(costs):
    rows = np.array(costs)
    ends = []
    for lane in rows.T:
        free = 0
        for step, cost in enumerate(lane):
            free = max(free, step) + cost  # a step is sent each cycle
        ends.append(free)
    assert lane_counts.queued(rows, len(costs)) == max(ends)


@settings(max_examples=80, deadline=None)
@given(costs=COSTS)
def test_a_deeper_queue_never_takes_longer_and_no_queue_beats_the_busiest_lane(costs):
    rows = np.array(costs)
    cycles = [lane_counts.queued(rows, depth) for depth in range(1, len(costs) + 1)]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[-1] >= rows.sum(0).max()
    assert cycles[0] <= rows.max(1).sum() + len(costs)


def test_no_steps_take_no_cycle():
    assert lane_counts.queued(np.zeros((0, 4), int), 8) == 0


def test_a_mask_that_is_no_block_of_memory_is_counted_as_one_that_is():
    mask: Tensor = random_masks.random((6, 8), 0.5)
    assert torch.equal(lane_counts.blocks(mask.T, 3), lane_counts.blocks(mask.T.contiguous(), 3))
