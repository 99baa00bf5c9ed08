"""The reference for eight bits: sums are exact, and float32 is rounded where it is said, compared with fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from zeroskip.errors import EngineError
from zeroskip.run import integer_reference as reference
from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.operations import Window
from zeroskip.run.element import Scaling
from zeroskip.run.integer_reference import ByteEpilogue, ByteMap, Divisor

SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)


def rounded(exact: Fraction) -> float:
    """The float32 number next to a fraction, of two the even one."""
    if not exact:
        return 0.0
    exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    exponent -= abs(exact) < Fraction(2) ** exponent
    last = Fraction(2) ** (max(exponent, -126) - 23)
    return float(round(exact / last) * last)


def as_singles(*numbers: float) -> list[Tensor]:
    return [torch.tensor([each], dtype=torch.float32) for each in numbers]


@settings(max_examples=200, deadline=None)
@given(SINGLE, SINGLE, SINGLE)
@example(1 + 2.0**-12, 1 + 2.0**-12, 2.0**-60)  # two roundings would end halfway, and then at the even number
@example(1 + 2.0**-12, 1 + 2.0**-12, -(2.0**-60))
@example(2.0**-75, 2.0**-75, 2.0**-149)  # subnormal
@example(3 * 2.0**-75, 2.0**-75, 2.0**-149)
@example(1.0, 1.0, -1.0)
def test_a_fused_multiply_add_rounds_the_exact_result_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert reference.fma(*as_singles(a, b, c)).item() == rounded(exact)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_sums_that_end_halfway_between_two_numbers_are_rounded_as_fractions_are(seed: int) -> None:
    """c lies so far below a * b that float64 drops it, and a * b lies halfway between two float32 numbers."""
    draw = np.random.default_rng(seed)
    odd = 2 * draw.integers(2**11, 2**12, 20) + 1
    other = (3 * 2**23 // odd) | 1  # an odd product of 25 bits
    a, b = (torch.from_numpy(each.astype("f4")) for each in (odd, other))
    c = torch.from_numpy((draw.choice([-1, 1], 20) * 2.0 ** -draw.integers(30, 60, 20)).astype("f4"))
    triples = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    expected = [rounded(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in triples]
    assert reference.fma(a, b, c).tolist() == expected
    assert (a.double() * b.double() + c.double()).float().tolist() != expected


@settings(max_examples=50, deadline=None)
@given(
    st.lists(SINGLE, min_size=1, max_size=20),
    st.floats(2.0**-20, 2.0**20, width=32),
    st.sampled_from([0, 128]),
)
def test_bytes_are_the_nearest_even_of_a_product_and_end_where_the_range_ends(
    x, scale: float, zero: int
) -> None:
    at = Scaling(scale, zero)
    inverse = np.float32(1) / np.float32(scale)
    with np.errstate(over="ignore"):
        steps = [round(float(np.clip(np.float32(each) * inverse, -999, 999))) for each in x]
    expected = [min(max(each, -zero), 255 - zero) + zero for each in steps]
    assert reference.byte_map(torch.tensor(x), at).numbers.tolist() == expected
    assert reference.next_map(torch.tensor(x), at).numbers.tolist() == expected


@pytest.mark.parametrize("zero", [0, 128])
def test_nan_becomes_the_zero_point_where_it_enters_and_the_least_byte_behind_a_layer(zero: int) -> None:
    x, at = torch.tensor([torch.nan, torch.inf, -torch.inf]), Scaling(1.0, zero)
    assert reference.byte_map(x, at).numbers.tolist() == [zero, 255, 0]
    assert reference.next_map(x, at).numbers.tolist() == [0, 255, 0]


def test_every_byte_that_becomes_a_number_becomes_the_same_byte_again() -> None:
    numbers = torch.arange(256, dtype=torch.uint8)
    for zero in (0, 128):
        for scale in np.random.default_rng(0).uniform(0.001, 3, 200).astype("f4").tolist():
            map_ = ByteMap(numbers, Scaling(scale, zero))
            assert torch.equal(reference.byte_map(map_.real, map_.at).numbers, numbers)


def test_zero_weights_stay_zero_and_a_channel_of_zeros_has_scale_1() -> None:
    weight = torch.randn(5, 7)
    weight[weight < 0] = 0
    weight[3] = 0
    stored = reference.byte_weight(weight)
    assert torch.equal(stored.numbers == 0, weight < stored.scales[:, None] / 2)
    assert stored.scales[3] == 1
    assert stored.numbers.abs().amax(1).tolist() == [127, 127, 127, 0, 127]


@st.composite
def convolutions(draw) -> tuple[ByteMap, Tensor, Window, int]:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    into = groups * draw(st.integers(1, 3))
    out = draw(st.sampled_from([groups, 2 * groups, into if into % groups == 0 else groups]))
    size = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pairs = [(draw(st.integers(least, 2)), draw(st.integers(least, 2))) for least in (1, 0, 1)]
    window = Window(size, *pairs)
    if draw(st.booleans()):
        groups = out = into  # depthwise
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = torch.randint(0, 256, (2, into, 7, 6), generator=generator, dtype=torch.uint8)
    weight = torch.randint(-127, 128, (out, into // groups, *size), generator=generator).float()
    at = Scaling(draw(st.sampled_from([0.013, 0.5])), draw(st.sampled_from([0, 128])))
    return ByteMap(x, at), weight, window, groups


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_sums_of_convolutions_are_those_of_whole_numbers_with_zero_points_around_the_map(drawn) -> None:
    x, weight, window, groups = drawn
    stored = reference.ByteWeight(weight, torch.ones(len(weight)))
    centred = x.numbers.long() - x.at.zero_point
    expected = functional.conv2d(
        centred.double(), weight.double(), None, window.stride, window.padding, window.dilation, groups
    )
    assert torch.equal(reference.sums_of_windows(x, stored, window, groups).double(), expected)


def test_large_sums_are_exact_and_rounded_to_float32_at_the_end() -> None:
    x = ByteMap(torch.full((1, 5000), 255, dtype=torch.uint8), Scaling(1.0, 0))
    weight = reference.ByteWeight(torch.full((1, 5000), 127.0), torch.ones(1))
    weight.numbers[0, 0] = 126
    sums = reference.sums_of_rows(x, weight)
    assert int(sums) == 255 * (127 * 4999 + 126)
    assert reference.finished(sums, x.at, weight, ByteEpilogue()).item() == float(np.float32(int(sums)))


def test_a_layer_whose_sums_may_pass_int32_is_refused() -> None:
    weight = reference.ByteWeight(torch.full((1, 70_000), 127.0), torch.ones(1))
    with pytest.raises(EngineError, match="fc adds so many products"):
        reference.demand_sums("fc", weight)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0, 128]), st.booleans())
def test_results_of_a_layer_are_two_fused_steps_then_the_activation(seed: int, zero: int, adds: bool) -> None:
    draw = np.random.default_rng(seed)
    sums = draw.integers(-(2**30), 2**30, (1, 3))
    scales, bias = draw.uniform(1e-3, 1, 3).astype("f4"), draw.normal(size=3).astype("f4")
    other = ByteMap(
        torch.from_numpy(draw.integers(0, 256, (1, 3), dtype="u1")), Scaling(float(np.float32(0.3)), zero)
    )
    at, weight = (
        Scaling(float(np.float32(0.1)), 0),
        reference.ByteWeight(torch.zeros(3, 1), torch.from_numpy(scales)),
    )
    after = ByteEpilogue(torch.from_numpy(bias), other if adds else None, Activation("relu"))
    expected = []
    for each in range(3):
        shift = bias[each]
        if adds:
            shift = np.float32(shift - np.float32(zero) * np.float32(0.3))
        y = rounded(
            Fraction(float(np.float32(sums[0, each]))) * Fraction(float(np.float32(0.1) * scales[each]))
            + Fraction(float(shift))
        )
        if adds:
            y = rounded(int(other.numbers[0, each]) * Fraction(float(np.float32(0.3))) + Fraction(y))
        expected.append(max(y, 0.0))
    found = reference.finished(torch.from_numpy(sums).double(), at, weight, after)
    assert found[0].tolist() == expected


@pytest.mark.parametrize("zero", [0, 128])
@pytest.mark.parametrize("ceil", [False, True])
def test_pools_are_those_of_the_numbers_that_the_bytes_stand_for(zero: int, ceil: bool) -> None:
    x = ByteMap(torch.randint(0, 256, (2, 3, 8, 9), dtype=torch.uint8), Scaling(0.25, zero))
    window = Window((3, 3), (2, 2), (1, 1))
    pooled = functional.max_pool2d(x.real, 3, 2, 1, ceil_mode=ceil)
    size = pooled.shape[2], pooled.shape[3]
    assert torch.equal(reference.largest_of_windows(x, window, size).real, pooled)
    for counts in (False, True):
        wanted = functional.avg_pool2d(x.real, 3, 2, 1, ceil_mode=ceil, count_include_pad=counts)
        found = reference.mean_of_windows(x, window, size, Divisor(counts))
        torch.testing.assert_close(found, wanted)
    wanted = functional.avg_pool2d(x.real, 3, 2, 1, ceil_mode=ceil, divisor_override=5)
    torch.testing.assert_close(reference.mean_of_windows(x, window, size, Divisor(fixed=5)), wanted)
    torch.testing.assert_close(reference.mean_of_pixels(x), x.real.mean((2, 3)))


def test_sums_and_concatenations_of_maps_of_different_scales() -> None:
    parts = [
        ByteMap(torch.randint(0, 256, (2, 3, 4), dtype=torch.uint8), Scaling(scale, zero))
        for scale, zero in ((0.25, 0), (0.1, 128))
    ]
    torch.testing.assert_close(reference.sum_of_maps(*parts), parts[0].real + parts[1].real)
    joined = reference.concatenated(parts, Scaling(0.25, 128))
    wanted = torch.cat([each.real for each in parts], 1).clamp(-32, 31.75)
    torch.testing.assert_close(joined.real, wanted, atol=0.126, rtol=0)
    same = reference.concatenated([parts[0], parts[0]], parts[0].at)
    assert torch.equal(same.numbers, torch.cat([parts[0].numbers] * 2, 1))


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [
        (Activation("relu"), torch.relu),
        (Activation("bounded", (6.0,)), functional.relu6),
        (Activation("clamp", (-1.0, 2.0)), lambda y: y.clamp(-1, 2)),
        (Activation("leaky_relu", (0.1,)), lambda y: functional.leaky_relu(y, 0.1)),
        (Activation("hardsigmoid"), functional.hardsigmoid),
        (Activation("hardswish"), functional.hardswish),
        (Activation("silu"), functional.silu),
        (Activation("gelu"), functional.gelu),
        (Activation("elu", (1.0, 1.0, 1.0)), functional.elu),
        (Activation("softplus", (1.0, 20.0)), functional.softplus),
    ],
)
def test_activations_are_pytorchs_and_keep_nan(activation: Activation, wanted) -> None:
    y = torch.cat([torch.linspace(-8, 8, 101), torch.tensor([torch.nan])])
    torch.testing.assert_close(reference.activated(y, activation), wanted(y), equal_nan=True)
    assert math.isnan(reference.activated(y, activation)[-1])
