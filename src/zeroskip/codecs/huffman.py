"""Canonical Huffman codes: the more often a symbol occurs, the fewer bits it takes (Huffman 1952).

Symbols are 0 ... alphabet - 1, at most 65,536 of them. A code is known by its `lengths` alone, (alphabet,)
uint8 with 0 for a symbol that does not occur: among codes of one length the smaller symbol has the smaller
code, and shorter codes come first. A single symbol has a code of one bit. Codes are not longer than
max(12, 4 + bits of a fixed-width code of the symbols that occur), so that a table can hold them.

    data      entries  15 bytes, only where there are at least 16,384 symbols and the longest code has at most 14
                       bits: the first bit of the second, third and fourth of four lanes that are read side by
                       side, 5 bytes each, little-endian, counted from the first bit of the codes. The first
                       three lanes hold count // 16 * 4 symbols each, the fourth holds the rest
              codes    one after the other, highest bit first; left-over bits are zero
    table     Elias gamma codes, for the symbols one by one: 1 as long as the used symbol before (the first: as
              a fixed-width code of the alphabet); 2, 3 one bit longer, shorter; 2d + 1, 2d + 2 d bits longer,
              shorter (d > 1); 4 symbols that do not occur, another gamma code is their number, all that there
              are in a row; left-over bits are zero

A fixed-width code of n symbols has as many bits as n - 1 has, at least 1. The alphabet is not in the table: gaps of w
bits have 2^w symbols, codes of values as many as the codebook has entries.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np

from zeroskip.codecs import bit_stream
from zeroskip.errors import PackError

MAX_ALPHABET = 1 << 16
_ENTRY = 5  # bytes
_LONGEST_RUN = 16  # zero bits at the start of a gamma code: no number is larger than MAX_ALPHABET


def lengths(counts: np.ndarray) -> np.ndarray:
    """The best code for symbols that occur `counts` (alphabet,) times or in that proportion: (alphabet,) uint8.

    Package-merge (Larmore and Hirschberg 1990), whose codes are the best of those within the limit.

    >>> lengths(np.array([5, 0, 2, 1]))
    array([1, 0, 2, 2], dtype=uint8)
    """
    counts, code_lengths = np.asarray(counts), np.zeros(len(counts), np.uint8)
    order = np.flatnonzero(counts)
    order = order[np.argsort(counts[order], kind="stable")]  # rarest first
    weights, merged, leaves = counts[order], counts[:0], []
    for _ in range(_limit(len(order))):
        packages = merged[: len(merged) // 2 * 2].reshape(-1, 2).sum(1)
        together = np.concatenate([weights, packages])
        places = np.argsort(together, kind="stable")
        merged = together[places]
        leaves.append(np.concatenate([[0], np.cumsum(places < len(weights))]))  # among the first n
    chosen = max(2 * len(order) - 2, min(len(order), 1))
    for among in reversed(leaves):
        code_lengths[order[: among[chosen]]] += 1
        chosen = 2 * (chosen - among[chosen])
    return code_lengths


def encode(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """Symbols (count,) as bytes; PackError for a symbol that has no code.

    >>> encode(np.array([0, 2, 3]), np.array([1, 0, 2, 2])).hex()  # 0, 10, 11
    '58'
    """
    order, ordered = _ordered(lengths)
    codes = np.zeros(len(lengths), np.int64)
    codes[order] = ordered
    widths = _widths(symbols, lengths)
    lane = bit_stream.lane_codes(len(symbols), int(lengths.max(initial=0)))
    return _entries(widths, lane) + bit_stream.write(codes[symbols], widths)


def decode(data: bytes, count: int, lengths: np.ndarray) -> np.ndarray:
    """The symbols (count,) uint16 that `encode` wrote; raises PackError for bytes that it would not write.

    >>> decode(bytes.fromhex("58"), 3, np.array([1, 0, 2, 2], np.uint8))
    array([0, 2, 3], dtype=uint16)
    """
    order, _ = _ordered(lengths)
    widest = int(lengths.max(initial=0))
    if len(data) < -(-count // 8) or (count and not len(order)):
        raise PackError(f"{len(data):,} bytes are too few for {count:,} Huffman codes")
    if not count or len(order) == 1:  # one symbol: its bits are zeros, and nothing has to be looked up
        return _all_one(data, count, order)
    entries = (order.astype(np.uint32) << np.uint32(8)) | lengths[order]
    table = np.repeat(entries, 1 << (widest - lengths[order].astype(np.int64)))  # (2^widest,)
    lane = bit_stream.lane_codes(count, widest)
    head = (bit_stream.LANES - 1) * _ENTRY if lane else 0
    starts = [int.from_bytes(data[at : at + _ENTRY], "little") for at in range(0, head, _ENTRY)]
    starts = [0, *starts] if lane else [0] * bit_stream.LANES
    symbols, ends = bit_stream.read(data[head:], starts, lane, count, table)
    if lane and ends[:-1].tolist() != starts[1:]:
        raise PackError("the lanes of its Huffman codes do not end where the next ones begin")
    bit_stream.check_end(data[head:], int(ends[-1]), f"{count:,} Huffman codes")
    return symbols


def bits(symbols: np.ndarray, lengths: np.ndarray) -> int:
    """Bits that `encode` needs, before it fills up the last byte.

    >>> bits(np.array([0, 2, 3]), np.array([1, 0, 2, 2]))
    5
    """
    return bits_of_counts(np.bincount(symbols, minlength=len(lengths)), lengths)


def bits_of_counts(counts: np.ndarray, lengths: np.ndarray) -> int:
    """`bits` of any symbols that occur `counts` (alphabet,) times."""
    return int(counts @ lengths.astype(np.int64)) + _head_bits(int(counts.sum()), lengths)


def expected_bits(probabilities: np.ndarray, count: int) -> float:
    """Mean of `bits` over `count` symbols drawn by `probabilities` (alphabet,), in the code made for those.

    >>> expected_bits(np.array([0.5, 0.25, 0.25]), 1000)
    1500.0
    """
    code = lengths(probabilities)
    return count * float(probabilities @ code) + _head_bits(count, code)


def table(lengths: np.ndarray) -> bytes:
    """The code itself as bytes, about 2 bits a symbol; the alphabet's size is not part of them.

    >>> table(np.array([1, 0, 2, 2], np.uint8)).hex()
    '64a8'
    """
    numbers, before = [], _fixed_width(len(lengths))
    for used, group in groupby(lengths.tolist(), key=bool):
        run = list(group)
        if not used:
            numbers += [4, len(run)]
            continue
        for length in run:
            numbers.append(_number(length - before))
            before = length
    text = "".join(f"{number:0{2 * number.bit_length() - 1}b}" for number in numbers)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) & 1).tobytes()


def read_table(data: bytes | memoryview, alphabet: int) -> tuple[np.ndarray, int]:
    """The lengths (alphabet,) that `data` begins with, and the number of its bytes that they take.

    Raises PackError where `table` would not write these bytes, or the lengths are those of no code.

    >>> read_table(bytes.fromhex("64a8"), 4)
    (array([1, 0, 2, 2], dtype=uint8), 2)
    """
    lengths = np.zeros(alphabet, np.uint8)
    at, symbol, before, last = 0, 0, _fixed_width(alphabet), 0
    while symbol < alphabet:
        number, at = _gamma(data, at)
        if number == 4:
            run, at = _gamma(data, at)
            symbol += run
        else:
            before += _difference(number)
            if not 0 < before <= _limit(alphabet):
                raise PackError(f"a Huffman code is {before} bits long")
            lengths[symbol] = before
            symbol += 1
        if symbol > alphabet or number == last == 4:  # two runs would be one
            raise PackError("a Huffman table is not spelled as it should be")
        last = number
    _ordered(lengths)
    used = -(-at // 8)
    if at % 8 and data[used - 1] & (0xFF >> at % 8):
        raise PackError("a Huffman table is not spelled as it should be: bits are set after its end")
    return lengths, used


def _limit(used: int) -> int:
    """Longest code that may be given to one of `used` symbols."""
    return max(12, 4 + _fixed_width(used))


def _fixed_width(alphabet: int) -> int:
    return max(alphabet - 1, 1).bit_length()


def _ordered(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Used symbols in the order of their codes, (used,), and the codes, (used,) int64; or PackError."""
    used = np.flatnonzero(lengths != 0)  # ten times faster than of the numbers themselves
    order = used[np.argsort(lengths[used], kind="stable")]
    widest = int(lengths.max(initial=0))
    if len(lengths) > MAX_ALPHABET or widest > _limit(len(order)):
        raise PackError(f"{len(lengths):,} symbols with Huffman codes of up to {widest} bits are too many")
    unused_bits = widest - lengths[order].astype(np.int64)
    ends = np.cumsum(1 << unused_bits)  # each symbol has a range of the numbers of `widest` bits
    if len(order) and ends[-1] != 1 << widest and not (len(order) == 1 and widest == 1):
        raise PackError("the lengths of its Huffman codes are those of no complete code")
    return order, (ends - (1 << unused_bits)) >> unused_bits


