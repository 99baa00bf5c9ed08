"""Convolutions that skip the zeros of their input, against exact sums: any shape, any zeros, inside their memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import HERE, MACHINES, Guarded
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.errors import EngineError
from zeroskip.run.kernels import gather as kernel
from zeroskip.run.skipping import convolution, gather, shape
from zeroskip.run.skipping.shape import Cut

at_every_width = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
SMALL_CACHE = replace(HERE, cache_bytes=1 << 12)  # as if weights were too many for the caches


def layer_of(
    channels: int,
    outputs: int,
    taps: tuple[int, int],
    size: tuple[int, int],
    *,
    seed: int = 0,
    **options: Any,
) -> Layer:
    """A convolution of normal weights and biases for images (channels, *size)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels, *taps, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    y = functional.conv2d(torch.zeros(1, channels, *size), weight, **options)
    return Layer("drawn", "conv2d", weight, bias, (channels, *size), tuple(y.shape[1:]), **options)


def images(layer: Layer, count: int, sparsity: float, *, seed: int = 0) -> Tensor:
    """Images of normal values, each zero with probability `sparsity`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *layer.input_shape, generator=generator)
    return torch.where(torch.rand(x.shape, generator=generator) < sparsity, 0.0, x)


def exact(layer: Layer, x: Tensor, relu: bool = False) -> Tensor:
    """The layer's output in float64."""
    options = layer.stride, layer.padding, layer.dilation
    y = functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), *options)  # type: ignore[union-attr]
    return y.relu() if relu else y


def rounding(layer: Layer, x: Tensor) -> Tensor:
    """How far float32 sums may be from exact ones: two millionths of sum |weight x input| + |bias|."""
    positive = replace(layer, weight=layer.weight.abs(), bias=layer.bias.abs())  # type: ignore[union-attr]
    return 2e-6 * exact(positive, x.abs())


GUARDED = [
    layer_of(1, 1, (1, 1), (1, 1)),
    layer_of(17, 33, (3, 3), (5, 4), padding=(2, 2), stride=(2, 1)),
    layer_of(20, 70, (5, 5), (9, 9), padding=(1, 1)),
    layer_of(37, 20, (1, 1), (6, 7), stride=(2, 2)),
    layer_of(16, 16, (2, 3), (30, 40)),
]


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    """Any convolution of small images whose windows begin on or near them."""
    taps = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    padding = draw(st.integers(0, taps[0])), draw(st.integers(0, taps[1]))
    down = draw(st.integers(1, 2))
    dilation = down, draw(st.integers(1, 2)) if taps[1] == 1 else 1
    reach = [
        (tap - 1) * spread + 1 - 2 * pad for tap, spread, pad in zip(taps, dilation, padding, strict=True)
    ]
    size = draw(st.integers(max(1, reach[0]), 14)), draw(st.integers(max(1, reach[1]), 14))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels, outputs = draw(st.integers(1, 70)), draw(st.integers(1, 150))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    return layer_of(channels, outputs, taps, size, seed=draw(st.integers(0, 9)), **options)


@settings(max_examples=15, deadline=None)
@given(
    layer=convolutions(),
    count=st.integers(0, 5),
    sparsity=st.sampled_from([0, 0.3, 0.8, 0.97, 1]),
    data=st.data(),
)
def test_every_convolution_is_exact_up_to_rounding(
    layer: Layer, count: int, sparsity: float, data: Any
) -> None:
    machine, relu = data.draw(st.sampled_from([*MACHINES, SMALL_CACHE])), data.draw(st.booleans())
    assert kernel.accepts(layer, machine, Precision()) is None
    x = images(layer, count, sparsity)
    y = convolution.build(layer, machine, relu, near=data.draw(st.booleans()))(x)
    assert y.shape == (count, *layer.output_shape)
    assert bool(((y - exact(layer, x, relu)).abs() <= rounding(layer, x)).all())


