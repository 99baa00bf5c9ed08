"""The positions of a tensor's non-zeros, or of its blocks: bytes that each coding takes, as bytes and back."""

from __future__ import annotations

import math

import numpy as np

from zeroskip.codecs import arithmetic, bit_stream, bitmask, blocks, gaps, huffman
from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack.value_coding import huffman_bytes
from zeroskip.pack.varint import varint

WIDTHS = range(2, 17)
# The order is part of the file format: a file stores the index. "gaps5" stands at index 5.
CODINGS = (
    "dense",
    "bitmask",
    *(f"gaps{width}" for width in WIDTHS),
    *(f"huffman{width}" for width in WIDTHS),
    "arithmetic",
)

MOST_PER_BYTE = 1 << 10  # elements: memory and time to decode arithmetic codes grow with the shape


def costs(mask: np.ndarray, *, coder: str, width: int | None) -> dict[str, int]:
    """Bytes that the positions of mask (size,) take in a file, by coding, for those that may be the best.

    width  of the gaps; None: every one that could be the best

    >>> costs(np.array([True, True, False, True]), coder="fixed", width=None)
    {'bitmask': 1, 'gaps2': 2}
    """
    zeros, counts = np.unique(gaps.zeros_before(mask), return_counts=True)  # (distinct gaps,)
    sizes = {"bitmask": -(-bitmask.bits(mask) // 8)}
    for gap_bits in WIDTHS if width is None else [width]:
        histogram = _histogram(zeros, counts, gap_bits)
        escapes = len(varint(int(histogram[-1])))
        sizes[f"gaps{gap_bits}"] = escapes - (-gap_bits * int(histogram.sum()) // 8)
        if coder != "fixed":
            sizes[f"huffman{gap_bits}"] = escapes + huffman_bytes(histogram)
        if width is None and zeros[-1:].sum() < 2**gap_bits - 1:
            break  # no gap escapes, so a wider field only costs more
    return sizes


def encode(mask: np.ndarray, coding: str) -> tuple[bytes, bytes, int]:
    """The positions of mask (...) as bytes, the table that they need, and how many gaps escape.

    >>> encode(np.array([False, True, False, False, False, True]), "gaps2")
    (b'p', b'', 1)
    """
    if coding == "dense":
        return b"", b"", 0
    if coding == "arithmetic":
        return arithmetic.encode(mask, np.zeros(np.count_nonzero(mask), np.int64), 1), b"", 0
    mask = mask.reshape(-1)
    if coding == "bitmask":
        return bitmask.encode(mask), b"", 0
    width = gap_width(coding)
    escapes = gaps.fillers(mask, width)
    if coding.startswith("gaps"):
        return gaps.encode(mask, width), b"", escapes
    symbols = gaps.symbols(mask, width)
    lengths = huffman.lengths(np.bincount(symbols, minlength=2**width))
    return huffman.encode(symbols, lengths), huffman.table(lengths), escapes


def decode(packed: PackedTensor, size: int, lengths: np.ndarray) -> np.ndarray | slice:
    """Which of `size` elements or blocks the values belong to; raises PackError where the bytes do not fit.

    lengths  (2^width,) of the Huffman code of the gaps, if there is one
    """
    data, coding, places = packed.positions, packed.coding, packed.places
    if coding == "dense":
        if data:
            raise PackError(f"a dense tensor has no positions, and {len(data):,} bytes of them are here")
        return slice(None)
    if coding in ("bitmask", "arithmetic"):
        mask = bitmask.decode(data, size) if coding == "bitmask" else joint(data, positioned(packed), 1)[0]
        if np.count_nonzero(mask) != places:
            raise PackError(f"its {coding} holds {np.count_nonzero(mask):,} positions, not {places:,}")
        return np.flatnonzero(mask)
    width, count = gap_width(coding), places + packed.escapes
    if coding.startswith("huffman"):
        return gaps.places(huffman.decode(data, count, lengths), size, places, width)
    codes = bit_stream.read_fixed(data, count, width)
    bit_stream.check_end(data, count * width, f"{count:,} gaps")
    return gaps.places(codes, size, places, width)


def positioned(packed: PackedTensor) -> tuple[int, ...]:
    """The shape of what has positions: the tensor's, or that of the grid of its blocks.

    >>> positioned(PackedTensor("w", "int8", (8, 6), "bitmask", 1, b"", b"", block=(1, 4), kept=1))
    (8, 2)
    """
    return blocks.grid(packed.shape, packed.block) if packed.block else packed.shape


def joint(
    data: bytes, shape: tuple[int, ...], levels: int, block: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """The mask (shape) and the codes (nonzeros,) of an arithmetic code; raises PackError as its codec does."""
    size = math.prod(shape)
    if size > MOST_PER_BYTE * len(data):
        raise PackError(f"{len(data):,} bytes of arithmetic codes are too few for {size:,} elements")
    return arithmetic.decode(data, shape, levels, block)


def gap_width(coding: str) -> int:
    """Bits of a gap.

    >>> gap_width("huffman5")
    5
    """
    return int(coding.removeprefix("gaps").removeprefix("huffman"))


def _histogram(zeros: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """How often each code of gaps occurs, (2^width,), where `zeros` (distinct,) occur `counts` times."""
    escape = 2**width - 1
    histogram = np.bincount(zeros % escape, counts, 2**width).astype(np.int64)
    histogram[escape] += int((zeros // escape) @ counts)
    return histogram
