"""Sparse linear layers by rows and by examples: what their slices hold, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from run.drawn import HERE, MACHINES, random_layer

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.linear.zero_weights import sell, spmm

SPARSE = (sell.KERNEL, spmm.KERNEL)
sparse_kernels = pytest.mark.parametrize("kernel", SPARSE, ids=lambda kernel: kernel.name)
at_every_width = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")


@sparse_kernels
@at_every_width
@pytest.mark.parametrize(("row", "column"), [(0, 0), (40, 0), (0, 70), (40, 70), (17, 33)])
def test_a_single_weight_of_2_doubles_its_input_and_leaves_the_other_outputs_at_the_bias(
    kernel: Kernel, machine: Machine, row: int, column: int
) -> None:
    weight, bias = torch.zeros(41, 71), torch.arange(41.0)
    weight[row, column] = 2.0
    x = torch.randn(5, 71)
    expected = bias.repeat(5, 1)
    expected[:, row] += 2 * x[:, column]
    layer = Layer("single", "linear", weight, bias, (71,), (41,))
    torch.testing.assert_close(kernel.build(layer, machine, Precision(), False)(x), expected)


@sparse_kernels
def test_a_weight_that_is_nan_makes_its_output_nan_and_no_other(kernel: Kernel) -> None:
    layer = random_layer(20, 30, 0.9)
    layer.weight[3, 4] = float("nan")
    for relu in (False, True):
        y = kernel.build(layer, HERE, Precision(), relu)(torch.randn(2, 30))
        assert y.isnan().any(0).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (random_layer(3, 4, 0.0), "0 % zeros: nothing to skip"),
        (replace(random_layer(3, 4, 0.9), op="conv2d"), "computes linear layers, not conv2d"),
        (replace(random_layer(3, 4, 0.9), weight=torch.zeros(3, 4).double()), "not float64"),
        (replace(random_layer(1, 1, 0.0), weight=torch.zeros(1, 65537)), "65537 inputs"),
        (replace(random_layer(1, 1, 0.0), weight=torch.zeros(0, 4)), "nothing to skip"),
    ],
    ids=["dense", "convolution", "double", "wide", "empty"],
)
@sparse_kernels
def test_a_refusal_says_why(kernel: Kernel, layer: Layer, reason: str) -> None:
    assert reason in (kernel.accepts(layer, HERE, Precision()) or "")


@sparse_kernels
def test_65536_inputs_are_the_most_and_the_last_column_is_read(kernel: Kernel) -> None:
    weight = torch.zeros(2, 65536)
    weight[1, -1] = 3.0
    layer = Layer("wide", "linear", weight, None, (65536,), (2,))
    assert kernel.accepts(layer, HERE, Precision()) is None
    y = kernel.build(layer, HERE, Precision(), False)(torch.ones(1, 65536))
    assert y.tolist() == [[0.0, 3.0]]
