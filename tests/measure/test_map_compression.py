"""Sizes of maps in each format against streams that were really written, and traffic counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip import measure
from zeroskip.codecs import bitmask, csr, gaps, runlength
from zeroskip.errors import ModelError, RecipeError
from zeroskip.measure.map_compression import compression, fraction_bits, quantised, traffic


def random_maps(shape: tuple[int, ...], sparsity: float, seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    values = random.integers(-(2**15), 2**15, shape) * (random.random(shape) >= sparsity)
    return torch.from_numpy(values.astype(np.int16))


@given(
    shape=st.sampled_from([(3, 2, 5, 7), (1, 4, 1, 1), (2, 40), (5, 1, 6, 6)]),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_bits_are_those_of_streams_that_are_really_written_for_each_example(shape, sparsity, seed):
    maps = random_maps(shape, sparsity, seed)
    found = compression([("conv", maps)])[0]
    written = dict.fromkeys(found.bits, 0)
    for one in maps.numpy():
        mask, values = one != 0, 16 * np.count_nonzero(one)
        rows = mask.reshape(len(mask) if mask.ndim > 1 else 1, -1)
        written["run-length"] += 64 * len(runlength.encode(one))
        written["bitmask"] += bitmask.bits(mask) + values
        written["gaps"] += gaps.bits(mask.reshape(-1), 5) + values
        written["csr"] += 8 * sum(part.nbytes for part in csr.encode(rows)) + values
    assert found.bits == written
    assert (found.elements, found.zeros) == (maps.numel(), int((maps == 0).sum()))
    assert found.dense_bits == 16 * maps.numel()


@pytest.mark.parametrize(
    ("sparsity", "above", "ratio"),
    [(0.387, 0.214, 1.22), (0.5, 0.185, 1.50), (0.725, 0.118, 2.73), (0.776, 0.099, 3.35), (0.95, 0.218, 12.1)],
)  # fmt: skip
def test_random_zeros_take_21_percent_above_the_entropy_at_38_7_and_10_at_77_6(sparsity, above, ratio):
    found = compression([("conv", random_maps((4, 50, 40, 40), sparsity, 1))])[0]
    assert found.above_bound("run-length") == pytest.approx(above, abs=0.01)
    assert found.ratio("run-length") == pytest.approx(ratio, rel=0.02)
    assert found.above_bound("bitmask") >= 0 - 1e-9


def test_half_zeros_are_bounded_by_1_bit_and_8_of_values_for_each_element():
    found = compression([("fc", torch.tensor([[0, 5] * 50], dtype=torch.int16))])[0]
    assert found.bound == pytest.approx(100 * (1 + 8))
    assert found.bits["bitmask"] == 900
    assert found.above_bound("bitmask") == pytest.approx(0)


def test_zeros_alone_have_no_bound_and_no_gaps_to_divide_by():
    found = compression([("fc", torch.zeros(1, 64))])[0]
    assert (found.sparsity, found.bound, found.bits["run-length"], found.bits["gaps"]) == (1, 0, 64, 0)
    assert math.isnan(found.above_bound("run-length"))
    assert found.ratio("gaps") == math.inf
    assert compression([]) == []


def test_batches_of_one_layer_add_up_to_what_all_at_once_gives():
    maps = random_maps((6, 3, 4, 4), 0.6, 2)
    whole = compression([("a", maps), ("b", maps[:1])])
    parts = compression(
        (name, part) for name, all_ in (("a", maps), ("b", maps[:1])) for part in all_.split(2)
    )
    assert parts == whole


def test_floats_keep_one_bit_spare_and_round_to_the_nearest_step():
    assert [fraction_bits(torch.tensor([value])) for value in (0.0, 0.9, 1.0, 5.0, 300.0, 1e-40)] == [
        14, 14, 13, 11, 5, 146,
    ]  # fmt: skip
    assert fraction_bits(torch.tensor([3], dtype=torch.int16)) == 0
    values = torch.tensor([0.25, -0.125, 1.25, 100.0, -100.0, 0.1])
    assert quantised(values, 2).tolist() == [1, 0, 5, 400, -400, 0]
    assert quantised(values, 10).tolist() == [256, -128, 1280, 32767, -32768, 102]
    assert quantised(torch.tensor([1e-40]), 146).tolist() == [8920]


@given(scale=st.floats(1e-20, 1e20), seed=st.integers(0, 2**32 - 1))
def test_no_value_of_the_first_map_saturates_and_each_is_within_half_a_step(scale, seed):
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=50) * scale)
    fraction = fraction_bits(values)
    back = quantised(values, fraction) / 2.0**fraction
    assert np.abs(back - values.numpy().astype(np.float64)).max() <= 0.5 / 2.0**fraction
    assert 2**13 <= np.abs(quantised(values, fraction)).max() <= 2**14


def test_later_maps_have_the_first_one_s_step_and_saturate():
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[1e-5, 50.0]])
    found = compression([("fc", first), ("fc", second)])[0]
    assert (found.fraction_bits, found.zeros, found.examples) == (13, 2, 2)  # 1e-5 is less than half of 2^-13


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_are_refused_by_the_layer_s_name(bad):
    with pytest.raises(ModelError, match='"conv1" holds NaN or Inf'):
        compression([("conv1", torch.tensor([[1.0, bad]]))])


class Fire(nn.Module):
    """A layer, then two that read the same map, and one that reads both of their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 4, 1)
        self.left, self.right = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, padding=1)
        self.last = nn.Linear(16, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        return self.last(x.mean((2, 3)))


def test_each_map_is_read_by_every_reader_and_written_once_and_the_picture_is_not_coded():
    torch.manual_seed(0)
    trace = measure.trace(Fire(), torch.randn(2, 3, 6, 6))
    found = {one.layer: one for one in traffic(trace, form="bitmask")}
    sizes = {one.layer: one for one in compression((layer.name, x) for layer, x, _ in trace)}
    picture, squeezed, pooled = 16 * 2 * 3 * 36, 16 * 2 * 4 * 36, 16 * 2 * 16
    assert [(one.read, one.written) for one in found.values()] == [
        (picture, 0), (squeezed, squeezed), (squeezed, 0), (pooled, pooled),
    ]  # fmt: skip
    assert [one.weights for one in found.values()] == [16 * 12, 16 * 32, 16 * 288, 16 * 32]
    assert found["squeeze"].read_coded == picture
    assert found["left"].read_coded == found["left"].written_coded == sizes["left"].bits["bitmask"] < squeezed
    assert found["right"].coded == 16 * 288 + sizes["left"].bits["bitmask"]
    assert found["left"].dense == 16 * 32 + 2 * squeezed


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(RecipeError, match='no format "zip". Use one of run-length, bitmask, gaps, csr'):
        traffic([], form="zip")


def test_a_vector_longer_than_columns_have_numbers_is_cut_into_rows_for_csr() -> None:
    x = torch.zeros(1, (1 << 16) + 5)
    x[0, 3], x[0, -1] = 1, 2
    (one,) = compression([("fc", x)])
    rows = np.zeros((2, 1 << 16), bool)
    rows[0, 3], rows[1, 4] = True, True
    assert one.bits["csr"] == csr.bits(rows) + 2 * 16
