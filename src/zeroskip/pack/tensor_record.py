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
    """Header, tables, codebook, positions and values of a tensor, as they follow each other.

    Raises PackError as `check_name` and `check_fields` do.

    >>> b"".join(write(PackedTensor("b", "uint8", (2,), "dense", 2, b"", b"ab"))).hex(" ")
    '01 62 01 01 02 00 02 61 62'
    """
    name = check_name(packed.name)
    check_fields(packed)
    half = packed.values_coding != "exact" and packed.codebook_dtype != packed.dtype
    kind = DTYPES.index(packed.dtype) | value_coding.CODINGS.index(packed.values_coding) << 4 | half << 6
    header = varint(len(name)) + name + bytes([kind]) + varint(len(packed.shape))
    header += b"".join(varint(side) for side in packed.shape)
    header += bytes([position_coding.CODINGS.index(packed.coding)]) + varint(packed.nonzeros)
    if packed.coding.startswith(("gaps", "huffman")):
        header += varint(packed.escapes)
    if packed.coding.startswith(("huffman", "arithmetic")):
        header += varint(len(packed.positions))
    if packed.values_coding != "exact":
        header += varint(len(packed.codebook) // getattr(torch, packed.codebook_dtype).itemsize)
    if packed.values_coding in ("huffman", "arithmetic"):
        header += varint(len(packed.values))
    return [header, packed.tables, packed.codebook, packed.positions, packed.values]


def read(name: str, reader: Reader) -> tuple[PackedTensor, Lengths]:
    """The tensor that follows its name in the file, and the lengths of its Huffman codes; PackError with the bare fact.

    >>> read("b", Reader(bytes.fromhex("01 01 02 00 02 61 62")))[0].values
    b'ab'
    """
    kind = reader.take(1)[0]
    dtype, values_coding = _one_of(DTYPES, kind & 15, "dtype"), value_coding.CODINGS[kind >> 4 & 3]
    sides = reader.integer("sides", MAX_DIMENSIONS)
    shape = tuple(reader.integer("elements", MAX_ELEMENTS) for _ in range(sides))
    size, most = elements(shape), len(reader.data)
    coding = _one_of(position_coding.CODINGS, reader.take(1)[0], "coding")
    nonzeros, escapes = reader.integer("non-zeros", size), 0
    lengths = {"dense": 0, "bitmask": -(-size // 8)}
    if coding.startswith(("gaps", "huffman")):
        escapes = reader.integer("escapes", size)
        lengths[coding] = -(-(nonzeros + escapes) * position_coding.gap_width(coding) // 8)
    if coding.startswith(("huffman", "arithmetic")):
        lengths[coding] = reader.integer("bytes of positions", most)
    count, book_dtype, levels = stored_values(coding, shape, nonzeros), "", 0
    value_bytes = count * getattr(torch, dtype).itemsize
    if values_coding != "exact":
        book_dtype = "float16" if kind >> 6 & 1 else dtype
        levels = reader.integer("levels", value_coding.MAX_LEVELS)
        value_bytes = -(-count * value_coding.code_width(levels) // 8)
    if values_coding in ("huffman", "arithmetic"):
        value_bytes = reader.integer("bytes of values", most)
    packed = PackedTensor(name, dtype, shape, coding, nonzeros, positions=b"", values=b"", escapes=escapes)
    packed = replace(packed, values_coding=values_coding, codebook_dtype=book_dtype)
    table_lengths, used = read_tables(packed, memoryview(reader.data)[reader.at :], levels)
    tables = reader.take(used)
    book = reader.take(levels * getattr(torch, book_dtype).itemsize if book_dtype else 0)
    places, data = reader.take(lengths[coding]), reader.take(value_bytes)
    return replace(packed, positions=places, values=data, codebook=book, tables=tables), table_lengths


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
    gaps = packed.nonzeros + packed.escapes if packed.coding.startswith("huffman") else None
    codes = (
        stored_values(packed.coding, packed.shape, packed.nonzeros)
        if packed.values_coding == "huffman"
        else None
    )
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


def stored_values(coding: str, shape: tuple[int, ...], nonzeros: int) -> int:
    """How many values are stored: every element if "dense", otherwise the non-zeros."""
    return elements(shape) if coding == "dense" else nonzeros


def check_fields(packed: PackedTensor) -> None:
    """PackError unless dtypes and codings are those that a file can name, and no count is negative."""
    books = ("",) if packed.values_coding == "exact" else (packed.dtype, "float16")
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
    counts = (*packed.shape, packed.nonzeros, packed.escapes)
    if any(not isinstance(count, int) or count < 0 for count in counts):
        raise PackError(
            f"shape {packed.shape}, {packed.nonzeros} non-zeros and {packed.escapes} escapes are not all whole numbers "
            "from 0 on"
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
