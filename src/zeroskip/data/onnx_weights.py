"""The weights in an ONNX file, without the onnx package: its tensors are a small part of the protobuf message.

    ModelProto.graph = 7;  GraphProto.initializer = 5
    TensorProto: dims = 1, data_type = 2 (1 is float32), name = 8, raw_data = 9

A message is a sequence of (field number, value); a value is a number, or bytes that may be a message again. Numbers
have 7 bits in each byte, low ones first, the eighth bit set in all but the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroskip import files
from zeroskip.errors import FileError

GRAPH, INITIALIZER = 7, 5
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
FLOAT32 = 1
NUMBER, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # how a value is written


def read(path: str | Path) -> dict[str, Tensor]:
    """Initializer name -> float32 tensor; FileError where the file is absent, damaged or holds other types."""
    try:
        graphs = _messages(files.read(path), GRAPH)
        tensors = [_tensor(one) for graph in graphs for one in _messages(graph, INITIALIZER)]
        if not tensors:
            raise ValueError("it holds no tensors")
        return dict(tensors)
    except (ValueError, LookupError, OverflowError) as fact:
        raise FileError(f"{path} is no ONNX file that can be read: {fact}. Fetch it again.") from None


def _messages(content: bytes, field: int) -> list[bytes]:
    return [value for number, value in _fields(content) if number == field and isinstance(value, bytes)]


def _tensor(message: bytes) -> tuple[str, Tensor]:
    fields = list(_fields(message))
    shape = [value for number, value in fields if number == DIMS and isinstance(value, int)]
    known = dict(fields)
    kind, name, raw = known.get(DATA_TYPE), known.get(NAME), known.get(RAW_DATA)
    if kind != FLOAT32 or not isinstance(name, bytes) or not isinstance(raw, bytes):
        raise ValueError("one of its tensors is not stored as float32")
    if len(raw) != 4 * math.prod(shape):
        raise ValueError(f"a tensor of shape {tuple(shape)} has {len(raw)} bytes")
    return name.decode(), torch.from_numpy(np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape))


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(content):
        tag, place = _number(content, place)
        field, kind = tag >> 3, tag & 7
        if kind == NUMBER:
            value, place = _number(content, place)
            yield field, value
            continue
        if kind == BYTES:
            size, place = _number(content, place)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"byte {place} is where no field can be")
        if place + size > len(content):
            raise ValueError(f"it ends within a field of {size} bytes")
        yield field, content[place : place + size]
        place += size


def _number(content: bytes, place: int) -> tuple[int, int]:
    """The number that begins at `place`, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        byte = content[place + shift // 7]  # past the end: LookupError
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place + shift // 7 + 1
    raise ValueError(f"a number at byte {place} has no end")
