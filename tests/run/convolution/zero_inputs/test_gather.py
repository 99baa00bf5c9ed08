"""Convolutions that skip the zeros of their input, against exact sums: any shape, any zeros, inside their memory."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.convolution.zero_inputs.pictures import exact, images, layer_of
from run.drawn import HERE, MACHINES, let_win
from run.guard_pages import all_memory_guarded, by_side
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit.llvm import assembly
from zeroskip.run.convolution.zero_inputs import gather, kernels, number_formats
from zeroskip.run.convolution.zero_inputs.convolution_shape import shape_of
from zeroskip.run.convolution.zero_inputs.gather_blocking import NEAR, GatherBlocking, gather_blocking

at_every_width = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
ABLE = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512fp16", "f16c", "fma", "avx2"})
AVX512 = replace(HERE, vector_bytes=64)  # described: nothing runs on it
SMALL_CACHE = replace(HERE, cache_bytes=1 << 12)  # as if weights were too many for the caches


def rounding(layer: Layer, x: Tensor, storage: str = "fp32") -> Tensor:
    """How far sums may be from exact ones: two millionths of sum |weight x input| + |bias| in float32.

    In fp16 a sum of 32 terms is rounded 32 times to 11 bits.
    """
    positive = replace(layer, weight=layer.weight.abs(), bias=layer.bias.abs())  # type: ignore[union-attr]
    return (2e-6 if storage != "fp16" else 2**-7) * exact(positive, x.abs()) + (
        1e-5 if storage == "fp16" else 0
    )


NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def storages(machine: Machine) -> list[str]:
    """What weights can be stored in: a processor that cannot read fp16 has no use for it."""
    able = "f16c" in machine.features or machine.arch in ("aarch64", "arm64")
    return ["fp32", "bf16", *(["fp16"] if able else [])]


where_fp16_is_read = pytest.mark.skipif("fp16" not in storages(HERE), reason="this CPU cannot read fp16")


def stored(layer: Layer, storage: str) -> Layer:
    """The layer with weights as the kernel stores them."""
    return layer if storage == "fp32" else replace(layer, weight=layer.weight.to(NARROW[storage]).float())


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


@settings(max_examples=25, deadline=None)
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
    assert kernels.gather_accepts(layer, machine, Precision()) is None
    storage, x = data.draw(st.sampled_from(storages(machine))), images(layer, count, sparsity)
    y = gather.build(layer, machine, relu, near=data.draw(st.booleans()), storage=storage)(x)
    assert y.shape == (count, *layer.output_shape)
    expected = exact(stored(layer, storage), x, relu)
    assert bool(((y - expected).abs() <= rounding(layer, x, storage)).all())


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
    for cache_bytes, near, storage in (
        (machine.cache_bytes, False, "fp32"),
        (machine.cache_bytes, True, "bf16"),
        (1 << 13, False, storages(machine)[-1]),
        (machine.cache_bytes, True, "fp32"),
    ):
        y = gather.build(layer, replace(machine, cache_bytes=cache_bytes), True, near=near, storage=storage)(
            x
        )
        assert bool(((y - exact(stored(layer, storage), x, True)).abs() <= rounding(layer, x, storage)).all())


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("padding", "taps", "dilation"),
    [("same", (4, 2), (1, 1)), ("same", (3, 3), (2, 1)), ("valid", (3, 3), (1, 1))],
)
def test_padding_may_be_a_word(padding: str, taps: tuple[int, int], dilation: tuple[int, int]) -> None:
    layer = layer_of(7, 9, taps, (8, 8), padding=padding, dilation=dilation)
    x = images(layer, 2, 0.5)
    torch.testing.assert_close(gather.build(layer, HERE, False)(x), exact(layer, x).float())


@where_fp16_is_read
@by_side
@pytest.mark.parametrize("sparsity", [0.0, 0.7, 1.0])
def test_without_arithmetic_in_fp16_its_code_still_stays_inside_its_own_memory(
    sparsity: float, at_end: bool
) -> None:
    layer = layer_of(20, 70, (5, 5), (9, 9), padding=(1, 1))
    x = images(layer, 3, sparsity)
    with all_memory_guarded(at_end=at_end):
        y = gather.build(layer, SMALL_CACHE, False, near=True, storage="fp16")(x)
    assert bool(((y - exact(stored(layer, "fp16"), x)).abs() <= rounding(layer, x, "fp16")).all())


def test_a_weight_that_is_infinite_meets_only_inputs_that_are_not_zero() -> None:
    layer = layer_of(2, 3, (1, 1), (1, 2))
    layer.weight[1, 0] = torch.inf
    x = torch.tensor([[1.0, 0.0], [2.0, 3.0]]).reshape(1, 2, 1, 2)  # channel 0 of the second pixel is zero
    y = gather.build(layer, HERE, False)(x)
    assert y[0, 1, 0].tolist()[0] == torch.inf
    assert bool(y[0, :, 0, 1].isfinite().all())
    assert bool(exact(layer, x)[0, 1, 0, 1].isnan())


def test_the_pieces_of_the_scratch_do_not_overlap_and_have_room_for_what_dense_images_need() -> None:
    sizes = shape_of(layer_of(30, 64, (3, 3), (20, 20), padding=(1, 1)))
    cut = GatherBlocking(
        sizes, lanes=16, vectors=4, together=6, parts=2, channels=16, groups=1, images=1, lines=7
    )
    pieces = gather.pieces(cut)
    begins = [*pieces.values()]
    assert begins == sorted(begins)
    assert pieces["row places"] - pieces["row values"] >= 9 * 20 * 16  # 7 lines read 9 rows
    assert pieces["starts"] - pieces["places"] >= 7 * 20 * 9 * 30 + 16  # and a vector more than that
    assert pieces["order"] - pieces["starts"] >= 2 * (7 * 20 + 1)


def test_rows_of_taps_are_worked_on_one_by_one_where_a_vector_of_channels_has_too_many_weights() -> None:
    wide = shape_of(layer_of(48, 64, (5, 5), (9, 9), padding=(2, 2)))
    assert (gather_blocking(wide, AVX512).groups, gather_blocking(wide, AVX512, near=True).groups) == (1, 5)
    small = shape_of(layer_of(48, 64, (3, 3), (9, 9)))
    assert gather_blocking(small, AVX512, near=True).groups == 1
    for sizes, storage, size in ((wide, "fp32", 4), (small, "fp32", 4), (small, "bf16", 2)):
        near = gather_blocking(sizes, AVX512, near=True, storage=storage)
        assert size * near.weights <= NEAR
        assert near.passes == near.parts * near.groups


def test_weights_are_stored_block_by_block_part_by_part_tap_by_tap() -> None:
    layer = layer_of(30, 70, (3, 2), (8, 8))
    cut = GatherBlocking(
        shape_of(layer), lanes=16, vectors=4, together=6, parts=2, channels=16, groups=1, images=1, lines=7
    )
    stored = gather.weights(layer, cut)
    assert stored.shape == (2, 2, 3, 2, 16, 64)
    assert stored[1, 1, 2, 0, 5, 4] == layer.weight[64 + 4, 16 + 5, 2, 0]
    assert not stored[1, :, :, :, :, 6:].any()
    assert not stored[:, 1, :, :, 14:].any()


def test_two_vectors_of_bf16_share_words_and_fp16_lies_in_order() -> None:
    order = torch.arange(64).float().numpy()[None]
    words = number_formats.stored("bf16", order, 16)
    assert words.shape == (1, 32)
    upper = (words & np.uint32(0xFFFF0000)).view(np.float32)
    lower = (words << 16).view(np.float32)
    assert lower[0].tolist() == [*range(16), *range(32, 48)]
    assert upper[0].tolist() == [*range(16, 32), *range(48, 64)]
    assert number_formats.stored("fp16", order, 16).tolist() == order.tolist()


@pytest.mark.parametrize(("outputs", "vectors"), [(1, 2), (16, 2), (33, 4), (65, 6), (128, 4), (192, 4)])
def test_weights_of_16_bits_come_in_pairs_of_vectors(outputs: int, vectors: int) -> None:
    sizes = shape_of(layer_of(8, outputs, (3, 3), (6, 6)))
    assert gather_blocking(sizes, replace(HERE, vector_bytes=64), storage="bf16").vectors == vectors


def test_fp16_multiplies_twice_as_many_lanes_where_the_processor_can() -> None:
    able = replace(HERE, arch="x86_64", vector_bytes=64, features=ABLE)
    cut = gather_blocking(shape_of(layer_of(64, 64, (3, 3), (9, 9))), able, storage="fp16")
    text = assembly(gather.emit(cut, relu=True).text(able), able, triple="x86_64-unknown-linux-gnu")
    assert re.search(r"vfmadd\d{3}ph\s.*%zmm", text)
    assert not re.search(r"vfmadd\d{3}ps\s.*%zmm", text)


@where_fp16_is_read
def test_a_million_products_in_fp16_go_over_into_float32_before_they_stop_growing() -> None:
    layer = layer_of(512, 3, (5, 5), (5, 5))
    layer.weight[:], layer.bias[:] = 1.0, 0.0  # type: ignore[index]
    x = torch.ones(1, 512, 5, 5)
    assert gather.build(layer, HERE, False, storage="fp16")(x).flatten().tolist() == [12800.0] * 3


@pytest.mark.parametrize(
    ("storage", "precision", "reason"),
    [
        ("bf16", Precision(), "stores weights in bf16, and fp32 was asked for"),
        ("bf16", Precision(weights="bf16"), None),
        ("fp16", Precision(), "fp32 arithmetic was asked for"),
        ("fp16", Precision(arithmetic="fp16"), "this one does not"),
    ],
)
def test_fewer_bits_are_used_only_where_asked_for_and_able(
    storage: str, precision: Precision, reason: str | None
) -> None:
    layer, unable = layer_of(8, 8, (3, 3), (6, 6)), replace(HERE, features=frozenset())
    found = kernels.gather_accepts(layer, unable, precision, storage=storage)
    assert found is None if reason is None else reason in (found or "")
    assert (
        kernels.gather_accepts(
            layer, replace(HERE, features=ABLE), Precision(arithmetic="fp16"), storage="fp16"
        )
        is None
    )


def test_a_network_may_have_its_weights_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    let_win(monkeypatch, alone={"gather_bf16"}, together={"fastest", "joined"})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU()).eval()
    x = torch.rand(2, 64, 12, 12) * (torch.rand(2, 64, 12, 12) < 0.01)
    narrow = [kernel for kernel in kernels.GATHER if kernel.weights == "bf16"]
    program = run.compile(model, x, weights="bf16", kernels=narrow)
    assert program.choices[0].kernel == "gather_bf16"
    torch.testing.assert_close(program(x), model(x), rtol=2**-7, atol=2**-8)


@pytest.mark.parametrize("kernel", [*kernels.GATHER, *kernels.SCATTER], ids=lambda kernel: kernel.name)
def test_a_dense_input_meets_the_same_rounded_weights_in_pytorch(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if PyTorch were always faster.
    monkeypatch.setattr(kernels, "break_even", lambda *_: 0.0)
    layer = layer_of(64, 40, (3, 3), (7, 7), padding=(1, 1))
    x = images(layer, 2, 0.5)
    y = kernel.build(layer, HERE, Precision(), True)(x)
    expected = exact(stored(layer, kernel.weights), x, True)
    assert bool(((y - expected).abs() <= rounding(layer, x)).all())


@pytest.mark.parametrize(
    ("size", "weight", "reason"),
    [
        (1.0, 1.0, None),
        (1e5, 1.0, "on the example; fp16 ends at 65504"),
        (1.0, 1e5, "fp16 ends at 65504"),
        (100.0, 100.0, "fp16 ends at 65504"),
        (1e-3, 1e-5, "all sums of the example nearly vanish in fp16"),
        (torch.inf, 1.0, "reaches inf"),
        (torch.nan, 1.0, "reaches nan"),
    ],
)
def test_fp16_is_for_examples_whose_numbers_it_holds(size: float, weight: float, reason: str | None) -> None:
    layer = layer_of(8, 8, (3, 3), (6, 6))
    layer.weight[:] = weight
    x = torch.where(torch.arange(6) < 3, size, 0.0).expand(1, 8, 6, 6)  # half of it is zero
    found = kernels.suits(layer, x, storage="fp16")
    assert found is None if reason is None else reason in (found or "")
    assert kernels.suits(layer, x) is None
