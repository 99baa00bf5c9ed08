"""Tensors as a bitmask and their non-zeros: zero-value compression (Rhu et al., HPCA 2018).

    flags  one bit per element, row-major, the first in the *lowest* bit of the first byte, as vector masks have it;
           bits left over in the last byte are 0
    kept   the elements whose bit is set, in order, as they are

A zero is an element whose bits are all 0. So -0.0 and every NaN are kept, and come back bit by bit. AVX-512 packs
and spreads a vector with one instruction (elements of 8 and 16 bits need AVX-512 VBMI2); other machines use NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector, compile_function, detect
from zeroskip.errors import PackError, RecipeError

_VECTOR = 64  # bytes
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}  # bytes of an element -> the type that holds its bits


def encode(tensor: Tensor, *, machine: Machine | None = None) -> tuple[Tensor, Tensor]:
    """The flags (ceil(size / 8),) uint8 and the kept elements (non-zeros,) of a tensor of any shape.

    Elements have 8, 16 or 32 bits (float32, float16, bfloat16, int8, ...); PackError for others.
    The kept ones are a view of memory for all elements: clone() those that are to be stored.
    machine  whose instructions to use, by default this one's

    >>> encode(torch.tensor([0.0, 2.0, -0.0]))
    (tensor([6], dtype=torch.uint8), tensor([2., -0.]))
    """
    machine = machine or _here()
    values = _raw(tensor.detach().reshape(-1).contiguous())
    size, width = values.numel(), values.element_size()
    flags = torch.empty(-(-size // 8), dtype=torch.uint8)
    kept = torch.empty(size + _VECTOR, dtype=values.dtype)  # more, since whole vectors are written
    whole = size - size % (_VECTOR // width) if _has_vectors(machine, width) else 0
    count = np.zeros(1, np.int64)
    if whole:
        addresses = values.data_ptr(), flags.data_ptr(), kept.data_ptr(), count.ctypes.data
        _packer(machine, width)(*addresses, whole)
    rest, done = values[whole:].numpy(), int(count[0])
    flags.numpy()[whole // 8 :] = np.packbits(rest != 0, bitorder="little")
    nonzeros = rest[rest != 0]
    kept.numpy()[done : done + len(nonzeros)] = nonzeros
    return flags, kept[: done + len(nonzeros)].view(tensor.dtype)


def decode(flags: Tensor, kept: Tensor, shape: tuple[int, ...], *, machine: Machine | None = None) -> Tensor:
    """The tensor that `encode` was given, bit by bit, of this shape and of the type of `kept`.

    Raises PackError for flags of another length or with a bit set behind the last element, and where they are not
    as many as there are kept elements. The elements themselves are not checked.

    >>> decode(*encode(torch.tensor([0.0, 2.0, -0.0])), (3,))
    tensor([0., 2., -0.])
    """
    machine = machine or _here()
    flags, values = flags.contiguous(), _raw(kept.detach().contiguous())
    size, width = math.prod(shape), values.element_size()
    _check(flags.numpy(), values, size)
    tensor = torch.empty(size, dtype=values.dtype)
    whole = size - size % (_VECTOR // width) if _has_vectors(machine, width) else 0
    count = np.zeros(1, np.int64)
    if whole:
        addresses = flags.data_ptr(), values.data_ptr(), tensor.data_ptr(), count.ctypes.data
        _spreader(machine, width)(*addresses, whole)
    rest = tensor[whole:].numpy()
    rest[:] = 0
    mask = np.unpackbits(flags.numpy()[whole // 8 :], count=size - whole, bitorder="little").view(bool)
    rest[mask] = values[int(count[0]) :].numpy()
    return tensor.view(kept.dtype).reshape(shape)


def bits(tensor: Tensor) -> int:
    """Bits that `encode` needs, before it fills up the last byte of the flags.

    >>> bits(torch.tensor([0.0, 2.0, -0.0]))
    67
    """
    nonzeros = int(torch.count_nonzero(_raw(tensor.detach().contiguous())))
    return tensor.numel() + 8 * tensor.element_size() * nonzeros


def expected_bits(size: int, sparsity: float, width: int) -> float:
    """Mean of `bits` over random elements of `width` bits, each zero with probability `sparsity`.

    Raises RecipeError for a sparsity outside 0..1.

    >>> expected_bits(1000, 0.75, 16)
    5000.0
    """
    if not 0 <= sparsity <= 1:
        raise RecipeError(f"a sparsity of {sparsity} is no share of zeros. Give a number from 0 to 1.")
    return size * (1 + (1 - sparsity) * width)


def _raw(tensor: Tensor) -> Tensor:
    """The elements' bits as integers, in the same memory."""
    if tensor.element_size() not in _BITS:
        raise PackError(
            f"elements of {8 * tensor.element_size()} bits ({tensor.dtype}) have no kernel; use 8 to 32"
        )
    return tensor.view(_BITS[tensor.element_size()])


