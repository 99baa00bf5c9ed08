"""What is packed comes back bit for bit, in the fewest bytes, with every byte accounted for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip import pack
from zeroskip.codecs import gaps
from zeroskip.concepts import Sparse
from zeroskip.errors import PackError
from zeroskip.pack import position_coding, value_coding
from zeroskip.pack.varint import varint

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


def shared_tensor(shape: tuple[int, ...], levels: int, sparsity: float, seed: int) -> torch.Tensor:
    """Weights that share `levels` values, common ones near zero as after k-means."""
    random = torch.Generator().manual_seed(seed)
    book = torch.linspace(-1, 1, levels) + 0.01
    places = (torch.randn(shape, generator=random) * levels / 6 + levels / 2).long().clamp(0, levels - 1)
    return book[places].masked_fill(torch.rand(shape, generator=random) < sparsity, 0)


def brute_force_bytes(tensor: torch.Tensor, coder: str) -> dict[tuple[str, str], int]:
    """Bytes that differ between codings, by really encoding each pair; the simplest first."""
    flat = np.frombuffer(bits_of(tensor), f"u{tensor.itemsize}")
    mask, found = flat != 0, {}
    for coding in ["dense", "bitmask", *(f"{kind}{w}" for kind in ("gaps", "huffman") for w in range(2, 17))]:
        if coding.startswith("huffman") and coder == "fixed":
            continue
        places, table, escapes = position_coding.encode(mask, coding)
        cost = len(places) + len(table)
        if coding.startswith(("gaps", "huffman")):
            cost += len(varint(escapes))
        if coding.startswith("huffman"):
            cost += len(varint(len(places)))
        kept = flat if coding == "dense" else flat[mask]
        found[coding, "exact"] = cost + kept.nbytes
        levels, codes = np.unique(kept, return_inverse=True)
        if not len(levels):
            continue
        half = torch.from_numpy(levels.view(np.uint8)).view(tensor.dtype).half()
        exact = (
            tensor.dtype in (torch.float32, torch.float64)
            and bits_of(half.to(tensor.dtype)) == levels.tobytes()
        )
        book = len(varint(len(levels))) + len(levels) * (2 if exact else tensor.itemsize)
        for how in ("fixed", "huffman")[: 1 if coder == "fixed" else 2]:
            data, table = value_coding.encode(codes.reshape(-1), len(levels), how)
            length = len(varint(len(data))) if how == "huffman" else 0
            found[coding, how] = cost + book + len(data) + len(table) + length
    return found


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
        for part in ("values", "positions", "codebook", "tables"):
            assert entry[part] == len(getattr(one, part))


@settings(deadline=None)
@given(
    size=st.integers(0, 300),
    dtype=st.sampled_from(DTYPES),
    levels=st.sampled_from([0, 1, 2, 20]),
    sparsity=SPARSITIES,
    coder=st.sampled_from(["fixed", "huffman"]),
    seed=st.integers(0, 10**6),
)
def test_the_codings_are_the_cheapest_of_all_pairs(size, dtype, levels, sparsity, coder, seed):
    exact = random_tensor((size,), dtype, sparsity, seed)
    tensor = shared_tensor((size,), levels, sparsity, seed).to(dtype) if levels else exact
    (packed,) = pack.encode({"a": tensor}, coder=coder).tensors
    by_coding = brute_force_bytes(tensor, coder)
    assert by_coding[packed.coding, packed.values_coding] == min(by_coding.values())
    assert_same(pack.decode(pack.encode({"a": tensor}, coder=coder)), {"a": tensor})


@settings(deadline=None)
@given(
    shape=SHAPES,
    levels=st.sampled_from([1, 2, 3, 16, 200]),
    sparsity=SPARSITIES,
    coder=st.sampled_from(["fixed", "huffman", "arithmetic"]),
    index_bits=st.one_of(st.none(), st.integers(2, 16)),
    seed=st.integers(0, 10**6),
)
def test_shared_weights_come_back_bit_for_bit_from_a_file_by_every_coder(
    shape, levels, sparsity, coder, index_bits, seed
):
    state = {"w": shared_tensor(shape, levels, sparsity, seed), "b": shared_tensor((9,), levels, 0.0, seed)}
    packed = pack.encode(state, coder=coder, index_bits=index_bits)
    assert_same(pack.decode(pack.from_bytes(pack.to_bytes(packed))), state)
    assert packed.stored_bytes == len(pack.to_bytes(packed))


def test_32_shared_values_in_300x784_weights_at_92_percent_zeros_take_the_published_27_times_less():
    weight = shared_tensor((300, 784), 32, 0.92, seed=2)
    dense = 4 * weight.numel()
    sizes = {coder: pack.encode({"w": weight}, coder=coder).stored_bytes for coder in ("fixed", "huffman")}
    assert sizes["huffman"] < sizes["fixed"] < dense / 27
    # Entropy of the positions and of the codes; nothing can be smaller, and 3 % more is allowed for all tables.
    kept = int(torch.count_nonzero(weight))
    share = kept / weight.numel()
    places = -weight.numel() * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    counts = np.unique(weight[weight != 0], return_counts=True)[1] / kept
    entropy = (places - kept * (counts * np.log2(counts)).sum()) / 8
    assert entropy < sizes["huffman"] < 1.03 * entropy + 250


def test_a_codebook_that_float16_holds_exactly_is_stored_in_half_the_bytes():
    weight = shared_tensor((50, 50), 16, 0.9, seed=3)
    entries = len(torch.unique(weight)) - 1
    for state, dtype, size in (({"w": weight.half().float()}, "float16", 2), ({"w": weight}, "float32", 4)):
        packed = pack.encode(state)
        assert packed.tensors[0].codebook_dtype == dtype
        assert packed.ledger["w"]["codebook"] == size * entries
        assert_same(pack.decode(packed), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinity_minus_zero_and_subnormals_in_a_codebook_come_back(dtype):
    levels = torch.tensor([-0.0, float("inf"), -float("inf"), 2.0**-24, -1.5, 65504.0], dtype=dtype)
    state = {"w": levels.repeat(40), "z": torch.cat([levels, torch.zeros(2, dtype=dtype)]).repeat(40)}
    packed = pack.encode(state)
    assert [one.codebook_dtype for one in packed.tensors] == ["float16", "float16"]
    assert_same(pack.decode(packed), state)
    larger = {"w": torch.cat([levels, torch.tensor([65536.0, 2.0**-26], dtype=dtype)]).repeat(40)}
    assert pack.encode(larger).tensors[0].codebook_dtype == str(dtype).removeprefix("torch.")
    assert_same(pack.decode(pack.encode(larger)), larger)


def test_a_tensor_of_65535_values_has_a_codebook_and_one_of_65536_has_none():
    whole = torch.arange(1, 65_537, dtype=torch.int64)
    for count, coding in ((65_535, "fixed"), (65_536, "exact")):
        state = {"w": whole[:count].repeat(2)}
        packed = pack.encode(state, coder="fixed")
        assert packed.tensors[0].values_coding == coding
        assert_same(pack.decode(packed), state)
    mostly_zero = {"w": torch.cat([torch.zeros(65_535, dtype=torch.int64), whole[:65_535].repeat(3)])}
    assert_same(pack.decode(pack.encode(mostly_zero)), mostly_zero)


def test_dense_tensors_of_few_values_number_zero_as_a_value_too():
    weight = shared_tensor((40, 40), 6, 0.2, seed=4)
    (packed,) = pack.encode({"w": weight}, coder="fixed").tensors
    assert (packed.coding, packed.values_coding) == ("dense", "fixed")
    assert packed.codebook[:2] == b"\0\0"
    assert len(packed.values) == 40 * 40 * 3 // 8


@pytest.mark.parametrize(("width", "escapes"), [(2, 333), (3, 142), (9, 1), (16, 0)])
def test_the_width_of_gaps_can_be_fixed_and_its_escapes_are_reported(width, escapes):
    state = {"w": (torch.arange(1001) == 1000).float(), "b": torch.ones(3)}
    for index_bits in (width, {"w": width}):
        packed = pack.encode(state, coder="fixed", index_bits=index_bits)
        assert packed.tensors[0].coding == ("bitmask" if width * (escapes + 1) > 1000 else f"gaps{width}")
        assert_same(pack.decode(pack.from_bytes(pack.to_bytes(packed))), state)
        if packed.tensors[0].coding != "bitmask":
            assert pack.escapes(packed) == {"w": escapes, "b": 0}


def test_arithmetic_codes_of_random_masks_take_no_more_than_huffman_codes_and_half_a_percent():
    state = {
        "w": shared_tensor((120, 200), 16, 0.93, seed=5),
        "x": random_tensor((60, 90), torch.float32, 0.9, 6),
    }
    sizes = {coder: pack.encode(state, coder=coder).stored_bytes for coder in ("huffman", "arithmetic")}
    assert sizes["arithmetic"] <= 1.005 * sizes["huffman"]
    assert_same(pack.decode(pack.from_bytes(pack.to_bytes(pack.encode(state, coder="arithmetic")))), state)


def test_arithmetic_codes_are_left_where_a_byte_would_stand_for_more_than_1024_elements():
    state = {"w": (torch.arange(300 * 300) == 77).float().reshape(300, 300)}
    packed = pack.encode(state, coder="arithmetic")
    assert packed.tensors[0].coding != "arithmetic"
    assert_same(pack.decode(pack.from_bytes(pack.to_bytes(packed))), state)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_of_50_random_tensors_none_is_larger_by_a_stronger_coder(first):
    for seed in range(first, first + 50):
        random = np.random.default_rng(seed)
        shape = tuple(int(side) for side in random.integers(1, 13, 1 + seed % 3))
        weight = shared_tensor(shape, int(random.integers(1, 40)), random.choice([0.0, 0.5, 0.9]), seed)
        if seed % 5 == 0:
            weight = random_tensor(shape, torch.float32, 0.8, seed)
        coders = ("fixed", "huffman", "arithmetic")
        fixed, shorter, shortest = (pack.encode({"w": weight}, coder=one).stored_bytes for one in coders)
        assert shortest <= shorter <= fixed


def test_rows_of_more_than_a_million_elements_are_left_to_huffman_codes():
    random = torch.Generator().manual_seed(8)
    kept = torch.rand(2**20 + 1, generator=random) < 0.004
    state = {"long": kept, "square": kept[1:].reshape(1024, 1024)}
    long, square = pack.encode(state, coder="arithmetic").tensors
    assert (long.coding[:7], square.coding) == ("huffman", "arithmetic")


def test_arithmetic_codes_find_the_empty_columns_that_nothing_else_does():
    weight = shared_tensor((100, 300), 16, 0.8, seed=7)
    weight[:, torch.rand(300, generator=torch.Generator().manual_seed(1)) < 0.66] = 0
    by_coder = {coder: pack.encode({"w": weight}, coder=coder) for coder in ("huffman", "arithmetic")}
    assert by_coder["arithmetic"].tensors[0].coding == "arithmetic"
    assert by_coder["arithmetic"].stored_bytes < 0.98 * by_coder["huffman"].stored_bytes


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"coder": "zip"}, "coder 'zip' is unknown. Give one of fixed, huffman, arithmetic"),
        ({"index_bits": 1}, "gaps of 1 bits for 'w' are impossible. Give 2 to 16"),
        ({"index_bits": {"w": 17}}, "gaps of 17 bits"),
        ({"index_bits": {"v": 4}}, "names 'v', and there is no such tensor"),
    ],
)
def test_an_unknown_coder_width_or_tensor_is_refused(options, fact):
    with pytest.raises(PackError, match=fact):
        pack.encode({"w": torch.ones(3)}, **options)


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
    packed = pack.encode({"fc1.weight": weight}, coder="fixed")
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
