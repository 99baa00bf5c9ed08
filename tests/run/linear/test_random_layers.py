"""Linear layers of any size and any zeros, at every vector width, against exact sums."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import HERE, MACHINES, exact, random_layer, rounding, with_zeros

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.linear.stored_weights import rounded
from zeroskip.run.linear.zero_inputs import columns, columns_sparse
from zeroskip.run.linear.zero_weights import balanced, gaps, sell, spmm, windows

KERNELS = (
    *(sell.KERNEL, spmm.KERNEL, *gaps.KERNELS, *windows.KERNELS, *balanced.KERNELS),
    *(*columns.KERNELS, columns_sparse.KERNEL),
)
NEEDS_AVX512 = (*windows.KERNELS, *balanced.KERNELS, columns_sparse.KERNEL)
PAIRS = [
    (kernel, machine)
    for kernel, machine in itertools.product(KERNELS, MACHINES)
    if machine.vector_bytes == 64 or kernel not in NEEDS_AVX512
]


def drawn(kernel: Kernel, data: st.DataObject) -> Layer:
    """Any layer that the kernel can store; it need not be one that is worth it."""
    out, inputs, seed = (
        data.draw(st.integers(1, 200)),
        data.draw(st.integers(1, 600)),
        data.draw(st.integers(0, 99)),
    )
    sparsity = data.draw(st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0]))
    if kernel.method == "windows":
        inputs = max(inputs, 32)
    if kernel.method == "balanced":
        inputs = 16 * max(1, inputs // 16)
    layer = random_layer(out, inputs, sparsity, bias=data.draw(st.booleans()), seed=seed)
    if kernel.method == "balanced":
        order = torch.rand(out, inputs // 16, 16, generator=torch.Generator().manual_seed(seed)).argsort(2)
        layer.weight[(order >= 1 + seed % 8).flatten(1)] = 0
        layer.weight[0, :16] = torch.arange(16) < 1  # at least one
    if kernel.weights == "codes":
        table = torch.randn(15, generator=torch.Generator().manual_seed(seed))
        values = table[(layer.weight.abs() * 1000).long() % 15]
        layer = replace(layer, weight=torch.where(layer.weight == 0, 0.0, values))
    return layer


@pytest.mark.parametrize(
    ("kernel", "machine"), PAIRS, ids=[f"{kernel.name}-{machine.vector_bytes}B" for kernel, machine in PAIRS]
)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_layer_is_computed_with_its_stored_weights_up_to_the_rounding_of_float32(
    kernel: Kernel, machine: Machine, data: st.DataObject
) -> None:
    layer, relu = drawn(kernel, data), data.draw(st.booleans())
    x = with_zeros(
        data.draw(st.integers(0, 14)), layer.input_shape[0], data.draw(st.sampled_from([0.0, 0.7, 1.0]))
    )
    y = kernel.build(layer, machine, Precision(weights=kernel.weights), relu)(x)
    stored = replace(layer, weight=rounded(kernel.weights, layer.weight))
    assert y.shape == (len(x), *layer.output_shape)
    assert bool(((y - exact(stored, x, relu)).abs() <= rounding(stored, x)).all())


def test_every_kernel_for_linear_layers_runs_here_or_needs_avx512() -> None:
    assert {kernel.name for kernel, _ in PAIRS} >= {each.name for each in KERNELS if each not in NEEDS_AVX512}
    assert HERE.vector_bytes < 64 or {kernel.name for kernel, _ in PAIRS} == {each.name for each in KERNELS}