def _check(flags: np.ndarray, values: Tensor, size: int) -> None:
    if flags.dtype != np.uint8 or flags.shape != (-(-size // 8),) or values.ndim != 1:
        raise PackError(
            f"flags of {size:,} elements are {-(-size // 8):,} bytes; these are {flags.shape} of {flags.dtype}, "
            f"with kept elements {tuple(values.shape)}"
        )
    if size % 8 and flags[-1] >> size % 8:
        raise PackError(f"a bit is set behind the last of the {size:,} flags")
    whole = len(flags) // 8 * 8
    found = int(np.bitwise_count(flags[:whole].view(np.uint64)).sum() + np.bitwise_count(flags[whole:]).sum())
    if found != len(values):
        raise PackError(f"{found:,} flags are set, but {len(values):,} elements were kept")


def _has_vectors(machine: Machine, width: int) -> bool:
    return machine.vector_bytes == _VECTOR and (width == 4 or "avx512vbmi2" in machine.features)


@cache  # asking costs more than a small tensor
def _here() -> Machine:
    return detect()


@cache
def _packer(machine: Machine, width: int) -> Callable[..., None]:
    return compile_function(_packer_code(width).text(machine), "pack", machine, 5)


@cache
def _spreader(machine: Machine, width: int) -> Callable[..., None]:
    return compile_function(_spreader_code(width).text(machine), "spread", machine, 5)


def _packer_code(width: int) -> Function:
    """pack(values, flags, kept, count, size): whole vectors, each stored in full where the last one's end is."""
    v = Vector(_VECTOR // width, f"i{8 * width}")
    f = Function("pack", dict.fromkeys(["values", "flags", "kept", "count"], POINTER) | {"size": INTEGER})
    total = f.slot(INTEGER, "0")
    with f.loop(0, "%size", v.lanes) as index:
        values = f.load(v, f.at("%values", index, v.element))
        nonzero = f.value(f"icmp ne {v} {values}, zeroinitializer")
        packed = f.compressed(v, nonzero, values)
        f.store(v, packed, f.at("%kept", f.load(INTEGER, total), v.element))
        bits = f.value(f"bitcast {v.mask} {nonzero} to i{v.lanes}")
        place = f.at("%flags", f.value(f"lshr i64 {index}, 3"), "i8")
        f.do(f"store i{v.lanes} {bits}, ptr {place}, align 1")
        f.store(INTEGER, f.add(f.load(INTEGER, total), f.count(v.lanes, nonzero)), total)
    f.store(INTEGER, f.load(INTEGER, total), "%count")
    return f


def _spreader_code(width: int) -> Function:
    """spread(flags, kept, tensor, count, size): whole vectors; of kept nothing is read that has no flag."""
    v = Vector(_VECTOR // width, f"i{8 * width}")
    f = Function("spread", dict.fromkeys(["flags", "kept", "tensor", "count"], POINTER) | {"size": INTEGER})
    total = f.slot(INTEGER, "0")
    with f.loop(0, "%size", v.lanes) as index:
        place = f.at("%flags", f.value(f"lshr i64 {index}, 3"), "i8")
        bits = f.value(f"load i{v.lanes}, ptr {place}, align 1")
        flags = f.value(f"bitcast i{v.lanes} {bits} to {v.mask}")
        spread = f.call(
            v, f"llvm.masked.expandload.{v.suffix}",
            f"ptr {f.at('%kept', f.load(INTEGER, total), v.element)}",
            f"{v.mask} {flags}", f"{v} zeroinitializer"
        )  # fmt: skip
        f.store(v, spread, f.at("%tensor", index, v.element))
        f.store(INTEGER, f.add(f.load(INTEGER, total), f.count(v.lanes, flags)), total)
    f.store(INTEGER, f.load(INTEGER, total), "%count")
    return f
