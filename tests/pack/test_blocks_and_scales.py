"""Zeros in blocks are stored block by block, weights of eight bits as bytes and scales: both exact, bit for bit."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from zs_bytes import file_of, refused_or_written_again

from zeroskip import pack, patterns
from zeroskip.codecs import arithmetic, blocks
from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack import block_search, position_coding, scaled_bytes, tensor_coding, zs_file

SPARSITIES = st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0])
PAIRS = [
    *[(places, "exact") for places in ("bitmask", "gaps2", "gaps5", "huffman3")],
    *[("bitmask", "fixed"), ("gaps4", "huffman"), ("huffman2", "huffman")],
]


def bits_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.shape, bits_of(one)) == (other.dtype, other.shape, bits_of(other))


def in_blocks(
    shape: tuple[int, ...], block: tuple[int, ...], sparsity: float, seed: int, *, within: float = 0.04
) -> Tensor:
    """Normal weights, 0.0 outside of the blocks that stay; within them a share is 0.0, half as many -0.0."""
    random = torch.Generator().manual_seed(seed)
    grid = torch.rand(blocks.grid(shape, block), generator=random) >= sparsity
    mask = torch.from_numpy(blocks.spread(grid.numpy(), shape, block).copy())
    weight = torch.randn(shape, generator=random)
    weight[torch.rand(shape, generator=random) < within] = 0.0
    weight[torch.rand(shape, generator=random) < within / 2] = -0.0
    return weight.masked_fill(~mask, 0.0)


def of_bytes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (out, ...) rounded to bytes times a scale of its output, largest byte 127; and the scales (out,)."""
    largest = weight.reshape(len(weight), -1).abs().amax(1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    by_output = scales.reshape(-1, *[1] * (weight.ndim - 1))
    return (weight / by_output).round().clamp(-127, 127) * by_output + 0.0, scales


@st.composite
def shapes_and_blocks(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    block = tuple(draw(st.integers(1, side)) for side in shape)
    return shape, block


def stored(
    tensor: Tensor, block: tuple[int, ...], pair: tuple[str, str], scales: Tensor | None = None
) -> PackedTensor:
    """The tensor in this block and these codings, whatever would be smaller."""
    bits = tensor_coding.tensor_bits("w", tensor)
    bits = bits if scales is None else tensor_coding.in_bytes(bits, scales.numpy())
    return tensor_coding.encoded(dataclasses.replace(bits, block=block), *pair)


@settings(max_examples=30)
@given(shapes_and_blocks(), SPARSITIES, st.integers(0, 10**6))
def test_blocks_of_a_mask_are_those_that_hold_a_position_and_spread_over_all_of_theirs(
    sides, sparsity, seed
) -> None:
    shape, block = sides
    grid = np.random.default_rng(seed).random(blocks.grid(shape, block)) >= sparsity
    mask = blocks.spread(grid, shape, block)
    for place in np.ndindex(shape):
        assert mask[place] == grid[tuple(at // side for at, side in zip(place, block, strict=True))]
    assert np.array_equal(blocks.gathered(mask, block), grid)
    assert blocks.elements(np.flatnonzero(grid), shape, block) == np.count_nonzero(mask)


@settings(deadline=None, max_examples=60)
@given(shapes_and_blocks(), st.sampled_from(PAIRS), SPARSITIES, st.booleans(), st.integers(0, 10**6))
def test_any_block_comes_back_bit_for_bit_from_a_file_in_every_coding(
    sides, pair, sparsity, scaled, seed
) -> None:
    shape, block = sides
    weight, scales = in_blocks(shape, block, sparsity, seed), None
    if scaled:
        weight, scales = of_bytes(weight)
    if not bits_of(weight).strip(b"\0"):
        pair = ("bitmask", "exact")  # other codes are of at least one symbol
    one = stored(weight, block if max(block) > 1 else (), pair, scales)
    data = zs_file.serialize((one,), {})
    assert pack.from_bytes(data).tensors == (one,)
    assert same(pack.decode(pack.from_bytes(data))["w"], weight)


@settings(deadline=None, max_examples=30)
@given(
    shapes_and_blocks(),
    st.sampled_from(["fixed", "huffman"]),
    SPARSITIES,
    st.booleans(),
    st.integers(0, 10**6),
)
def test_what_the_encoder_chooses_comes_back_and_is_no_larger_than_without_blocks(
    sides, coder, sparsity, scaled, seed
) -> None:
    shape, block = sides
    weight = in_blocks(shape, block, sparsity, seed)
    weight = of_bytes(weight)[0] if scaled else weight
    packed = pack.encode({"w": weight}, coder=coder)
    assert same(pack.decode(pack.from_bytes(pack.to_bytes(packed)))["w"], weight)
    assert packed.stored_bytes == len(pack.to_bytes(packed))
    plain = [stored(weight, (), pair) for pair in (("dense", "exact"), ("bitmask", "exact"))]
    assert (
        packed.stored_bytes <= min(len(zs_file.serialize((one,), {})) for one in plain) + 1
    )  # the number of ties


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(
    ("pattern", "shape", "block"),
    [
        ("1x4", (64, 64), (1, 4)),
        ("4x1", (64, 60), (4, 1)),
        ("16x1", (96, 64), (16, 1)),
        ("32x32", (256, 256), (32, 32)),
        ("1x4", (32, 32, 3, 3), (1, 4, 1, 1)),
        ("1x1x3x3", (40, 30, 3, 3), (1, 1, 3, 3)),
        ("2x1x3", (40, 30, 3), (2, 1, 3)),
        ("6x1", (96, 64), (6, 1)),
        ("channel", (80, 8, 3, 3), (1, 8, 3, 3)),
    ],
)
def test_the_block_of_a_pattern_is_found_though_bytes_within_it_are_zero(
    pattern, shape, block, sparsity
) -> None:
    score = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    mask = patterns.keep(score, pattern, sparsity)
    with_zeros = mask & (score > 0.02)
    for found in (mask, with_zeros):
        assert block_search.find(found.numpy(), 7.8, 8) == block


@pytest.mark.parametrize(
    ("shape", "block"), [((120, 30), (1, 4)), ((50, 70), (4, 1)), ((30, 30, 3, 3), (1, 4, 1, 1))]
)
def test_a_last_block_that_does_not_fill_is_shorter(shape, block) -> None:
    weight = in_blocks(shape, block, 0.8, seed=2)
    (one,) = pack.encode({"w": weight}).tensors
    assert one.block == block
    assert len(one.values) == 4 * blocks.elements(
        np.flatnonzero(blocks.gathered(weight.view(torch.int32).numpy() != 0, block)), shape, block
    )


def test_zeros_without_blocks_have_none_and_their_files_stay_as_they_were() -> None:
    score = torch.rand(24, 30, 3, 3, generator=torch.Generator().manual_seed(3))
    for sparsity in (0.0, 0.5, 0.9, 1.0):
        packed = pack.encode({"w": torch.randn(score.shape).masked_fill(score < sparsity, 0.0)})
        assert packed.tensors[0].block == ()
        assert b"ZSKP\x02" in pack.to_bytes(packed)


def test_positions_take_one_bit_a_block_and_the_table_says_so() -> None:
    weight = in_blocks((64, 64), (1, 4), 0.5, seed=4, within=0.0)
    packed = pack.encode({"w": weight}, coder="fixed")
    assert packed.ledger["w"]["positions"] == 64 * 64 // 4 // 8
    kept = packed.tensors[0].kept
    assert pack.codings(packed) == {"w": f"1x4 bitmask, {64 * 64 / 4 / kept:.1f} bits"}


def test_random_1x4_blocks_of_bytes_take_little_more_than_their_entropy() -> None:
    weight, _ = of_bytes(in_blocks((384, 384), (1, 4), 0.9, seed=5))
    packed = pack.encode({"w": weight})
    (one,) = packed.tensors
    share = one.kept / (384 * 96)
    places = -384 * 96 * (share * math.log2(share) + (1 - share) * math.log2(1 - share)) / 8
    assert (one.block, bool(one.scales)) == ((1, 4), True)
    assert packed.ledger["w"]["positions"] < 1.04 * places
    assert packed.ledger["w"]["values"] <= 4 * one.kept  # a byte each
    assert packed.stored_bytes < 1.04 * (places + 4 * one.kept) + 4 * 384


@pytest.mark.parametrize("values", ["exact", "arithmetic"])
@pytest.mark.parametrize(
    ("shape", "block"),
    [((9, 30), (1, 4)), ((7, 6, 3, 3), (2, 1, 3, 3)), ((40,), (3,)), ((5, 9, 4), (2, 4, 3))],
)
def test_arithmetic_codes_of_blocks_come_back_bit_for_bit(shape, block, values) -> None:
    weight, scales = of_bytes(in_blocks(shape, block, 0.7, seed=8))
    one = stored(weight, block, ("arithmetic", values), scales)
    assert pack.from_bytes(zs_file.serialize((one,), {})).tensors == (one,)
    assert same(tensor_coding.decode_tensor(one), weight)
    with pytest.raises(PackError, match=f"hold.* {one.kept} |{one.kept} positions, not"):
        tensor_coding.decode_tensor(dataclasses.replace(one, kept=one.kept + 1))


def test_arithmetic_codes_of_blocks_hold_positions_and_values_in_no_more_bytes_than_huffman_codes() -> None:
    random = torch.Generator().manual_seed(6)
    grid = torch.rand(100, 75, generator=random) < 0.3
    grid[:, torch.rand(75, generator=random) < 0.66] = False  # columns that no other coding sees
    levels = torch.randint(1, 9, (100, 300), generator=random) / 8
    weight = levels.masked_fill(~grid.repeat_interleave(4, 1), 0.0)
    sizes = {coder: pack.encode({"w": weight}, coder=coder) for coder in ("huffman", "arithmetic")}
    one = sizes["arithmetic"].tensors[0]
    assert (one.coding, one.values_coding, one.block) == ("arithmetic", "arithmetic", (1, 4))
    assert sizes["arithmetic"].stored_bytes < 0.99 * sizes["huffman"].stored_bytes
    assert same(pack.decode(sizes["arithmetic"])["w"], weight)
    with pytest.raises(PackError, match=r"are not whole blocks of \(1, 2\)"):
        arithmetic.encode(np.eye(2, dtype=bool), np.zeros(2, int), 1, (1, 2))


@settings(max_examples=50)
@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=20))
def test_every_byte_times_a_scale_is_that_byte_again_when_it_is_divided_by_the_scale(numbers) -> None:
    """Product and quotient are each off by at most 2^-24 of themselves: 127 x 2^-23 is far below a half."""
    scales = torch.tensor(numbers, dtype=torch.float32)[:, None]
    stored_bytes = torch.arange(-127.0, 128)
    assert torch.equal((scales * stored_bytes / scales).round(), stored_bytes.expand(len(scales), -1))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(-90, 90))
def test_scales_of_rounded_weights_are_found_and_give_the_same_weights_bit_for_bit(seed, exponent) -> None:
    random = torch.Generator().manual_seed(seed)
    weight, _ = of_bytes(
        torch.randn(6, 40, generator=random) * torch.rand(6, 1, generator=random) * 2**exponent
    )
    scales = scaled_bytes.find(weight.numpy())
    assert scales is not None
    stored_bytes = scaled_bytes.bytes_of(weight.numpy(), scales)
    assert np.abs(stored_bytes.reshape(6, 40)).max(axis=1).tolist() == [127] * 6
    again = scaled_bytes.weights_of(stored_bytes, scales.tobytes(), (6, 40))
    assert again.tobytes() == weight.numpy().tobytes()


@pytest.mark.parametrize("change", [1.0, 1.0000001, float("inf"), -0.0])
def test_one_weight_that_is_no_product_keeps_the_tensor_as_it_is(change) -> None:
    weight, _ = of_bytes(torch.randn(20, 30, generator=torch.Generator().manual_seed(7)))
    weight[17, 3] = weight[17, 4] * change if change not in (1.0, -0.0) else change
    (one,) = pack.encode({"w": weight}).tensors
    assert (one.scales, one.dtype) == (b"", "float32")
    assert same(pack.decode(pack.encode({"w": weight}))["w"], weight)


def test_given_scales_need_no_byte_of_127_and_are_those_that_the_file_holds() -> None:
    scales = torch.tensor([0.3, 1.7])
    weight = torch.tensor([[3.0, -128.0], [0.0, 5.0]]) * scales[:, None]
    packed = pack.encode(
        {"w": weight, "tied": weight, "none": weight[:0]}, scales={"tied": scales, "none": scales[:0]}
    )
    assert packed.tensors[0].scales == scales.numpy().tobytes()
    assert packed.ledger["w"]["scales"] == 8
    assert pack.codings(packed) == {"w": "dense; bytes", "none": "dense", "tied": "tied to w"}
    decoded = pack.decode(pack.from_bytes(pack.to_bytes(packed)))
    assert same(decoded["w"], weight)
    assert same(decoded["none"], weight[:0])


@pytest.mark.parametrize(
    ("scales", "fact"),
    [
        ([torch.ones(2)], "scales is a list. Give a dict of tensors by name"),
        ({"v": torch.ones(2)}, "scales names 'v', and there is no such tensor"),
        ({"w": torch.ones(3)}, r"'w': scales of \(3,\) are not one for each output of a tensor of \(2, 2\)"),
        ({"w": torch.ones(2, 1)}, "are not one for each output"),
        (
            {"w": torch.ones(2).half()},
            "its scales are torch.float16, torch.strided; give a plain float32 tensor",
        ),
        ({"w": 1.0}, "its scales are float; give a plain float32 tensor"),
        ({"w": torch.tensor([1.0, 0.0])}, "should lie between"),
        ({"w": torch.tensor([1.0, -1.0])}, "should lie between"),
        ({"w": torch.tensor([1.0, float("nan")])}, "should lie between"),
        ({"w": torch.tensor([1.0, 0.3])}, "output 1 is not its scale times whole numbers of -128 to 127"),
        ({"n": torch.ones(2)}, "it is int64, and only float32 numbers are bytes times scales"),
        ({"s": torch.ones(1)}, "are not one for each output"),
    ],
)
def test_scales_that_do_not_fit_are_refused_in_words(scales, fact) -> None:
    state = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "n": torch.tensor([1, 2]), "s": torch.tensor(1.0)}
    with pytest.raises(PackError, match=fact):
        pack.encode(state, scales=scales)


