"""One stored tensor <-> its bytes in the file; the format is drawn in container.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zeroskip.concepts import PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack import positions, values
from zeroskip.pack.tensor import DTYPES, MAX_DIMENSIONS, MAX_ELEMENTS, elements, read_tables, stored_values
from zeroskip.pack.varint import varint

MAX_NAME = 1024
FILE = "(file)"  # the ledger's entry for what belongs to no tensor


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


def write(one: PackedTensor) -> list[bytes]:
    """Header, tables, codebook, positions and values of a tensor, as they follow each other.

    >>> b"".join(write(PackedTensor("b", "uint8", (2,), "dense", 2, b"", b"ab"))).hex(" ")
    '01 62 01 01 02 00 02 61 62'
    """
    name = check_name(one.name)
    half = one.values_coding != "exact" and one.codebook_dtype != one.dtype
    kind = DTYPES.index(one.dtype) | values.CODINGS.index(one.values_coding) << 4 | half << 6
    header = varint(len(name)) + name + bytes([kind]) + varint(len(one.shape))
    header += b"".join(varint(side) for side in one.shape)
    header += bytes([positions.CODINGS.index(one.coding)]) + varint(one.nonzeros)
    if one.coding.startswith(("gaps", "huffman")):
        header += varint(one.escapes)
    if one.coding.startswith(("huffman", "arithmetic")):
        header += varint(len(one.positions))
    if one.values_coding != "exact":
        header += varint(len(one.codebook) // getattr(torch, one.codebook_dtype).itemsize)
    if one.values_coding in ("huffman", "arithmetic"):
        header += varint(len(one.values))
    return [header, one.tables, one.codebook, one.positions, one.values]


def read(name: str, reader: Reader) -> PackedTensor:
    """The tensor that follows its name in the file; raises PackError, with the bare fact.

    >>> read("b", Reader(bytes.fromhex("01 01 02 00 02 61 62"))).values
    b'ab'
    """
    kind = reader.take(1)[0]
    dtype, values_coding = _one_of(DTYPES, kind & 15, "dtype"), values.CODINGS[kind >> 4 & 3]
    sides = reader.integer("sides", MAX_DIMENSIONS)
    shape = tuple(reader.integer("elements", MAX_ELEMENTS) for _ in range(sides))
    size, most = elements(shape), len(reader.data)
    coding = _one_of(positions.CODINGS, reader.take(1)[0], "coding")
    nonzeros, escapes = reader.integer("non-zeros", size), 0
    lengths = {"dense": 0, "bitmask": -(-size // 8)}
    if coding.startswith(("gaps", "huffman")):
        escapes = reader.integer("escapes", size)
        lengths[coding] = -(-(nonzeros + escapes) * positions.gap_width(coding) // 8)
    if coding.startswith(("huffman", "arithmetic")):
        lengths[coding] = reader.integer("bytes of positions", most)
    count, book_dtype, levels = stored_values(coding, shape, nonzeros), "", 0
    value_bytes = count * getattr(torch, dtype).itemsize
    if values_coding != "exact":
        book_dtype = "float16" if kind >> 6 & 1 else dtype
        levels = reader.integer("levels", values.MAX_LEVELS)
        value_bytes = -(-count * values.code_width(levels) // 8)
    if values_coding in ("huffman", "arithmetic"):
        value_bytes = reader.integer("bytes of values", most)
    rest = memoryview(reader.data)[reader.at :]
    tables = reader.take(read_tables(rest, coding, values_coding, levels)[2])
    book = reader.take(levels * getattr(torch, book_dtype).itemsize if book_dtype else 0)
    places, data = reader.take(lengths[coding]), reader.take(value_bytes)
    stored = (places, data, values_coding, book_dtype, book, tables, escapes)
    return PackedTensor(name, dtype, shape, coding, nonzeros, *stored)


def read_name(reader: Reader) -> str:
    """The name that a tensor begins with.

    >>> read_name(Reader(b"\\x01b"))
    'b'
    """
    stored = reader.take(reader.integer("bytes of name", MAX_NAME))
    try:
        return stored.decode()
    except UnicodeDecodeError:
        raise PackError(f"a tensor name, {stored[:40]!r}, is not UTF-8") from None


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
