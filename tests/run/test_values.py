"""Weights of 32, 16, 8 and 4 bits: what is rounded, and kernels that compute with exactly that."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import HERE, MACHINES, Guarded, exact, random_layer, rounding
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import assembly
from zeroskip.patterns import keep, parse
from zeroskip.run.dense import bfloat16, pytorch
from zeroskip.run.linear.stored_weights import BITS, KINDS, packed_halves, rounded
from zeroskip.run.linear.zero_weights import balanced, gaps, windows
from zeroskip.run.machine_code import Compiled, sequence

KERNELS = (*gaps.KERNELS, *windows.KERNELS, *balanced.KERNELS)
# Every kernel on every machine that can run it.
PAIRS = [
    (kernel, machine)
    for kernel, machine in itertools.product(KERNELS, MACHINES)
    if kernel in gaps.KERNELS or machine.vector_bytes == 64
]
FREE = [(kernel, machine) for kernel, machine in PAIRS if kernel not in balanced.KERNELS]
everywhere = pytest.mark.parametrize(
    ("kernel", "machine"), PAIRS, ids=[f"{kernel.name}-{machine.vector_bytes}B" for kernel, machine in PAIRS]
)
by_kind = pytest.mark.parametrize("kind", KINDS)


def kind_of(kernel: Kernel) -> str:
    return kernel.name.split("_")[1]


def fitting(kernel: Kernel, out: int, inputs: int, sparsity: float, *, seed: int = 0) -> Layer:
    """A layer that the kernel accepts: at least 32 inputs, 16 distinct weights for codes, n:16 where that is asked."""
    if kernel in windows.KERNELS:
        inputs = max(inputs, 32)
    if kernel in balanced.KERNELS:
        inputs = 16 * max(1, inputs // 16)
    layer = random_layer(out, inputs, 0.0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    if kind_of(kernel) == "codes":
        table = torch.randn(16, generator=generator)
        layer.weight[:] = table[torch.randint(16, layer.weight.shape, generator=generator)]
    score = torch.rand(out, inputs, generator=generator)
    if kernel in balanced.KERNELS:
        most = max(1, round(8 * (1 - sparsity)))
        layer.weight[~keep(score, parse(f"{most}:16"), 1 - most / 16)] = 0
    else:
        layer.weight[score < sparsity] = 0
        layer.weight[0, 0] = 0  # at least one
    return layer


def build(kernel: Kernel, layer: Layer, machine: Machine = HERE, *, relu: bool = False) -> Compiled:
    """The kernel's function, after asking whether it accepts the layer."""
    precision = Precision(weights=kind_of(kernel))
    assert kernel.accepts(layer, machine, precision) is None
    function = kernel.build(layer, machine, precision, relu)
    assert isinstance(function, Compiled)
    return function


def as_stored(kernel: Kernel, layer: Layer) -> Layer:
    return replace(layer, weight=rounded(kind_of(kernel), layer.weight))