# "w": float32 as bytes x scales, 2 x 6, bitmask of 1x4 blocks (1x2 at the end), 5 non-zeros, 2 blocks, 6 bytes of
# values: blocks 0 1 1 0, scales 0.5 and 2, bytes 0 1 of the first row and 7 0 -1 3 of the second; no ties
PARTS = {
    "kind": "88", "shape": "02 02 06", "coding": "41", "block": "01 04", "counts": "04 02 06",
    "scales": "0000003f 00000040", "positions": "60", "values": "00 01  07 00 ff 03", "ties": "00",
}  # fmt: skip


def file(*, version: int = 4, **changes: str) -> bytes:
    content = "01 0177" + "".join({**PARTS, **changes}.values())
    return file_of(bytes.fromhex(content), b"ZSKP" + bytes([version]))


GOLDEN = file()
GOLDEN_WEIGHT = torch.tensor([[0, 0, 0, 0, 0, 0.5], [14, 0, -2, 6, 0, 0]])


def test_a_golden_file_of_blocks_and_scales_is_read_and_written_byte_for_byte() -> None:
    packed = pack.from_bytes(GOLDEN)
    assert same(pack.decode(packed)["w"], GOLDEN_WEIGHT)
    assert pack.to_bytes(packed) == GOLDEN
    scales = torch.tensor([0.5, 2.0])
    assert stored(GOLDEN_WEIGHT, (1, 4), ("bitmask", "exact"), scales) == packed.tensors[0]


