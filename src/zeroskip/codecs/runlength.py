"""Eyeriss's run-length code for 16-bit values that are mostly zero (Chen et al., JSSC 2017, section IV-B).

A pair is a run, the number of zeros in 5 bits, and the level that follows them in 16 bits. Three pairs and one bit
make a word of 64 bits, highest bit first:

    63..59 run   58..43 level   42..38 run   37..22 level   21..17 run   16..1 level   0 end of the code

The end bit is 1 in the last word and 0 in all others. The level after 31 zeros is the next value, even a zero,
so of a longer run every 32nd zero is a level. Choices that the paper leaves open: the zeros after the last non-zero
are coded as well, the last of them as a level; pairs that fill up the last word are 0; no values take no word. The
number of values is not in the code. The chip knows it from the layer's shape, and `decode` takes it as an argument,
since a pair that fills up and one more zero are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.codecs import gaps
from zeroskip.emit import INTEGER, POINTER, Function, compile_function, detect
from zeroskip.errors import PackError

LONGEST = 31  # zeros of one run
PAIRS = 3  # of a word
WORD_BITS = 64
_PAIR_BITS, _LEVEL_BITS = 21, 16
_SHIFTS = (43, 22, 1)  # of the three pairs of a word


def encode(values: np.ndarray) -> np.ndarray:
    """Values of any shape, int16 or uint16, as words (words,) uint64; PackError for other types.

    >>> [f"{word:016x}" for word in encode(np.array([0, 0, 12, 0, 0, 0, 0, 53, 0, 0, 22], np.int16))]
    ['100061000d44002d']
    """
    if values.dtype not in (np.int16, np.uint16):
        raise PackError(f"levels are 16 bits wide, and these values are {values.dtype}; round them to int16")
    flat = np.ascontiguousarray(values).reshape(-1)
    pairs = np.empty(flat.size + 1 + PAIRS, np.uint32)  # each value is written, and overwritten if no level
    left = np.zeros(2, np.int64)
    _writer()(flat.ctypes.data, pairs.ctypes.data, left.ctypes.data, flat.size)
    count, zeros = left.tolist()
    if zeros:
        pairs[count] = (zeros - 1) << _LEVEL_BITS
        count += 1
    pairs[count : count + PAIRS] = 0
    words = np.empty(-(-count // PAIRS), np.uint64)
    _packer()(pairs.ctypes.data, words.ctypes.data, words.size)
    words[-1:] |= np.uint64(1)
    return words


def decode(words: np.ndarray, count: int, dtype: type[np.integer] = np.int16) -> np.ndarray:
    """The `count` values (count,) that `encode` wrote; `dtype` is np.int16 or np.uint16.

    Raises PackError for words that `encode` would not write for so many values: no end bit or an early one, words
    left out or appended, fewer or more values, a zero as a level without need.

    >>> decode(np.array([0x100061000D44002D], np.uint64), 11)
    array([ 0,  0, 12,  0,  0,  0,  0, 53,  0,  0, 22], dtype=int16)
    """
    _check_words(words, count, dtype)
    values = np.zeros(count + 1, dtype)  # one more: levels beyond the last value are written there
    words, found = np.ascontiguousarray(words), np.zeros(2, np.int64)
    _reader()(words.ctypes.data, values.ctypes.data, found.ctypes.data, len(words), count)
    _check_pairs(words, count, *found.tolist())
    return values[:count]


def bits(mask: np.ndarray) -> int:
    """Bits of all words for values that are non-zero where mask is True, of any shape and read row-major.

    >>> bits(np.array([0, 0, 12, 0, 0, 0, 0, 53, 0, 0, 22]) != 0)
    64
    """
    return WORD_BITS * -(-pairs(mask) // PAIRS)


def pairs(mask: np.ndarray) -> int:
    """Number of pairs of a run and a level, those that only fill up the last word not counted.

    >>> pairs(np.arange(100) == 0)
    5
    """
    places = np.flatnonzero(mask)
    tail = mask.size - 1 - (int(places[-1]) if len(places) else -1)
    inside = np.diff(places, prepend=-1) - 1 >> 5  # a pair for each 32 zeros
    return len(places) + int(inside.sum()) + -(-tail // (LONGEST + 1))


def expected_bits(size: int, sparsity: float) -> float:
    """Mean of 64 / 3 bits for each of `pairs`, over values that are zero independently with this probability.

    With p = 1 - sparsity and q = sparsity^32 that is, for many values, 64 / 3 * size * p / (1 - q). What fills up
    the last word comes on top: 64 / 3 bits in the mean. Raises RecipeError for a sparsity outside 0..1.

    >>> round(expected_bits(1_000_000, 0.387) / 1e6, 2)  # conv2 of AlexNet: bits for each value
    13.08
    """
    step = LONGEST + 1
    inside = gaps.expected_entries(size, sparsity, step)
    # A tail of at least 32 * k + 1 zeros has a k-th pair, k = 0, 1, ...
    tail = sum(sparsity ** (step * k + 1) for k in range(-(-size // step)))
    return WORD_BITS / PAIRS * (inside + tail)


def _check_words(words: np.ndarray, count: int, dtype: type[np.integer]) -> None:
    """PackError for what are no words, cannot be enough of them, or do not end with the last one alone."""
    if words.ndim != 1 or words.dtype != np.uint64:
        raise PackError(f"words {words.shape} of {words.dtype} are no list of uint64")
    if dtype not in (np.int16, np.uint16):
        raise PackError(f"levels are 16 bits wide, and {dtype} is not; take int16 or uint16")
    if not 0 <= count <= PAIRS * (LONGEST + 1) * len(words):
        raise PackError(f"{len(words):,} words are too few for {count:,} values")
    ends = np.flatnonzero(words & np.uint64(1))
    if len(words) and not len(ends):
        raise PackError(f"none of {len(words):,} words has the end bit: the code is cut short")
    if len(ends) and ends[0] != len(words) - 1:
        raise PackError(f"word {ends[0] + 1:,} of {len(words):,} has the end bit, and more words follow")


def _check_pairs(words: np.ndarray, count: int, held: int, needless: int) -> None:
    """PackError unless the words are those of `count` values.

    held      values that all pairs hold, those that fill up the last word too
    needless  pairs whose level is 0 after fewer than LONGEST zeros
    """
    last = [int(words[-1]) >> shift & (1 << _PAIR_BITS) - 1 for shift in _SHIFTS] if len(words) else []
    filling = held - count  # such a pair is 0, which reads as one value
    if not 0 <= filling < max(len(last), 1):
        raise PackError(f"{len(words):,} words hold {held:,} values, and not {count:,}")
    own = last[: len(last) - filling]
    if any(last[len(own) :]):
        raise PackError(f"{len(words):,} words do not end after {count:,} values")
    if needless - filling - (own[-1:] != [] and _is_needless(own[-1])):
        raise PackError(f"a zero is a level after fewer than {LONGEST} zeros")


def _is_needless(pair: int) -> bool:
    return pair & (1 << _LEVEL_BITS) - 1 == 0 and pair >> _LEVEL_BITS < LONGEST


@cache
def _writer() -> Callable[..., None]:
    machine = detect()
    return compile_function(_writer_code().text(machine), "write", machine, 4)


@cache
def _packer() -> Callable[..., None]:
    machine = detect()
    return compile_function(_packer_code().text(machine), "pack", machine, 3)


@cache
def _reader() -> Callable[..., None]:
    machine = detect()
    return compile_function(_reader_code().text(machine), "read", machine, 5)


def _writer_code() -> Function:
    """write(values, pairs, left, count): pairs as run << 16 | level; left is how many, and the zeros after them."""
    f = Function("write", {"values": POINTER, "pairs": POINTER, "left": POINTER, "count": INTEGER})
    written, zeros = f.slot(INTEGER, "0"), f.slot(INTEGER, "0")
    with f.loop(0, "%count") as index:
        level = f.value(f"zext i16 {f.load('i16', f.at('%values', index, 'i16'))} to i64")
        run, place = f.load(INTEGER, zeros), f.load(INTEGER, written)
        pair = f.add(f.value(f"shl i64 {run}, {_LEVEL_BITS}"), level)
        f.store("i32", f.value(f"trunc i64 {pair} to i32"), f.at("%pairs", place, "i32"))
        # Arithmetic instead of comparisons, of which LLVM would make a branch, mispredicted on random zeros.
        nonzero = f.value(f"lshr i64 {f.add(level, (1 << _LEVEL_BITS) - 1)}, {_LEVEL_BITS}")
        full = f.value(f"lshr i64 {f.add(run, 1)}, {LONGEST.bit_length()}")
        ends = f.value(f"or i64 {nonzero}, {full}")
        f.store(INTEGER, f.add(place, ends), written)
        f.store(INTEGER, f.value(f"and i64 {f.add(run, 1)}, {f.add(ends, -1)}"), zeros)
    for number, slot in enumerate((written, zeros)):
        f.store(INTEGER, f.load(INTEGER, slot), f.at("%left", number, INTEGER))
    return f


def _packer_code() -> Function:
    """pack(pairs, words, count): three pairs to a word, end bit 0."""
    f = Function("pack", {"pairs": POINTER, "words": POINTER, "count": INTEGER})
    with f.loop(0, "%count") as index:
        first, word = f.at("%pairs", f.multiply(index, PAIRS), "i32"), "0"
        for number, shift in enumerate(_SHIFTS):
            pair = f.value(f"zext i32 {f.load('i32', f.at(first, number, 'i32'))} to i64")
            word = f.value(f"or i64 {word}, {f.value(f'shl i64 {pair}, {shift}')}")
        f.store(INTEGER, word, f.at("%words", index, INTEGER))
    return f


def _reader_code() -> Function:
    """read(words, values, found, count, size): levels to their places, nothing behind values[size].

    found  values that all pairs hold, and pairs whose level is 0 after fewer than LONGEST zeros
    """
    pointers = dict.fromkeys(["words", "values", "found"], POINTER)
    f = Function("read", pointers | {"count": INTEGER, "size": INTEGER})
    held, needless = f.slot(INTEGER, "0"), f.slot(INTEGER, "0")
    with f.loop(0, "%count") as index:
        word = f.load(INTEGER, f.at("%words", index, INTEGER))
        for shift in _SHIFTS:
            level = f.value(f"trunc i64 {f.value(f'lshr i64 {word}, {shift}')} to i16")
            run = f.value(f"and i64 {f.value(f'lshr i64 {word}, {shift + _LEVEL_BITS}')}, {LONGEST}")
            place = f.add(f.load(INTEGER, held), run)
            f.store("i16", level, f.at("%values", f.smaller(place, "%size"), "i16"))
            f.store(INTEGER, f.add(place, 1), held)
            zero, short = f.value(f"icmp eq i16 {level}, 0"), f.value(f"icmp ult i64 {run}, {LONGEST}")
            both = f.value(f"zext i1 {f.value(f'and i1 {zero}, {short}')} to i64")
            f.store(INTEGER, f.add(f.load(INTEGER, needless), both), needless)
    for number, slot in enumerate((held, needless)):
        f.store(INTEGER, f.load(INTEGER, slot), f.at("%found", number, INTEGER))
    return f
