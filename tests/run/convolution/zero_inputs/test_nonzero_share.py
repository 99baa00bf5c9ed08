"""When skipping stops to pay: the non-zero share of an input, who is asked then, and which layers are tried at all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import HERE, MACHINES, let_win
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.graph import layers
from zeroskip.run.convolution.zero_inputs import gather, kernels
from zeroskip.run.convolution.zero_inputs.compiled_convolution import CompiledConvolution
from zeroskip.run.convolution.zero_inputs.nonzero_share import (
    PIECE,
    PIECES,
    ROUNDS,
    TRIED,
    break_even,
    meeting,
    nonzero_share,
)
from zeroskip.run.dense import pytorch
from zeroskip.run.select.layer_timing import time_kernels

GATHER, NEAR = kernels.GATHER[:2]
at_every_width = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")


def layer_of(module: nn.Conv2d, x: Tensor) -> Layer:
    (layer,) = layers(module.eval(), x)
    return layer


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 3 * PIECE), seed=st.integers(0, 9))
def test_the_nonzero_share_of_a_small_input_is_exact_up_to_the_last_piece(count: int, seed: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(seed)).relu()
    seen = x[: count // PIECE * PIECE] if count >= PIECE else x
    expected = torch.count_nonzero(seen).item() / max(1, len(seen))
    assert nonzero_share(x, HERE) == pytest.approx(expected)


@at_every_width
def test_not_a_number_counts_as_nonzero(machine: Machine) -> None:
    x = torch.zeros(4 * PIECE)
    x[::4] = torch.nan
    x[1::4] = -0.0
    assert nonzero_share(x, machine) == 0.25


def test_a_large_input_is_looked_at_in_pieces_that_meet_all_channels() -> None:
    x = torch.zeros(40 * PIECES, 512)
    x[:, :256] = 1.0  # every other piece: an even step would see all or nothing
    assert nonzero_share(x, HERE) == pytest.approx(0.5, abs=0.02)


def test_the_break_even_is_where_the_times_meet() -> None:
    low, high = TRIED
    assert meeting(2.0, 1.0, 3.0) == pytest.approx((low + high) / 2)
    assert meeting(1.0, 1.0, 3.0) == pytest.approx(low)
    assert meeting(0.0, 1.0, 3.0) == pytest.approx(0.0) == meeting(0.5, 2.0, 3.0)
    assert meeting(9.0, 1.0, 3.0) == meeting(2.0, 1.0, 1.0) == 1.0


def test_both_are_timed_on_inputs_of_known_nonzero_share_stored_pixel_by_pixel() -> None:
    seen: dict[str, list[float]] = {"skipping": [], "dense": []}

    def noting(name: str, x: Tensor) -> Tensor:
        assert x.is_contiguous(memory_format=torch.channels_last)
        seen[name].append(torch.count_nonzero(x).item() / x.numel())
        return x

    assert 0 <= break_even(partial(noting, "skipping"), partial(noting, "dense"), (1, 64, 20, 20)) <= 1
    low, high = TRIED
    assert seen["skipping"] == pytest.approx([low, high] * ROUNDS, abs=0.02)
    assert seen["dense"] == pytest.approx([high] * ROUNDS, abs=0.02)


def test_inputs_with_more_nonzeros_than_the_break_even_go_to_pytorch_and_others_do_not() -> None:
    layer = layer_of(nn.Conv2d(16, 32, 3), torch.zeros(1, 16, 12, 12))
    asked: list[Tensor] = []

    def theirs(x: Tensor) -> Tensor:
        asked.append(x)
        return pytorch.reference(layer, x, False)

    function = replace(gather.build(layer, HERE, False), dense=theirs, most=0.4)
    x = torch.rand(2, *layer.input_shape)
    for share, count in ((0.3, 0), (0.5, 1), (1.0, 2)):
        given_one = torch.where(x < share, x, 0.0)
        torch.testing.assert_close(function(given_one), pytorch.reference(layer, given_one, False))
        assert len(asked) == count


def test_what_is_built_has_somebody_to_fall_back_on_and_alone_has_nobody() -> None:
    layer = layer_of(nn.Conv2d(8, 16, 3), torch.zeros(1, 8, 6, 6))
    built = GATHER.build(layer, HERE, Precision(), True)
    assert isinstance(built, CompiledConvolution)
    assert built.dense is not None
    assert 0 <= built.most <= 1
    x = torch.randn(3, 8, 6, 6)
    expected = pytorch.reference(layer, x, True)
    torch.testing.assert_close(built(x), expected)
    assert gather.build(layer, HERE, True).dense is None


@pytest.mark.parametrize(
    ("module", "changed", "reason"),
    [
        (nn.Conv2d(4, 4, 3), {"op": "linear"}, "computes convolutions, not linear"),
        (nn.Conv2d(4, 4, 3, groups=2), {}, "2 groups: lists are of all channels"),
        (nn.Conv2d(4, 4, 3, dilation=2), {}, "dilation 2: a window is listed by runs of neighbouring pixels"),
        (nn.Conv2d(4, 4, 3), {"weight": torch.zeros(4, 4, 3, 3).double()}, "not float64"),
        (nn.Conv2d(4, 4, 3), {"weight": torch.zeros(4, 4, 3, 3)}, "100 % of its weights are zero"),
    ],
    ids=["linear", "groups", "dilation", "double", "pruned"],
)
def test_a_refusal_says_why(module: nn.Conv2d, changed: dict[str, object], reason: str) -> None:
    layer = replace(layer_of(module, torch.zeros(1, 4, 9, 9)), **changed)  # type: ignore[arg-type]
    assert reason in (kernels.gather_accepts(layer, HERE, Precision()) or "")


def test_channels_are_worked_on_few_at_a_time_only_where_all_are_many() -> None:
    few = layer_of(nn.Conv2d(8, 16, 3), torch.zeros(1, 8, 6, 6))
    many = layer_of(nn.Conv2d(128, 64, 3), torch.zeros(1, 128, 6, 6))
    assert NEAR.accepts(few, HERE, Precision()) == "its few weights are near without being cut"
    assert NEAR.accepts(many, HERE, Precision()) is None
    assert NEAR.accepts(replace(many, groups=2), HERE, Precision()) == "2 groups: lists are of all channels"
    x = torch.rand(2, 128, 6, 6) * (torch.rand(2, 128, 6, 6) < 0.2)
    near, far = (kernel.build(many, HERE, Precision(), True) for kernel in (NEAR, GATHER))
    torch.testing.assert_close(near(x), pytorch.reference(many, x, True))
    torch.testing.assert_close(near(x), far(x))


def test_places_of_32_bits_are_the_most() -> None:
    weight = torch.ones(1).expand(64, 1 << 14, 1, 1)
    wide = Layer("wide", "conv2d", weight, None, (1 << 14, 4, 4096), (64, 4, 4096))
    assert "32 bits" in (kernels.gather_accepts(wide, HERE, Precision()) or "")
    assert (
        kernels.gather_accepts(
            replace(wide, input_shape=(1 << 14, 4, 8), output_shape=(64, 4, 8)), HERE, Precision()
        )
        is None
    )


@pytest.mark.parametrize(("sparsity", "tried"), [(0.1, False), (0.9, True)])
def test_a_race_tries_it_only_where_the_input_has_zeros(sparsity: float, tried: bool) -> None:
    layer = layer_of(nn.Conv2d(8, 16, 3), torch.zeros(1, 8, 6, 6))
    x = torch.rand(2, 8, 6, 6)
    x[x < sparsity] = 0
    kernels = (pytorch.KERNEL, GATHER)
    found = time_kernels(layer, True, x, machine=HERE, precision=Precision(), kernels=kernels)
    assert ("gather" in found.built) == tried
    assert ("too few to skip" in found.choice.refused.get("gather", "")) != tried


def test_a_network_whose_inputs_are_nearly_all_zero_runs_on_it_and_strict_leaves_it_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_win(monkeypatch, alone={"gather"}, together={"fastest", "joined"})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU()).eval()
    x = torch.rand(2, 64, 12, 12) * (torch.rand(2, 64, 12, 12) < 0.01)
    kernels = (pytorch.KERNEL, GATHER)
    program = run.compile(model, x, kernels=kernels)
    assert [choice.kernel for choice in program.choices] == ["gather"]
    torch.testing.assert_close(program(x[:1]), model(x[:1]))
    strict = run.compile(model, x, kernels=kernels, strict=True)
    assert strict.choices[0].refused["gather"] == "skips zero inputs, and strict was asked for"
