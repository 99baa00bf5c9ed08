"""Zeros on both sides: what is read, and when PyTorch is asked instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from run.drawn import HERE, random_layer, with_zeros
from torch import nn

from zeroskip import run
from zeroskip.concepts import Layer, Precision
from zeroskip.emit import assembly
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.compiled_linear import CompiledLinear
from zeroskip.run.linear.zero_inputs import columns_sparse

WIDE = replace(HERE, vector_bytes=64)  # what it is written for, whatever machine runs the tests
on_avx512 = pytest.mark.skipif(HERE.vector_bytes != 64, reason="the kernel runs on AVX-512 only")


def build(layer: Layer, *, relu: bool = False) -> CompiledLinear:
    return columns_sparse.without_fallback(layer, HERE, relu)


@on_avx512
@pytest.mark.parametrize("row", [0, 15, 16, 63, 64, 129])
@pytest.mark.parametrize("column", [0, 255, 256, 299])
def test_a_single_weight_of_2_doubles_its_input_and_leaves_the_other_outputs_at_the_bias(
    row: int, column: int
) -> None:
    weight, bias = torch.zeros(130, 300), torch.arange(130.0)
    weight[row, column] = 2.0
    x = torch.randn(2, 300)
    expected = bias.repeat(2, 1)
    expected[:, row] += 2 * x[:, column]
    torch.testing.assert_close(build(Layer("single", "linear", weight, bias, (300,), (130,)))(x), expected)


@on_avx512
def test_an_infinite_weight_is_not_even_looked_at_for_an_input_of_zero() -> None:
    layer, x = random_layer(70, 60, 0.5), with_zeros(3, 60, 0.5)
    x[:, 4] = torch.tensor([0.0, -0.0, 0.0])
    expected = pytorch.reference(layer, x, False)
    layer.weight[:, 4] = float("inf")
    torch.testing.assert_close(build(layer)(x), expected)


@on_avx512
def test_16_examples_fall_back_to_pytorch_where_less_than_half_are_zeros() -> None:
    layer = random_layer(70, 60, 0.5)
    layer.weight[:, 0] = float("inf")  # who skips the input of 0 that meets it has outputs that are numbers
    function = columns_sparse.build(layer, HERE, Precision(), False)
    for rows, kept, dense_expected in ((15, 59, False), (16, 31, True), (16, 30, False)):
        x = torch.zeros(rows, 60)
        x[:, 1 : 1 + kept] = 1.0
        assert bool(function(x).isnan().all()) == dense_expected
        assert build(layer)(x).isfinite().all()


MOSTLY_ZERO = random_layer(128, 128, 0.7)
REFUSALS: list[tuple[Callable[[], Layer], int, str]] = [
    (lambda: MOSTLY_ZERO, 32, "needs the expansion of AVX-512"),
    (lambda: replace(MOSTLY_ZERO, op="conv2d"), 64, "computes linear layers, not conv2d"),
    (lambda: random_layer(128, 128, 0.2), 64, "zeros in the weight: masks are worth their bytes from 60% on"),
    (lambda: random_layer(100, 100, 0.9), 64, "10000 weights are multiplied faster"),
]


@pytest.mark.parametrize(("layer", "width", "reason"), REFUSALS)
def test_a_refusal_says_why(layer: Callable[[], Layer], width: int, reason: str) -> None:
    machine = replace(HERE, vector_bytes=width)
    assert reason in (columns_sparse.accepts(layer(), machine, Precision()) or "")
    assert columns_sparse.accepts(MOSTLY_ZERO, WIDE, Precision(weights="int8")) is None


def test_the_weights_under_a_mask_are_spread_by_one_instruction_each_16() -> None:
    features = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma", "popcnt"})
    machine = replace(WIDE, arch="x86_64", features=features)
    text = assembly(columns_sparse.emit(machine, relu=True).text(machine), machine, triple="x86_64-linux-gnu")
    assert text.count("vexpandps") >= 16
    assert "vpcompressd" in text


@on_avx512
def test_a_program_with_zeros_on_both_sides_answers_as_the_network_does() -> None:
    model = nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 80)).eval()
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        layer.weight.data *= torch.rand(layer.weight.shape) < 0.2
    x = with_zeros(2, 400, 0.9)
    program = run.compile(model, x, kernels=[columns_sparse.KERNEL])
    assert columns_sparse.KERNEL in ALL
    assert set(program.choices[0].seconds) == {"dense", "columns_sparse"}
    for other in (x, torch.randn(7, 400), torch.zeros(1, 400)):
        torch.testing.assert_close(program(other), model(other), rtol=1e-4, atol=1e-5)
