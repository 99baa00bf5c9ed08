"""Patterns: what each notation means, in small tensors one can check by eye."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.errors import PatternError
from zeroskip.patterns import block_scores, block_size, keep, parse


def test_two_of_four_keeps_exactly_the_two_largest_of_every_four() -> None:
    score = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0, 5.0, 6.0, 0.0]])
    expected = [[True, False, True, False, False, True, True, False]]
    assert keep(score, "2:4", 0.5).tolist() == expected


def test_two_of_four_groups_inputs_at_one_tap_of_a_convolution() -> None:
    score = torch.rand(3, 8, 3, 3)
    mask = keep(score, "2:4", 0.5)
    assert (mask.reshape(3, 2, 4, 3, 3).sum(2) == 2).all()


def test_free_keeps_the_largest_wherever_they_are() -> None:
    score = torch.tensor([[1.0, 9.0], [8.0, 2.0]])
    assert keep(score, "free", 0.5).tolist() == [[False, True], [True, False]]


def test_a_block_of_four_outputs_lives_and_dies_together() -> None:
    score = torch.tensor([[1.0, 0.0]] * 3 + [[1.0, 100.0]] + [[2.0, 0.0]] * 4)  # column sums 4, 100, 8, 0
    mask = keep(score, "4x1", 0.5)
    assert mask.tolist() == [[False, True]] * 4 + [[True, False]] * 4


def test_a_kernel_block_removes_whole_3x3_kernels() -> None:
    score = torch.rand(4, 5, 3, 3)
    mask = keep(score, "1x1x3x3", 0.6)
    assert set(mask.sum((2, 3)).flatten().tolist()) == {0, 9}
    assert mask.sum() == 8 * 9  # 20 kernels, 12 gone


def test_channel_removes_whole_outputs_of_both_kinds_of_layer() -> None:
    linear, conv = keep(torch.rand(10, 7), "channel", 0.3), keep(torch.rand(10, 2, 3, 3), "channel", 0.3)
    assert sorted(linear.sum(1).tolist()) == [0] * 3 + [7] * 7
    assert sorted(conv.sum((1, 2, 3)).tolist()) == [0] * 3 + [18] * 7


@given(
    outs=st.integers(1, 6),
    ins=st.integers(1, 6),
    sparsity=st.floats(0, 1),
    block=st.sampled_from(["free", "2x1", "1x3", "2x2", "channel"]),
)
def test_the_number_of_survivors_is_exact_and_they_beat_all_others(
    outs: int, ins: int, sparsity: float, block: str
) -> None:
    outs, ins = outs * 2, ins * 6
    score = torch.rand(outs, ins)
    pattern = parse(block)
    mask = keep(score, pattern, sparsity)
    blocks, size = block_scores(score, pattern), block_size((outs, ins), pattern)
    assert mask.sum() == (blocks.numel() - round(sparsity * blocks.numel())) * size
    alive = block_scores(mask.float(), pattern) > 0
    if alive.any() and not alive.all():
        assert blocks[alive].min() >= blocks[~alive].max()


def test_the_last_block_of_an_axis_may_be_shorter_and_counts_by_its_mean() -> None:
    score = torch.tensor([[2.5, 2.5, 2.5, 2.5, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
    assert keep(score, "1x4", 10 / 12).tolist() == [[False] * 4 + [True] * 2, [False] * 6]
    assert keep(score, "1x4", 0.5).tolist() == [[True] * 6, [False] * 6]
    assert block_scores(score, parse("1x4")).tolist() == [[10.0, 12.0], [4.0, 0.0]]
    taps = keep(torch.arange(1.0, 26.0).reshape(1, 1, 5, 5), "1x1x3x3", 9 / 25)  # 3x3, 3x2, 2x3 and 2x2 taps
    assert not taps[0, 0, :3, :3].any()
    assert taps.sum() == 16


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(4, 9), min_size=2, max_size=4).map(tuple),
    block=st.sampled_from([(1, 4), (4, 1), (2, 3)]),
    sparsity=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_shorter_blocks_stay_or_go_whole_best_means_first_as_near_the_sparsity_as_they_can(
    shape: tuple[int, ...], block: tuple[int, int], sparsity: float, seed: int
) -> None:
    score = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    mask = keep(score, "x".join(map(str, block)), sparsity)
    score, mask = (each.reshape(*shape[:2], -1) for each in (score, mask))  # (out, in, taps)
    means: dict[bool, list[float]] = {True: [], False: []}
    places = range(0, shape[0], block[0]), range(0, shape[1], block[1]), range(score.shape[2])
    for out, ins, tap in itertools.product(*places):
        part = (slice(out, out + block[0]), slice(ins, ins + block[1]), tap)
        assert mask[part].all() == mask[part].any()
        means[bool(mask[part].all())].append(float(score[part].mean()))
    assert min(means[True], default=1.0) >= max(means[False], default=0.0) - 1e-6
    assert abs(float(mask.sum()) - (1 - sparsity) * score.numel()) <= block[0] * block[1] / 2 + 1e-3


def test_equal_scores_keep_the_earlier_ones_so_that_runs_repeat() -> None:
    assert keep(torch.ones(1, 6), "free", 0.5).tolist() == [[True] * 3 + [False] * 3]


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_the_edges_keep_everything_and_nothing(sparsity: float) -> None:
    assert keep(torch.rand(3, 4), "free", sparsity).all() == (sparsity == 0.0)
    assert keep(torch.rand(3, 4), "free", sparsity).any() == (sparsity == 0.0)


@pytest.mark.parametrize(
    "text", ["", "2:2", "0:4", "4:2", "x", "4x", "4", "0x1", "1x1x0", "2:4x1", "Free", "1x1x1x1x1x1"]
)
def test_what_is_no_pattern_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(PatternError, match=f'"{text}" cannot be read. Use "free"'):
        parse(text)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity: float) -> None:
    with pytest.raises(PatternError, match="not a share from 0 to 1"):
        keep(torch.rand(2, 2), "free", sparsity)


@pytest.mark.parametrize(
    ("shape", "pattern", "fact"),
    [
        ((4, 6), "2:4", "6 inputs cannot be split into groups of 4"),
        ((3, 4), "4x1", "3 outputs are fewer than a block of 4"),
        ((4, 1, 3, 3), "1x4", "1 input is fewer than a block of 4"),
        ((4, 4), "1x1x3x3", "1 row is fewer than a block of 3"),
        ((4, 4, 2), "1x1x3", "2 taps are fewer than a block of 3"),
        ((4, 4, 3), "1x1x3x3", "blocks of 2 axes of taps need a weight of as many, and it has 1"),
        ((4, 4, 3, 3), "1x1x3", "blocks of 1 axis of taps need a weight of as many, and it has 2"),
        ((4, 6, 3), "2:4", "6 inputs cannot be split into groups of 4"),
        ((4,), "free", "has no outputs and inputs"),
        ((4,), "2:4", "has no outputs and inputs"),
    ],
)
def test_a_pattern_that_does_not_fit_names_the_numbers(
    shape: tuple[int, ...], pattern: str, fact: str
) -> None:
    sparsity = parse(pattern).fixed_sparsity or 0.5
    with pytest.raises(PatternError, match=fact):
        keep(torch.rand(shape), pattern, sparsity)


def test_a_pattern_that_fixes_its_sparsity_refuses_another() -> None:
    with pytest.raises(PatternError, match="fixes the sparsity at 0.75, not 0.5"):
        keep(torch.rand(4, 4), "1:4", 0.5)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(PatternError, match="NaN"):
        keep(torch.tensor([[float("nan"), 1.0]]), "free", 0.5)


def test_brute_force_agrees_on_the_best_free_mask_of_a_small_weight() -> None:
    score = torch.rand(2, 3)
    best = max(
        itertools.combinations(range(6), 2), key=lambda kept: sum(score.flatten()[i].item() for i in kept)
    )
    assert keep(score, "free", 4 / 6).flatten().nonzero().flatten().tolist() == list(best)


@pytest.mark.parametrize("taps", [(3,), (2, 2, 3)], ids=["one dimension", "three dimensions"])
def test_a_pattern_means_the_same_for_convolutions_of_any_number_of_axes(taps: tuple[int, ...]) -> None:
    score = torch.rand(4, 8, *taps)
    for text in ("free", "2:4", "4x1", "channel"):
        sparsity = parse(text).fixed_sparsity or 0.5
        as_flat = keep(
            score.reshape(4, 8, 1, -1), text, sparsity
        )  # a convolution of one row and all taps in it
        assert torch.equal(keep(score, text, sparsity), as_flat.reshape(score.shape))
    kernels = keep(score, "x".join(map(str, (1, 1, *taps))), 0.5)
    assert set(kernels.flatten(2).sum(2).flatten().tolist()) == {0, score[0, 0].numel()}


@pytest.mark.parametrize(("dtype", "one_less"), [(torch.bfloat16, 256), (torch.float16, 2048)])
def test_the_largest_row_stays_though_half_precision_has_no_number_for_its_sum(
    dtype: torch.dtype, one_less: int
) -> None:
    score = torch.full((4, 128), one_less / 128, dtype=dtype)
    score[3, 0] += 1
    assert score[3].sum() == score[0].sum()
    assert keep(score, "channel", 0.75).any(1).tolist() == [False, False, False, True]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["channel", "4x1", "2x4"]))
def test_half_precision_never_decides_which_block_stays(seed: int, text: str) -> None:
    score = torch.rand(8, 512, generator=torch.Generator().manual_seed(seed)).bfloat16()
    assert torch.equal(keep(score, text, 0.5), keep(score.float(), text, 0.5))


def test_what_is_no_text_and_no_number_is_refused() -> None:
    with pytest.raises(PatternError, match="is a text such as"):
        parse(4)  # type: ignore[arg-type]
    with pytest.raises(PatternError, match="'0.5' is no number"):
        keep(torch.ones(2, 4), "free", "0.5")  # type: ignore[arg-type]
