"""Convolutions that send their non-zeros to all outputs, against exact sums: any shape, any zeros, in their memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.convolution.zero_inputs import pictures
from run.convolution.zero_inputs.pictures import exact, images
from run.drawn import HERE, MACHINES, random_layer
from torch import Tensor

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.run.convolution.zero_inputs import kernels, scatter
from zeroskip.run.convolution.zero_inputs.convolution_shape import shape_of
from zeroskip.run.convolution.zero_inputs.scatter_blocking import (
    ScatterBlocking,
    cannot_be_scattered,
    scatter_blocking,
)
from zeroskip.run.dense import pytorch
from zeroskip.run.select.layer_timing import time_kernels

at_every_width = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
in_both_forms = pytest.mark.parametrize("storage", ["fp32", "bf16"])
SMALL_CACHE = replace(HERE, cache_bytes=1 << 10)  # every layer here is larger


def layer_of(*sizes: Any, **options: Any) -> Layer:
    """A convolution whose weights bf16 holds exactly."""
    layer = pictures.layer_of(*sizes, **options)
    return replace(layer, weight=layer.weight.bfloat16().float())


def is_exact(y: Tensor, layer: Layer, x: Tensor, relu: bool = False) -> bool:
    """Whether sums in float32 explain all differences: two millionths of sum |weight x input| + |bias|."""
    positive = replace(layer, weight=layer.weight.abs(), bias=layer.bias.abs())  # type: ignore[union-attr]
    close = (y - exact(layer, x, relu)).abs() <= 2e-6 * exact(positive, x.abs()) + 1e-30
    return y.shape == (len(x), *layer.output_shape) and bool(close.all())


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    """Any convolution of stride 1 of small images, whose windows may begin far outside of them."""
    taps = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, 7)), draw(st.integers(0, 7))
    least = [
        max(1, (tap - 1) * spread + 1 - 2 * pad)
        for tap, spread, pad in zip(taps, dilation, padding, strict=True)
    ]
    size = draw(st.integers(least[0], least[0] + 9)), draw(st.integers(least[1], least[1] + 9))
    channels, outputs = draw(st.integers(1, 70)), draw(st.integers(1, 150))
    options = {"padding": padding, "dilation": dilation}
    return layer_of(channels, outputs, taps, size, seed=draw(st.integers(0, 9)), **options)


@settings(max_examples=25, deadline=None)
@given(
    layer=convolutions(),
    count=st.integers(0, 3),
    sparsity=st.sampled_from([0, 0.3, 0.8, 0.97, 1]),
    machine=st.sampled_from(MACHINES),
    storage=st.sampled_from(["fp32", "bf16"]),
    relu=st.booleans(),
)
def test_every_convolution_of_stride_1_is_exact_up_to_rounding(
    layer: Layer, count: int, sparsity: float, machine: Machine, storage: str, relu: bool
) -> None:
    x = images(layer, count, sparsity)
    assert is_exact(scatter.build(layer, machine, relu, storage=storage)(x), layer, x, relu)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("padding", "taps", "dilation"),
    [("same", (4, 2), (1, 1)), ("same", (3, 4), (2, 3)), ("valid", (3, 3), (1, 2))],
)
def test_padding_may_be_a_word(padding: str, taps: tuple[int, int], dilation: tuple[int, int]) -> None:
    layer = layer_of(7, 9, taps, (8, 10), padding=padding, dilation=dilation)
    x = images(layer, 2, 0.5)
    assert is_exact(scatter.build(layer, HERE, False)(x), layer, x)


@in_both_forms
def test_the_layers_of_a_large_network_are_exact_with_90_percent_zeros(storage: str) -> None:
    for layer in (
        layer_of(384, 384, (3, 3), (13, 13), padding=(1, 1)),
        layer_of(192, 384, (3, 3), (7, 7), padding=(1, 1)),
        layer_of(512, 300, (1, 1), (7, 7)),
    ):
        x = images(layer, 1, 0.9)
        assert is_exact(scatter.build(layer, HERE, True, storage=storage)(x), layer, x, True)


@at_every_width
def test_weights_of_channels_that_are_zero_everywhere_are_never_multiplied(machine: Machine) -> None:
    layer = layer_of(40, 50, (3, 3), (6, 6), padding=(1, 1))
    x = images(layer, 1, 0.5)
    x[:, 1::2] = 0
    layer.weight[:, 1::2] = torch.nan
    alive = replace(layer, weight=layer.weight[:, ::2], input_shape=(20, 6, 6))
    assert is_exact(scatter.build(layer, machine, False)(x), alive, x[:, ::2])


@in_both_forms
def test_images_of_zeros_give_the_biases_at_every_pixel(storage: str) -> None:
    layer = layer_of(33, 20, (3, 3), (5, 7), padding=(1, 1))
    y = scatter.build(layer, HERE, False, storage=storage)(torch.zeros(2, *layer.input_shape))
    assert torch.equal(y, layer.bias[:, None, None].expand(2, 20, 5, 7))  # type: ignore[index]


@at_every_width
def test_bf16_weights_are_rounded_to_the_nearest(machine: Machine) -> None:
    layer = layer_of(24, 40, (3, 3), (6, 6), padding=(1, 1))
    layer.weight.mul_(1.00123)
    x = images(layer, 1, 0.8)
    y = scatter.build(layer, machine, True, storage="bf16")(x)
    assert is_exact(y, replace(layer, weight=layer.weight.bfloat16().float()), x, True)
    assert not is_exact(y, layer, x, True)


def test_the_pieces_of_the_scratch_do_not_overlap_and_have_room_for_what_dense_images_need() -> None:
    cut = ScatterBlocking(shape_of(layer_of(30, 64, (3, 3), (10, 7), padding=(1, 1))), lanes=16, vectors=2)
    pieces = scatter.pieces(cut)
    assert [*pieces.values()] == sorted(pieces.values())
    assert pieces["values"] - pieces["planes"] >= 16 * 80  # 70 pixels, in whole vectors
    assert pieces["places"] - pieces["values"] >= 30 * 70 + 16  # and a vector more
    assert pieces["starts"] - pieces["places"] >= 30 * 70 + 16
    assert pieces["channels"] - pieces["starts"] >= 2 * 31  # of 64 bits
    assert pieces["sums"] - pieces["channels"] >= 2 * (30 + cut.ahead)
    assert pieces["end"] - pieces["sums"] >= 12 * 9 * 32


def test_sums_are_as_many_as_inputs_reach_or_outputs_need() -> None:
    def sums(size: tuple[int, int], **options: Any) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
        cut = ScatterBlocking(shape_of(layer_of(1, 1, (3, 3), size, **options)), lanes=16, vectors=1)
        return cut.rows, cut.columns, cut.margin, cut.begin

    assert sums((7, 5)) == (9, 7, (0, 0), (2, 2))  # no padding: those outside are never looked at
    assert sums((7, 5), padding=(1, 2)) == (9, 7, (0, 0), (1, 0))
    assert sums((7, 5), padding=(3, 4)) == (11, 11, (1, 2), (0, 0))  # so much that some outputs are biases
    assert sums((7, 5), padding=(1, 1), dilation=(2, 1)) == (11, 7, (0, 0), (3, 1))


def test_weights_are_stored_block_by_block_channel_by_channel_tap_by_tap() -> None:
    layer = layer_of(30, 70, (3, 2), (8, 8))
    for storage, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        cut = ScatterBlocking(shape_of(layer), lanes=16, vectors=3, storage=storage)
        stored = scatter.weights(layer, cut)
        weights = torch.from_numpy(stored).view(dtype).view(2, 30, 3, 2, 48)
        assert weights[1, 5, 2, 0, 4] == layer.weight[48 + 4, 5, 2, 0]
        assert not weights[1, ..., 22:].any()


@pytest.mark.parametrize(
    ("taps", "outputs", "wide", "narrow"),
    [((1, 1), 512, 8, 8), ((1, 1), 40, 3, 5), ((2, 2), 512, 5, 2), ((3, 3), 512, 2, 1), ((7, 7), 512, 1, 1)],
)
def test_20_of_32_registers_hold_weights_and_10_of_16(
    taps: tuple[int, int], outputs: int, wide: int, narrow: int
) -> None:
    sizes = shape_of(layer_of(2, outputs, taps, (7, 7)))
    found = [
        scatter_blocking(sizes, replace(HERE, vector_bytes=vector_bytes)).vectors for vector_bytes in (64, 32)
    ]
    assert found == [wide, narrow]


def test_strides_groups_and_maps_beyond_the_first_level_cache_are_refused_with_the_reason() -> None:
    machine = replace(HERE, vector_bytes=64)
    assert cannot_be_scattered(layer_of(2, 64, (3, 3), (15, 15), padding=(1, 1)), machine) is None
    large = cannot_be_scattered(layer_of(2, 64, (3, 3), (28, 28), padding=(1, 1)), machine)
    assert large == "115200 bytes of sums for some outputs: 40960 stay near"
    stride = cannot_be_scattered(layer_of(2, 3, (3, 3), (9, 9), stride=(1, 2)), machine)
    assert stride == "stride 2: every input reaches outputs through all taps here"
    grouped = replace(layer_of(1, 4, (3, 3), (9, 9)), input_shape=(4, 9, 9), groups=4)
    assert cannot_be_scattered(grouped, machine) == "4 groups: every input reaches all outputs here"


def test_the_kernel_accepts_dense_float32_weights_that_the_second_level_cache_cannot_hold() -> None:
    layer, precision = layer_of(64, 64, (3, 3), (7, 7), padding=(1, 1)), Precision()
    small = replace(HERE, cache_bytes=4 * layer.weights)
    assert (
        kernels.scatter_accepts(layer, replace(small, cache_bytes=4 * layer.weights - 1), precision) is None
    )
    assert kernels.scatter_accepts(layer, small, precision) == (
        "147456 bytes of weights stay near: windows gather them faster"
    )
    pruned = replace(layer, weight=layer.weight * (torch.rand(layer.weight.shape) < 0.05))
    reasons = [
        kernels.scatter_accepts(random_layer(3, 4, 0), SMALL_CACHE, precision),
        kernels.scatter_accepts(replace(layer, weight=layer.weight.double()), SMALL_CACHE, precision),
        kernels.scatter_accepts(pruned, SMALL_CACHE, precision),
        kernels.scatter_accepts(layer, SMALL_CACHE, precision, storage="bf16"),
    ]
    words = ["not linear", "not float64", "% of its weights are zero", "in bf16, and fp32 was asked for"]
    assert all(word in str(reason) for word, reason in zip(words, reasons, strict=True))
    assert kernels.scatter_accepts(layer, SMALL_CACHE, Precision(weights="bf16"), storage="bf16") is None


def test_the_kernels_pass_the_proof_of_a_race_and_dense_inputs_go_to_pytorch() -> None:
    layer = layer_of(32, 40, (3, 3), (7, 7), padding=(1, 1))
    candidates = pytorch.KERNEL, kernels.GATHER[0], *kernels.SCATTER
    asked = {"machine": SMALL_CACHE, "precision": Precision(weights="bf16"), "kernels": candidates}
    raced = time_kernels(layer, True, images(layer, 1, 0.9), **asked)
    assert {"scatter", "scatter_bf16"} <= set(raced.choice.seconds)
    few = time_kernels(layer, True, images(layer, 1, 0.2), **asked)
    assert {"scatter", "scatter_bf16"} <= set(few.choice.refused)
    x = images(layer, 2, 0)
    assert is_exact(kernels.SCATTER[0].build(layer, HERE, Precision(), True)(x), layer, x, True)
