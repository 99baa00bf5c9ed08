"""How operands lie in DRAM: sizes are those of the codecs, of loops written out, and of the papers' examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.codecs import bitmask, eie, relative, runlength
from zeroskip.simulate import chips, cross_overs, format_sizes, formats, of_masks, random_masks
from zeroskip.simulate.accelerator import check
from zeroskip.simulate.formats import WAYS

SPARSITIES = st.sampled_from([0.0, 0.3, 0.8, 0.97, 1.0])


def weights(outputs: int, inputs: int, sparsity: float, *, kernel: int = 1, seed: int = 0) -> np.ndarray:
    """A mask (1, outputs, inputs, kernel, kernel)."""
    return random_masks.random((1, outputs, inputs, kernel, kernel), sparsity, seed=seed).numpy()


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 500), sparsity=SPARSITIES, bits=st.sampled_from([4, 8, 16, 64]))
def test_a_bitmask_is_that_of_its_codec_and_the_values(size, sparsity, bits):
    mask = random_masks.random((size,), sparsity, seed=size).numpy()
    found = formats.bitmask(mask, bits)
    assert found.index_bits == bitmask.bits(mask) == size
    assert found.value_bits == mask.sum() * bits


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 500), sparsity=SPARSITIES)
def test_run_length_is_eyeriss_s_code_or_the_values_as_they_are(size, sparsity):
    mask = random_masks.random((size,), sparsity, seed=size).numpy()
    coded = runlength.bits(mask)
    assert coded == 64 * len(runlength.encode(mask.astype(np.int16)))
    assert formats.run_length(mask, 16).bits == min(coded, 16 * size)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 500), sparsity=SPARSITIES)
def test_zero_runs_are_entries_of_4_bits_more_than_a_value_with_a_filler_for_each_16_zeros(size, sparsity):
    mask = random_masks.random((size,), sparsity, seed=size).numpy()
    entries = zeros = 0
    for value in mask:
        if value:
            entries, zeros = entries + 1 + zeros // 16, 0
        else:
            zeros += 1
    found = formats.zero_runs(mask, 8)
    assert (found.value_bits, found.index_bits) == (8 * entries, 4 * entries)
    assert found.bits == relative.bits(mask, 4, 8)


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 200),
    inputs=st.integers(1, 9),
    sparsity=SPARSITIES,
    elements=st.sampled_from([1, 4, 64]),
)
def test_columns_are_those_of_eie_s_codec(outputs, inputs, sparsity, elements):
    mask = weights(outputs, inputs, sparsity, seed=outputs)
    assert formats.columns(elements)(mask, 4).bits == eie.bits(mask.reshape(outputs, inputs), elements)


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 40),
    inputs=st.integers(1, 9),
    sparsity=SPARSITIES,
    block=st.sampled_from([1, 4, 16]),
)
def test_shared_zeros_take_a_bit_for_each_block_and_all_values_of_those_that_have_one(
    outputs, inputs, sparsity, block
):
    mask = weights(outputs, inputs, sparsity, seed=inputs)
    used = sum(
        mask[0, first : first + block, k].any() for first in range(0, outputs, block) for k in range(inputs)
    )
    found = formats.shared(block)(mask, 8)
    assert found.value_bits == used * block * 8
    assert found.index_bits == -(-outputs // block) * inputs


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 12), channels=st.integers(1, 6), kernel=st.integers(1, 2), sparsity=SPARSITIES)
def test_fibers_hold_the_tiles_rows_and_numbers_that_are_there(rows, channels, kernel, sparsity):
    mask = weights(rows, channels, sparsity, kernel=kernel, seed=rows)
    matrix = mask.transpose(0, 1, 3, 4, 2).reshape(rows, -1)
    filled = tiles = 0
    for top in range(0, rows, 3):
        for left in range(0, matrix.shape[1], 3):
            tile = matrix[top : top + 3, left : left + 3]
            tiles += tile.any()
            filled += sum(row.any() for row in tile)
    found = formats.fibers(3)(mask, 64)
    assert found.value_bits == 64 * matrix.sum()
    assert found.index_bits == 32 * matrix.sum() + 64 * filled + 96 * tiles


@pytest.mark.parametrize(
    ("matrix", "numbers", "rows", "tiles", "size"), [("wiki-Vote", 103_689, 45_136, 3_787, 1_650_800)]
)
def test_fibers_of_tiles_of_128_have_the_bytes_that_extensor_s_authors_report(
    matrix, numbers, rows, tiles, size
):
    assert formats.in_tiles(numbers, rows, tiles, 64).bits // 8 == size, matrix


@settings(max_examples=60, deadline=None)
@given(outputs=st.integers(1, 6), channels=st.integers(1, 9), kernel=st.integers(1, 2), sparsity=SPARSITIES)
def test_weights_are_2_4_where_no_four_neighbouring_channels_have_three(outputs, channels, kernel, sparsity):
    mask = weights(outputs, channels, sparsity, kernel=kernel, seed=channels)
    fours = [
        mask[0, m, c : c + 4, r, s].sum()
        for m in range(outputs)
        for c in range(0, channels - 3, 4)
        for r in range(kernel)
        for s in range(kernel)
    ]
    expected = channels % 4 == 0 and max(fours) <= 2
    assert formats.is_two_of_four(mask) == expected
    half = formats.two_of_four(mask, 16)
    assert half.bits == (mask.size * 9 if expected else mask.size * 16)


def test_two_of_four_looks_at_all_of_many_filters():
    mask = np.zeros((1, 200, 4, 1, 1), bool)
    mask[0, :, :2] = True
    assert formats.is_two_of_four(mask)
    mask[0, 199, 2] = True
    assert not formats.is_two_of_four(mask)


def test_bricks_take_4_bits_for_each_value():
    mask = weights(16, 16, 0.5)
    found = formats.bricks(mask, 16)
    assert found.bits == 20 * mask.sum()


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_mask_of_zeros_takes_no_value_where_zeros_are_left_out(way):
    found = WAYS[way](np.zeros(4096, bool), 16)
    if way == "dense":
        assert found.bits == 16 * 4096
    elif way == "run-length":
        assert found.value_bits == 16 * 4096 // 32  # the level after 31 zeros is the 32nd
    else:
        assert found.value_bits == 0


@pytest.mark.parametrize("way", sorted(cross_overs()))
def test_above_its_cross_over_a_way_is_smaller_than_storing_all_and_below_it_is_not(way):
    limit = cross_overs()[way]
    for sparsity, smaller in ((limit - 0.02, False), (limit + 0.02, True)):
        mask = random_masks.random((1 << 19,), sparsity, seed=7).numpy()
        found = WAYS[way](mask, 16).bits if way != "run-length" else runlength.bits(mask)
        assert (found < 16 * mask.size) == smaller, sparsity


def test_cross_overs_of_narrower_values_are_higher():
    wide, narrow = cross_overs(bits=16), cross_overs(bits=8)
    assert all(narrow[way] > wide[way] for way in ("bitmask", "zero runs", "bricks"))
    assert narrow["bitmask"] == pytest.approx(1 / 8)
    assert wide["bricks"] == pytest.approx(4 / 20)


def test_sizes_of_a_network_are_those_of_each_mask_in_the_order_of_its_layers():
    works = [
        of_masks(name, random_masks.random((8, 32), sparsity), random_masks.random((2, 32), 0.5, seed=3))
        for name, sparsity in (("fc1", 0.9), ("fc2", 0.2))
    ]
    found = format_sizes(works, bits=8)
    assert [(sizes.layer, sizes.operand) for sizes in found] == [
        ("fc1", "weights"), ("fc1", "inputs"), ("fc2", "weights"), ("fc2", "inputs"),
    ]  # fmt: skip
    for sizes, mask in zip(
        found, [mask for work in works for mask in (work.weight, work.input)], strict=True
    ):
        assert sizes.sparsity == pytest.approx(1 - mask.float().mean().item())
        assert sizes.bits == {name: way(mask.numpy(), 8).bits for name, way in WAYS.items()}


def test_a_chip_stores_its_operands_in_its_own_format_and_others_as_they_are():
    check(chips.SPARTEN)
    mask = torch.arange(64).reshape(1, 1, 64, 1, 1) < 10
    assert chips.SPARTEN.format("W")(mask.numpy(), 8).bits == 64 + 80
    assert chips.DENSE.format("W")(mask.numpy(), 8).bits == 64 * 8
    assert chips.EIE.format("W")(mask.numpy(), 4).bits == formats.columns(64)(mask.numpy(), 4).bits
