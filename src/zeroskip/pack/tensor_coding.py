"""One tensor <-> its stored form: the cheapest coding of its positions and its values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from zeroskip.codecs import arithmetic, blocks
from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack import block_search, position_coding, scaled_bytes, tensor_record, value_coding
from zeroskip.pack.tensor_record import DTYPES, Lengths, elements, read_tables, stored_values

CODERS = ("fixed", "huffman", "arithmetic")


@dataclass(frozen=True)
class TensorBits:
    """A tensor whose elements are unsigned integers, the distinct ones among them, and which of them are stored.

    elements  (size,) little-endian, row by row, the bits of `dtype`
    levels    (levels,) increasing, without zero, which occur `counts` (levels,) times; none where they are too many for
              a codebook
    block     as in PackedTensor
    scales    (out,) float32, where the elements are bytes; else empty
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: np.ndarray
    levels: np.ndarray
    counts: np.ndarray
    block: tuple[int, ...] = ()
    scales: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def mask(self) -> np.ndarray:
        """Which elements are not zero: (shape) bool."""
        return (self.elements != 0).reshape(self.shape)


def encode_tensor(
    name: str,
    tensor: Tensor,
    *,
    coder: str,
    index_bits: int | None = None,
    scales: np.ndarray | None = None,
) -> PackedTensor:
    """The tensor in the coding that takes the fewest bytes of the file; of equals in the simplest.

    An element is a non-zero if any of its bits is set, so that -0.0 is kept. With `scales` (out,) its values are bytes;
    without, where scales are found and it pays. Raises PackError, saying why but not which tensor, for NaN, more than
    2^31 elements, dtypes that are not in DTYPES, and scales that do not fit.

    >>> encode_tensor("fc.bias", torch.tensor([0.0, 0.0, 1.5]), coder="huffman").coding
    'bitmask'
    """
    ways = [way for bits in _ways(tensor_bits(name, tensor), scales) for way in (bits, *_in_blocks(bits))]
    found = [one for way in ways for one in _encoded_ways(way, coder, index_bits)]
    return min(found, key=lambda one: sum(map(len, tensor_record.write(one))))


def decode_tensor(packed: PackedTensor) -> Tensor:
    """The very tensor that was encoded, on the CPU; raises PackError as `check` does.

    >>> decode_tensor(encode_tensor("fc.bias", torch.tensor([0.0, 0.0, 1.5]), coder="huffman"))
    tensor([0.0000, 0.0000, 1.5000])
    """
    places, stored = _contents(packed)
    raw = np.zeros(elements(packed.shape), stored.dtype)
    if packed.block:
        grid = np.zeros(position_coding.positioned(packed), bool)
        grid.reshape(-1)[places] = True
        raw[blocks.spread(grid, packed.shape, packed.block).reshape(-1)] = stored
    else:
        raw[places] = stored
    raw = raw.astype(f"=u{stored.itemsize}", copy=False)  # torch knows the machine's own order only
    if packed.scales:
        return torch.from_numpy(scaled_bytes.weights_of(raw.view(np.int8), packed.scales, packed.shape))
    return torch.from_numpy(raw.view(np.uint8)).view(getattr(torch, packed.dtype)).reshape(packed.shape)


def tensor_bits(name: str, tensor: Tensor) -> TensorBits:
    """The tensor's elements as they are; PackError for what cannot be stored.

    >>> tensor_bits("fc.bias", torch.tensor([0.0, 0.0, 1.5])).counts
    array([1])
    """
    dtype, shape = _storable(tensor)
    raw = _raw(tensor)
    return TensorBits(name, dtype, shape, raw, *value_coding.distinct(raw[raw != 0]))


def in_bytes(bits: TensorBits, scales: np.ndarray) -> TensorBits:
    """The same as bytes times scales (out,); PackError where they are not that, bit for bit.

    >>> in_bytes(tensor_bits("fc.weight", torch.tensor([[2.0, -127.0]])), np.float32([1.0])).levels
    array([  2, 129], dtype=uint8)
    """
    if bits.dtype != "float32":
        raise PackError(
            f"it is {bits.dtype}, and only float32 numbers are bytes times scales; leave its scales out"
        )
    stored = scaled_bytes.bytes_of(bits.elements.view("<f4").reshape(bits.shape), scales).view(np.uint8)
    levels, counts = value_coding.distinct(stored[stored != 0])
    return replace(bits, dtype="int8", elements=stored, levels=levels, counts=counts, scales=scales)