@at_every_width
@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (layer_of(20, 64, (5, 5), (11, 11), padding=(1, 1)), 6),
        (layer_of(96, 33, (5, 5), (26, 26), padding=(2, 2), stride=(2, 2)), 3),
        (layer_of(64, 48, (1, 1), (30, 9)), 2),
        (layer_of(64, 48, (1, 1), (31, 9), stride=(2, 2)), 5),
        (layer_of(3, 20, (3, 3), (70, 50), padding=(1, 1)), 1),
        (layer_of(64, 96, (1, 1), (1, 40), stride=(2, 1)), 4),
        (layer_of(64, 96, (1, 1), (1, 1), stride=(2, 2)), 4),
    ],
    ids=[
        "lenet",
        "alexnet",
        "pointwise",
        "pointwise, every other pixel",
        "many bands",
        "one row",
        "one pixel",
    ],
)
def test_bands_blocks_and_parts_fit_together(layer: Layer, count: int, machine: Machine) -> None:
    x = images(layer, count, 0.8)
    for cache_bytes, near in ((machine.cache_bytes, False), (machine.cache_bytes, True), (1 << 13, False)):
        y = convolution.build(layer, replace(machine, cache_bytes=cache_bytes), True, near=near)(x)
        assert bool(((y - exact(layer, x, True)).abs() <= rounding(layer, x)).all())


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("padding", "taps", "dilation"),
    [("same", (4, 2), (1, 1)), ("same", (3, 3), (2, 1)), ("valid", (3, 3), (1, 1))],
)
def test_padding_may_be_a_word(padding: str, taps: tuple[int, int], dilation: tuple[int, int]) -> None:
    layer = layer_of(7, 9, taps, (8, 8), padding=padding, dilation=dilation)
    x = images(layer, 2, 0.5)
    torch.testing.assert_close(convolution.build(layer, HERE, False)(x), exact(layer, x).float())


@at_every_width
def test_not_a_number_and_infinity_are_no_zeros_and_reach_the_outputs_that_pytorch_gives_them(
    machine: Machine,
) -> None:
    layer = layer_of(24, 40, (3, 3), (9, 9), padding=(1, 1))
    x = images(layer, 2, 0.9)
    x[0, 3, 4, 4], x[1, 5, 0, 8], x[1, 6, 7, 2] = torch.nan, torch.inf, -torch.inf
    y = convolution.build(layer, machine, True)(x)
    torch.testing.assert_close(y, exact(layer, x, True).float(), equal_nan=True, rtol=1e-4, atol=1e-4)
    assert int(y.isnan().sum()) == 9 * 40


def test_a_weight_that_is_infinite_meets_only_inputs_that_are_not_zero() -> None:
    layer = layer_of(2, 3, (1, 1), (1, 2))
    layer.weight[1, 0] = torch.inf
    x = torch.tensor([[1.0, 0.0], [2.0, 3.0]]).reshape(1, 2, 1, 2)  # channel 0 of the second pixel is zero
    y = convolution.build(layer, HERE, False)(x)
    assert y[0, 1, 0].tolist()[0] == torch.inf
    assert bool(y[0, :, 0, 1].isfinite().all())
    assert bool(exact(layer, x)[0, 1, 0, 1].isnan())


def test_a_convolution_without_bias_adds_none() -> None:
    layer = replace(layer_of(5, 6, (3, 3), (6, 6)), bias=None)
    y = convolution.build(layer, HERE, False)(torch.zeros(2, *layer.input_shape))
    assert torch.count_nonzero(y) == 0


def test_images_in_any_layout_give_one_output_stored_pixel_by_pixel() -> None:
    layer = layer_of(6, 8, (3, 3), (7, 5))
    function = convolution.build(layer, HERE, False)
    x = images(layer, 3, 0.6)
    wide = torch.zeros(3, 6, 7, 10)
    wide[..., ::2] = x
    answers = [function(one) for one in (x, x.contiguous(memory_format=torch.channels_last), wide[..., ::2])]
    assert all(torch.equal(answers[0], one) for one in answers)
    assert answers[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 6, 5, 7), torch.zeros(6, 7, 5), torch.zeros(2, 6, 7, 5).double()]
)
def test_a_wrong_input_is_refused_before_machine_code_reads_it(wrong: Tensor) -> None:
    function = convolution.build(layer_of(6, 8, (3, 3), (7, 5)), HERE, False)
    with pytest.raises(EngineError, match=r"float32 \(batch, 6, 7, 5\)"):
        function(wrong)


