"""Positions and codes come back, the model pays where there is structure, and bytes are either ours or refused."""

from __future__ import annotations

import hashlib
import math

import numba.core.caching
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.codecs import arithmetic, context_mixing, gaps
from zeroskip.emit.numba_loops import compiled
from zeroskip.errors import PackError, RecipeError

LEVELS = (1, 2, 3, 16, 255, 256, 65_536)
SIZES = [654, 1863, 402]
DIGEST = "7927072abc6bd946017259316d21ff64085ea77c322677d0794d51757f2de416"
SHAPES = st.one_of(
    st.sampled_from(
        [
            (),
            (0,),
            (0, 0),
            (0, 4),
            (3, 0),
            (1,),
            (784,),
            (1, 1),
            (2, 784),
            (9, 800),
            (4, 3, 5, 5),
            (2, 3, 1, 1),
        ]
    ),
    st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple),
)


def drawn(
    shape: tuple[int, ...], sparsity: float, levels: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mask = np.asarray(random.random(shape) >= sparsity)
    return mask, random.integers(0, levels, np.count_nonzero(mask))


def fields(rows: int, side: int, *, peak: float = 0.6, width: float = 6) -> tuple[np.ndarray, np.ndarray]:
    """Rows that each look at one spot of an image, one half of it with low codes and one with high codes of 16."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    middle = random.normal(side / 2, side / 7, (2, rows, 1, 1))
    distance = (x - middle[0]) ** 2 + (y - middle[1]) ** 2  # (rows, side, side)
    mask = random.random(distance.shape) < peak * np.exp(-distance / width)
    codes = np.where(x > middle[0], 12, 4) + random.integers(-1, 2, distance.shape)
    return mask.reshape(rows, -1), codes[mask]


def huffman_bits(symbols: np.ndarray) -> int:
    """Bits of the best prefix code of these symbols, without the table."""
    weights = sorted(np.unique(symbols, return_counts=True)[1].tolist())
    total = 0 if len(weights) > 1 else len(symbols)
    while len(weights) > 1:
        total += (joined := weights.pop(0) + weights.pop(0))
        weights = sorted([*weights, joined])
    return total


def gaps_huffman_bytes(mask: np.ndarray, codes: np.ndarray) -> float:
    """Deep Compression's way: Huffman-coded gaps and codes, and 5 bits per symbol for each table."""
    parts = (np.diff(np.flatnonzero(mask), prepend=-1), codes)
    return sum(huffman_bits(part) + 5 * len(np.unique(part)) for part in parts) / 8


def assert_comes_back(mask: np.ndarray, codes: np.ndarray, levels: int) -> bytes:
    data = arithmetic.encode(mask, codes, levels)
    decoded_mask, decoded_codes = arithmetic.decode(data, mask.shape, levels)
    assert (decoded_mask.dtype, decoded_codes.dtype) == (bool, np.int64)
    np.testing.assert_array_equal(decoded_mask, mask)
    np.testing.assert_array_equal(decoded_codes, codes)
    assert arithmetic.bits(mask, codes, levels) == 8 * len(data)
    return data


@given(
    shape=SHAPES,
    sparsity=st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
    levels=st.sampled_from(LEVELS),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=80)
def test_positions_and_codes_of_any_shape_come_back(shape, sparsity, levels, seed):
    assert_comes_back(*drawn(shape, sparsity, levels, seed), levels)


def test_a_mask_that_is_not_contiguous_comes_back_with_its_codes_row_by_row():
    mask, codes = drawn((40, 30), 0.7, 16)
    assert_comes_back(mask.T, codes, 16)
    assert_comes_back(mask[:, ::-1], codes.astype(np.uint8), 16)


def test_ten_thousand_zeros_or_kept_weights_with_one_level_take_less_than_60_bytes():
    for sparsity in (0.0, 1.0):
        assert len(assert_comes_back(*drawn((100, 100), sparsity, 1), 1)) < 60


def test_nothing_takes_no_bytes():
    assert assert_comes_back(*drawn((0, 784), 0.5, 16), 16) == b""


@pytest.mark.parametrize("shape", [(300, 784), (100, 300), (64, 32, 3, 3), (10, 100), (5000,)])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_a_random_mask_takes_its_entropy_and_at_most_1_percent_10_bytes_and_half_a_bit_per_row_and_column(
    shape, sparsity
):
    mask, codes = drawn(shape, sparsity, 1)
    entropy = arithmetic.expected_bits(mask.size, 1 - mask.mean()) / 8
    data = assert_comes_back(mask, codes, 1)
    columns = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
    rows = mask.size // columns
    assert entropy - 20 < len(data) < 1.01 * entropy + 10 + (rows + columns) / 16


@pytest.mark.parametrize("levels", [3, 16, 256])
def test_random_codes_take_at_most_1_percent_more_than_log2_of_the_levels(levels):
    mask, codes = drawn((200, 100), 0.0, levels)
    positions = arithmetic.bits(mask, np.zeros_like(codes), 1)
    assert arithmetic.bits(mask, codes, levels) - positions < 1.01 * codes.size * math.log2(levels)


def test_codes_that_are_almost_all_alike_take_a_tenth_of_a_bit():
    mask, codes = drawn((100, 100), 0.0, 16)
    codes = np.where(codes == 3, 5, 11) * (np.arange(codes.size) % 100 < 1) + 7 * (
        np.arange(codes.size) % 100 > 0
    )
    assert arithmetic.bits(mask, codes, 16) < 0.1 * codes.size + 8 * 60


def test_expected_bits_is_the_entropy():
    assert arithmetic.expected_bits(1000, 0.5) == 1000
    assert arithmetic.expected_bits(1000, 0.0) == arithmetic.expected_bits(1000, 1.0) == 0
    assert arithmetic.expected_bits(1000, 0.9) == pytest.approx(468.9956)  # the table in Shannon 1948, H(0.1)
    with pytest.raises(RecipeError, match="a sparsity of 1.5"):
        arithmetic.expected_bits(1000, 1.5)


def test_receptive_fields_take_at_least_8_percent_less_than_gaps_and_codes_in_huffman():
    mask, codes = fields(300, 28, peak=0.3, width=40)
    assert len(assert_comes_back(mask, codes, 16)) < gaps_huffman_bytes(mask, codes) * 0.92


def test_full_and_empty_rows_and_columns_take_less_than_random_positions():
    random = np.random.default_rng(3)
    density = 0.3 * random.random((100, 1)) ** 3 * random.random(300) ** 3  # few rows and columns hold most
    mask = random.random(density.shape) < density
    nothing = np.zeros(mask.sum(), int)
    stored = arithmetic.bits(mask, nothing, 1)
    assert stored < 0.9 * arithmetic.expected_bits(mask.size, 1 - mask.mean())
    assert stored < 0.8 * min(gaps.bits(mask.reshape(-1), width) for width in range(2, 9))


def test_a_kernel_is_seen_where_the_shape_has_one():
    mask, codes = fields(400, 5)
    as_kernels, as_row = mask.reshape(20, 20, 5, 5), mask.reshape(20, 500)
    assert arithmetic.bits(as_kernels, codes, 16) < 0.97 * arithmetic.bits(as_row, codes, 16)


@pytest.mark.parametrize(("images", "side"), [(1, 28), (12, 8), (5, 12)])
def test_images_are_found_in_the_columns_and_pay(images, side):
    mask, codes = fields(80 * images, side)
    mask = mask.reshape(80, -1)  # each row looks at a spot in every image
    order = np.random.default_rng(0).permutation(mask.shape[1])
    assert arithmetic._side(arithmetic._as_rows(mask, mask.shape), mask.shape) == side
    assert arithmetic.bits(mask, codes, 16) < 0.95 * arithmetic.bits(mask[:, order], codes, 16)


def test_no_image_is_seen_in_random_columns_even_if_rows_and_columns_differ():
    random = np.random.default_rng(1)
    for columns in (300, 784, 800):
        mask = random.random((100, columns)) < 0.3 * random.random((100, 1)) * random.random(columns)
        assert arithmetic._side(arithmetic._as_rows(mask, mask.shape), mask.shape) == 0


def test_the_bytes_of_a_small_network_do_not_change_between_machines_and_versions():
    masks = [fields(60, 28), fields(400, 5), drawn((10, 100), 0.5, 16)]
    shapes = [(60, 784), (20, 20, 5, 5), (10, 100)]
    data = [arithmetic.encode(m.reshape(s), c, 16) for (m, c), s in zip(masks, shapes, strict=True)]
    assert [len(one) for one in data] == SIZES
    assert hashlib.sha256(b"".join(data)).hexdigest() == DIGEST


def refuses(data: bytes, shape: tuple[int, ...], levels: int) -> bool:
    """Whether decode refuses; what it takes must be what encode writes."""
    try:
        mask, codes = arithmetic.decode(data, shape, levels)
    except PackError:
        return True
    assert (mask.shape, arithmetic.encode(mask, codes, levels)) == (shape, data)
    return False


@pytest.mark.parametrize("shape", [(12, 49), (300,), (3, 4, 3, 3)])
def test_4_of_5_beginnings_are_refused_and_others_are_files_of_their_own(shape):
    mask, codes = drawn(shape, 0.7, 16)
    data = arithmetic.encode(mask, codes, 16)
    assert sum(refuses(data[:end], shape, 16) for end in range(len(data))) > 0.8 * len(data)
    assert refuses(data + b"\0", shape, 16)
    assert refuses(data + data, shape, 16)


@given(
    data=st.binary(max_size=80),
    shape=st.sampled_from([(), (3,), (7, 9), (5, 16), (2, 2, 3, 3), (0, 3)]),
    levels=st.sampled_from(LEVELS),
)
@settings(deadline=None, max_examples=200)
def test_random_bytes_are_refused_or_are_exactly_what_encode_writes(data, shape, levels):
    refuses(data, shape, levels)


@pytest.mark.parametrize("shape", [(20, 64), (4, 4, 3, 3)])
def test_4_of_5_changed_bytes_are_refused_and_others_are_files_of_their_own(shape):
    data = arithmetic.encode(*drawn(shape, 0.6, 16), 16)
    altered = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    assert sum(refuses(one, shape, 16) for one in altered) > 0.8 * len(data)


def test_what_cannot_be_encoded_or_decoded_is_refused_in_words():
    mask, codes = drawn((4, 5), 0.5, 16)
    for wrong, levels in (
        (codes[1:], 16),
        (codes[None], 16),
        (codes, 8),
        (codes - 16, 16),
        (codes, 0),
        (codes, 65_537),
    ):
        with pytest.raises(PackError, match=r"codes"):
            arithmetic.encode(mask, wrong, levels)
    for levels in (0, 65_537):
        with pytest.raises(PackError, match="levels are not 1 to 65,536"):
            arithmetic.decode(b"", (4, 5), levels)
    with pytest.raises(PackError, match="rows of 1,048,577 elements are too long"):
        arithmetic.encode(np.zeros((0, 2**20 + 1), bool), codes[:0], 1)
    with pytest.raises(PackError, match="rows of 4,294,967,296 elements are too long"):
        arithmetic.decode(b"", (1, 2**16, 2**16), 1)
    with pytest.raises(PackError, match="cannot belong to an empty tensor"):
        arithmetic.decode(b"\1", (0, 5), 16)


def code_one_row(coder: context_mixing.Coder, part: str, row: np.ndarray) -> None:
    """Flags, or the mask of a tensor of one row (columns + 1,), written or read by the model alone."""
    if part == "flags":
        mixer = context_mixing.new_mixer(0, 1, *context_mixing.tables())
        context_mixing.code_flags(coder, mixer, row, np.zeros((1, len(row) - 1), np.int32))
    else:
        mixer = context_mixing.new_mixer(
            context_mixing.POSITION_ESTIMATES, context_mixing.POSITION_CONTEXTS, *context_mixing.tables()
        )
        neighbours = arithmetic._neighbours((len(row) - 1,), 0)
        context_mixing.code_mask(coder, mixer, row[None], np.ones(2, bool), np.ones_like(row), neighbours)


@pytest.mark.parametrize("part", ["flags", "mask"])
def test_where_the_data_end_reading_stops_within_the_row(part):
    row = np.random.default_rng(0).random(50_001) < 0.5
    writer = arithmetic._coder(np.empty(10_000, np.uint8), reading=False)
    code_one_row(writer, part, row)
    assert writer.state[context_mixing.AT] > 6_000
    reader = arithmetic._coder(writer.data[:40], reading=True)
    code_one_row(reader, part, row.copy())
    assert 40 < reader.state[context_mixing.AT] < 45


def test_without_a_folder_for_compiled_code_functions_are_compiled_all_the_same(monkeypatch):
    def next_one(number: int) -> int:
        return number + 1

    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(next_one)
    assert compiled(next_one)(1) == 2
