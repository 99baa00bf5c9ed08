"""The values of a tensor: exact, or a codebook of the distinct ones and a code for each element."""

from __future__ import annotations

import numpy as np
import torch

from zeroskip.codecs import bit_stream, huffman
from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack.varint import varint

CODINGS = ("exact", "fixed", "huffman", "arithmetic")  # the order is part of the file format
MAX_LEVELS = 1 << 16
_HALVED = ("float32", "float64")  # dtypes whose codebook may be stored as float16
_SAMPLE = 1 << 18  # elements that are sorted first: most tensors have no codebook


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ones of values (count,), increasing, and how often each occurs, (levels,).

    Empty arrays where, with a zero added, they are too many for a codebook.

    >>> distinct(np.array([7, 3, 7]))
    (array([3, 7]), array([1, 2]))
    """
    for part in (values[:_SAMPLE], values):
        levels, counts = np.unique(part, return_counts=True)
        if len(levels) >= MAX_LEVELS:
            return levels[:0], counts[:0]
    return levels, counts


def costs(count: int, levels: np.ndarray, counts: np.ndarray, dtype: str, *, coder: str) -> dict[str, int]:
    """Bytes that `count` values take in a file, by coding, where `levels` (levels,) occur `counts` times.

    >>> costs(16, np.array([3, 5], np.uint8), np.array([1, 15]), "uint8", coder="fixed")
    {'exact': 16, 'fixed': 5}
    """
    sizes = {"exact": count * levels.itemsize}
    if not len(levels):
        return sizes
    stored = len(varint(len(levels))) + len(codebook(levels, dtype)[1])
    sizes["fixed"] = stored - (-count * code_width(len(levels)) // 8)
    if coder != "fixed":
        sizes["huffman"] = stored + huffman_bytes(counts)
    return sizes


def codebook(levels: np.ndarray, dtype: str) -> tuple[str, bytes]:
    """How levels (levels,), unsigned integers that are the bits of `dtype`, are stored: dtype and bytes.

    As float16 if that is smaller and keeps every bit of every entry.

    >>> codebook(np.array([0, 0x3F800000], np.uint32), "float32")
    ('float16', b'\\x00\\x00\\x00<')
    """
    if dtype in _HALVED:
        own = f"<f{levels.itemsize}"
        with np.errstate(over="ignore"):  # what does not fit is noticed in the next line
            half = levels.view(own).astype("<f2")
        if np.array_equal(half.astype(own).view(levels.dtype), levels):
            return "float16", half.tobytes()
    return dtype, levels.tobytes()


def entries(packed: PackedTensor) -> np.ndarray:
    """The codebook's entries (levels,) as the bits of the values' dtype, unsigned; PackError if not increasing."""
    dtype = packed.stored_dtype
    itemsize, own = (getattr(torch, name).itemsize for name in (packed.codebook_dtype, dtype))
    allowed = {dtype, "float16"} if dtype in _HALVED else {dtype}
    if packed.codebook_dtype not in allowed or not packed.codebook or len(packed.codebook) % itemsize:
        raise PackError(f"{len(packed.codebook):,} bytes are no codebook of {dtype}")
    stored = np.frombuffer(packed.codebook, f"<u{itemsize}")
    if packed.codebook_dtype != dtype:
        stored = stored.view("<f2").astype(f"<f{own}").view(f"<u{own}")
    if (stored[1:] <= stored[:-1]).any():
        raise PackError("the entries of its codebook do not increase")
    return stored


def encode(codes: np.ndarray, levels: int, coding: str) -> tuple[bytes, bytes]:
    """Codes (count,) of 0 ... levels - 1 as bytes, and the table that they need.

    >>> encode(np.array([1, 0, 1, 1]), 2, "fixed")
    (b'\\xb0', b'')
    """
    if coding == "fixed":
        return bit_stream.write(codes, np.broadcast_to(np.uint8(code_width(levels)), codes.shape)), b""
    lengths = huffman.lengths(np.bincount(codes, minlength=levels))
    return huffman.encode(codes, lengths), huffman.table(lengths)


def decode(packed: PackedTensor, count: int, levels: int, lengths: np.ndarray) -> np.ndarray:
    """The codes (count,) of a tensor that has a codebook; PackError for bytes that `encode` would not write.

    lengths  (levels,) of the Huffman code, if there is one
    """
    if packed.values_coding == "huffman":
        return huffman.decode(packed.values, count, lengths)
    codes = bit_stream.read_fixed(packed.values, count, code_width(levels))
    bit_stream.check_end(packed.values, count * code_width(levels), f"{count:,} codes")
    if codes.max(initial=0) >= levels:
        raise PackError(f"a code is {codes.max():,}, and its codebook has {levels:,} entries")
    return codes


def code_width(levels: int) -> int:
    """Bits of a fixed-width code of so many levels: at least 1, so that no byte stands for a billion elements.

    >>> code_width(32), code_width(33), code_width(1)
    (5, 6, 1)
    """
    return max(levels - 1, 1).bit_length()


def huffman_bytes(counts: np.ndarray) -> int:
    """Bytes of symbols that occur `counts` (alphabet,) times, in the best Huffman code, with table and length.

    >>> huffman_bytes(np.array([8, 4, 4]))
    5
    """
    lengths = huffman.lengths(counts)
    coded = -(-huffman.bits_of_counts(counts, lengths) // 8)
    return coded + len(varint(coded)) + len(huffman.table(lengths))
