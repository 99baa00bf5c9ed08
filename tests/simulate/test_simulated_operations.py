"""Every operation in the form of a chip: multiply-accumulates, zeros and sums against loops and PyTorch."""

from __future__ import annotations

from dataclasses import replace

import naive_chips as naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_against_naive_chips import SMALL, counted
from torch import Tensor
from torch.nn import functional as F

from zeroskip.concepts import Layer
from zeroskip.errors import ModelError
from zeroskip.simulate import CHIPS, chips, estimate
from zeroskip.simulate.operations import of_layer, weight_mask
from zeroskip.simulate.traffic import stored
from zeroskip.simulate.workload import count_macs, windows

CONVOLUTIONS = [f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3)]
Run = tuple[Layer, Tensor, Tensor]


def sparse(shape: tuple[int, ...], seed: int, share: float = 0.5) -> Tensor:
    """Random numbers, of which about so many are zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) >= share)


@st.composite
def convolutions(draw: st.DrawFn, op: str = "") -> Run:
    """A convolution of one to three axes, plain or transposed, and what it makes of two examples."""
    op = op or draw(st.sampled_from(CONVOLUTIONS))
    axes, transposed = int(op[-2]), "transpose" in op
    sizes = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))
    groups, channels, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    seed, kernel = draw(st.integers(0, 999)), sizes(1, 2)
    place: dict = {"stride": sizes(1, 2), "padding": sizes(0, 1), "dilation": sizes(1, 2)}
    x = sparse((2, groups * channels, *sizes(3, 4)), seed)
    first, second = (channels, outputs) if transposed else (outputs, channels)
    weight = sparse((groups * first, second, *kernel), seed + 1)
    if transposed:  # beyond the stride and the dilation there is nothing to pad
        place["output_padding"] = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(
            place["stride"], place["dilation"], strict=True))  # fmt: skip
    y = getattr(F, op)(x, weight, None, **place, groups=groups)
    return Layer(op, op, weight, None, tuple(x.shape[1:]), tuple(y.shape[1:]), groups=groups, **place), x, y


@st.composite
def bilinears(draw: st.DrawFn) -> tuple[Layer, Tensor, Tensor]:
    first, second, outputs = (draw(st.integers(1, 4)) for _ in range(3))
    seed = draw(st.integers(0, 999))
    weight, x1, x2 = (sparse(shape, seed + i) for i, shape in enumerate(
        [(outputs, first, second), (2, 3, first), (2, 3, second)]))  # fmt: skip
    shapes = (3, first + second), (3, outputs)
    layer = Layer("bilinear", "bilinear", weight, None, *shapes)
    return layer, torch.cat([x1, x2], -1), F.bilinear(x1, x2, weight)


def products(layer: Layer, x: Tensor) -> tuple[int, int, int]:
    """Of all MACs, those with both factors, a weight, an input: a loop over every weight and the inputs it meets."""
    both = weights = inputs = 0
    for place in torch.cartesian_prod(*(torch.arange(size) for size in layer.weight.shape)).reshape(
        -1, layer.weight.ndim
    ):
        alone = torch.zeros_like(layer.weight)
        alone[tuple(place)] = 1
        seen = met(layer, alone, (x != 0).float())
        w = bool(layer.weight[tuple(place)] != 0)
        inputs += int(seen.sum())
        both += int(seen.sum()) * w
        weights += w * (layer.macs * len(x) // layer.weights)
    return both, weights, inputs


def met(layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
    """What one weight of 1 makes of inputs of 1: the inputs that it meets."""
    if layer.op == "bilinear":
        return F.bilinear(*x.split(layer.weight.shape[1:], -1), weight)
    place = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
    if not layer.transposed:
        return getattr(F, layer.op)(x, weight, None, padding=layer.padding, **place)
    return getattr(F, layer.op)(x, weight, None, **place)  # nothing is cropped before it is multiplied


@settings(max_examples=60, deadline=None)
@given(run=st.one_of(convolutions(), bilinears()))
def test_macs_of_each_kind_are_those_of_a_loop_over_every_weight(run):
    layer, x, y = run
    found = count_macs(of_layer(layer, x, y))
    assert (found.both, found.weight, found.input) == products(layer, x)
    assert found.total == layer.macs * len(x)


@settings(max_examples=60, deadline=None)
@given(run=st.one_of(convolutions(), bilinears()))
def test_what_is_stored_are_the_layer_s_own_numbers(run):
    layer, x, y = run
    work = of_layer(layer, x, y)
    for operand, tensor in (("W", layer.weight), ("A", x), ("O", y)):
        mask = work.operands[operand]
        assert (mask.numel(), int(mask.sum())) == (tensor.numel(), int((tensor != 0).sum()))
    assert stored(work, chips.DENSE)["O"].bits == 16 * y.numel()
    assert work.examples == len(x)


@settings(max_examples=30, deadline=None)
@given(run=convolutions("conv3d"))
def test_windows_of_a_volume_are_what_its_kernel_sees_slice_by_slice(run):
    layer, x, y = run
    work = of_layer(layer, x, y)
    weight = work.weight.permute(0, 1, 3, 4, 2).flatten(2)  # (g, m, k)
    sums = [torch.einsum("gmk,pgk->pgm", weight.float(), seen.flatten(2).float()) for seen in windows(work)]
    place = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    ones = F.conv3d((x != 0).float(), (layer.weight != 0).float(), None, **place, groups=layer.groups)
    assert torch.equal(torch.cat(sums).flatten(1), ones.movedim(1, -1).flatten(0, 3))


@settings(max_examples=30, deadline=None)
@given(run=convolutions("conv_transpose2d"))
def test_columns_of_a_transposed_convolution_add_up_to_its_output(run):
    layer, x, y = run
    work = of_layer(layer, x, y)
    groups, outputs, kernel = layer.groups, layer.weight.shape[1], tuple(layer.weight.shape[2:])
    values = layer.weight.reshape(groups, -1, outputs * kernel[0] * kernel[1]).mT  # (g, columns, c)
    columns = torch.einsum("gmc,ngcp->ngmp", values, x.reshape(2, groups, -1, x[0, 0].numel()))
    full = [
        (length - 1) * step + dilation * (size - 1) + 1
        for length, step, dilation, size in zip(
            x.shape[2:], layer.stride, layer.dilation, kernel, strict=True
        )
    ]
    added = F.fold(columns.flatten(1, 2), full, kernel, layer.dilation, 0, layer.stride)
    whole = F.conv_transpose2d(
        x, layer.weight, None, layer.stride, 0, 0, groups, layer.dilation
    )  # before cropping
    torch.testing.assert_close(added, whole)
    assert torch.equal(work.weight[..., 0, 0], values != 0)


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=6, deadline=None)
@given(run=st.one_of(convolutions(), bilinears()))
def test_every_operation_takes_the_cycles_and_macs_of_the_naive_chip(name, run):
    chip, reference = SMALL[name]
    work = of_layer(*run)
    if work.runs_as in chip.ops:
        assert counted(work, chip) == reference(work, chip)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_a_sequence_costs_what_a_map_of_one_row_does(chip):
    x, weight = sparse((2, 6, 20), 3), sparse((8, 3, 5), 4)
    place = {"stride": (2,), "padding": (2,), "dilation": (1,)}
    y = F.conv1d(x, weight, None, **place, groups=2)
    flat = Layer("c", "conv1d", weight, None, (6, 20), (8, 10), groups=2, **place)
    tall = Layer("c", "conv2d", weight.unsqueeze(2), None, (6, 1, 20), (8, 1, 10), (1, 2), (0, 2), (1, 1), 2)
    if "conv2d" in chip.ops:
        ours = estimate([of_layer(flat, x, y)], chip).layers[0]
        theirs = estimate([of_layer(tall, x.unsqueeze(2), y.unsqueeze(2))], chip).layers[0]
        assert replace(ours, op="conv2d", note="") == replace(theirs, note="")


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("axes", [1, 3])
def test_padding_by_name_is_understood_on_every_axis(axes, padding):
    weight, x = sparse((4, 2, *[3] * axes), 1), sparse((1, 2, *[6] * axes), 2)
    y = getattr(F, f"conv{axes}d")(x, weight, padding=padding)
    layer = Layer(
        "c", f"conv{axes}d", weight, None, x.shape[1:], y.shape[1:], (1,) * axes, padding, (1,) * axes
    )
    work = of_layer(layer, x, y)
    assert work.macs == layer.macs
    assert count_macs(work).both == int(
        getattr(F, f"conv{axes}d")((x != 0).double(), (weight != 0).double(), padding=padding).sum()
    )


def test_a_weight_may_lie_in_memory_in_any_order():
    weight, x = sparse((6, 10), 1), sparse((3, 10), 2)
    turned = weight.t().contiguous().t()  # as GPT-2 has it: (in, out), used as its transpose
    assert not turned.is_contiguous()
    run = Layer("fc", "linear", weight, None, (10,), (6,)), x, x @ weight.t()
    ours = of_layer(replace(run[0], weight=turned), *run[1:])
    for chip in CHIPS:
        if "linear" in chip.ops:
            assert estimate([ours], chip) == estimate([of_layer(*run)], chip)


def test_a_batch_that_is_not_the_first_axis_is_as_many_examples():
    x = sparse((7, 2, 5), 1)  # steps, examples, features; a layer's shape is without its examples
    work = of_layer(Layer("w", "linear", sparse((4, 5), 2), None, (7, 5), (7, 4)), x, torch.ones(7, 2, 4))
    assert (work.examples, work.positions) == (2, 14)


def test_a_mask_of_a_transposed_convolution_lies_as_its_weights_do():
    layer = Layer("up", "conv_transpose2d", sparse((4, 3, 2, 2), 1), None, (4, 5, 5), (3, 10, 10), (2, 2))
    assert torch.equal(weight_mask(layer, layer.weight), weight_mask(layer, layer.weight != 0))
    assert weight_mask(layer, layer.weight).shape == (1, 12, 4, 1, 1)


def test_an_operation_without_a_form_for_chips_is_refused_by_its_name():
    layer = Layer("attention", "softmax", torch.ones(4, 4), None, (4,), (4,))
    with pytest.raises(ModelError, match='layer "attention": the simulator has no form for the operation'):
        of_layer(layer, torch.ones(1, 4), torch.ones(1, 4))


def test_every_naive_chip_is_asked():
    assert {"conv2d", "linear"} == {op for chip, _ in SMALL.values() for op in chip.ops}
    assert naive.scnn is SMALL["SCNN"][1]
