"""The innermost loops of ExTensor: two sorted lists of coordinates, each of which jumps to where the other one is.

Compiled by numba, whose import takes 0.3 seconds: imported where it is called.

Lists are columns of bits (words, lists) uint64, the lowest coordinates first. What is compared is one coordinate of
each list; where they differ, the list that is behind jumps to the first coordinate that is not. So all coordinates of
one list between two of the other are one comparison, made where the next coordinate of the other list stands.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zeroskip.emit.numba_loops import compiled

_NONE, _ONE = np.uint64(0), np.uint64(1)
# Bits are counted in pairs, then in fours and bytes; a product sums the bytes into the highest.
_PAIRS, _FOURS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_BYTES, _SUM = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_SHIFTS = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


class TileRows(NamedTuple):
    """The rows of the tiles of a matrix: where each tile's begin, each one's row of the sums, bits (words, rows)."""

    first: np.ndarray
    row: np.ndarray
    bits: np.ndarray


class PartialSums(NamedTuple):
    """The sums (m, n) of one tile of the buffer.

    there   (m, n) which have got a product;  filled: how many of each tile of `side` rows and columns
    counts  (3,) products; sums that a pair of tiles gives one; sums that have got their first
    """

    there: np.ndarray
    filled: np.ndarray
    side: int
    counts: np.ndarray


class _Scratch(NamedTuple):
    """Of each list of the second operand.

    ended  (2, lists): 1 where the last coordinate so far is of the first list alone, or of this one
    met    (lists,) coordinates that both have
    """

    ended: np.ndarray
    met: np.ndarray


@compiled
def _ones(word: np.uint64) -> np.int64:
    word = word - ((word >> _SHIFTS[0]) & _PAIRS)
    word = (word & _FOURS) + ((word >> _SHIFTS[1]) & _FOURS)
    word = (word + (word >> _SHIFTS[2])) & _BYTES
    return np.int64((word * _SUM) >> _SHIFTS[3])


@compiled
def _after(alone: np.uint64, gaps: np.uint64, before: np.uint64) -> np.uint64:
    """Where the next coordinate stands after each that one list alone has; `before`: the last word ended with one.

    An addition carries each through the gap behind it.
    """
    following = (alone << _ONE) | before
    return (gaps + (following & gaps)) | following


@compiled
def _intersect(one: np.ndarray, i: int, two: np.ndarray, begin: int, end: int, scratch: _Scratch) -> np.int64:
    """Comparisons of list i of `one` with those from `begin` to `end` of `two`; `scratch.met` of each is left."""
    ended, met = scratch.ended, scratch.met
    steps, count = np.int64(0), end - begin
    for j in range(count):
        met[j], ended[0, j], ended[1, j] = 0, _NONE, _NONE
    for word in range(len(one)):
        a = one[word, i]
        for j in range(count):  # without a branch, so that several are done at once
            b = two[word, begin + j]
            seen, both = a | b, a & b
            ours, theirs, shared = a ^ both, b ^ both, _ones(both)
            ours_end = _after(ours, ~seen, ended[0, j]) & (seen ^ ours)
            theirs_end = _after(theirs, ~seen, ended[1, j]) & (seen ^ theirs)
            met[j] += shared
            steps += shared + _ones(ours_end | theirs_end)
            if seen != _NONE:  # of two words without a common bit, that with the highest bit is larger
                ended[0, j] = _ONE if ours > (seen ^ ours) else _NONE
                ended[1, j] = _ONE if theirs > (seen ^ theirs) else _NONE
    return steps


@compiled
def compare(one: np.ndarray, two: np.ndarray) -> np.int64:
    """Comparisons of each list of bits (words, m) with each of (words, n).

    >>> compare(np.array([[0b1011]], np.uint64), np.array([[0b1110]], np.uint64))  # 0, 1; 1, 1; 3, 2; 3, 3
    4
    """
    steps, count = np.int64(0), two.shape[1]
    scratch = _Scratch(np.empty((2, count), np.uint64), np.empty(count, np.int64))
    for i in range(one.shape[1]):
        steps += _intersect(one, i, two, 0, count, scratch)
    return steps


@compiled
def tiles(
    pairs: np.ndarray, weights: TileRows, inputs: TileRows, sums: PartialSums, steps: np.ndarray
) -> None:
    """Intersects each row of one tile with each of another, for pairs (n, 2) of tiles; `sums` are added to.

    steps   (n,) receives the comparisons of each pair

    >>> ones = TileRows(np.array([0, 1]), np.array([0]), np.array([[0b1011]], np.uint64))
    >>> sums = PartialSums(np.zeros((1, 1), bool), np.zeros((1, 1), np.int64), 1, np.zeros(3, np.int64))
    >>> tiles(np.array([[0, 0]]), ones, ones, sums, steps := np.zeros(1, np.int64))
    >>> steps.tolist(), sums.counts.tolist()
    ([3], [3, 1, 1])
    """
    there, counts = sums.there, sums.counts
    scratch = _Scratch(np.empty((2, there.shape[1]), np.uint64), np.empty(there.shape[1], np.int64))
    for pair in range(len(pairs)):
        one, two, total = pairs[pair, 0], pairs[pair, 1], np.int64(0)
        begin, end = inputs.first[two], inputs.first[two + 1]
        for i in range(weights.first[one], weights.first[one + 1]):
            total += _intersect(weights.bits, i, inputs.bits, begin, end, scratch)
            for j in range(end - begin):
                if scratch.met[j]:
                    m, n = weights.row[i], inputs.row[begin + j]
                    counts[0] += scratch.met[j]
                    counts[1] += 1
                    if not there[m, n]:
                        there[m, n] = True
                        counts[2] += 1
                        sums.filled[m // sums.side, n // sums.side] += 1
        steps[pair] = total


@compiled
def ones(bits: np.ndarray, first: np.ndarray, counts: np.ndarray) -> None:
    """Coordinates of each tile: bits (words, lists), and where the lists of each begin, into counts (tiles,)."""
    for tile in range(len(counts)):
        for word in range(len(bits)):
            for i in range(first[tile], first[tile + 1]):
                counts[tile] += _ones(bits[word, i])
