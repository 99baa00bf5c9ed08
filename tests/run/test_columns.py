"""Skipping zero inputs: exact sums for every way to store weights, at every vector width, and inside its own memory."""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from drawn import HERE, MACHINES, Guarded, exact, random_layer, rounding
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import assembly
from zeroskip.errors import EngineError
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.stored_weights import KINDS, rounded
from zeroskip.run.linear.zero_inputs import columns
from zeroskip.run.machine_code import Compiled, sequence

INFINITE = float("inf")
by_kind = pytest.mark.parametrize("kind", KINDS)
everywhere = pytest.mark.parametrize(
    ("kind", "machine"),
    list(itertools.product(KINDS, MACHINES)),
    ids=lambda each: each if isinstance(each, str) else f"{each.vector_bytes}B",
)


def fitting(kind: str, out: int, inputs: int, *, bias: bool = True, seed: int = 0) -> Layer:
    """A layer without zeros among its weights, of which there are at most 16 distinct ones for codes."""
    layer = random_layer(out, inputs, 0.0, bias=bias, seed=seed)
    if kind == "codes":
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(16, generator=generator)
        layer.weight[:] = table[torch.randint(16, layer.weight.shape, generator=generator)]
    return layer


def build(kind: str, layer: Layer, machine: Machine = HERE, *, relu: bool = False) -> Compiled:
    function = columns.build(kind, layer, machine, Precision(weights=kind), relu)
    assert isinstance(function, Compiled)
    return function


def as_stored(kind: str, layer: Layer) -> Layer:
    return replace(layer, weight=rounded(kind, layer.weight))


def with_zeros(batch: int, inputs: int, sparsity: float, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, inputs, generator=generator)
    return x * (torch.rand(batch, inputs, generator=generator) >= sparsity)


@everywhere
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_layer_is_computed_with_its_stored_weights_up_to_the_rounding_of_float32(
    kind: str, machine: Machine, data: st.DataObject
) -> None:
    out, inputs = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 200))
    batch, relu = data.draw(st.integers(0, 13)), data.draw(st.booleans())
    layer = fitting(kind, out, inputs, bias=data.draw(st.booleans()), seed=data.draw(st.integers(0, 99)))
    x = with_zeros(batch, inputs, data.draw(st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0])))
    y, stored = build(kind, layer, machine, relu=relu)(x), as_stored(kind, layer)
    assert y.shape == (batch, out)
    assert bool(((y - exact(stored, x, relu)).abs() <= rounding(stored, x)).all())


@everywhere
@pytest.mark.parametrize("out", [1023, 1025, 4096, 4097])
def test_outputs_that_need_more_than_one_sweep_are_all_there(kind: str, machine: Machine, out: int) -> None:
    layer = fitting(kind, out, 37)
    for sparsity in (0.0, 0.8):  # four examples together, and one after the other
        x = with_zeros(5, 37, sparsity)
        stored = as_stored(kind, layer)
        y = build(kind, layer, machine)(x)
        assert bool(((y - exact(stored, x, False)).abs() <= rounding(stored, x)).all())


@everywhere
def test_a_single_input_of_2_sends_twice_its_weights_and_no_input_leaves_the_bias(
    kind: str, machine: Machine
) -> None:
    layer = fitting(kind, 41, 71)
    function, stored = build(kind, layer, machine), as_stored(kind, layer)
    assert layer.bias is not None
    for column in (0, 15, 16, 17, 63, 64, 70):
        x = torch.zeros(2, 71)
        x[0, column] = 2.0
        y = function(x)
        torch.testing.assert_close(y[0], layer.bias + 2 * stored.weight[:, column])
        assert torch.equal(y[1], layer.bias)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_weights_of_a_zero_input_are_not_even_looked_at(kind: str, machine: Machine) -> None:
    layer = fitting(kind, 20, 60)
    layer.weight[:, ::2] = INFINITE
    x = torch.randn(3, 60)
    x[:, ::2] = torch.tensor([0.0, -0.0, 0.0]).view(3, 1)
    finite = replace(layer, weight=layer.weight.where(layer.weight.isfinite(), 0.0))
    expected = pytorch.reference(as_stored(kind, finite), x, False)
    torch.testing.assert_close(build(kind, layer, machine)(x), expected)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
