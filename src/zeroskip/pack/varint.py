"""Unsigned integers in as few bytes as they need."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the top bit set on all but the last byte.

    >>> varint(300).hex()
    'ac02'
    """
    more = []
    while value > 0x7F:
        more.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*more, value])
