"""Files put together byte by byte, with a right checksum, so that only the checks behind it can refuse them."""

from __future__ import annotations

import zlib

import numpy as np
import safetensors.numpy

from zeroskip import pack
from zeroskip.concepts import Packed
from zeroskip.errors import PackError


def file_of(content: bytes, start: bytes = b"ZSKP\x02") -> bytes:
    """A whole file; `start` is its magic and version."""
    body = start + zlib.crc32(start + content).to_bytes(4, "little") + content
    return safetensors.numpy.save({"zs": np.frombuffer(body, np.uint8)})


def refused_or_written_again(data: bytes) -> Packed | None:
    """What the file holds, which must give the same bytes again; None where it is refused."""
    try:
        packed = pack.from_bytes(data)
    except PackError:
        return None
    assert pack.to_bytes(packed) == data
    return packed
