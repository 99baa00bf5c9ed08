"""One stored tensor <-> its bytes in the file; the format is drawn in zs_file.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from zeroskip.codecs import huffman
from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack import position_coding, value_coding
from zeroskip.pack.varint import varint

# The order is part of the file format: a file stores the index.
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
MAX_DIMENSIONS = 64  # PyTorch's own
MAX_ELEMENTS = 2**31  # of one tensor: a few bytes of gaps may stand for many zeros, and this bounds how many
MAX_NAME = 1024
SCALED, IN_BLOCKS = 128, 64  # added to a tensor's kind, and to its coding
SCALE_BYTES = 4
FILE = "(file)"  # the ledger's entry for what belongs to no tensor


@dataclass(frozen=True)
class Lengths:
    """The lengths of a tensor's Huffman codes, (alphabet,) uint8; empty where there is none."""

    gaps: np.ndarray
    values: np.ndarray


@dataclass
class Reader:
    """Takes bytes from front to back, and never more than there are."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            raise PackError(f"it ends after {len(self.data):,} bytes, in the middle of a tensor")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, what: str, most: int) -> int:
        """The next varint."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise PackError(f"the number of {what} is longer than 5 bytes")
        if value > most:
            raise PackError(f"{value:,} {what} are more than {most:,}")
        return value


