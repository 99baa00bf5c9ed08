"""One tensor <-> its stored form: the cheapest way to say where its non-zeros are, and their exact values."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from zeroskip.codecs import bitmask, gaps
from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError

# Both orders are part of the file format: a file stores the index. "gaps5" stands at index 5.
DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
)
CODINGS = ("dense", "bitmask", *(f"gaps{width}" for width in range(2, 9)))

MAX_DIMENSIONS = 64  # PyTorch's own
MAX_ELEMENTS = 2**31  # of one tensor: a few bytes of gaps may stand for many zeros, and this bounds how many


def encode_tensor(name: str, tensor: Tensor) -> PackedTensor:
    """The tensor in the coding that takes the fewest bytes.

    An element is a non-zero if any of its bits is set, so that -0.0 is kept. Raises PackError, saying why but
    not which tensor, for NaN, more than 2^31 elements, and dtypes that are not in DTYPES.

    >>> encode_tensor("fc.bias", torch.tensor([0.0, 0.0, 1.5])).coding
    'bitmask'
    """
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
    raw = _raw(tensor)
    mask = raw != 0
    coding = cheapest(mask, raw.itemsize)
    values = raw if coding == "dense" else raw[mask]
    places = _encode_positions(mask, coding)
    return PackedTensor(name, dtype, shape, coding, int(np.count_nonzero(mask)), places, values.tobytes())


def decode_tensor(packed: PackedTensor) -> Tensor:
    """The very tensor that was encoded, on the CPU; raises PackError as `check` does.

    >>> decode_tensor(encode_tensor("fc.bias", torch.tensor([0.0, 0.0, 1.5])))
    tensor([0.0000, 0.0000, 1.5000])
    """
    values = _values(packed)
    raw = np.zeros(elements(packed.shape), f"u{values.itemsize}")
    raw[_positions(packed)] = values
    return torch.from_numpy(raw.view(np.uint8)).view(getattr(torch, packed.dtype)).reshape(packed.shape)


def check(packed: PackedTensor) -> None:
    """Raise PackError, with the bare fact, unless the bytes are those of a tensor of this shape and dtype.

    Memory and time grow with the bytes that are there, not with the shape that they claim.

    >>> check(PackedTensor("fc.bias", "float32", (3,), "dense", 0, b"", b""))
    Traceback (most recent call last):
    zeroskip.errors.PackError: 3 values of float32 take 12 bytes, not 0
    """
    _values(packed)
    _positions(packed)


def cheapest(mask: np.ndarray, itemsize: int) -> str:
    """The coding of a mask (size,) that takes the fewest bytes, positions and values of `itemsize` together.

    Of equals the simplest wins: the one that stands first in CODINGS.

    >>> cheapest(np.array([True, True, False, True]), 4)
    'bitmask'
    """
    kept = int(np.count_nonzero(mask))
    position_bits = {"bitmask": bitmask.bits(mask)}
    for coding in CODINGS[2:]:
        if _width(coding) * kept < mask.size:  # otherwise a bitmask is as small, whatever the gaps
            position_bits[coding] = gaps.bits(mask, _width(coding))
    stored_bytes = {"dense": mask.size * itemsize}
    stored_bytes |= {coding: -(-bits // 8) + kept * itemsize for coding, bits in position_bits.items()}
    return min(stored_bytes, key=stored_bytes.__getitem__)


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements; PackError for a shape larger than a file may claim.

    >>> elements((300, 784))
    235200
    """
    # An empty tensor may not have absurd other sides either: its strides would overflow.
    if len(shape) > MAX_DIMENSIONS or math.prod(max(1, side) for side in shape) > MAX_ELEMENTS:
        raise PackError(
            f"a tensor has at most {MAX_DIMENSIONS} sides and {MAX_ELEMENTS:,} elements; split it"
        )
    return math.prod(shape)


def value_bytes(dtype: str, coding: str, shape: tuple[int, ...], nonzeros: int) -> int:
    """Length of the stored values: every element if "dense", otherwise the non-zeros.

    >>> value_bytes("float32", "bitmask", (300, 784), 23520)
    94080
    """
    return getattr(torch, dtype).itemsize * (elements(shape) if coding == "dense" else nonzeros)


def _raw(tensor: Tensor) -> np.ndarray:
    """The elements' bits as little-endian unsigned integers, row by row: (...) -> (elements,)."""
    # A clone and not contiguous(), which leaves a single element its odd stride and its negative bit.
    flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
    native = flat.view(torch.uint8).numpy().view(f"u{tensor.itemsize}")
    return native.astype(f"<u{tensor.itemsize}", copy=False)


def _values(packed: PackedTensor) -> np.ndarray:
    """The stored values as unsigned integers: (elements,) if "dense", (nonzeros,) otherwise."""
    expected = value_bytes(packed.dtype, packed.coding, packed.shape, packed.nonzeros)
    itemsize = getattr(torch, packed.dtype).itemsize
    if len(packed.values) != expected:
        count, given = expected // itemsize, len(packed.values)
        raise PackError(f"{count:,} values of {packed.dtype} take {expected:,} bytes, not {given:,}")
    values = np.frombuffer(packed.values, f"<u{itemsize}")
    nonzeros = int(np.count_nonzero(values))
    if nonzeros != packed.nonzeros:
        raise PackError(f"{nonzeros:,} of its values are not zero, but {packed.nonzeros:,} should be")
    if packed.dtype == "bool" and values.max(initial=0) > 1:
        raise PackError("a bool is neither 0 nor 1")
    return values


def _encode_positions(mask: np.ndarray, coding: str) -> bytes:
    if coding == "dense":
        return b""
    return bitmask.encode(mask) if coding == "bitmask" else gaps.encode(mask, _width(coding))


def _positions(packed: PackedTensor) -> np.ndarray | slice:
    """Which elements the values belong to."""
    data, size = packed.positions, elements(packed.shape)
    if packed.coding == "dense":
        if data:
            raise PackError(f"a dense tensor has no positions, and {len(data):,} bytes of them are here")
        return slice(None)
    if packed.coding != "bitmask":
        return gaps.positions(data, size, packed.nonzeros, _width(packed.coding))
    places = np.flatnonzero(bitmask.decode(data, size))
    if len(places) != packed.nonzeros:
        raise PackError(f"its bitmask holds {len(places):,} positions, not {packed.nonzeros:,}")
    return places


def _width(coding: str) -> int:
    return int(coding.removeprefix("gaps"))
