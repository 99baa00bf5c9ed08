"""Packed <-> the bytes of a `.zs` file, format version 1.

    file      a safetensors file of one tensor "zs" (U8, one side), byte for byte as that library writes it;
              the tensor's bytes are the body
    body      magic      4 bytes  5A 53 4B 50, "ZSKP"
              version    1 byte   1
              crc        4 bytes  CRC-32 (zlib's) of magic, version and all bytes after the crc
              count      varint   number of tensors, which follow one by one and end the body
    tensor    name       varint   length in bytes, at most 1024; then the name as UTF-8
              dtype      1 byte   0 bool, 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64,
                                  6 float16, 7 bfloat16, 8 float32, 9 float64
              shape      varint   number of sides, at most 64; then each side as a varint;
                                  max(1, side) multiply to at most 2^31
              coding     1 byte   0 dense, 1 bitmask, 2 ... 8 gaps of that many bits
              nonzeros   varint   number of elements with a bit set
              length     varint   bytes of positions; there for gaps only
              positions           none (dense), ceil(elements / 8) bytes (bitmask, see codecs/bitmask.py),
                                  `length` bytes (gaps, see codecs/gaps.py)
              values              every element (dense) or the non-zeros (others), last side fastest

Integers are little-endian. A varint is LEB128, unsigned, in as few bytes as possible and at most 5. Names are
unique and not "(file)". Left-over bits are zero, so every Packed has one spelling: a reader writes what it
has read once more and refuses a file that differs anywhere.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from zeroskip import files
from zeroskip.concepts import Packed, PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack.tensor import CODINGS, DTYPES, MAX_DIMENSIONS, MAX_ELEMENTS, check, elements, value_bytes

MAGIC = b"ZSKP"
VERSION = 1
MAX_NAME = 1024
FILE = "(file)"  # the ledger's entry for what belongs to no tensor


def save(packed: Packed, path: str | Path) -> Path:
    """Write a `.zs` file, whole or not at all; raises FileError where that is impossible.

    >>> save(pack.encode(sparse), "digits.zs")
    PosixPath('digits.zs')
    """
    return files.write(path, to_bytes(packed))


def load(path: str | Path) -> Packed:
    """Read a `.zs` file. It holds no code, and a hostile one can claim at most 2^31 zeros per tensor.

    Raises FileError where there is nothing to read, PackError where it is anything but what `save` wrote.

    >>> load("digits.zs").stored_bytes == Path("digits.zs").stat().st_size
    True
    """
    data = files.read(path)
    try:
        return from_bytes(data)
    except PackError as fact:
        raise PackError(
            f"cannot load {path}: {fact}. Give a file that `zeroskip pack` wrote, or pack the network again."
        ) from None


def to_bytes(packed: Packed) -> bytes:
    """What `save` writes.

    >>> len(to_bytes(packed)) == packed.stored_bytes
    True
    """
    return serialize(packed.tensors)


def from_bytes(data: bytes) -> Packed:
    """The Packed that `to_bytes` wrote; raises PackError, with the bare fact, for all other bytes.

    >>> from_bytes(to_bytes(packed)) == packed
    True
    """
    tensors = _parse(_body(data))
    # The checks before this one keep the parser safe; this one notices a changed byte wherever it is.
    if serialize(tensors) != data:
        raise PackError("it differs from what a .zs file with its contents looks like")
    return Packed(tensors, ledger(tensors, len(data)))


def serialize(tensors: tuple[PackedTensor, ...]) -> bytes:
    """The whole file that holds these tensors.

    >>> serialize(packed.tensors) == to_bytes(packed)
    True
    """
    stored = [part for one in tensors for part in (_header(one), one.positions, one.values)]
    content = b"".join([_varint(len(tensors)), *stored])
    body = b"".join([MAGIC, bytes([VERSION]), _crc(content), content])
    return safetensors.numpy.save({"zs": np.frombuffer(body, np.uint8)})


def ledger(tensors: tuple[PackedTensor, ...], file_bytes: int) -> dict[str, dict[str, int]]:
    """Where the bytes of a file of `file_bytes` went, to the last one.

    >>> ledger(encode({"fc.bias": torch.tensor([0.0, 1.5])}).tensors, 95)["fc.bias"]
    {'values': 4, 'positions': 1, 'header': 13}
    """
    entries = {one.name: _entry(len(one.values), len(one.positions), len(_header(one))) for one in tensors}
    rest = file_bytes - sum(sum(entry.values()) for entry in entries.values())
    return {**entries, FILE: _entry(0, 0, rest)}


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


@dataclass
class _Reader:
    """Takes bytes from front to back, and never more than there are."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise PackError(f"it ends after {len(self.data):,} bytes, in the middle of a tensor")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, what: str, most: int) -> int:
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

    def one_of(self, choices: tuple[str, ...], what: str) -> str:
        code = self.take(1)[0]
        if code >= len(choices):
            raise PackError(f"{what} {code} is unknown, only 0 to {len(choices) - 1} have a meaning")
        return choices[code]