def encoded(bits: TensorBits, coding: str, values_coding: str) -> PackedTensor:
    """The tensor in these codings of positions and values.

    >>> encoded(tensor_bits("fc.bias", torch.tensor([0.0, 0.0, 1.5])), "bitmask", "exact").positions
    b' '
    """
    mask, block, joint = bits.mask, bits.block, values_coding == "arithmetic"
    places = blocks.gathered(mask, block)
    stored_mask = blocks.spread(places, bits.shape, block) if block else mask
    stored = bits.elements if coding == "dense" else bits.elements[stored_mask.reshape(-1)]
    nonzeros = int(np.count_nonzero(mask))
    positions, tables, escapes = (b"", b"", 0) if joint else position_coding.encode(places, coding)
    packed = PackedTensor(
        bits.name, bits.dtype, bits.shape, coding, nonzeros, positions, b"", tables=tables, escapes=escapes
    )
    packed = replace(packed, block=block, kept=int(np.count_nonzero(places)) if block else 0)
    if len(bits.scales):
        packed = replace(packed, dtype="float32", scales=bits.scales.astype("<f4").tobytes())
    if values_coding == "exact":
        return replace(packed, values=stored.tobytes())
    levels, _ = _with_zeros(bits, len(stored) - nonzeros)
    codes, table = np.searchsorted(levels, stored), b""
    if joint:
        data = arithmetic.encode(stored_mask, codes, len(levels), block)
    else:
        data, table = value_coding.encode(codes, len(levels), values_coding)
    book_dtype, book = value_coding.codebook(levels, bits.dtype)
    packed = replace(packed, codebook_dtype=book_dtype, codebook=book, tables=tables + table)
    return replace(packed, values=data, values_coding=values_coding)


def check(packed: PackedTensor, *, lengths: Lengths | None = None) -> None:
    """Raise PackError, with the bare fact, unless the bytes are those of a tensor of this shape and dtype.

    Memory and time grow with the bytes that are there, not with the shape that they claim; of arithmetic codes
    each byte may stand for 1024 elements. `lengths` are those of its Huffman tables if they are known already.

    >>> check(PackedTensor("fc.bias", "float32", (3,), "dense", 0, b"", b""))
    Traceback (most recent call last):
    zeroskip.errors.PackError: 3 values of float32 take 12 bytes, not 0
    """
    _contents(packed, lengths)