def test_4_examples_share_rows_where_that_saves_a_fifth_of_them_and_otherwise_do_not(
    machine: Machine,
) -> None:
    layer = random_layer(20, 60, 0.0)
    layer.weight[:, 0] = INFINITE  # who reads it for an input of 0 has an output that is no number
    function = build("fp32", layer, machine)
    shared, apart = torch.randn(4, 60), torch.zeros(4, 60)
    shared[1, 0] = 0
    for example in range(4):
        apart[example, example::4] = 1.0
    assert function(shared).isnan().any(dim=1).tolist() == [False, True, False, False]
    assert not function(apart).isnan().any()
    assert not function(shared[:3]).isnan().any()  # three are never computed together


@everywhere
@pytest.mark.parametrize("value", [INFINITE, -INFINITE, float("nan")])
def test_an_input_that_is_not_finite_is_no_zero_and_does_what_it_does_in_pytorch(
    kind: str, machine: Machine, value: float
) -> None:
    layer = fitting(kind, 50, 40)
    function = build(kind, layer, machine)
    for batch in (1, 4):
        x = with_zeros(batch, 40, 0.5)
        x[0, 7] = value
        expected = pytorch.reference(as_stored(kind, layer), x, False)
        torch.testing.assert_close(function(x), expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("relu", [False, True])
def test_a_weight_that_is_nan_makes_its_output_nan_and_no_other(kind: str, relu: bool) -> None:
    layer = fitting(kind, 20, 30)
    layer.weight[3, 4] = float("nan")
    for batch in (1, 4):
        y = build(kind, layer, relu=relu)(torch.randn(batch, 30))
        assert y.isnan().any(0).nonzero().flatten().tolist() == [3]


@by_kind
def test_inputs_of_more_axes_and_other_strides_are_taken_as_they_are_meant(kind: str) -> None:
    layer = fitting(kind, 30, 20)
    function, stored = build(kind, layer, relu=True), as_stored(kind, layer)
    tokens, crossed = torch.randn(4, 7, 20), torch.randn(20, 9).T
    for x in (tokens, crossed, torch.randn(0, 7, 20)):
        torch.testing.assert_close(function(x), pytorch.reference(stored, x, True), rtol=1e-4, atol=1e-5)
    for wrong in (torch.zeros(2, 19), torch.zeros(2, 20).double()):
        with pytest.raises(EngineError, match=r"float32 \(\.\.\., 20\)"):
            function(wrong)


@by_kind
def test_4_threads_may_run_the_same_layer_at_once_and_after_another(kind: str) -> None:
    first, last = fitting(kind, 300, 200), fitting(kind, 100, 300)
    function = sequence([build(kind, first, relu=True), build(kind, last)])
    inputs = [with_zeros(9, 200, 0.8, seed=seed) for seed in range(20)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(function, inputs))
    for x, y in zip(inputs, answers, strict=True):
        hidden = pytorch.reference(as_stored(kind, first), x, True)
        assert torch.equal(y, function(x))
        expected = pytorch.reference(as_stored(kind, last), hidden, False)
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
@pytest.mark.parametrize("at_end", [True, False], ids=["page after", "page before"])
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@everywhere
def test_no_byte_outside_the_input_the_output_and_the_scratch_is_touched(
    kind: str, machine: Machine, sparsity: float, at_end: bool
) -> None:
    for out, inputs, batch in ((1, 1, 1), (17, 5, 3), (64, 32, 4), (37, 70, 5)):
        layer = fitting(kind, out, inputs)
        function = build(kind, layer, machine)
        x, y = (Guarded(count * batch, at_end=at_end) for count in (inputs, out))
        scratch = Guarded(function.scratch, at_end=at_end)
        x.values.copy_(with_zeros(batch, inputs, sparsity).flatten())
        function.run(function.plan.address, x.address, y.address, scratch.address, batch)
        expected = pytorch.reference(as_stored(kind, layer), x.values.view(batch, inputs), False)
        torch.testing.assert_close(y.values.view(batch, out), expected, rtol=1e-4, atol=1e-5)


def test_16_examples_of_a_large_layer_fall_back_to_pytorch_where_less_than_70_percent_are_zeros() -> None:
    layer = random_layer(1448, 1449, 0.0)  # 8.4 MB
    layer.weight[0, 0] = INFINITE  # who skips the input of 0 that meets it has an output that is a number
    function = columns.build("fp32", layer, HERE, Precision(), False)
    alone = columns.build("fp32", layer, HERE, Precision(), False, fall_back=False)
    for rows, kept, dense_expected in ((15, 500, False), (16, 500, True), (16, 400, False)):
        x = torch.zeros(rows, 1449)
        x[:, 1 : 1 + kept] = 1.0
        assert bool(function(x)[:, 0].isnan().all()) == dense_expected
        assert alone(x).isfinite().all()
    with pytest.raises(EngineError, match=r"float32 \(\.\.\., 1449\)"):
        function(torch.ones(40, 1448))


def test_codes_number_16_distinct_weights_of_which_zero_is_one() -> None:
    layer = fitting("codes", 150, 200)
    assert columns.accepts("codes", layer, HERE, Precision(weights="codes")) is None
    layer.weight[0, 0] = 0.0
    reason = columns.accepts("codes", layer, HERE, Precision(weights="codes"))
    assert reason is not None
    assert "more than 16 distinct weights" in reason


BIG = random_layer(128, 128, 0.0)
UNBOUNDED = replace(BIG, weight=BIG.weight.clone().fill_diagonal_(INFINITE))
REFUSALS = [
    ("fp32", replace(BIG, op="conv2d"), "fp32", "computes linear layers, not conv2d"),
    ("fp32", replace(BIG, weight=BIG.weight.double()), "fp32", "not float64"),
    ("int8", BIG, "fp32", "fp32 weights were asked for"),
    ("bf16", BIG, "int8", "int8 weights were asked for"),
    ("int8", UNBOUNDED, "int8", "not finite"),
    ("codes", UNBOUNDED, "codes", "not finite"),
    ("codes", BIG, "codes", "more than 16 distinct weights"),
    ("fp32", random_layer(127, 129, 0.0), "fp32", "16383 weights are multiplied faster"),
    ("fp32", replace(BIG, weight=torch.zeros(0, 4)), "fp32", "0 weights"),
]


@pytest.mark.parametrize(("kind", "layer", "weights", "reason"), REFUSALS)
def test_a_refusal_says_why(kind: str, layer: Layer, weights: str, reason: str) -> None:
    assert reason in (columns.accepts(kind, layer, HERE, Precision(weights=weights)) or "")


def test_weights_need_no_zeros_and_fp32_is_welcome_whatever_may_be_rounded() -> None:
    for weights in KINDS:
        assert columns.KERNELS[0].accepts(BIG, HERE, Precision(weights=weights)) is None
    assert {kernel.name for kernel in columns.KERNELS} == {f"columns_{kind}" for kind in KINDS}
    assert set(columns.KERNELS) <= set(ALL)


def test_a_program_with_columns_answers_as_the_network_does_for_sparse_and_dense_inputs() -> None:
    model = nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 80)).eval()
    x = with_zeros(2, 400, 0.9)
    program = run.compile(model, x, kernels=[columns.KERNELS[0]])
    assert set(program.choices[0].seconds) == {"dense", "columns_fp32"}
    for other in (x, torch.randn(7, 400), torch.zeros(1, 400)):
        torch.testing.assert_close(program(other), model(other), rtol=1e-4, atol=1e-5)


@by_kind
def test_a_machine_with_neon_gets_multiply_adds_of_4_lanes(kind: str) -> None:
    neon = Machine("Arm", "aarch64", frozenset({"neon"}), 4, 16)
    text = assembly(columns.emit(neon, kind, relu=True).text(neon), neon, triple="aarch64-unknown-linux-gnu")
    assert "fmla\tv" in text
    assert ".4s" in text
