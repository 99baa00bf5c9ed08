"""Weights in ONNX files, written here by hand, field by field."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zeroskip.data import onnx_weights
from zeroskip.errors import FileError


def number(value: int) -> bytes:
    """A number as protobuf writes it."""
    low = bytes([value & 127 | (128 if value > 127 else 0)])
    return low + number(value >> 7) if value > 127 else low


def field(place: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(place << 3) + number(value)
    return number(place << 3 | 2) + number(len(value)) + value


def model(*, shape: tuple[int, ...] = (2, 3), kind: int = 1, size: int = 6) -> bytes:
    """An ONNX file with one tensor 0, 1, 2, ... and fields of all kinds around it that mean nothing here."""
    dims = b"".join(field(1, one) for one in shape)
    tensor = dims + field(2, kind) + field(8, b"fc.weight") + field(9, struct.pack(f"<{size}f", *range(size)))
    graph = field(2, b"graph") + field(5, tensor)
    other = number(3 << 3 | 1) + bytes(8) + number(4 << 3 | 5) + bytes(4)
    return field(1, 1 << 40) + other + field(7, graph) + field(20, b"more")


def test_the_tensors_of_an_onnx_file_are_read_under_their_names(tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    path.write_bytes(model())
    (found,) = onnx_weights.read(path).items()
    assert found[0] == "fc.weight"
    assert torch.equal(found[1], torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (model(kind=11), "not stored as float32"),
        (model(size=5), "has 20 bytes"),
        (model()[:-1], "ends within a field"),
        (b"\xff" * 20, "has no end"),
        (b"\x0f", "no field can be"),
        (b"", "holds no tensors"),
        (model(shape=(0, 1 << 63), size=0), "dimension|int"),
    ],
)
def test_a_damaged_onnx_file_is_an_error_with_its_name(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"broken.onnx is no ONNX file.*({why})"):
        onnx_weights.read(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_tensors_or_a_file_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.onnx"
    path.write_bytes(content)
    with contextlib.suppress(FileError):
        assert all(isinstance(one, Tensor) for one in onnx_weights.read(path).values())
