"""A JSON object and named tensors as the bytes of one file; a single changed bit anywhere in them is noticed.

The bytes are a safetensors file whose metadata hold the object. It begins with the SHA-256 of the whole file, computed
with 64 zeros in its own place. Tensors that are the same memory, as tied weights are, are stored once, and are the
same memory again when they are read. Files of version 1 have no checksum and are still read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.run.measurement import JsonObject

KEY, VERSION, UNCHECKED = (
    "zeroskip program",
    2,
    1,
)  # of version 1, the object alone tells whether it makes sense
BLANK = "0" * 64  # where the checksum will be
DAMAGED = "it is truncated or altered (its checksum does not match)"


def sealed(content: JsonObject, tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a file with this object and these tensors. It adds "sha256", "version" and "places" to the object.

    >>> content, tensors = opened(sealed({"batch": 3}, {"one": x, "same": x}))
    >>> content["batch"], tensors["one"].data_ptr() == tensors["same"].data_ptr()
    (3, True)
    """
    first: dict[object, str] = {}  # memory -> the name that it is stored under
    places: dict[str, JsonObject] = {}
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        axes = _as_in_memory(tensor)
        laid = tensor.detach().permute(axes)
        memory = laid.data_ptr(), laid.dtype, laid.shape, laid.stride()
        places[name] = {"stored": first.setdefault(memory, name), "axes": axes}
        if first[memory] == name:
            stored[name] = laid.clone().contiguous()
    text = json.dumps({"sha256": BLANK, "version": VERSION, "places": places, **content})
    blank = safetensors.torch.save(stored, {KEY: text})
    where = blank.index(BLANK.encode())
    return b"".join([blank[:where], _checksum(blank, where).encode(), blank[where + len(BLANK) :]])


def opened(data: bytes) -> tuple[JsonObject, dict[str, Tensor]]:
    """The object and the tensors that `sealed` was given; EngineError, with the bare fact, for all other bytes."""
    content = _object(data)
    version = content.get("version")
    if version != UNCHECKED or "sha256" in content:
        _check(data, str(content.get("sha256")), version)
    try:
        stored = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as fact:
        raise EngineError(f"it is no safetensors file: {fact}") from None
    # Copies, since kernels want memory that begins at a multiple of 64 bytes.
    copies = {name: tensor.clone() for name, tensor in stored.items()}
    if version == UNCHECKED:
        return content, copies
    places = content["places"].items()
    return content, {name: _permuted_back(copies[place["stored"]], place["axes"]) for name, place in places}


def _as_in_memory(tensor: Tensor) -> list[int]:
    """Its axes in the order in which they lie in memory, slowest first: a transposed view is the same memory."""
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda axis: -strides[axis])


def _permuted_back(laid: Tensor, axes: Sequence[int]) -> Tensor:
    return laid.permute([axes.index(axis) for axis in range(laid.ndim)])


def _object(data: bytes) -> JsonObject:
    """What the metadata hold, which lie behind the 8 bytes that say how long the header is."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        content = json.loads(header.get("__metadata__", {}).get(KEY, "{}"))
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise EngineError("it is no file that run.save wrote, or is truncated or altered") from None
    if not isinstance(content, dict):
        raise EngineError("it is no file that run.save wrote")
    return content


def _check(data: bytes, claimed: str, version: object) -> None:
    where = data.find(claimed.encode(errors="replace"))
    right = len(claimed) == len(BLANK) and where >= 0 and _checksum(data, where) == claimed
    if version not in (UNCHECKED, VERSION):
        raise EngineError(f"it is of version {version}, and this zeroskip reads {UNCHECKED} and {VERSION}")
    if not right:
        raise EngineError(DAMAGED)


def _checksum(data: bytes, where: int) -> str:
    """The SHA-256 of the bytes as they were before the checksum came to its place."""
    parts, whole = hashlib.sha256(), memoryview(data)
    for part in (whole[:where], BLANK.encode(), whole[where + len(BLANK) :]):
        parts.update(part)
    return parts.hexdigest()
