"""One bit per position, first position in the highest bit of the first byte."""

from __future__ import annotations

import numpy as np

from zeroskip.errors import PackError


def encode(mask: np.ndarray) -> bytes:
    """The mask (size,) as ceil(size / 8) bytes; the bits left over in the last byte are zero.

    >>> encode(np.array([True, False, True])).hex()
    'a0'
    """
    return np.packbits(mask).tobytes()


def decode(data: bytes, size: int) -> np.ndarray:
    """The mask (size,) that `encode` wrote.

    Raises PackError where the length is not ceil(size / 8) bytes, or a left-over bit is set.

    >>> decode(bytes.fromhex("a0"), 3)
    array([ True, False,  True])
    """
    if len(data) != -(-size // 8):
        raise PackError(f"a bitmask of {size:,} positions takes {-(-size // 8):,} bytes, not {len(data):,}")
    flags = np.unpackbits(np.frombuffer(data, np.uint8)).view(bool)  # (8 * bytes,)
    if flags[size:].any():
        raise PackError(f"a bit is set after the last of the bitmask's {size:,} positions")
    return flags[:size]


def bits(mask: np.ndarray) -> int:
    """Bits that `encode` needs, before it fills up the last byte.

    >>> bits(np.array([True, False, True]))
    3
    """
    return mask.size


def expected_bits(size: int, sparsity: float) -> float:
    """Mean of `bits` over random masks: always `size`, whatever the sparsity."""
    return float(size)
