"""Zeros on both sides: exact sums for every shape and share of zeros, inside its own memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from drawn import HERE, Guarded, exact, random_layer, rounding
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Layer, Precision
from zeroskip.emit import assembly
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.zero_inputs import columns_sparse
from zeroskip.run.machine_code import Compiled

WIDE = replace(HERE, vector_bytes=64)  # what it is written for, whatever machine runs the tests
on_avx512 = pytest.mark.skipif(HERE.vector_bytes != 64, reason="the kernel runs on AVX-512 only")


def build(layer: Layer, *, relu: bool = False) -> Compiled:
    function = columns_sparse.build(layer, HERE, Precision(), relu, fall_back=False)
    assert isinstance(function, Compiled)
    return function


def with_zeros(batch: int, inputs: int, sparsity: float, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, inputs, generator=generator)
    return x * (torch.rand(batch, inputs, generator=generator) >= sparsity)


@on_avx512
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_layer_is_computed_up_to_the_rounding_of_float32(data: st.DataObject) -> None:
    out, inputs = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 600))
    share = st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0])
    seed, relu, bias = data.draw(st.integers(0, 99)), data.draw(st.booleans()), data.draw(st.booleans())
    layer = random_layer(out, inputs, data.draw(share), bias=bias, seed=seed)
    x = with_zeros(data.draw(st.integers(0, 5)), inputs, data.draw(share), seed=seed)
    y = build(layer, relu=relu)(x)
    assert y.shape == (len(x), out)
    assert bool(((y - exact(layer, x, relu)).abs() <= rounding(layer, x)).all())


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
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_does_what_it_does_in_pytorch(value: float, relu: bool) -> None:
    layer, x = random_layer(20, 30, 0.5), torch.ones(2, 30)
    x[1, 7] = value
    for weight in (1.0, value):
        layer.weight[3, 4] = weight
        torch.testing.assert_close(
            build(layer, relu=relu)(x), pytorch.reference(layer, x, relu), equal_nan=True
        )


@on_avx512
def test_4_threads_may_run_the_same_layer_at_once() -> None:
    function = build(random_layer(300, 200, 0.8))
    inputs = [with_zeros(9, 200, 0.8, seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(function, inputs))
    assert all(torch.equal(y, function(x)) for x, y in zip(inputs, answers, strict=True))


@on_avx512
@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
@pytest.mark.parametrize("at_end", [True, False], ids=["page after", "page before"])
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_no_byte_outside_the_input_the_output_and_the_scratch_is_touched(
    sparsity: float, at_end: bool
) -> None:
    for out, inputs, batch in ((1, 1, 1), (17, 5, 3), (64, 32, 2), (137, 70, 2)):
        layer = random_layer(out, inputs, 0.7)
        function = build(layer)
        x, y = (Guarded(count * batch, at_end=at_end) for count in (inputs, out))
        scratch = Guarded(function.scratch, at_end=at_end)
        x.values.copy_(with_zeros(batch, inputs, sparsity).flatten())
        function.run(function.plan.address, x.address, y.address, scratch.address, batch)
        expected = pytorch.reference(layer, x.values.view(batch, inputs), False)
        torch.testing.assert_close(y.values.view(batch, out), expected, rtol=1e-4, atol=1e-5)


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