HOSTILE = {
    "a later version": (file(version=5), "format version is not 2, 3 or 4"),
    "an earlier version": (file(version=3), "coding 65 is unknown"),
    "a block with a side of 0": (file(block="01 00"), "blocks of (1, 0) are none"),
    "a block of one element": (file(block="01 01"), "blocks of (1, 1) are none"),
    "a block wider than the tensor": (file(block="01 07"), "7 elements along a side of a block are more than 6"),
    "a dense tensor in blocks": (file(coding="40"), "blocks of (1, 4) are none of a dense tensor"),
    "more blocks than there are": (file(counts="04 05 06"), "5 blocks are more than 4"),
    "another number of blocks": (file(counts="04 01 06"), "2 positions, not 1"),
    "another number of non-zeros": (file(counts="05 02 06"), "4 of its values are not zero, but 5 should be"),
    "more values than the blocks have": (
        file(counts="04 02 07", values="00 01 07 00 ff 03 00"),
        "6 values of int8 take 6 bytes, not 7",
    ),
    "a bit behind the grid": (file(positions="68"), "a bit is set"),
    "a scale of 0": (file(scales="0000003f 00000000"), "a scale of its bytes does not lie between"),
    "a scale below 0": (file(scales="000000bf 00000040"), "does not lie between"),
    "a scale of NaN": (file(scales="0000c07f 00000040"), "does not lie between"),
    "a scale of infinity": (file(scales="0000807f 00000040"), "does not lie between"),
    "a subnormal scale": (file(scales="01000000 00000040"), "does not lie between"),
    "scales of an int32": (file(kind="84"), "8 bytes are no scales of the outputs of int32"),
    "no ties, not even their number": (file(ties=""), "ends after"),
    "version 4 without need": (
        file(kind="02", coding="00", block="", counts="0c", scales="", positions="", values="01" * 12),
        "it differs from",
    ),
    "scales of a tensor without outputs": (
        file(shape="02 00 06", coding="01", block="", counts="00", scales="", positions="", values=""),
        "it differs from",
    ),
    "scales of a single number": (
        file(shape="00", coding="00", block="", counts="01", scales="", positions="", values="01 01 01 01"),
        "1 values of float32 take 4 bytes, not 1",
    ),
    "a block that holds 2^31 elements": (
        file(
            shape="02 02 8080808004", block="02 8080808004", counts="01 01 01", scales="0000003f" * 2,
            positions="80", values="01",
        ),
        "2,147,483,648 values|more than|elements",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "fact"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_blocks_and_scales_are_refused_for_what_is_wrong_with_them(data, fact) -> None:
    with pytest.raises(PackError) as refused:
        pack.from_bytes(data)
    assert any(each in str(refused.value) for each in fact.split("|")), refused.value


def test_every_single_bit_of_a_file_with_blocks_and_scales_matters() -> None:
    for bit in range(8 * len(GOLDEN)):
        changed = bytearray(GOLDEN)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PackError):
            pack.from_bytes(bytes(changed))
    for length in range(len(GOLDEN)):
        with pytest.raises(PackError):
            pack.from_bytes(GOLDEN[:length])


@settings(deadline=None, max_examples=100)
@given(start=st.integers(0, 30), noise=st.binary(max_size=12), pair=st.sampled_from(PAIRS))
def test_any_content_behind_a_right_checksum_is_refused_or_written_again_byte_for_byte(
    start, noise, pair
) -> None:
    one = stored(GOLDEN_WEIGHT, (1, 4), pair, torch.tensor([0.5, 2.0]))
    data = zs_file.serialize((one,), {})
    content = data[data.index(b"ZSKP") + 9 :]
    refused_or_written_again(file_of(content[:start] + noise + content[start + len(noise) :], b"ZSKP\x04"))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"kept": 1}, "2 positions, not 1"),
        ({"block": (4,)}, "blocks of (4,) are none"),
        ({"block": ()}, "2 blocks are kept, and there is no block"),
        ({"scales": bytes(8)}, "does not lie between"),
        ({"scales": b"1234"}, "4 bytes are no scales"),
        ({"dtype": "float64"}, "8 bytes are no scales of the outputs of float64"),
        ({"kept": -1}, "-1 blocks are not all whole numbers"),
    ],
)
def test_blocks_and_scales_put_together_by_hand_are_checked_before_they_are_decoded(change, fact) -> None:
    packed = pack.from_bytes(GOLDEN)
    made = dataclasses.replace(packed, tensors=(dataclasses.replace(packed.tensors[0], **change),))
    with pytest.raises(PackError) as refused:
        pack.decode(made)
    assert fact in str(refused.value)


def test_the_positions_of_a_grid_are_counted_row_by_row() -> None:
    one = stored(GOLDEN_WEIGHT, (1, 4), ("gaps2", "exact"))
    assert position_coding.decode(one, 4, np.zeros(0, np.uint8)).tolist() == [1, 2]
