"""Every kernel against exact sums, at every vector width, and inside its own memory."""

from __future__ import annotations

import ctypes
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from drawn import HERE, MACHINES, Guarded, exact, random_layer, rounding
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.errors import EngineError
from zeroskip.graph import layers
from zeroskip.run.dense import pytorch
from zeroskip.run.linear.zero_weights import sell, spmm
from zeroskip.run.machine_code import Compiled, plan, sequence, starts

SPARSE = (sell.KERNEL, spmm.KERNEL)
sparse_kernels = pytest.mark.parametrize("kernel", SPARSE, ids=lambda kernel: kernel.name)
at_every_width = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("kernel", [pytorch.KERNEL, sell.KERNEL, spmm.KERNEL], ids=lambda kernel: kernel.name)
@at_every_width
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_kernel_computes_the_layer_up_to_rounding(
    kernel: Kernel, machine: Machine, sparsity: float, data: st.DataObject
) -> None:
    out, inputs = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    batch, relu, bias = data.draw(st.integers(0, 40)), data.draw(st.booleans()), data.draw(st.booleans())
    layer = random_layer(out, inputs, sparsity, bias=bias, seed=data.draw(st.integers(0, 99)))
    x = torch.randn(batch, inputs)
    y = kernel.build(layer, machine, Precision(), relu)(x)
    assert y.shape == (batch, out)
    assert y.dtype is torch.float32
    assert bool(((y - exact(layer, x, relu)).abs() <= rounding(layer, x)).all())
    torch.testing.assert_close(kernel.reference(layer, x, relu), y, rtol=1e-3, atol=1e-4)


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
def test_inputs_of_more_axes_and_other_strides_are_taken_as_they_are_meant(kernel: Kernel) -> None:
    layer = random_layer(30, 20, 0.8)
    function = kernel.build(layer, HERE, Precision(), True)
    tokens = torch.randn(4, 7, 20)
    torch.testing.assert_close(function(tokens), kernel.reference(layer, tokens, True))
    crossed, every_third = torch.randn(20, 9).T, torch.randn(27, 20)[::3]
    for x in (crossed, every_third, torch.randn(9, 21)[:, 1:]):
        assert not x.is_contiguous()
        torch.testing.assert_close(function(x), kernel.reference(layer, x, True))
    assert function(torch.randn(0, 7, 20)).shape == (0, 7, 30)


@sparse_kernels
@at_every_width
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_an_input_that_is_not_finite_changes_no_output_that_pytorch_keeps_finite_or_infinite(
    kernel: Kernel, machine: Machine, value: float
) -> None:
    layer = random_layer(50, 40, 0.5)
    x = torch.randn(3, 40)
    x[1, 7] = value
    y, theirs = kernel.build(layer, machine, Precision(), False)(x), kernel.reference(layer, x, False)
    known = ~theirs.isnan()
    torch.testing.assert_close(y[known], theirs[known])
    # The documented difference, and the only one: a skipped weight does not see the input.
    without = x.clone()
    without[1, 7] = 0
    finite = y.isfinite() & theirs.isnan()
    torch.testing.assert_close(y[finite], kernel.reference(layer, without, False)[finite])


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


@sparse_kernels
def test_a_wrong_input_is_refused_before_machine_code_reads_it(kernel: Kernel) -> None:
    function = kernel.build(random_layer(3, 4, 0.5), HERE, Precision(), False)
    for wrong in (torch.zeros(2, 3), torch.zeros(2, 4).double()):
        with pytest.raises(EngineError, match=r"float32 \(\.\.\., 4\)"):
            function(wrong)


def test_dense_knows_linear_and_conv2d_in_fp32_and_refuses_the_rest() -> None:
    layer = random_layer(3, 4, 0.5)
    assert pytorch.accepts(layer, HERE, Precision()) is None
    assert (
        pytorch.accepts(replace(layer, op="conv3d"), HERE, Precision())
        == "knows linear and conv2d, not conv3d"
    )


def test_dense_runs_a_convolution_with_its_stride_padding_dilation_and_groups() -> None:
    model = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)
    x = torch.randn(3, 4, 9, 9)
    (layer,) = layers(model, x)
    function = pytorch.build(layer, HERE, Precision(), True)
    torch.testing.assert_close(function(x), model(x).relu())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [0, 1, 33])
def test_a_sequence_of_layers_computes_what_they_do_one_after_the_other(count: int, batch: int) -> None:
    sizes = [20, 50, 7, 130, 3]
    some = [random_layer(out, inputs, 0.8) for inputs, out in itertools.pairwise(sizes)][:count]
    functions = [SPARSE[i % 2].build(layer, HERE, Precision(), True) for i, layer in enumerate(some)]
    compiled = [function for function in functions if isinstance(function, Compiled)]
    x = torch.randn(batch, 20)
    expected = x
    for layer in some:
        expected = pytorch.reference(layer, expected, True)
    torch.testing.assert_close(sequence(compiled)(x), expected)
    torch.testing.assert_close(sequence([sequence(compiled[:1]), *compiled[1:]])(x), expected)


def test_4_threads_may_run_the_same_layers_at_once() -> None:
    layer, last = random_layer(300, 200, 0.9), random_layer(100, 300, 0.9)
    function = sequence(
        [spmm.build(layer, HERE, Precision(), True), sell.build(last, HERE, Precision(), False)]
    )
    inputs = [torch.randn(70, 200) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(function, inputs))
    for x, y in zip(inputs, answers, strict=True):
        assert torch.equal(y, function(x))


def test_a_plan_holds_numbers_and_the_addresses_of_contiguous_copies() -> None:
    columns = torch.arange(6.0).reshape(2, 3).numpy().T
    made = plan(7, columns)
    table = (ctypes.c_int64 * 2).from_address(made.address)
    assert table[0] == 7
    assert list((ctypes.c_float * 6).from_address(table[1])) == [0, 3, 1, 4, 2, 5]
    assert starts([3, 0, 2]).tolist() == [0, 3, 3, 5]
    assert starts([]).tolist() == [0]


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
@pytest.mark.parametrize("at_end", [True, False], ids=["page after", "page before"])
@pytest.mark.parametrize(("out", "inputs", "batch"), [(1, 1, 1), (17, 5, 3), (16, 32, 16), (37, 70, 33)])
@sparse_kernels
@at_every_width
def test_no_byte_outside_the_input_the_output_and_the_scratch_is_touched(
    kernel: Kernel, machine: Machine, out: int, inputs: int, batch: int, at_end: bool
) -> None:
    layer = random_layer(out, inputs, 0.7)
    layer.weight[-1, -1] = 1.0
    function = kernel.build(layer, machine, Precision(), True)
    assert isinstance(function, Compiled)
    function = sequence([function])
    size = function.scratch + function.scratch_per_row * batch
    x, y, scratch = (Guarded(count, at_end=at_end) for count in (inputs * batch, out * batch, max(size, 1)))
    x.values.copy_(torch.randn(inputs * batch))
    function.run(function.plan.address, x.address, y.address, scratch.address, batch)
    expected = pytorch.reference(layer, x.values.view(batch, inputs), True)
    torch.testing.assert_close(y.values.view(batch, out), expected)