@everywhere
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_layer_is_computed_with_its_rounded_weights_up_to_the_rounding_of_float32(
    kernel: Kernel, machine: Machine, data: st.DataObject
) -> None:
    out, inputs = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 600))
    batch, relu = data.draw(st.integers(1, 17)), data.draw(st.booleans())
    sparsity = data.draw(st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
    layer = fitting(kernel, out, inputs, sparsity, seed=data.draw(st.integers(0, 99)))
    x = torch.randn(batch, layer.weight.shape[1])
    y = build(kernel, layer, machine, relu=relu)(x)
    stored = as_stored(kernel, layer)
    assert bool(((y - exact(stored, x, relu)).abs() <= rounding(stored, x)).all())
    torch.testing.assert_close(kernel.reference(layer, x, relu), y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kernel", "machine"), FREE)
@pytest.mark.parametrize(
    "columns", [[0], [254], [255], [256], [0, 255], [3, 258], [10, 520], [0, 510, 699], []]
)
def test_weights_far_from_each_other_are_found_and_rows_without_any_are_the_bias(
    kernel: Kernel, machine: Machine, columns: list[int]
) -> None:
    weight = torch.zeros(9, 700)
    weight[4, columns] = 2.0
    layer = Layer("far", "linear", weight, torch.arange(9.0), (700,), (9,))
    x = torch.randn(3, 700)
    expected = torch.arange(9.0).repeat(3, 1)
    expected[:, 4] += 2 * x[:, columns].sum(dim=1)
    torch.testing.assert_close(build(kernel, layer, machine)(x), expected)


@everywhere
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_an_input_that_is_not_finite_changes_no_output_that_pytorch_keeps_known(
    kernel: Kernel, machine: Machine, value: float
) -> None:
    layer = fitting(kernel, 50, 64, 0.9)
    for column in range(0, 64, 3):
        x = torch.randn(2, 64)
        x[1, column] = value
        y, theirs = build(kernel, layer, machine)(x), kernel.reference(layer, x, False)
        known = ~theirs.isnan()
        torch.testing.assert_close(y[known], theirs[known])


@everywhere
def test_a_weight_that_is_nan_makes_its_output_nan_and_no_other_or_is_refused(
    kernel: Kernel, machine: Machine
) -> None:
    layer = fitting(kernel, 20, 64, 0.9)
    row, column = layer.weight.nonzero()[3].tolist()
    layer.weight[layer.weight == layer.weight[row, column]] = float("nan")
    if kind_of(kernel) in ("int8", "codes"):
        assert "not finite" in (kernel.accepts(layer, machine, Precision(weights=kind_of(kernel))) or "")
        return
    y = build(kernel, layer, machine)(torch.randn(2, 64))
    assert torch.equal(y.isnan(), layer.weight.isnan().any(dim=1).expand(2, -1))


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
@everywhere
@pytest.mark.parametrize("at_end", [True, False], ids=["page after", "page before"])
def test_no_byte_outside_the_input_and_the_output_is_touched(
    kernel: Kernel, machine: Machine, at_end: bool
) -> None:
    for out, inputs, batch in ((1, 32, 1), (17, 48, 3), (37, 600, 2)):
        layer = fitting(kernel, out, inputs, 0.95)
        inputs = layer.weight.shape[1]
        function = sequence([build(kernel, layer, machine)])
        x, y = (Guarded(count * batch, at_end=at_end) for count in (inputs, out))
        scratch = Guarded(function.scratch + function.scratch_per_row * batch, at_end=at_end)
        x.values.copy_(torch.randn(inputs * batch))
        function.run(function.plan.address, x.address, y.address, scratch.address, batch)
        expected = kernel.reference(layer, x.values.view(batch, inputs), False)
        torch.testing.assert_close(y.values.view(batch, out), expected, rtol=1e-4, atol=1e-5)


@by_kind
@given(data=st.data())
def test_a_rounded_weight_is_within_the_promised_distance(kind: str, data: st.DataObject) -> None:
    scale = 10.0 ** data.draw(st.integers(-30, 30))
    weight = scale * random_layer(5, 40, 0.5, seed=data.draw(st.integers(0, 99))).weight
    far = (rounded(kind, weight).double() - weight.double()).abs()
    largest = weight.double().abs().amax(dim=1, keepdim=True)
    bound = {"bf16": weight.double().abs() / 2**8, "int8": largest / 254 * (1 + 1e-5)}
    assert bool((far <= bound.get(kind, torch.zeros(()))).all())


def test_int8_of_rows_of_zeros_and_of_the_smallest_numbers_stays_finite() -> None:
    weight = torch.tensor([[0.0, 0.0], [1e-45, 0.0], [1.0, -1.0]])
    assert rounded("int8", weight).tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, -1.0]]


def test_two_numbers_of_4_bits_share_a_byte() -> None:
    assert packed_halves(np.array([[1, 2], [3, 15]], np.uint8)).tolist() == [[0x31, 0xF2]]
    assert sum(BITS.values()) == 32 + 16 + 8 + 4


