"""Where the zeros of a program are, in how many pieces it runs, and what would gain most: counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from explained_networks import (
    COMPUTER,
    Heads,
    SqueezeAndExcite,
    Words,
    explained,
    facts_of,
    half_zero,
    on,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip.concepts import Between, Explanation, Gain, Precision, Unskipped
from zeroskip.concepts.explanation import percents
from zeroskip.graph.weights import ADDED, TABLE
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.tiling import count_segments
from zeroskip.run.explaining import LEFT_OUT, Facts
from zeroskip.run.kernels import BY_NAME
from zeroskip.run.measurement import Measurement, from_json, table, to_json

IMAGE = torch.randn(1, 8, 6, 6)
LAYERS = ("wide", "squeeze", "excite", "narrow")
TILES = dict.fromkeys(LAYERS, "streamed") | {"depth": "depthwise"}


def shares(explanation: Explanation) -> dict[str, float]:
    return {each.reason: each.share for each in explanation.unskipped}


def gains(explanation: Explanation) -> dict[str, float]:
    return {gain.change: gain.seconds for gain in explanation.advice}


def test_of_a_squeeze_and_excite_block_four_convolutions_skip_zeros_and_five_operations_cut_it() -> None:
    facts = facts_of(half_zero(SqueezeAndExcite()), IMAGE, TILES)
    explanation = explained(facts)
    assert explanation.zeros == (128 + 144 + 64 + 64 + 128) // 2
    assert explanation.zeros_reached == explanation.zeros_won == (128 + 64 + 64 + 128) / 528
    assert shares(explanation) == {"depthwise conv2d: no sparse kernel": 144 / 528}
    assert [(each.operation, each.count) for each in explanation.between] == [
        ("sin", 3),
        ("erf", 1),
        ("hypot", 1),
    ]
    # Streamed ones take 1 s, the depthwise one 3; operations 1 s each.
    assert (explanation.piece_seconds, explanation.sparse_seconds, explanation.seconds) == (7, 4, 12)


def test_a_sine_on_tiles_would_join_pieces_and_save_its_own_time_and_that_of_its_tensors() -> None:
    facts = facts_of(half_zero(SqueezeAndExcite()), IMAGE, TILES)
    # wide | depth | mean, squeeze | excite | narrow; with sin on tiles: all before narrow are one.
    assert count_segments(facts.graph, facts.operations) == 5
    assert count_segments(facts.graph, facts.operations, "sin") == 2
    assert gains(explained(facts))["sin on tiles"] == 3
    first, *rest = facts.parts
    moved = replace(facts, parts=(replace(first, leaving={first.name: 0.25}), *rest))
    gain = next(each for each in explained(moved).advice if each.change == "sin on tiles")
    assert gain.seconds == 3.25
    assert gain.why == "its own time, and that of tensors written and read for it; 3 pieces fewer"


def test_a_network_that_lost_on_tiles_says_so_and_what_its_layers_would_gain_there() -> None:
    facts = facts_of(half_zero(SqueezeAndExcite()), IMAGE, TILES)
    dense = [replace(choice, kernel="dense", skips="nothing", seconds=choice.seconds | {"dense": 4.0})
             for choice in facts.choices]  # fmt: skip
    parts = [replace(part, operation="layers", seconds=4.0, layers=dict.fromkeys(part.layers, 4.0))
             if part.layers else part for part in facts.parts]  # fmt: skip
    lost = replace(facts, choices=dense, parts=parts)
    explanation = explained(lost, lost=True)
    assert (explanation.zeros_reached, explanation.zeros_won) == (384 / 528, 0)
    assert shares(explanation)["the network was not faster on tiles"] == 384 / 528
    assert (explanation.pieces, explanation.tiles_pieces, explanation.tiles_seconds) == (5, 2, 99)
    # Four layers took 1 instead of 4 there, and the depthwise one 3; sin itself takes 3.
    assert gains(explanation)["sin on tiles"] == 3 + 4 * 3 + 1
    assert "on tiles it took 99000.0 ms in 2 pieces" in explanation.lines[1]


def test_a_sparse_kernel_for_a_product_would_gain_its_time_x_its_zeros() -> None:
    facts = facts_of(half_zero(Heads()), torch.zeros(1, 5, dtype=torch.int64), {"head": "spmm"},
                     seconds=lambda name: 8.0 if name == "matmul" else 0.1)  # fmt: skip
    explanation = explained(facts)
    assert explanation.zeros_won == 8 / 60
    assert shares(explanation) == {"matmul: no sparse kernel": 32 / 60, TABLE: 20 / 60}
    assert explanation.advice[0] == Gain("a sparse kernel for matmul", 4.0, "its time x its zeros, 50%")
    assert explanation.between[0] == Between("matmul", 1, 8.0)


def test_zeros_of_an_lstm_are_won_matrix_by_matrix_and_it_is_one_piece() -> None:
    chosen = {"head": "spmm", "lstm.weight_ih_l0": "spmv_fp32", "lstm.weight_hh_l0": "spmv_fp32"}
    words = torch.zeros(1, 5, dtype=torch.int64)
    explanation = explained(facts_of(half_zero(Words()), words, chosen))
    assert (explanation.zeros_reached, explanation.zeros_won) == (200 / 220, 200 / 220)
    assert (explanation.pieces, explanation.sparse_seconds) == (2, 1.0 + 1.0 + 1.0)
    assert shares(explanation) == {TABLE: 20 / 220}
    # Half of each matrix is left; a tenth would be a fifth of the time.
    assert gains(explanation)["90% zeros in 3 layers"] == pytest.approx(3 * 0.8)
    dense = explained(facts_of(half_zero(Words()), words, {"head": "spmm"}))
    assert shares(dense) == {"dense kernels were faster": 192 / 220, TABLE: 20 / 220}


def test_a_convolution_along_three_axes_has_no_sparse_kernel() -> None:
    network = nn.Sequential(nn.Conv3d(4, 8, (3, 1, 1)), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    explanation = explained(facts_of(half_zero(network), torch.randn(1, 4, 8, 1, 1), {"3": "spmm"}))
    assert shares(explanation) == {"conv3d: no sparse kernel": 48 / 96}
    assert gains(explanation)["a sparse kernel for conv3d"] == 4.0 / 2


@pytest.mark.parametrize(
    "layer",
    [nn.Conv1d(4, 8, 3), nn.ConvTranspose1d(4, 8, 3), nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(4, 8, 3)],
)
def test_convolutions_along_one_axis_and_two_and_transposed_ones_are_reached(layer: nn.Module) -> None:
    axes = len(layer.weight.shape) - 2
    facts = facts_of(half_zero(nn.Sequential(layer)), torch.randn(1, 4, *[8] * axes), {"0": "streamed"})
    explanation = explained(facts)
    assert (explanation.zeros_reached, explanation.zeros_won, explanation.unskipped) == (1, 1, ())


def test_a_perceptron_whose_layers_skip_zeros_has_no_reason_left() -> None:
    network = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 10))
    facts = facts_of(half_zero(network), torch.randn(1, 8), {"0": "spmm", "2": "spmm"})
    explanation = explained(facts)
    assert (explanation.zeros_reached, explanation.zeros_won, explanation.unskipped) == (1, 1, ())
    # Half of each is left; a tenth would be a fifth of the time.
    assert gains(explanation) == {"90% zeros in 0": pytest.approx(0.8)}


def test_a_network_of_one_segment_has_nothing_between_and_nothing_to_gain() -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight.zero_()
    facts = facts_of(network.eval(), IMAGE, {"0": "streamed", "2": "streamed"})
    explanation = explained(facts)
    assert count_segments(facts.graph, operations_of(facts.graph)) == 1
    assert (explanation.between, explanation.paying) == ((), ())
    assert explanation.lines[2] == "most to gain: nothing by 5%; sparse kernels take 100.0% of the time"


def test_what_keeps_a_whole_network_off_tiles_is_named() -> None:
    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).view(2, 4, 6, 6))

    facts = facts_of(half_zero(Bound()), torch.cat([IMAGE, IMAGE]), {})
    kind = "conv2d off tiles (the network is bound to 2 examples)"
    assert shares(explained(facts)) == {f"{kind}: no sparse kernel": 1.0}
    assert gains(explained(facts))[f"a sparse kernel for {kind}"] == 4.0


def test_a_weight_that_is_added_or_looked_up_asks_for_no_kernel() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.codes = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(7, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.codes[x] + self.places

    facts = facts_of(Positions(), torch.zeros(2, 4, dtype=torch.int64), {})
    assert shares(explained(facts)) == {TABLE: 21 / 33, ADDED: 12 / 33}
    assert not [change for change in gains(explained(facts)) if "sparse kernel" in change]


def test_kernels_that_were_left_out_are_the_reason() -> None:
    network = nn.Sequential(nn.Linear(8, 4))
    facts = facts_of(half_zero(network), torch.randn(1, 8), {})
    without = on(COMPUTER, facts, tuple(kernel for kernel in facts.kernels if kernel.skips == "nothing"))
    assert shares(explained(without)) == {LEFT_OUT: 1.0}
    assert shares(explained(facts)) == {"dense kernels were faster": 1.0}


def test_zeros_that_are_too_few_are_advised() -> None:
    network = nn.Sequential(nn.Linear(8, 40), nn.Linear(40, 2))
    with torch.no_grad():
        network[1].weight.zero_()
    facts = facts_of(network.eval(), torch.randn(1, 8), {"1": "spmm"})
    first = replace(facts.choices[0], seconds={"dense": 4.0})
    explanation = explained(replace(facts, choices=(first, facts.choices[1])))
    assert explanation.advice[0] == Gain("90% zeros in 0", 3.6, "now 0% zero, and 80% of the time")


def test_fewer_bits_are_advised_only_where_the_machine_computes_with_them() -> None:
    facts = facts_of(half_zero(SqueezeAndExcite()), IMAGE, TILES)
    assert not {'precision="fp16"', 'precision="bf16"'} & {*gains(explained(facts))}
    able = replace(COMPUTER, features=COMPUTER.features | {"avx512fp16", "avx512bw", "amx-bf16"})
    bounds = gains(explained(on(able, facts)))
    assert bounds['precision="fp16"'] == 7 / 2  # four streamed layers and the depthwise one
    assert bounds['precision="bf16"'] == 3 * 15 / 16  # what skips nothing
    asked = replace(on(able, facts), precision=Precision("fp16"))
    assert not {'precision="fp16"', 'precision="bf16"', 'weights="int8"'} & {*gains(explained(asked))}


def test_eight_bits_are_advised_by_how_many_products_of_four_the_zeros_leave() -> None:
    able = replace(COMPUTER, features=COMPUTER.features | {"avx512f", "avx512bw", "avx512vnni"})
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    advised = {}
    for name, mask in (
        ("blocks", torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])),
        ("apart", torch.tensor([1, 0] * 4)),
    ):
        with torch.no_grad():
            network[2].weight.copy_(torch.ones(8, 8, 3, 3) * mask[:, None, None])
        facts = facts_of(network, torch.randn(1, 3, 8, 8), dict.fromkeys("02", "baked"))
        assert not [change for change in gains(explained(facts)) if "int8" in change]
        advised[name] = {k: v for k, v in gains(explained(on(able, facts))).items() if "int8" in k}
    # Each of both layers takes 3 s.
    assert advised["blocks"] == {'precision="int8"': 6 * 3 / 4}
    assert advised["apart"] == {'zeros in 1x4 blocks and precision="int8"': 6 * 3 / 4}


def test_layers_that_take_no_time_that_the_clock_sees_are_advised_nothing() -> None:
    able = replace(COMPUTER, features=COMPUTER.features | {"avx512f", "avx512bw", "avx512vnni"})
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    facts = facts_of(network, torch.randn(1, 4, 8, 8), dict.fromkeys("02", "baked"))
    at_once = tuple(
        replace(part, seconds=0.0, layers=dict.fromkeys(part.layers, 0.0)) for part in facts.parts
    )
    assert not gains(explained(on(able, replace(facts, parts=at_once))))


def test_weights_in_int8_gain_at_most_three_quarters_of_a_kernel_that_has_them() -> None:
    facts = facts_of(half_zero(nn.Sequential(nn.Linear(8, 4))), torch.randn(1, 8), {"0": "spmm"})
    timed = replace(facts.choices[0], seconds={"dense": 4.0, "spmm": 1.0, "gaps_fp32": 2.0})
    assert gains(explained(replace(facts, choices=(timed,))))['weights="int8"'] == 1.0 - 2.0 / 4


def test_a_network_without_zeros_says_that() -> None:
    facts = facts_of(nn.Sequential(nn.Linear(8, 4)).eval(), torch.randn(1, 8), {})
    assert explained(facts).lines[0] == "zeros: the network's weights have none"


@cache
def three_layers() -> Facts:
    """Three linear layers, each timed with a sparse kernel."""
    return facts_of(half_zero(nn.Sequential(*[nn.Linear(3, 3) for _ in range(3)])), torch.randn(1, 3), {})


@settings(deadline=None)
@given(st.tuples(*[st.sampled_from(["spmm", "dense"])] * 3), st.tuples(*[st.integers(0, 9)] * 3))
def test_shares_of_zeros_sum_to_one(kernels: tuple[str, ...], zeros: tuple[int, ...]) -> None:
    choices = [replace(choice, kernel=kernel, skips=BY_NAME[kernel].skips)
               for choice, kernel in zip(three_layers().choices, kernels, strict=True)]  # fmt: skip
    facts = replace(three_layers(), choices=choices, zeros=dict(zip("012", zeros, strict=True)))
    explanation = explained(facts)
    total = explanation.zeros_won + sum(each.share for each in explanation.unskipped)
    assert total == pytest.approx(1.0 if sum(zeros) else 0.0)
    assert explanation.zeros_won <= explanation.zeros_reached <= 1


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=12))
def test_percents_sum_to_100(parts: list[float]) -> None:
    shown = percents([part / sum(parts) for part in parts])
    assert sum(round(10 * float(each.removesuffix("%"))) for each in shown) == 1000
    assert all(
        abs(float(each.removesuffix("%")) - 100 * part / sum(parts)) <= 0.1 + 1e-6
        for each, part in zip(shown, parts, strict=True)
    )


def explanation_of_four_reasons() -> Explanation:
    reasons = [Unskipped(f"reason {number}", 0.2) for number in range(5)]
    between = tuple(Between(f"op{number}", 1, 1e-3) for number in range(6))
    return Explanation(10, 0.0, 0.0, tuple(reasons), 1, between, 1e-3, 0.0)


def test_many_reasons_and_operations_are_summed_up_in_three_lines() -> None:
    zeros, time, advice = explanation_of_four_reasons().lines
    assert zeros.endswith("20.0% reason 2, 40.0% for 2 more reasons")
    assert time.endswith(
        "6.0 ms between them: op0 (1, 1.0 ms), op1 (1, 1.0 ms), op2 (1, 1.0 ms), 3 more (3.0 ms)"
    )
    assert advice == "most to gain: nothing by 5%; sparse kernels take 0.0% of the time"


def test_an_explanation_is_stored_with_the_measurement_and_printed_above_its_table() -> None:
    explanation = explanation_of_four_reasons()
    measured = Measurement((), "fp32", 1, 1, 1e-3, 2e-3, explanation=explanation)
    stored = json.loads(json.dumps(to_json(measured)))
    assert from_json(stored) == measured
    assert from_json(stored | {"explanation": None}).explanation is None
    del stored["explanation"]
    assert from_json(stored).explanation is None
    lines = table(measured, COMPUTER, through=["op0"]).splitlines()
    assert [line.split(":")[0] for line in lines if line[0] in "ztm" and ":" in line] == [
        "zeros",
        "time",
        "most to gain",
    ]
    assert not any("through torch" in line for line in lines)
