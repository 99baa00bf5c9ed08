"""Packed <-> the bytes of a `.zs` file, format version 2, 3 where tensors are tied, or 4 with blocks or scales.

    file      a safetensors file of one tensor "zs" (U8, one side), byte for byte as that library writes it;
              the tensor's bytes are the body
    body      magic      4 bytes  5A 53 4B 50, "ZSKP"
              version    1 byte   4 if a tensor has a block or scales; else 3 if there are ties; else 2
              crc        4 bytes  CRC-32 (zlib's) of magic, version and all bytes after the crc
              count      varint   number of tensors, which follow one by one; in version 2 they end the body
              ties       varint   version 3: number of ties, at least 1, which follow one by one and end the body;
                                  version 4: the same, and it may be 0
    tie       name       as that of a tensor
              tensor     varint   which of the tensors, from 0, has this name too: one memory, as weights that two
                                  layers share
    tensor    name       varint   length in bytes, at most 1024; then the name as UTF-8
              kind       1 byte   dtype + 16 x values coding + 64 if the codebook is stored as float16
                                  + 128 if there are scales (version 4, float32 only): the values are int8
                         dtype    0 bool, 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64,
                                  6 float16, 7 bfloat16, 8 float32, 9 float64
                         values   0 exact; the others are codes: 1 fixed width, 2 Huffman, 3 arithmetic
              shape      varint   number of sides, at most 64; then each side as a varint;
                                  max(1, side) multiply to at most 2^31
              coding     1 byte   0 dense, 1 bitmask, 2 ... 16 gaps of that many bits,
                                  17 ... 31 Huffman codes of gaps of 2 ... 16 bits, 32 arithmetic;
                                  + 64 if there is a block (version 4, not dense)
              block               a varint for each side of the shape: that of a block, 1 to max(1, side), not all 1
              nonzeros   varint   number of elements with a bit set
              blocks     varint   block: number of blocks that are stored
              escapes    varint   gaps and Huffman codes of gaps: how many of them are escapes
              length     varint   Huffman codes of gaps, arithmetic: bytes of positions
              levels     varint   codes: number of entries of the codebook, at most 2^16
              length     varint   Huffman and arithmetic codes, block: bytes of values
              tables              the Huffman code of the gaps, then that of the values (codecs/huffman.py)
              codebook            the distinct values, as unsigned integers they increase
              scales              a float32 number for each index of the first side, 2^-126 to 2^120: an element is
                                  the float32 product of its scale and its value
              positions           none (dense), or as codecs/bitmask.py, gaps.py, huffman.py, arithmetic.py (of
                                  1 level; none where the values are arithmetic codes) write; of non-zeros, or of
                                  blocks in their grid (codecs/blocks.py)
              values              every element (dense), the non-zeros, or every element of the blocks, last side
                                  fastest: as they are, or as codes that number the codebook's entries: fixed
                                  width (the bits of levels - 1, at least 1; highest first), huffman.py, or
                                  arithmetic.py (with the positions)

Huffman codes are of at least one symbol. Arithmetic codes are of rows of at most 2^20 elements (a row is all that
one index of the first of two or more sides has; a tensor of one side is one row), and have at least 1 byte for each
1024 elements; of a matrix they begin with a side of 0 to 255 that a reader finds anew (arithmetic.py, `_side`) and
compares. The constants of the codecs' files belong to this version.

Integers are little-endian. A varint is LEB128, unsigned, in as few bytes as possible and at most 5. Names are
unique and not "(file)". Left-over bits are zero, so every Packed has one spelling: a reader writes what it
has read once more and refuses a file that differs anywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from zeroskip import files
from zeroskip.concepts import Packed, PackedTensor
from zeroskip.errors import PackError
from zeroskip.pack import tensor_record
from zeroskip.pack.tensor_coding import check
from zeroskip.pack.tensor_record import FILE, Reader
from zeroskip.pack.varint import varint

MAGIC = b"ZSKP"
VERSION, TIED, EXTENDED = 2, 3, 4


def save(packed: Packed, path: str | Path) -> Path:
    """Write a `.zs` file, whole or not at all; raises FileError where that is impossible.

    >>> from zeroskip import pack
    >>> save(pack.encode(model), "model.zs")
    PosixPath('model.zs')
    """
    return files.write(path, to_bytes(packed))


def load(path: str | Path) -> Packed:
    """Read a `.zs` file. It holds no code, and reading it needs memory for its bytes, not for the zeros it claims.

    Arithmetic codes are the exception: about 3 bytes of memory for each element, at most 1024 elements for each byte,
    and 100 MB for the longest row. Zeros, up to 2^31 in a tensor, are made by `decode`.
    Raises FileError where the file cannot be read, PackError where it is not one that `save` wrote.

    >>> from zeroskip import pack
    >>> load(pack.save(pack.encode(model), "model.zs")).stored_bytes == Path("model.zs").stat().st_size
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

    >>> from zeroskip import pack
    >>> packed = pack.encode(model)
    >>> len(to_bytes(packed)) == packed.stored_bytes
    True
    """
    return serialize(packed.tensors, packed.tied)


def from_bytes(data: bytes) -> Packed:
    """The Packed that `to_bytes` wrote; raises PackError, with the bare fact, for all other bytes.

    >>> from zeroskip import pack
    >>> [tensor.name for tensor in from_bytes(to_bytes(pack.encode(model))).tensors]
    ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    """
    tensors, tied = _parse(*_body(data))
    # The checks before this one keep the parser safe; this one notices a changed byte wherever it is.
    if serialize(tensors, tied) != data:
        raise PackError("it differs from what a .zs file with its contents looks like")
    return Packed(tensors, ledger(tensors, tied, len(data)), tied)


def serialize(tensors: tuple[PackedTensor, ...], tied: Mapping[str, str]) -> bytes:
    """The whole file that holds these tensors, and names that are tied to them. PackError for a tie to no tensor."""
    parts = [part for one in tensors for part in tensor_record.write(one)]
    extended = any(one.block or one.scales for one in tensors)
    version = EXTENDED if extended else TIED if tied else VERSION
    ties = [varint(len(tied)), *_ties(tensors, tied).values()] if version != VERSION else []
    content = b"".join([varint(len(tensors)), *parts, *ties])
    start = MAGIC + bytes([version])
    body = b"".join([start, _crc(start, content), content])
    return safetensors.numpy.save({"zs": np.frombuffer(body, np.uint8)})


def ledger(
    tensors: tuple[PackedTensor, ...], tied: Mapping[str, str], file_bytes: int
) -> dict[str, dict[str, int]]:
    """Where the bytes of a file of `file_bytes` went, to the last one. A tied name takes a few bytes of "header".

    >>> from zeroskip import pack
    >>> packed = pack.encode({"fc.bias": torch.tensor([0.0, 1.5])})
    >>> ledger(packed.tensors, {}, packed.stored_bytes)["fc.bias"]
    {'values': 4, 'positions': 1, 'codebook': 0, 'scales': 0, 'tables': 0, 'header': 13}
    """
    entries = {one.name: _entry(*map(len, tensor_record.write(one))) for one in tensors}
    entries |= {name: _entry(len(tie)) for name, tie in _ties(tensors, tied).items()}
    rest = file_bytes - sum(sum(entry.values()) for entry in entries.values())
    return {**entries, FILE: _entry(rest)}


def escapes(packed: Packed) -> dict[str, int]:
    """Of every tensor, how many gaps went on because their field was too narrow.

    >>> from zeroskip import pack
    >>> escapes(pack.encode({"w": torch.arange(40) == 30}, coder="fixed", index_bits=4))
    {'w': 2}
    """
    return {one.name: one.escapes for one in packed.tensors}


def _ties(tensors: tuple[PackedTensor, ...], tied: Mapping[str, str]) -> dict[str, bytes]:
    """Tied name -> its bytes in the file."""
    places = {one.name: varint(index) for index, one in enumerate(tensors)}
    for name, tensor in tied.items():
        if name in places:
            raise PackError(f"the tensor {name!r:.80} is stored, so it cannot be tied to {tensor!r:.80} too")
        if tensor not in places:
            raise PackError(f"the tensor {name!r:.80} is tied to {tensor!r:.80}, which is not stored")
    stored = {name: tensor_record.check_name(name) for name in tied}
    return {name: varint(len(stored[name])) + stored[name] + places[tensor] for name, tensor in tied.items()}


def _body(data: bytes) -> tuple[int, bytes]:
    """Version and content of the safetensors file, whose own header stays unread: `from_bytes` compares it."""
    header_bytes = int.from_bytes(data[:8], "little")
    body = data[8 + header_bytes :]
    if body[:4] != MAGIC:
        raise PackError("it is no .zs file")
    if body[4:5] not in (bytes([VERSION]), bytes([TIED]), bytes([EXTENDED])):
        raise PackError(
            f"its format version is not {VERSION}, {TIED} or {EXTENDED}, which this version of zeroskip reads"
        )
    if body[5:9] != _crc(body[:5], body[9:]):
        raise PackError("it is truncated or altered (its checksum does not match)")
    return body[4], body[9:]


def _parse(version: int, content: bytes) -> tuple[tuple[PackedTensor, ...], dict[str, str]]:
    reader = Reader(content)
    tensors: dict[str, PackedTensor] = {}
    for _ in range(reader.integer("tensors", len(content))):
        tensor = _parse_tensor(reader, extended=version == EXTENDED)
        if tensor.name in tensors:
            raise PackError(f'it holds two tensors "{tensor.name}"')
        tensors[tensor.name] = tensor
    tied = _parse_ties(reader, list(tensors)) if version != VERSION else {}
    if reader.at != len(content):
        raise PackError(f"{len(content) - reader.at:,} bytes follow its last tensor")
    return tuple(tensors.values()), tied


def _parse_ties(reader: Reader, names: list[str]) -> dict[str, str]:
    """Tied name -> the stored tensor's: one that is there, so that no circle can be said."""
    tied: dict[str, str] = {}
    for _ in range(reader.integer("ties", len(reader.data))):
        name = tensor_record.read_name(reader)
        if name in names or name in tied:
            raise PackError(f'it holds two tensors "{name}"')
        if not names:
            raise PackError(f'"{name}" is tied to a tensor, and there is none')
        tied[name] = names[reader.integer("tensors before a tied one", len(names) - 1)]
    return tied


def _parse_tensor(reader: Reader, *, extended: bool) -> PackedTensor:
    name = tensor_record.read_name(reader)
    try:
        tensor, lengths = tensor_record.read(name, reader, extended=extended)
        check(tensor, lengths=lengths)
    except PackError as fact:
        raise PackError(f'tensor "{name}": {fact}') from None
    return tensor


def _crc(start: bytes, content: bytes) -> bytes:
    return zlib.crc32(content, zlib.crc32(start)).to_bytes(4, "little")


def _entry(
    header: int, tables: int = 0, codebook: int = 0, scales: int = 0, positions: int = 0, values: int = 0
) -> dict[str, int]:
    return {
        "values": values,
        "positions": positions,
        "codebook": codebook,
        "scales": scales,
        "tables": tables,
        "header": header,
    }