def write(packed: PackedTensor) -> list[bytes]:
    """Header, tables, codebook, scales, positions and values of a tensor, as they follow each other.

    Raises PackError as `check_name` and `check_fields` do.

    >>> b"".join(write(PackedTensor("b", "uint8", (2,), "dense", 2, b"", b"ab"))).hex(" ")
    '01 62 01 01 02 00 02 61 62'
    """
    name = check_name(packed.name)
    check_fields(packed)
    half = packed.values_coding != "exact" and packed.codebook_dtype != packed.stored_dtype
    kind = DTYPES.index(packed.dtype) | value_coding.CODINGS.index(packed.values_coding) << 4 | half << 6
    header = varint(len(name)) + name + bytes([kind | bool(packed.scales) * SCALED])
    header += b"".join(map(varint, (len(packed.shape), *packed.shape)))
    header += bytes([position_coding.CODINGS.index(packed.coding) | bool(packed.block) * IN_BLOCKS])
    header += b"".join(map(varint, packed.block)) + varint(packed.nonzeros)
    header += varint(packed.kept) if packed.block else b""
    if packed.coding.startswith(("gaps", "huffman")):
        header += varint(packed.escapes)
    if packed.coding.startswith(("huffman", "arithmetic")):
        header += varint(len(packed.positions))
    if packed.values_coding != "exact":
        header += varint(len(packed.codebook) // getattr(torch, packed.codebook_dtype).itemsize)
    if packed.values_coding in ("huffman", "arithmetic") or packed.block:
        header += varint(len(packed.values))
    return [header, packed.tables, packed.codebook, packed.scales, packed.positions, packed.values]


def read(name: str, reader: Reader, *, extended: bool) -> tuple[PackedTensor, Lengths]:
    """The tensor that follows its name in the file, and the lengths of its Huffman codes; PackError with the bare fact.

    extended  whether the file's version knows blocks and scales

    >>> read("b", Reader(bytes.fromhex("01 01 02 00 02 61 62")), extended=False)[0].values
    b'ab'
    """
    kind, most = reader.take(1)[0], len(reader.data)
    dtype, values_coding = _one_of(DTYPES, kind & 15, "dtype"), value_coding.CODINGS[kind >> 4 & 3]
    sides = reader.integer("sides", MAX_DIMENSIONS)
    shape = tuple(reader.integer("elements", MAX_ELEMENTS) for _ in range(sides))
    scaled = extended and bool(kind & SCALED)
    packed = _read_positioned(PackedTensor(name, dtype, shape, "", 0, b"", b""), reader, extended)
    places = _position_bytes(packed, reader)
    stored, book_dtype, levels = "int8" if scaled else dtype, "", 0
    if values_coding != "exact":
        book_dtype = "float16" if kind >> 6 & 1 else stored
        levels = reader.integer("levels", value_coding.MAX_LEVELS)
    if values_coding in ("huffman", "arithmetic") or packed.block:
        value_bytes = reader.integer("bytes of values", most)
    else:
        count, itemsize = stored_values(packed), getattr(torch, stored).itemsize
        value_bytes = (
            -(-count * value_coding.code_width(levels) // 8) if values_coding == "fixed" else count * itemsize
        )
    packed = replace(packed, values_coding=values_coding, codebook_dtype=book_dtype)
    table_lengths, used = read_tables(packed, memoryview(reader.data)[reader.at :], levels)
    tables = reader.take(used)
    book = reader.take(levels * getattr(torch, book_dtype).itemsize if book_dtype else 0)
    scales = reader.take(SCALE_BYTES * shape[0] if scaled and shape else 0)
    packed = replace(packed, codebook=book, tables=tables, scales=scales)
    return replace(packed, positions=reader.take(places), values=reader.take(value_bytes)), table_lengths


def _read_positioned(packed: PackedTensor, reader: Reader, extended: bool) -> PackedTensor:
    """The tensor with its coding of positions, its block and counts."""
    size, byte = elements(packed.shape), reader.take(1)[0]
    block: tuple[int, ...] = ()
    if extended and byte & IN_BLOCKS:
        byte ^= IN_BLOCKS
        block = tuple(
            reader.integer("elements along a side of a block", max(1, side)) for side in packed.shape
        )
    coding = _one_of(position_coding.CODINGS, byte, "coding")
    nonzeros = reader.integer("non-zeros", size)
    packed = replace(packed, coding=coding, block=block, nonzeros=nonzeros)
    check_block(packed)
    most = math.prod(position_coding.positioned(packed))
    kept = reader.integer("blocks", most) if block else 0
    escapes = reader.integer("escapes", most) if coding.startswith(("gaps", "huffman")) else 0
    return replace(packed, kept=kept, escapes=escapes)


def _position_bytes(packed: PackedTensor, reader: Reader) -> int:
    coding = packed.coding
    if coding.startswith(("huffman", "arithmetic")):
        return reader.integer("bytes of positions", len(reader.data))
    if coding.startswith("gaps"):
        return -(-(packed.places + packed.escapes) * position_coding.gap_width(coding) // 8)
    return -(-math.prod(position_coding.positioned(packed)) // 8) if coding == "bitmask" else 0


def read_name(reader: Reader) -> str:
    """The name that a tensor begins with."""
    stored = reader.take(reader.integer("bytes of name", MAX_NAME))
    try:
        return stored.decode()
    except UnicodeDecodeError:
        raise PackError(f"a tensor name, {stored[:40]!r}, is not UTF-8") from None


def read_tables(packed: PackedTensor, data: bytes | memoryview, levels: int) -> tuple[Lengths, int]:
    """The lengths of the Huffman codes whose tables `data` begins with, and the bytes of these tables.

    `levels` is the number of entries of the codebook. PackError, too, for Huffman codes of no symbols: none
    are written, and a few bytes would stand for a table of 65,536 symbols.
    """
    gap_lengths = value_lengths = np.zeros(0, np.uint8)
    gaps = packed.places + packed.escapes if packed.coding.startswith("huffman") else None
    codes = stored_values(packed) if packed.values_coding == "huffman" else None
    if 0 in (gaps, codes):
        raise PackError("it has a Huffman table, and no Huffman codes")
    used = more = 0
    if gaps:
        gap_lengths, used = huffman.read_table(data, 2 ** position_coding.gap_width(packed.coding))
    if codes:
        value_lengths, more = huffman.read_table(data[used:], levels)
    return Lengths(gap_lengths, value_lengths), used + more


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements; PackError for a shape larger than a file may claim."""
    # An empty tensor may not have absurd other sides either: its strides would overflow.
    if len(shape) > MAX_DIMENSIONS or math.prod(max(1, side) for side in shape) > MAX_ELEMENTS:
        raise PackError(
            f"a tensor has at most {MAX_DIMENSIONS} sides and {MAX_ELEMENTS:,} elements; split it"
        )
    return math.prod(shape)


def stored_values(packed: PackedTensor) -> int:
    """How many values are stored: every element if "dense", otherwise the non-zeros; of blocks, at least as many."""
    return elements(packed.shape) if packed.coding == "dense" else packed.places


def check_block(packed: PackedTensor) -> None:
    """PackError unless it has no block, or one within its shape, of more than one element."""
    if not packed.block:
        return
    fits = len(packed.block) == len(packed.shape) and all(
        isinstance(side, int) and 1 <= side <= max(1, size)
        for side, size in zip(packed.block, packed.shape, strict=True)
    )
    if packed.coding == "dense" or not fits or max(packed.block) == 1:
        raise PackError(f"blocks of {packed.block} are none of a {packed.coding} tensor of {packed.shape}")


def check_fields(packed: PackedTensor) -> None:
    """PackError unless dtypes and codings are those that a file can name, and no count is negative."""
    books = ("",) if packed.values_coding == "exact" else (packed.stored_dtype, "float16")
    for what, given, choices in (
        ("dtype", packed.dtype, DTYPES),
        ("coding", packed.coding, position_coding.CODINGS),
        ("coding of values", packed.values_coding, value_coding.CODINGS),
        ("dtype of a codebook", packed.codebook_dtype, books),
    ):
        if given not in choices:
            raise PackError(
                f"the {what} {given!r} is unknown here; it can be {', '.join(map(repr, choices))}"
            )
    counts = (*packed.shape, packed.nonzeros, packed.escapes, packed.kept)
    if any(not isinstance(count, int) or count < 0 for count in counts):
        raise PackError(
            f"shape {packed.shape}, {packed.nonzeros} non-zeros, {packed.escapes} escapes and {packed.kept} blocks are "
            "not all whole numbers from 0 on"
        )
    check_block(packed)
    if packed.kept and not packed.block:
        raise PackError(f"{packed.kept:,} blocks are kept, and there is no block")
    if packed.scales and (
        packed.dtype != "float32" or len(packed.scales) != SCALE_BYTES * (*packed.shape, 0)[0]
    ):
        raise PackError(
            f"{len(packed.scales):,} bytes are no scales of the outputs of {packed.dtype} {packed.shape}"
        )


def check_name(name: object) -> bytes:
    """A tensor's name as it is stored; PackError, with the bare rule, if it cannot be.

    >>> check_name("fc.weight")
    b'fc.weight'
    """
    try:
        stored = name.encode() if isinstance(name, str) and name != FILE else None
    except UnicodeEncodeError:
        stored = None
    if stored is None or len(stored) > MAX_NAME:
        raise PackError(f'a name is a text of at most {MAX_NAME:,} bytes of UTF-8, and not "{FILE}"')
    return stored


def _one_of(choices: tuple[str, ...], code: int, what: str) -> str:
    if code >= len(choices):
        raise PackError(f"{what} {code} is unknown, only 0 to {len(choices) - 1} have a meaning")
    return choices[code]
