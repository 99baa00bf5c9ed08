"""Weights of 32, 16, 8 and 4 bits: what is rounded, and kernels that compute with exactly that."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run.drawn import HERE, MACHINES, random_layer
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import assembly
from zeroskip.patterns import keep, parse
from zeroskip.run.linear.compiled_linear import CompiledLinear
from zeroskip.run.linear.stored_weights import BITS, STORAGES, packed_nibbles, rounded
from zeroskip.run.linear.zero_weights import balanced, gaps, windows

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
by_storage = pytest.mark.parametrize("storage", STORAGES)


def fitting(kernel: Kernel, out: int, inputs: int, sparsity: float, *, seed: int = 0) -> Layer:
    """A layer that the kernel accepts: at least 32 inputs, 16 distinct weights for codes, n:16 where that is asked."""
    if kernel in windows.KERNELS:
        inputs = max(inputs, 32)
    if kernel in balanced.KERNELS:
        inputs = 16 * max(1, inputs // 16)
    layer = random_layer(out, inputs, 0.0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    if kernel.weights == "codes":
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


def build(kernel: Kernel, layer: Layer, machine: Machine = HERE, *, relu: bool = False) -> CompiledLinear:
    """The kernel's function, after asking whether it accepts the layer."""
    precision = Precision(weights=kernel.weights)
    assert kernel.accepts(layer, machine, precision) is None
    function = kernel.build(layer, machine, precision, relu)
    assert isinstance(function, CompiledLinear)
    return function


def as_stored(kernel: Kernel, layer: Layer) -> Layer:
    return replace(layer, weight=rounded(kernel.weights, layer.weight))


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
def test_a_weight_that_is_nan_makes_its_output_nan_and_no_other_or_is_refused(
    kernel: Kernel, machine: Machine
) -> None:
    layer = fitting(kernel, 20, 64, 0.9)
    row, column = layer.weight.nonzero()[3].tolist()
    layer.weight[layer.weight == layer.weight[row, column]] = float("nan")
    if kernel.weights in ("int8", "codes"):
        assert "not finite" in (kernel.accepts(layer, machine, Precision(weights=kernel.weights)) or "")
        return
    y = build(kernel, layer, machine)(torch.randn(2, 64))
    assert torch.equal(y.isnan(), layer.weight.isnan().any(dim=1).expand(2, -1))


@by_storage
@given(data=st.data())
def test_a_rounded_weight_is_within_the_promised_distance(storage: str, data: st.DataObject) -> None:
    scale = 10.0 ** data.draw(st.integers(-30, 30))
    weight = scale * random_layer(5, 40, 0.5, seed=data.draw(st.integers(0, 99))).weight
    far = (rounded(storage, weight).double() - weight.double()).abs()
    largest = weight.double().abs().amax(dim=1, keepdim=True)
    bound = {"bf16": weight.double().abs() / 2**8, "int8": largest / 254 * (1 + 1e-5)}
    assert bool((far <= bound.get(storage, torch.zeros(()))).all())


def test_int8_of_rows_of_zeros_and_of_the_smallest_numbers_stays_finite() -> None:
    weight = torch.tensor([[0.0, 0.0], [1e-45, 0.0], [1.0, -1.0]])
    assert rounded("int8", weight).tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, -1.0]]


def test_two_numbers_of_4_bits_share_a_byte() -> None:
    assert packed_nibbles(np.array([[1, 2], [3, 15]], np.uint8)).tolist() == [[0x31, 0xF2]]
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
    (gaps.KERNELS[3], SEVENTEEN, HERE, "codes", "more than 16 distinct weights, and 4 bits number 16"),
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
]


@pytest.mark.parametrize(("kernel", "layer", "machine", "weights", "reason"), REFUSALS)
def test_a_refusal_says_why(
    kernel: Kernel, layer: Layer, machine: Machine, weights: str, reason: str
) -> None:
    assert reason in (kernel.accepts(layer, machine, Precision(weights=weights)) or "")


@by_storage
def test_a_machine_with_neon_gets_multiply_adds_of_4_lanes_and_no_gather(storage: str) -> None:
    neon = Machine("Arm", "aarch64", frozenset({"neon"}), 4, 16)
    text = assembly(gaps.emit(neon, storage, relu=True).text(neon), neon, triple="aarch64-unknown-linux-gnu")
    assert "fmla\tv" in text
    assert "ldrb" in text
    assert ".4s" in text
