"""A tensor is its flags and its non-zeros, bit by bit, with vectors and without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zeroskip.codecs import zerovalue
from zeroskip.concepts import Machine
from zeroskip.emit import assembly, detect
from zeroskip.errors import PackError

HERE = detect()
PLAIN = replace(HERE, vector_bytes=16)  # NumPy alone
F_ONLY = replace(HERE, features=HERE.features - {"avx512vbmi2"})  # vectors of 32-bit elements alone
MACHINES = [HERE, PLAIN, F_ONLY]
TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32]


def bits_of(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.uint8).numpy()


def random_bits(size: int, sparsity: float, dtype: torch.dtype, seed: int) -> Tensor:
    """Any bits at all: NaN with any payload, infinities, denormals."""
    random = np.random.default_rng(seed)
    width = torch.empty(0, dtype=dtype).element_size()
    content = random.integers(0, 256, (size, width), np.uint8) * (random.random((size, 1)) >= sparsity)
    return torch.from_numpy(content.astype(np.uint8).reshape(-1)).view(dtype)


@given(
    size=st.one_of(st.integers(0, 300), st.sampled_from([1023, 1024, 1025])),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    dtype=st.sampled_from(TYPES),
    machine=st.sampled_from(MACHINES),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_bits_of_7_types_come_back_on_every_machine(size, sparsity, dtype, machine, seed):
    tensor = random_bits(size, sparsity, dtype, seed)
    flags, kept = zerovalue.encode(tensor, machine=machine)
    back = zerovalue.decode(flags, kept, tensor.shape, machine=machine)
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    np.testing.assert_array_equal(bits_of(back), bits_of(tensor))


@given(size=st.integers(0, 300), dtype=st.sampled_from(TYPES), seed=st.integers(0, 2**32 - 1))
def test_flags_and_kept_elements_are_the_same_on_every_machine_and_as_long_as_promised(size, dtype, seed):
    tensor = random_bits(size, 0.7, dtype, seed)
    flags, kept = zerovalue.encode(tensor, machine=HERE)
    for machine in MACHINES[1:]:
        other_flags, other_kept = zerovalue.encode(tensor, machine=machine)
        np.testing.assert_array_equal(bits_of(flags), bits_of(other_flags))
        np.testing.assert_array_equal(bits_of(kept), bits_of(other_kept))
    assert len(flags) == -(-size // 8)
    assert zerovalue.bits(tensor) == size + 8 * kept.numel() * tensor.element_size()


def test_the_first_element_is_the_lowest_bit_and_only_plus_0_is_a_zero():
    nan = torch.tensor([0x7FC0_1234], dtype=torch.int32).view(torch.float32)
    tensor = torch.cat(
        [torch.tensor([0.0, -0.0, 0.0, 1e-45]), nan, torch.tensor([float("inf"), 0.0, 0.0, 3.0])]
    )
    flags, kept = zerovalue.encode(tensor)
    assert flags.tolist() == [0b00111010, 0b1]
    assert bits_of(kept)[:4].tolist() == [0, 0, 0, 0x80]
    assert kept.view(torch.int32)[2] == 0x7FC0_1234


def test_shapes_strides_and_gradients_do_not_matter():
    tensor = torch.relu(torch.randn(3, 5, 7, requires_grad=True)).transpose(0, 2)
    back = zerovalue.decode(*zerovalue.encode(tensor), tensor.shape)
    assert torch.equal(back, tensor)
    scalar = torch.tensor(2.0)
    assert torch.equal(zerovalue.decode(*zerovalue.encode(scalar), ()), scalar)


@pytest.mark.parametrize(
    ("width", "instruction"), [(1, "vpcompressb"), (2, "vpcompressw"), (4, "vpcompressd")]
)
def test_each_width_is_packed_with_one_instruction_of_avx_512(width, instruction):
    features = frozenset(
        ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512vbmi2", "popcnt", "sse2", "avx2"]
    )
    machine = Machine("any", "x86_64", features, 1, 64)
    code = zerovalue._packer_code(width).text(machine)
    assert instruction in assembly(code, machine, triple="x86_64-unknown-linux-gnu")


def test_expected_bits_are_the_mean_of_200_random_tensors_within_4_standard_errors():
    drawn = np.array([zerovalue.bits(random_bits(500, 0.8, torch.int32, seed)) for seed in range(200)])
    allowed = 4 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    assert abs(drawn.mean() - zerovalue.expected_bits(500, 0.8, 32)) <= allowed


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("flags", "kept", "shape", "fact"),
    [
        ([1], [], (8,), "1 flags are set, but 0 elements were kept"),
        ([0], [5.0], (8,), "0 flags are set, but 1 elements were kept"),
        ([8], [5.0], (3,), "a bit is set behind the last of the 3 flags"),
        ([1], [5.0], (9,), "flags of 9 elements are 2 bytes"),
        ([1, 0], [5.0], (8,), "flags of 8 elements are 1 bytes"),
        ([1], [[5.0]], (8,), r"kept elements \(1, 1\)"),
        ([255] * 3, [1.0] * 16, (24,), "24 flags are set, but 16 elements were kept"),
    ],
)
def test_flags_and_elements_that_do_not_belong_together_are_refused(flags, kept, shape, fact, machine):
    with pytest.raises(PackError, match=fact):
        zerovalue.decode(torch.tensor(flags, dtype=torch.uint8), torch.tensor(kept), shape, machine=machine)


def test_flags_of_another_type_and_elements_of_64_bits_are_refused():
    with pytest.raises(PackError, match="of int32"):
        zerovalue.decode(torch.tensor([1], dtype=torch.int32), torch.tensor([5.0]), (8,))
    with pytest.raises(PackError, match=r"64 bits \(torch.float64\) have no kernel"):
        zerovalue.encode(torch.zeros(3, dtype=torch.float64))