def balanced_layer(blocks: int = 4, *, missing: int = 0, values: Tensor | None = None) -> Layer:
    """2:16 with some blocks that have one weight less."""
    weight = torch.zeros(8, blocks, 16)
    weight[:, :, [3, 9]] = 1.0 if values is None else values.repeat(64)[: 8 * blocks * 2].view(8, blocks, 2)
    weight[0].view(-1, 16)[:missing, 9] = 0
    return Layer("b", "linear", weight.flatten(1), None, (16 * blocks,), (8,))


SEVENTEEN = replace(
    random_layer(4, 40, 0.0), weight=torch.cat([torch.zeros(4, 23), torch.arange(1.0, 69).view(4, 17)], 1)
)
INFINITE = replace(SEVENTEEN, weight=torch.where(SEVENTEEN.weight == 1, float("inf"), SEVENTEEN.weight))
NARROW = replace(HERE, vector_bytes=32, features=frozenset({"avx2", "fma"}))
REFUSALS: list[tuple[Kernel, Layer, Machine, str, str]] = [
    (gaps.KERNELS[2], random_layer(3, 40, 0.5), HERE, "fp32", "fp32 weights were asked for"),
    (gaps.KERNELS[1], random_layer(3, 40, 0.5), HERE, "int8", "int8 weights were asked for"),
    (gaps.KERNELS[3], SEVENTEEN, HERE, "codes", "68 distinct weights, and 4 bits number 16"),
    (gaps.KERNELS[2], INFINITE, HERE, "int8", "not finite"),
    (gaps.KERNELS[0], random_layer(3, 40, 0.0), HERE, "fp32", "0 % zeros"),
    (windows.KERNELS[0], random_layer(3, 40, 0.5), NARROW, "fp32", "AVX-512"),
    (windows.KERNELS[0], random_layer(3, 31, 0.5), replace(HERE, vector_bytes=64), "fp32", "31 inputs"),
    (balanced.KERNELS[0], balanced_layer(), NARROW, "fp32", "AVX-512"),
    (balanced.KERNELS[0], random_layer(3, 40, 0.5), replace(HERE, vector_bytes=64), "fp32", "40 inputs"),
    (
        balanced.KERNELS[0],
        random_layer(64, 64, 0.9),
        replace(HERE, vector_bytes=64),
        "fp32",
        "zeros, and 25% are",
    ),
    (balanced.KERNELS[0], random_layer(64, 64, 0.2), replace(HERE, vector_bytes=64), "fp32", "1 to 8 can be"),
    (
        *(balanced.KERNELS[3], balanced_layer(missing=1, values=torch.arange(1.0, 17))),
        *(replace(HERE, vector_bytes=64), "codes", "no code for the zeros"),
    ),
    (bfloat16.KERNEL, random_layer(3, 40, 0.5), HERE, "fp32", "fp32 arithmetic was asked for"),
]


@pytest.mark.parametrize(("kernel", "layer", "machine", "weights", "reason"), REFUSALS)
def test_a_refusal_says_why(
    kernel: Kernel, layer: Layer, machine: Machine, weights: str, reason: str
) -> None:
    assert reason in (kernel.accepts(layer, machine, Precision(weights=weights)) or "")


@by_kind
def test_a_machine_with_neon_gets_multiply_adds_of_4_lanes_and_no_gather(kind: str) -> None:
    neon = Machine("Arm", "aarch64", frozenset({"neon"}), 4, 16)
    text = assembly(gaps.emit(neon, kind, relu=True).text(neon), neon, triple="aarch64-unknown-linux-gnu")
    assert "fmla\tv" in text
    assert "ldrb" in text
    assert ".4s" in text


def test_bf16_rounds_inputs_and_outputs_to_8_bits_and_no_more() -> None:
    layer, x = random_layer(20, 300, 0.5), torch.randn(4, 300)
    y = bfloat16.build(layer, HERE, Precision("bf16"), True)(x)
    assert y.dtype is torch.float32
    size = pytorch.reference(replace(layer, weight=layer.weight.abs()), x.abs(), False)
    assert bool(((y - bfloat16.reference(layer, x, True)).abs() <= bfloat16.KERNEL.tolerance * size).all())
    assert not torch.equal(y, pytorch.reference(layer, x, True))
