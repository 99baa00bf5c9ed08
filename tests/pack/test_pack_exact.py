"""What is packed comes back bit for bit, in the fewest bytes, with every byte accounted for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zeroskip import pack
from zeroskip.codecs import bitmask, gaps
from zeroskip.concepts import Sparse
from zeroskip.errors import PackError

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES = [*FLOATS, *INTEGERS, torch.bool]
SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)
SPARSITIES = st.sampled_from([0.0, 0.3, 0.5, 0.62, 0.8, 0.9, 0.97, 1.0])


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, sparsity: float, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    values = (torch.randn(shape, generator=random) * 50).to(dtype)
    return values.masked_fill(torch.rand(shape, generator=random) < sparsity, 0)  # a product would make -0.0


def bits_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert list(left) == list(right)
    for one, other in zip(left.values(), right.values(), strict=True):
        assert (one.dtype, one.shape, bits_of(one)) == (other.dtype, other.shape, bits_of(other))


def brute_force_bytes(tensor: torch.Tensor) -> dict[str, int]:
    """Bytes of positions and values in every coding, by really encoding them; simplest first."""
    flat = np.frombuffer(bits_of(tensor), f"u{tensor.itemsize}")
    mask, values = flat != 0, np.count_nonzero(flat) * tensor.itemsize
    codes = {f"gaps{width}": gaps.encode(mask, width) for width in range(2, 9)}
    sparse = {"bitmask": bitmask.encode(mask), **codes}
    return {"dense": flat.nbytes} | {coding: len(data) + values for coding, data in sparse.items()}


@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), sparsity=SPARSITIES, seed=st.integers(0, 10**6))
def test_every_dtype_shape_and_sparsity_comes_back_bit_for_bit(shape, dtype, sparsity, seed):
    state = {"layer.weight": random_tensor(shape, dtype, sparsity, seed), "step": torch.tensor(seed)}
    packed = pack.encode(state)
    assert_same(pack.decode(packed), state)
    assert pack.from_bytes(pack.to_bytes(packed)) == packed


@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), sparsity=SPARSITIES, seed=st.integers(0, 10**6))
def test_the_ledger_sums_to_the_length_of_the_file(shape, dtype, sparsity, seed):
    packed = pack.encode({"a": random_tensor(shape, dtype, sparsity, seed), "b": torch.zeros(3)})
    assert packed.stored_bytes == len(pack.to_bytes(packed))
    for one in packed.tensors:
        entry = packed.ledger[one.name]
        assert (entry["values"], entry["positions"]) == (len(one.values), len(one.positions))


@given(
    size=st.integers(0, 600), dtype=st.sampled_from(DTYPES), sparsity=SPARSITIES, seed=st.integers(0, 10**6)
)
def test_the_coding_is_the_cheapest_of_nine_and_the_simplest_of_equals(size, dtype, sparsity, seed):
    tensor = random_tensor((size,), dtype, sparsity, seed)
    (packed,) = pack.encode({"a": tensor}).tensors
    by_coding = brute_force_bytes(tensor)
    assert packed.coding == min(by_coding, key=by_coding.__getitem__)
    assert len(packed.positions) + len(packed.values) == by_coding[packed.coding]


@pytest.mark.parametrize("dtype", FLOATS)
def test_minus_zero_counts_as_a_non_zero_and_comes_back_as_minus_zero(dtype):
    state = {"weight": torch.tensor([0.0] * 30 + [-0.0] + [0.0] * 30, dtype=dtype)}
    packed = pack.encode(state)
    assert (packed.tensors[0].coding[:4], packed.tensors[0].nonzeros) == ("gaps", 1)
    assert_same(pack.decode(packed), state)


def test_the_smallest_and_largest_numbers_of_every_dtype_come_back():
    limits = {
        str(d): torch.tensor([torch.finfo(d).smallest_normal, torch.finfo(d).max], dtype=d) for d in FLOATS
    }
    whole = {str(d): torch.tensor([torch.iinfo(d).min, 0, torch.iinfo(d).max], dtype=d) for d in INTEGERS}
    subnormal = {"subnormal": torch.tensor([2.0**-149, 0.0, -(2.0**-149)])}
    assert_same(pack.decode(pack.encode(limits | whole | subnormal)), limits | whole | subnormal)


def test_strided_transposed_expanded_and_negated_views_are_stored_as_what_they_show():
    base = torch.arange(24.0).reshape(4, 6)
    imaginary = torch.tensor([1 + 2j]).conj().imag  # PyTorch negates this one when it is read
    views = {
        "stride": base[:, ::2],
        "turned": base.T,
        "wide": base[:1].expand(5, 6),
        "one": base[:1, 0],
        "negated": imaginary,
    }
    assert_same(
        pack.decode(pack.encode(views)), {name: torch.tensor(view.tolist()) for name, view in views.items()}
    )


def test_90_percent_zeros_in_300x784_weights_take_fewer_bytes_than_a_bitmask_and_the_values():
    weight = random_tensor((300, 784), torch.float32, 0.9, seed=1)
    packed = pack.encode({"fc1.weight": weight})
    kept = int(torch.count_nonzero(weight))
    assert packed.tensors[0].coding == "gaps4"
    assert packed.stored_bytes < math.ceil(300 * 784 / 8) + 4 * kept
    assert packed.stored_bytes == pytest.approx(
        gaps.expected_bits(300 * 784, 0.9, 4) / 8 + 4 * kept, rel=0.01
    )


def test_a_module_and_a_sparse_pack_their_whole_state_and_load_into_the_same_model():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    fresh = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    packed = pack.encode(model)
    assert pack.encode(Sparse(model, {}, ())) == packed == pack.encode(model.state_dict())
    fresh.load_state_dict(pack.decode(packed))
    x = torch.randn(5, 2, 4, 4)
    assert torch.equal(model.eval()(x), fresh.eval()(x))


def test_packing_changes_nothing_and_what_is_unpacked_shares_no_memory_with_it():
    weight = torch.tensor([1.0, 0.0, 2.0])
    packed = pack.encode({"weight": weight})
    pack.decode(packed)["weight"].fill_(9)
    assert weight.tolist() == pack.decode(packed)["weight"].tolist() == [1, 0, 2]


def test_no_tensors_at_all_are_a_file_of_74_bytes():
    packed = pack.encode({})
    assert (pack.decode(packed), packed.stored_bytes) == ({}, 74)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_is_refused_by_the_name_of_its_tensor(dtype):
    nan = torch.tensor([1, float("nan")], dtype=dtype)
    with pytest.raises(PackError, match=r"'fc2.weight'.*NaN.*learning rate"):
        pack.encode({"fc1.weight": torch.ones(3, dtype=dtype), "fc2.weight": nan})


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinity_as_masks_of_attention_hold_it_comes_back(dtype):
    mask = torch.tensor([0.0, float("inf"), float("-inf")], dtype=dtype)
    assert torch.equal(pack.decode(pack.encode({"mask": mask}))["mask"], mask)


@pytest.mark.parametrize(
    ("state", "fact"),
    [
        ({3: torch.ones(1)}, "tensor 3: a name is a text"),
        ({"a" * 1025: torch.ones(1)}, "at most 1,024 bytes"),
        ({"\u00e9" * 513: torch.ones(1)}, "at most 1,024 bytes"),
        ({"\ud800": torch.ones(1)}, "UTF-8"),
        ({"(file)": torch.ones(1)}, r'not "\(file\)"'),
        ({"extra": {"epoch": 3}}, "'extra': it is no tensor but of type dict; leave it out"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "complex64.*make it a plain array of bool, uint8"),
        ({"w": torch.eye(3).to_sparse()}, "sparse_coo.*make it a plain array"),
        ({"w": torch.ones(2, device="meta")}, "on meta"),
        ({"w": torch.ones(1).expand(2**31 + 1)}, "at most 64 sides and 2,147,483,648 elements"),
        ([torch.ones(1)], "list holds no named tensors. Give a module"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_reason(state, fact):
    with pytest.raises(PackError, match=fact):
        pack.encode(state)


def test_names_of_1024_bytes_dots_and_any_alphabet_come_back():
    state = dict.fromkeys(["", "a" * 1024, "layer.0.\u91cd\u307f", "\n\x00"], torch.ones(1))
    assert_same(pack.decode(pack.from_bytes(pack.to_bytes(pack.encode(state)))), state)