def test_4_threads_may_run_the_same_layer_at_once() -> None:
    layer = layer_of(32, 70, (3, 3), (12, 12), padding=(1, 1))
    function = convolution.build(layer, HERE, True)
    inputs = [images(layer, 1 + seed % 3, 0.85, seed=seed) for seed in range(40)]
    alone = [function(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(function, inputs))
    assert all(torch.equal(y, expected) for y, expected in zip(answers, alone, strict=True))


@cache
def built(layer: int, machine: Machine) -> convolution.Skipping:
    return convolution.build(
        GUARDED[layer], replace(machine, cache_bytes=1 << 14), False, near=layer % 2 == 0
    )


def guarded(values: Tensor, at_end: bool) -> Guarded:
    room = Guarded(values.numel(), at_end=at_end)
    room.values.copy_(values.flatten())
    return room


@pytest.mark.parametrize("at_end", [True, False], ids=["page after", "page before"])
@pytest.mark.parametrize("sparsity", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("number", range(len(GUARDED)))
@at_every_width
def test_no_byte_outside_the_weights_the_tensors_and_the_scratch_is_touched(
    machine: Machine, number: int, sparsity: float, at_end: bool
) -> None:
    layer, function = GUARDED[number], built(number, machine)
    x = images(layer, 3, sparsity).contiguous(memory_format=torch.channels_last)
    weights, bias = (guarded(torch.from_numpy(each), at_end) for each in function.alive)
    given = guarded(x.permute(0, 2, 3, 1), at_end)
    made = guarded(torch.full((3, *layer.output_shape), torch.nan), at_end)
    scratch = guarded(torch.full((function.scratch,), torch.nan), at_end)
    function.run(*(each.address for each in (weights, bias, given, made, scratch)), 3)
    outputs, height, width = layer.output_shape
    y = made.values.view(3, height, width, outputs).permute(0, 3, 1, 2)
    assert bool(((y - exact(layer, x)).abs() <= rounding(layer, x) + 1e-30).all())


def test_the_pieces_of_the_scratch_do_not_overlap_and_have_room_for_what_dense_images_need() -> None:
    sizes = shape.shape(layer_of(30, 64, (3, 3), (20, 20), padding=(1, 1)))
    cut = Cut(sizes, lanes=16, vectors=4, together=6, parts=2, channels=16, groups=1, images=1, lines=7)
    rooms = gather.rooms(cut)
    begins = [*rooms.values()]
    assert begins == sorted(begins)
    assert rooms["row places"] - rooms["row values"] >= 9 * 20 * 16  # 7 lines read 9 rows
    assert rooms["starts"] - rooms["places"] >= 7 * 20 * 9 * 30 + 16  # and a vector more than that
    assert rooms["order"] - rooms["starts"] >= 2 * (7 * 20 + 1)


def test_rows_of_taps_are_worked_on_one_by_one_where_a_vector_of_channels_has_too_many_weights() -> None:
    wide = shape.shape(layer_of(48, 64, (5, 5), (9, 9), padding=(2, 2)))
    assert (shape.cut(wide, HERE).groups, shape.cut(wide, HERE, near=True).groups) == (1, 5)
    small = shape.shape(layer_of(48, 64, (3, 3), (9, 9)))
    assert shape.cut(small, replace(HERE, vector_bytes=64), near=True).groups == 1
    for sizes in (wide, small):
        near = shape.cut(sizes, HERE, near=True)
        assert 4 * near.weights <= shape.NEAR
        assert near.passes == near.parts * near.groups


def test_weights_are_stored_block_by_block_part_by_part_tap_by_tap() -> None:
    layer = layer_of(30, 70, (3, 2), (8, 8))
    cut = Cut(
        shape.shape(layer), lanes=16, vectors=4, together=6, parts=2, channels=16, groups=1, images=1, lines=7
    )
    stored, bias = gather.weights(layer, cut)
    assert stored.shape == (2, 2, 3, 2, 16, 64)
    assert stored[1, 1, 2, 0, 5, 4] == layer.weight[64 + 4, 16 + 5, 2, 0]
    assert not stored[1, :, :, :, :, 6:].any()
    assert not stored[:, 1, :, :, 14:].any()
    assert bias[:70].tolist() == layer.bias.tolist()  # type: ignore[union-attr]
