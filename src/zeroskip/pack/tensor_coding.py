"""One tensor <-> its stored form: the cheapest coding of its positions and its values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zeroskip.codecs import arithmetic
from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack import position_coding, tensor_record, value_coding
from zeroskip.pack.tensor_record import DTYPES, Lengths, elements, read_tables, stored_values

CODERS = ("fixed", "huffman", "arithmetic")


@dataclass(frozen=True)
class TensorBits:
    """A tensor whose elements are unsigned integers, and the distinct non-zeros among them.

    elements  (size,) little-endian, row by row
    levels    (levels,) increasing, which occur `counts` (levels,) times; none where they are too many for a codebook
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: np.ndarray
    levels: np.ndarray
    counts: np.ndarray


def encode_tensor(name: str, tensor: Tensor, *, coder: str, index_bits: int | None = None) -> PackedTensor:
    """The tensor in the coding that takes the fewest bytes of the file; of equals in the simplest.

    An element is a non-zero if any of its bits is set, so that -0.0 is kept. Raises PackError, saying why but
    not which tensor, for NaN, more than 2^31 elements, and dtypes that are not in DTYPES.

    >>> encode_tensor("fc.bias", torch.tensor([0.0, 0.0, 1.5]), coder="huffman").coding
    'bitmask'
    """
    dtype, shape = _storable(tensor)
    raw = _raw(tensor)
    bits = TensorBits(name, dtype, shape, raw, *value_coding.distinct(raw[raw != 0]))
    codings = _candidates(bits, coder, index_bits)
    codings = [pair for pair in codings if "arithmetic" not in pair or arithmetic.fits(shape)]
    encoded = [_encoded(bits, *pair) for pair in codings]
    most = position_coding.MOST_PER_BYTE  # elements, or a reader refuses
    encoded[1:] = [one for one in encoded[1:] if len(raw) <= most * len(one.positions or one.values)]
    return min(encoded, key=lambda one: sum(map(len, tensor_record.write(one))))


def decode_tensor(packed: PackedTensor) -> Tensor:
    """The very tensor that was encoded, on the CPU; raises PackError as `check` does.

    >>> decode_tensor(encode_tensor("fc.bias", torch.tensor([0.0, 0.0, 1.5]), coder="huffman"))
    tensor([0.0000, 0.0000, 1.5000])
    """
    places, stored = _contents(packed)
    raw = np.zeros(elements(packed.shape), stored.dtype)
    raw[places] = stored
    raw = raw.astype(f"=u{stored.itemsize}", copy=False)  # torch knows the machine's own order only
    return torch.from_numpy(raw.view(np.uint8)).view(getattr(torch, packed.dtype)).reshape(packed.shape)


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


def _candidates(bits: TensorBits, coder: str, index_bits: int | None) -> list[tuple[str, str]]:
    """The codings of positions and values that could take the fewest bytes together.

    Arithmetic codes are their own pair: how long they are is only known from encoding them.
    """
    mask, levels, counts = bits.elements != 0, bits.levels, bits.counts
    kept = int(np.count_nonzero(mask))
    sparse = value_coding.costs(kept, levels, counts, bits.dtype, coder=coder)
    pays = min(sparse, key=sparse.__getitem__) != "exact"
    apart = [("arithmetic", "arithmetic" if pays else "exact")] if coder == "arithmetic" and kept else []
    if len(levels) and kept < mask.size:
        levels, counts = np.insert(levels, 0, 0), np.insert(counts, 0, mask.size - kept)
    dense = value_coding.costs(mask.size, levels, counts, bits.dtype, coder=coder)
    bytes_by = {("dense", coding): cost for coding, cost in dense.items()}
    for places, place_cost in position_coding.costs(mask, coder=coder, width=index_bits).items():
        bytes_by |= {(places, coding): place_cost + cost for coding, cost in sparse.items()}
    return [min(bytes_by, key=bytes_by.__getitem__), *apart]


def _encoded(bits: TensorBits, coding: str, values_coding: str) -> PackedTensor:
    """The tensor in these codings of positions and values."""
    flat = bits.elements != 0
    stored, mask = bits.elements if coding == "dense" else bits.elements[flat], flat.reshape(bits.shape)
    nonzeros, joint = int(np.count_nonzero(mask)), values_coding == "arithmetic"
    positions, tables, escapes = (b"", b"", 0) if joint else position_coding.encode(mask, coding)
    packed = PackedTensor(
        bits.name, bits.dtype, bits.shape, coding, nonzeros, positions, values=b"", escapes=escapes
    )
    if values_coding == "exact":
        return replace(packed, values=stored.tobytes(), tables=tables)
    levels = np.insert(bits.levels, 0, 0) if len(stored) > nonzeros else bits.levels
    codes, table = np.searchsorted(levels, stored), b""
    if joint:
        data = arithmetic.encode(mask, codes, len(levels))
    else:
        data, table = value_coding.encode(codes, len(levels), values_coding)
    book_dtype, book = value_coding.codebook(levels, bits.dtype)
    packed = replace(packed, codebook_dtype=book_dtype, codebook=book, tables=tables + table)
    return replace(packed, values=data, values_coding=values_coding)


def _contents(packed: PackedTensor, lengths: Lengths | None = None) -> tuple[np.ndarray | slice, np.ndarray]:
    """Which elements are stored, and their bits (stored values,); PackError where the parts do not fit."""
    tensor_record.check_fields(packed)
    exact = packed.values_coding == "exact"
    book = np.zeros(0, np.uint8) if exact else value_coding.entries(packed)
    if lengths is None:
        lengths, used = read_tables(packed, packed.tables, len(book))
        if used != len(packed.tables):
            raise PackError(f"{len(packed.tables) - used:,} bytes follow its Huffman tables")
    if packed.values_coding == "arithmetic":
        return _joint_contents(packed, book)
    count = stored_values(packed.coding, packed.shape, packed.nonzeros)
    codes = None if exact else value_coding.decode(packed, count, len(book), lengths.values)
    stored = _checked(packed, _exact(packed, count) if codes is None else book[codes])
    return position_coding.decode(packed, elements(packed.shape), lengths.gaps), stored


def _joint_contents(packed: PackedTensor, book: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and bits of a tensor that is one arithmetic code."""
    if packed.coding != "arithmetic" or packed.positions:
        raise PackError("arithmetic codes of values hold the positions too, and here they are given apart")
    mask, codes = position_coding.joint(packed.values, packed.shape, len(book))
    return np.flatnonzero(mask), _checked(packed, book[codes])


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
    itemsize = getattr(torch, packed.dtype).itemsize
    if len(packed.values) != count * itemsize:
        expected, given = count * itemsize, len(packed.values)
        raise PackError(f"{count:,} values of {packed.dtype} take {expected:,} bytes, not {given:,}")
    return np.frombuffer(packed.values, f"<u{itemsize}")