def _storable(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """Its dtype and shape; PackError for what cannot be stored."""
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if tensor.layout != torch.strided or tensor.is_meta or dtype not in DTYPES:
        given = f"{dtype}, {tensor.layout}, on {tensor.device}"
        raise PackError(f"it is {given}; make it a plain array of {', '.join(DTYPES)}")
    elements(shape)  # raises before anything is copied
    if tensor.isnan().any():  # infinity is exact, and masks of attention hold it
        raise PackError(
            "it holds NaN; train again with a smaller learning rate, or, if it is a buffer that "
            "should hold them, register it with persistent=False"
        )
    return dtype, shape


def _raw(tensor: Tensor) -> np.ndarray:
    """The elements' bits as little-endian unsigned integers, row by row: (...) -> (elements,)."""
    # A clone and not contiguous(), which leaves a single element its odd stride and its negative bit.
    flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
    native = flat.view(torch.uint8).numpy().view(f"u{tensor.itemsize}")
    return native.astype(f"<u{tensor.itemsize}", copy=False)


def _ways(plain: TensorBits, scales: np.ndarray | None) -> list[TensorBits]:
    """The tensor as it is, and as bytes where scales are found; as bytes alone where they are given."""
    if not plain.elements.size:
        return [plain]
    if scales is not None:
        return [in_bytes(plain, scales)]
    if plain.dtype == "float32" and len(plain.shape) > 1:
        scales = scaled_bytes.find(plain.elements.view("<f4").reshape(plain.shape))
    return [plain] if scales is None else [plain, in_bytes(plain, scales)]


def _in_blocks(bits: TensorBits) -> list[TensorBits]:
    """The same in the block that its zeros seem to have, if they do."""
    nonzeros = max(1, int(np.count_nonzero(bits.elements)))
    costs = value_coding.costs(nonzeros, bits.levels, bits.counts, bits.dtype, coder="huffman")
    exact = 8 * costs.pop("exact") // nonzeros
    block = block_search.find(bits.mask, 8 * min(costs.values(), default=math.inf) / nonzeros, exact)
    return [replace(bits, block=block)] if block else []


def _encoded_ways(bits: TensorBits, coder: str, index_bits: int | None) -> list[PackedTensor]:
    """The tensor in the codings that may take the fewest bytes, of which a reader refuses none."""
    pairs = _candidates(bits, coder, index_bits)
    pairs = [pair for pair in pairs if "arithmetic" not in pair or arithmetic.fits(bits.shape)]
    most = position_coding.MOST_PER_BYTE
    return [
        one
        for one in (encoded(bits, *pair) for pair in pairs)
        if one.coding != "arithmetic" or bits.elements.size <= most * len(one.positions or one.values)
    ]


def _candidates(bits: TensorBits, coder: str, index_bits: int | None) -> list[tuple[str, str]]:
    """The codings of positions and values that could take the fewest bytes together.

    Arithmetic codes are their own pair: how long they are is only known from encoding them.
    """
    positions = blocks.gathered(bits.mask, bits.block)
    kept, size, nonzeros = _stored_count(bits), bits.elements.size, int(np.count_nonzero(bits.elements))
    sparse = value_coding.costs(kept, *_with_zeros(bits, kept - nonzeros), bits.dtype, coder=coder)
    pays = min(sparse, key=sparse.__getitem__) != "exact"
    apart = [("arithmetic", "arithmetic" if pays else "exact")] if coder == "arithmetic" and kept else []
    bytes_by = {}
    if not bits.block:
        dense = value_coding.costs(size, *_with_zeros(bits, size - nonzeros), bits.dtype, coder=coder)
        bytes_by = {("dense", coding): cost for coding, cost in dense.items()}
    for places, cost in position_coding.costs(positions.reshape(-1), coder=coder, width=index_bits).items():
        bytes_by |= {(places, coding): cost + values for coding, values in sparse.items()}
    return [min(bytes_by, key=bytes_by.__getitem__), *apart]


def _stored_count(bits: TensorBits) -> int:
    """How many values belong to the positions."""
    if not bits.block:
        return int(np.count_nonzero(bits.elements))
    places = np.flatnonzero(blocks.gathered(bits.mask, bits.block))
    return blocks.elements(places, bits.shape, bits.block)


def _with_zeros(bits: TensorBits, zeros: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels and counts where so many zeros are among the values."""
    if not zeros or not len(bits.levels):
        return bits.levels, bits.counts
    return np.insert(bits.levels, 0, 0), np.insert(bits.counts, 0, zeros)


def _contents(packed: PackedTensor, lengths: Lengths | None = None) -> tuple[np.ndarray | slice, np.ndarray]:
    """Which elements or blocks are stored, and the bits of their values (stored values,), element by element.

    PackError where the parts do not fit.
    """
    tensor_record.check_fields(packed)
    scaled_bytes.read_scales(packed.scales)
    exact = packed.values_coding == "exact"
    book = np.zeros(0, np.uint8) if exact else value_coding.entries(packed)
    if lengths is None:
        lengths, used = read_tables(packed, packed.tables, len(book))
        if used != len(packed.tables):
            raise PackError(f"{len(packed.tables) - used:,} bytes follow its Huffman tables")
    if packed.values_coding == "arithmetic":
        return _joint_contents(packed, book)
    places = position_coding.decode(packed, math.prod(position_coding.positioned(packed)), lengths.gaps)
    count = stored_values(packed)
    if packed.block:
        assert isinstance(places, np.ndarray)  # a dense tensor has no block
        count = blocks.elements(places, packed.shape, packed.block)
    codes = None if exact else value_coding.decode(packed, count, len(book), lengths.values)
    return places, _checked(packed, _exact(packed, count) if codes is None else book[codes])


def _joint_contents(packed: PackedTensor, book: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and bits of a tensor that is one arithmetic code."""
    if packed.coding != "arithmetic" or packed.positions:
        raise PackError("arithmetic codes of values hold the positions too, and here they are given apart")
    mask, codes = position_coding.joint(packed.values, packed.shape, len(book), packed.block)
    places = np.flatnonzero(blocks.gathered(mask, packed.block))
    if packed.block and len(places) != packed.kept:
        raise PackError(f"its arithmetic codes hold {len(places):,} blocks, not {packed.kept:,}")
    return places, _checked(packed, book[codes])


def _checked(packed: PackedTensor, stored: np.ndarray) -> np.ndarray:
    """The stored values' bits, if they are possible ones."""
    nonzeros = int(np.count_nonzero(stored))
    if nonzeros != packed.nonzeros:
        raise PackError(f"{nonzeros:,} of its values are not zero, but {packed.nonzeros:,} should be")
    if packed.dtype == "bool" and stored.max(initial=0) > 1:
        raise PackError("a bool is neither 0 nor 1")
    return stored


def _exact(packed: PackedTensor, count: int) -> np.ndarray:
    """The stored values as unsigned integers, (count,)."""
    itemsize = getattr(torch, packed.stored_dtype).itemsize
    if len(packed.values) != count * itemsize:
        expected, given = count * itemsize, len(packed.values)
        raise PackError(f"{count:,} values of {packed.stored_dtype} take {expected:,} bytes, not {given:,}")
    return np.frombuffer(packed.values, f"<u{itemsize}")
