"""Codes of any width, one after the other without holes, highest bit first; written by NumPy, read by LLVM.

Reading looks codes up in a table indexed by the next bits of the stream. One stream is a chain of dependent
steps, so a long one is read at LANES places at once (after huff0 of Y. Collet), whose first bits are stored.

LANES, GROUP, MAX_GROUPED and MIN_GROUPED define the first bytes of Huffman codes: changing a number here means a new
VERSION of the file format (pack/zs_file.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.emit import INTEGER, POINTER, Function, compile_function, detect
from zeroskip.errors import PackError

LANES = 4
GROUP = 4  # codes between two refills; 57 bits are left of any 64 after up to 7 used ones
MAX_GROUPED = 57 // GROUP  # widest code of which GROUP fit between two refills
MIN_GROUPED = 1 << 14  # codes; below, a single lane is fast enough
_BLOCK = 1 << 20  # codes written at once: bounds the memory


def lane_codes(count: int, widest: int) -> int:
    """How many of `count` codes each of the first LANES - 1 lanes reads; the last lane reads the rest.

    >>> lane_codes(100_000, 12), lane_codes(100, 12)
    (25000, 0)
    """
    return count // (LANES * GROUP) * GROUP if count >= MIN_GROUPED and widest <= MAX_GROUPED else 0


def write(codes: np.ndarray, widths: np.ndarray) -> bytes:
    """Codes (count,) of `widths` (count,) 0..32 bits each, filled up with zero bits to whole bytes.

    >>> write(np.array([1, 3, 0]), np.array([2, 2, 1])).hex()
    '70'
    """
    ends = np.cumsum(widths, dtype=np.int64)  # (count,)
    words = np.zeros((int(ends[-1]) if len(ends) else 0) // 64 + 2, np.uint64)
    for start in range(0, len(codes), _BLOCK):
        part = slice(start, start + _BLOCK)
        _write_block_(words, codes[part].astype(np.uint64), widths[part].astype(np.int64), ends[part])
    used = -(-int(ends[-1]) // 8) if len(ends) else 0
    return words.astype(">u8").tobytes()[:used]


def read(
    data: bytes, starts: list[int], lane: int, count: int, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The symbols (count,) uint16 of a stream, and the bit after the last code of each lane, (LANES,) int64.

    starts  first bit of each lane; the first LANES - 1 read `lane` codes each
    table   (2^widest,) uint32: symbol << 8 | width of the code that these bits begin with

    Nothing outside of the bytes is read, whatever they are: behind their end all bits read as zero, or as
    repetitions of the last ones. The ends show whether the stream was complete.
    """
    buffer, table = np.frombuffer(data + bytes(8), np.uint8), np.ascontiguousarray(table, np.uint32)
    ends, symbols = np.array(starts, np.int64), np.empty(count, np.uint16)
    last, shift = len(data), 64 - (len(table).bit_length() - 1)
    addresses = (buffer.ctypes.data, table.ctypes.data, ends.ctypes.data, symbols.ctypes.data)
    _reader()(*addresses, last, shift, lane, count)
    return symbols, ends


def read_fixed(data: bytes, count: int, width: int) -> np.ndarray:
    """The codes (count,) uint16 of 1 to 16 bits each that the stream begins with; PackError for a short one.

    >>> read_fixed(bytes.fromhex("70"), 2, 2)
    array([1, 3], dtype=uint16)
    """
    if 8 * len(data) < count * width:
        raise PackError(f"{len(data):,} bytes are too few for {count:,} codes of {width} bits")
    table = (np.arange(2**width, dtype=np.uint32) << np.uint32(8)) | np.uint32(width)
    lane = lane_codes(count, width)
    return read(data, [width * lane * number for number in range(LANES)], lane, count, table)[0]