def _widths(symbols: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The length of each symbol's code, (count,)."""
    if len(symbols) and not 0 <= symbols.min() <= symbols.max() < len(lengths):
        raise PackError(f"symbols {symbols.min()} to {symbols.max()} leave an alphabet of {len(lengths):,}")
    widths = lengths[symbols]
    if not widths.all():
        raise PackError(f"symbol {symbols[widths == 0][0]:,} has no Huffman code")
    return widths


def _head_bits(count: int, lengths: np.ndarray) -> int:
    lane = bit_stream.lane_codes(count, int(lengths.max(initial=0)))
    return 8 * _ENTRY * (bit_stream.LANES - 1) if lane else 0


def _entries(widths: np.ndarray, lane: int) -> bytes:
    """Where the lanes after the first begin, if there are any."""
    parts = [
        widths[lane * number : lane * (number + 1)] for number in range(bit_stream.LANES - 1 if lane else 0)
    ]
    starts = np.cumsum([int(part.sum(dtype=np.int64)) for part in parts])
    return b"".join(int(start).to_bytes(_ENTRY, "little") for start in starts)


def _all_one(data: bytes, count: int, order: np.ndarray) -> np.ndarray:
    lengths = np.ones(1, np.uint8)
    expected = encode(np.zeros(count, np.uint8), lengths)
    if data != expected:
        raise PackError(f"{len(data):,} bytes are not {count:,} Huffman codes of the only symbol")
    return np.full(count, order[0] if count else 0, np.uint16)


def _number(difference: int) -> int:
    """What stands for a length that differs by so much from the one before."""
    if abs(difference) < 2:
        return (1, 2, 3)[difference]
    return 2 * abs(difference) + (1 if difference > 0 else 2)


def _difference(number: int) -> int:
    if number < 4:
        return (0, 1, -1)[number - 1]
    return (number - 1) // 2 if number % 2 else -((number - 2) // 2)


def _gamma(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number that begins at bit `at`, and the bit after it; reads at most six bytes."""
    six = int.from_bytes(bytes(data[at // 8 : at // 8 + 6]).ljust(6, b"\0"), "big")
    ahead = six << at % 8 & (1 << 48) - 1  # the bits from `at` on
    zeros = 48 - ahead.bit_length()
    end = at + 2 * zeros + 1
    if end > 8 * len(data):
        raise PackError("a Huffman table ends in the middle")
    if zeros > _LONGEST_RUN:
        raise PackError("a number of a Huffman table is larger than any that it can hold")
    return ahead >> 47 - 2 * zeros, end
