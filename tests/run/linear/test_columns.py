"""Weights stored input by input: which rows are read, and when PyTorch is asked instead."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from run.drawn import HERE, MACHINES, exact, random_layer, rounding, with_zeros
from torch import nn

from zeroskip import run
from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import assembly
from zeroskip.errors import EngineError
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.compiled_linear import CompiledLinear
from zeroskip.run.linear.stored_weights import STORAGES, rounded
from zeroskip.run.linear.zero_inputs import columns

INFINITE = float("inf")
by_storage = pytest.mark.parametrize("storage", STORAGES)
everywhere = pytest.mark.parametrize(
    ("storage", "machine"),
    list(itertools.product(STORAGES, MACHINES)),
    ids=lambda each: each if isinstance(each, str) else f"{each.vector_bytes}B",
)


def fitting(storage: str, out: int, inputs: int, *, bias: bool = True, seed: int = 0) -> Layer:
    """A layer without zeros among its weights, of which there are at most 16 distinct ones for codes."""
    layer = random_layer(out, inputs, 0.0, bias=bias, seed=seed)
    if storage == "codes":
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(16, generator=generator)
        layer.weight[:] = table[torch.randint(16, layer.weight.shape, generator=generator)]
    return layer


def build(storage: str, layer: Layer, machine: Machine = HERE, *, relu: bool = False) -> CompiledLinear:
    function = columns.build(storage, layer, machine, Precision(weights=storage), relu)
    assert isinstance(function, CompiledLinear)
    return function


def as_stored(storage: str, layer: Layer) -> Layer:
    return replace(layer, weight=rounded(storage, layer.weight))


@everywhere
@pytest.mark.parametrize("out", [1023, 1025, 4096, 4097])
def test_outputs_that_need_more_than_one_sweep_are_all_there(
    storage: str, machine: Machine, out: int
) -> None:
    layer = fitting(storage, out, 37)
    for sparsity in (0.0, 0.8):  # four examples together, and one after the other
        x = with_zeros(5, 37, sparsity)
        stored = as_stored(storage, layer)
        y = build(storage, layer, machine)(x)
        assert bool(((y - exact(stored, x, False)).abs() <= rounding(stored, x)).all())


@everywhere
def test_a_single_input_of_2_sends_twice_its_weights_and_no_input_leaves_the_bias(
    storage: str, machine: Machine
) -> None:
    layer = fitting(storage, 41, 71)
    function, stored = build(storage, layer, machine), as_stored(storage, layer)
    assert layer.bias is not None
    for column in (0, 15, 16, 17, 63, 64, 70):
        x = torch.zeros(2, 71)
        x[0, column] = 2.0
        y = function(x)
        torch.testing.assert_close(y[0], layer.bias + 2 * stored.weight[:, column])
        assert torch.equal(y[1], layer.bias)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
@pytest.mark.parametrize("storage", ["fp32", "bf16"])
def test_weights_of_a_zero_input_are_not_even_looked_at(storage: str, machine: Machine) -> None:
    layer = fitting(storage, 20, 60)
    layer.weight[:, ::2] = INFINITE
    x = torch.randn(3, 60)
    x[:, ::2] = torch.tensor([0.0, -0.0, 0.0]).view(3, 1)
    finite = replace(layer, weight=layer.weight.where(layer.weight.isfinite(), 0.0))
    expected = pytorch.reference(as_stored(storage, finite), x, False)
    torch.testing.assert_close(build(storage, layer, machine)(x), expected)


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


@pytest.mark.parametrize("storage", ["fp32", "bf16"])
@pytest.mark.parametrize("relu", [False, True])
def test_a_weight_that_is_nan_makes_its_output_nan_and_no_other(storage: str, relu: bool) -> None:
    layer = fitting(storage, 20, 30)
    layer.weight[3, 4] = float("nan")
    for batch in (1, 4):
        y = build(storage, layer, relu=relu)(torch.randn(batch, 30))
        assert y.isnan().any(0).nonzero().flatten().tolist() == [3]


def test_16_examples_of_a_large_layer_fall_back_to_pytorch_where_less_than_70_percent_are_zeros() -> None:
    layer = random_layer(1448, 1449, 0.0)  # 8.4 MB
    layer.weight[0, 0] = INFINITE  # who skips the input of 0 that meets it has an output that is a number
    function = columns.build("fp32", layer, HERE, Precision(), False)
    alone = columns.without_fallback("fp32", layer, HERE, False)
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


@pytest.mark.parametrize(("storage", "layer", "weights", "reason"), REFUSALS)
def test_a_refusal_says_why(storage: str, layer: Layer, weights: str, reason: str) -> None:
    assert reason in (columns.accepts(storage, layer, HERE, Precision(weights=weights)) or "")


def test_weights_need_no_zeros_and_fp32_is_welcome_whatever_may_be_rounded() -> None:
    for weights in STORAGES:
        assert columns.KERNELS[0].accepts(BIG, HERE, Precision(weights=weights)) is None
    assert {kernel.name for kernel in columns.KERNELS} == {f"columns_{storage}" for storage in STORAGES}
    assert set(columns.KERNELS) <= set(ALL)


def test_a_program_with_columns_answers_as_the_network_does_for_sparse_and_dense_inputs() -> None:
    model = nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 80)).eval()
    x = with_zeros(2, 400, 0.9)
    program = run.compile(model, x, kernels=[columns.KERNELS[0]])
    assert set(program.choices[0].seconds) == {"dense", "columns_fp32"}
    for other in (x, torch.randn(7, 400), torch.zeros(1, 400)):
        torch.testing.assert_close(program(other), model(other), rtol=1e-4, atol=1e-5)


@by_storage
def test_a_machine_with_neon_gets_multiply_adds_of_4_lanes(storage: str) -> None:
    neon = Machine("Arm", "aarch64", frozenset({"neon"}), 4, 16)
    text = assembly(
        columns.emit(neon, storage, relu=True).text(neon), neon, triple="aarch64-unknown-linux-gnu"
    )
    assert "fmla\tv" in text
    assert ".4s" in text