def check_end(data: bytes, end: int, what: str) -> None:
    """PackError unless the stream of `what` ends with bit `end` and only zero bits fill up its last byte.

    >>> check_end(bytes(2), 2, "1 gaps")
    Traceback (most recent call last):
    zeroskip.errors.PackError: 1 gaps take 2 bits, and there is more in 2 bytes
    """
    if len(data) != -(-end // 8) or (end % 8 and data[-1] & (0xFF >> end % 8)):
        relation = "more" if len(data) >= -(-end // 8) else "less"
        raise PackError(f"{what} take {end:,} bits, and there is {relation} in {len(data):,} bytes")


def _write_block_(words: np.ndarray, codes: np.ndarray, widths: np.ndarray, ends: np.ndarray) -> None:
    """Set the bits of consecutive codes in words (words,) of 64 bits."""
    if not ends[-1] > ends[0] - widths[0]:
        return  # no bits at all
    begins = ends - widths
    word, over = begins >> 6, (begins & 63) + widths - 64  # over > 0: that many bits go to the next word
    kept = codes >> np.maximum(over, 0).astype(np.uint64) << np.maximum(-over, 0).astype(np.uint64)
    firsts = np.flatnonzero(np.diff(word, prepend=-1))
    words[word[firsts]] |= np.bitwise_or.reduceat(kept, firsts)
    split = np.flatnonzero(over > 0)  # at most one code of each word
    words[word[split] + 1] |= codes[split] << (64 - over[split]).astype(np.uint64)


@cache
def _reader() -> Callable[..., None]:
    machine = detect()
    return compile_function(_reader_code().text(machine), "read", machine, 8)


def _reader_code() -> Function:
    """read(buffer, table, places, symbols, last, shift, lane, count); places are bits, moved by reading."""
    pointers = dict.fromkeys(["buffer", "table", "places", "symbols"], POINTER)
    f = Function("read", pointers | dict.fromkeys(["last", "shift", "lane", "count"], INTEGER))
    places = [f.slot(INTEGER, f.load(INTEGER, f.at("%places", lane, INTEGER))) for lane in range(LANES)]
    outputs = [f.at("%symbols", f.multiply("%lane", lane), "i16") for lane in range(LANES)]
    with f.loop(0, "%lane", GROUP) as index:
        for place, output in zip(places, outputs, strict=True):
            _read_group(f, place, f.at(output, index, "i16"), GROUP)
    with f.loop(f.multiply("%lane", LANES), "%count") as index:
        _read_group(f, places[-1], f.at("%symbols", index, "i16"), 1)
    for lane, place in enumerate(places):
        f.store(INTEGER, f.load(INTEGER, place), f.at("%places", lane, INTEGER))
    return f


def _read_group(f: Function, place: str, output: str, codes: int) -> None:
    """Read `codes` symbols to `output` and move on the bit number that is kept at `place`."""
    bit = f.load(INTEGER, place)
    byte = f.at("%buffer", f.smaller(f.value(f"lshr i64 {bit}, 3"), "%last"), "i8")
    raw = f.value(f"load i64, ptr {byte}, align 1")
    if sys.byteorder == "little":
        raw = f.call(INTEGER, "llvm.bswap.i64", f"i64 {raw}")
    bits, used = f.value(f"shl i64 {raw}, {f.value(f'and i64 {bit}, 7')}"), "0"
    for number in range(codes):
        entry = f.load("i32", f.at("%table", f.value(f"lshr i64 {bits}, %shift"), "i32"))
        symbol = f.value(f"trunc i32 {f.value(f'lshr i32 {entry}, 8')} to i16")
        f.store("i16", symbol, f.at(output, number, "i16"))
        wide = f.value(f"zext i32 {entry} to i64")
        bits, used = f.value(f"shl i64 {bits}, {f.value(f'and i64 {wide}, 63')}"), f.add(used, wide)
    f.store(INTEGER, f.add(bit, f.value(f"and i64 {used}, 255")), place)  # the widths' sum is below 256