def _body(data: bytes) -> bytes:
    """The bytes inside the safetensors file, whose own header stays unread: `from_bytes` compares it."""
    header_bytes = int.from_bytes(data[:8], "little")
    body = data[8 + header_bytes :]
    if body[:4] != MAGIC:
        raise PackError("it is no .zs file")
    if body[4:5] != bytes([VERSION]):
        raise PackError(f"its format version is not {VERSION}, the one that this version of zeroskip reads")
    if body[5:9] != _crc(body[9:]):
        raise PackError("it is truncated or altered (its checksum does not match)")
    return body[9:]


def _parse(content: bytes) -> tuple[PackedTensor, ...]:
    reader = _Reader(content)
    tensors: dict[str, PackedTensor] = {}
    for _ in range(reader.integer("tensors", len(content))):
        one = _parse_tensor(reader)
        if one.name in tensors:
            raise PackError(f'it holds two tensors "{one.name}"')
        tensors[one.name] = one
    if reader.at != len(content):
        raise PackError(f"{len(content) - reader.at:,} bytes follow its last tensor")
    return tuple(tensors.values())


def _parse_tensor(reader: _Reader) -> PackedTensor:
    name = _parse_name(reader)
    try:
        one = _parse_fields(name, reader)
        check(one)
    except PackError as fact:
        raise PackError(f'tensor "{name}": {fact}') from None
    return one


def _parse_name(reader: _Reader) -> str:
    stored = reader.take(reader.integer("bytes of name", MAX_NAME))
    try:
        return stored.decode()
    except UnicodeDecodeError:
        raise PackError(f"a tensor name, {stored[:40]!r}, is not UTF-8") from None


def _parse_fields(name: str, reader: _Reader) -> PackedTensor:
    dtype = reader.one_of(DTYPES, "dtype")
    sides = reader.integer("sides", MAX_DIMENSIONS)
    shape = tuple(reader.integer("elements", MAX_ELEMENTS) for _ in range(sides))
    size = elements(shape)
    coding = reader.one_of(CODINGS, "coding")
    nonzeros = reader.integer("non-zeros", size)
    lengths = {"dense": 0, "bitmask": -(-size // 8)}
    length = lengths[coding] if coding in lengths else reader.integer("bytes of gaps", len(reader.data))
    positions = reader.take(length)
    values = reader.take(value_bytes(dtype, coding, shape, nonzeros))
    return PackedTensor(name, dtype, shape, coding, nonzeros, positions, values)


def _header(one: PackedTensor) -> bytes:
    """Everything that is stored of a tensor except its positions and values."""
    name = check_name(one.name)
    named = _varint(len(name)) + name + bytes([DTYPES.index(one.dtype)])
    shaped = _varint(len(one.shape)) + b"".join(_varint(side) for side in one.shape)
    coded = bytes([CODINGS.index(one.coding)]) + _varint(one.nonzeros)
    return named + shaped + coded + (_varint(len(one.positions)) if one.coding.startswith("gaps") else b"")


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the top bit set on all but the last byte."""
    more = []
    while value > 0x7F:
        more.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*more, value])


def _crc(content: bytes) -> bytes:
    return zlib.crc32(content, zlib.crc32(MAGIC + bytes([VERSION]))).to_bytes(4, "little")


def _entry(values: int, positions: int, header: int) -> dict[str, int]:
    return {"values": values, "positions": positions, "header": header}
