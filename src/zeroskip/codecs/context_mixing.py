"""The inner loops of `arithmetic`, whose first lines explain the model.

Compiled by numba, whose import takes 0.3 seconds: only `arithmetic` imports this file, when it first needs
it. All numbers are integers, so that every machine predicts the same. The probability that a bit is 1 has 16 bits
(1..65535), or 22 where it is counted; logits, ln(p / (1 - p)), are in 1/256.

One walk serves both directions: each `code_...` takes the bits to write, or fills them in as they are read.

Every number in this file decides what the bytes mean: changing one, or the order in which anything is counted, means
a new VERSION of the file format (pack/container.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numba import njit

LOW, HIGH, AT, VALUE, READING = range(5)  # what is in Coder.state
WINDOW = 40  # bits of LOW, HIGH and VALUE; times a probability they stay below 63
LIMIT = 2839  # the logit of 65535 / 65536
SLOTS = 65521  # counted probabilities per context; a prime, so that the remainder spreads well
STEADY = 1000  # after so many bits a counted probability adapts no slower
RATE = 12  # how fast the opinions' weights adapt
EVEN = np.int64(1 << 21)  # a probability of one half

POSITION_ESTIMATES, POSITION_CONTEXTS, CODE_CONTEXTS = 4, 5, 9

Integer: TypeAlias = int | np.int64  # the same to numba
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    """The function as machine code, which is kept for the next process where a folder can be written to."""
    try:
        return cast(_Function, njit(cache=True)(function))
    except RuntimeError:  # neither beside this file nor in the user's cache
        return cast(_Function, njit(function))


class Coder(NamedTuple):
    """The interval that the bits so far have left, and the bytes."""

    state: np.ndarray  # (5,) int64
    data: np.ndarray  # (bytes,) uint8


class Mixer(NamedTuple):
    """A predictor: some opinions are computed, others counted in a slot of each context."""

    estimate: np.ndarray  # (estimates,) int64, for the next bit, 16 bits
    slot: np.ndarray  # (contexts,) int64, for the next bit
    probability: np.ndarray  # (contexts, SLOTS) int32, 22 bits
    seen: np.ndarray  # (contexts, SLOTS) int32
    logit: np.ndarray  # (estimates + contexts,) int64, of each opinion, less that of the prior
    weight: np.ndarray  # (estimates + contexts,) int64, 65536 is 1
    squash: np.ndarray  # (2 * LIMIT + 1,) int64, logit + LIMIT -> probability
    stretch: np.ndarray  # (65536,) int64, probability -> logit


class Geometry(NamedTuple):
    """Which columns touch. Where there is none, `near` says `columns`, and `around` the column itself."""

    tile: int  # columns per image or kernel
    near: np.ndarray  # (6, columns) int32: left, above, above left, above right, two left, two above
    around: np.ndarray  # (8, columns) int32: the four at its sides, then the four at its corners


class Past(NamedTuple):
    """What a row of the mask may know of the rows before it."""

    counts: np.ndarray  # (columns,) int64, non-zeros in each, times 4096
    local: np.ndarray  # (columns,) int64, the same averaged with the neighbours
    totals: np.ndarray  # (3,) int64: non-zeros, positions, rows


def tables() -> tuple[np.ndarray, np.ndarray]:
    """`squash` and `stretch` of Mixer, from e^(1/256) as a fixed-point number.

    >>> squash, stretch = tables()
    >>> squash[256 + LIMIT], stretch[32768]  # 65536 / (1 + 1/e), ln(1)
    (47910, 0)
    """
    one = 1 << 80
    base, term = 0, one
    for n in range(1, 20):  # sum of (1/256)^n / n!
        base, term = base + term, term // (256 * n)
    powers = [one]  # e^(n/256)
    for _ in range(LIMIT):
        powers.append(powers[-1] * base >> 80)
    upper = [65536 * power // (one + power) for power in powers]
    squash = np.array([65536 - p for p in upper[:0:-1]] + upper, np.int64).clip(1, 65535)
    return squash, np.searchsorted(squash, np.arange(65536)) - LIMIT


def new_mixer(estimates: int, contexts: int, squash: np.ndarray, stretch: np.ndarray) -> Mixer:
    """A predictor that has seen nothing, and trusts what is computed twice as much as what it will count.

    >>> new_mixer(4, 5, *tables()).weight.shape
    (9,)
    """
    return Mixer(
        np.zeros(estimates, np.int64),
        np.zeros(contexts, np.int64),
        np.zeros((contexts, SLOTS), np.int32),
        np.zeros((contexts, SLOTS), np.int32),
        np.zeros(estimates + contexts, np.int64),
        np.array([30_000] * estimates + [15_000] * contexts, np.int64),
        squash,
        stretch,
    )


@_compiled
def code_number(coder: Coder, number: int, bits: int) -> int:
    """A number below 2^bits, all equally likely.

    >>> code_number(coder, 28, 8)
    28
    """
    result = 0
    for shift in range(bits - 1, -1, -1):
        result = 2 * result + _code_bit(coder, EVEN >> 6, number >> shift & 1)
    return result


@_compiled
def code_flags(coder: Coder, mixer: Mixer, flags: np.ndarray, near: np.ndarray) -> None:
    """Flags (count + 1,) bool without the last, each predicted from those of `near` (neighbours, count).

    >>> code_flags(coder, new_mixer(0, 1, *tables()), alive, geometry.near)
    """
    for j in range(len(flags) - 1):
        if _is_over(coder):
            break
        pattern = 0
        for k in range(len(near)):
            pattern |= flags[near[k, j]] << k
        mixer.slot[0] = pattern
        flags[j] = _code_mixed(coder, mixer, EVEN, int(flags[j]))[0]


@_compiled
def code_mask(
    coder: Coder, mixer: Mixer, mask: np.ndarray, rows: np.ndarray, columns: np.ndarray, geometry: Geometry
) -> None:
    """The mask (rows, columns + 1) bool where both flags are set; its last column is no position.

    >>> code_mask(coder, mixer, mask, mask.any(1), mask.any(0), geometry)
    """
    counts, totals = np.zeros(mask.shape[1] - 1, np.int64), np.zeros(3, np.int64)
    for i in range(len(mask)):
        if rows[i] and not _is_over(coder):
            past = Past(counts, _smooth(counts, geometry.around), totals)
            _code_row(coder, mixer, mask[i], columns, geometry, past)
            totals[2] += 1
            for j in range(len(counts)):
                counts[j] += 4096 * mask[i, j]


@_compiled
def code_codes(
    coder: Coder, mixer: Mixer, mask: np.ndarray, codes: np.ndarray, levels: int, geometry: Geometry
) -> None:
    """The code, below `levels`, of each non-zero of mask (rows, columns + 1): codes (nonzeros,) int64.

    >>> code_codes(coder, mixer, mask, codes, 16, geometry)
    """
    nodes = 1
    while nodes < levels:
        nodes *= 2
    frequency, seen = np.full(nodes, 1 << 21, np.int32), np.zeros(nodes, np.int32)  # of each node of the tree
    last = np.zeros(mask.shape[1] - 1, np.int64)  # in each column, 1 + its last code
    counts = np.zeros(mask.shape[1] - 1, np.int64)
    for i in range(len(mask)):
        counts += mask[i, :-1]
    contexts = np.zeros(CODE_CONTEXTS, np.int64)
    at = 0
    for i in range(len(mask)):
        row = np.zeros(mask.shape[1], np.int64)  # 1 + code
        contexts[8] = _coarse(mask[i].sum())
        for j in range(len(last)):
            if mask[i, j] and not _is_over(coder):
                _look_around(contexts, row, mask[i], j, levels, geometry)
                contexts[3] = last[j]
                contexts[5] += 9 * _coarse(counts[j])
                codes[at] = _code_in_tree(coder, mixer, contexts, codes[at], levels, frequency, seen)
                row[j] = last[j] = contexts[2] = 1 + codes[at]  # context 2: the code before this one
                at += 1


@_compiled
def _code_bit(coder: Coder, probability: Integer, bit: int) -> int:
    """The bit, written or read, at the cost of -log2 of its probability."""
    state, data = coder
    low, high = state[LOW], state[HIGH]
    middle = low + ((high - low) * probability >> 16)
    if state[READING]:
        bit = 1 if state[VALUE] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while low >> WINDOW - 8 == high >> WINDOW - 8:  # whatever follows, this byte stays
        if state[READING]:
            ahead = state[AT] + WINDOW // 8
            coming = data[ahead] if ahead < len(data) else 0
            state[VALUE] = (state[VALUE] << 8 & (1 << WINDOW) - 1) | coming
        else:
            data[state[AT]] = low >> WINDOW - 8
        low = low << 8 & (1 << WINDOW) - 1
        high = (high << 8 & (1 << WINDOW) - 1) | 255
        state[AT] += 1
    state[LOW], state[HIGH] = low, high
    return bit


@_compiled
def _is_over(coder: Coder) -> bool:
    """Whether more bytes were read than there are, so that nothing sensible can follow."""
    return coder.state[READING] and coder.state[AT] > len(coder.data)


@_compiled
def _code_mixed(coder: Coder, mixer: Mixer, prior: Integer, bit: int) -> tuple[int, int]:
    """The bit, predicted by mixing mixer.estimate and mixer.slot, and the prediction; prior has 22 bits."""
    estimates, weight, logit = len(mixer.estimate), mixer.weight, mixer.logit
    base = _logit(mixer, prior >> 6)
    total = base << 16
    for c in range(len(weight)):
        if c < estimates:
            logit[c] = _logit(mixer, mixer.estimate[c]) - base
        else:
            probability, slot = mixer.probability[c - estimates], mixer.slot[c - estimates]
            if mixer.seen[c - estimates, slot] == 0:  # what is new behaves like the rest, until it is known
                probability[slot] = prior
            logit[c] = _logit(mixer, probability[slot] >> 6) - base
        total += weight[c] * logit[c]
    predicted = mixer.squash[min(max(total >> 16, -LIMIT), LIMIT) + LIMIT]
    bit = _code_bit(coder, predicted, bit)
    error = (bit << 16) - predicted
    for c in range(len(weight)):
        weight[c] += logit[c] * error * RATE >> 18  # the gradient of the cost
    for c in range(len(mixer.slot)):
        _count(mixer.probability[c], mixer.seen[c], mixer.slot[c], bit)
    return bit, predicted


@_compiled
def _logit(mixer: Mixer, probability: Integer) -> int:
    return mixer.stretch[min(max(probability, 1), 65535)]


@_compiled
def _count(probability: np.ndarray, seen: np.ndarray, slot: int, bit: int) -> None:
    """Move towards the bit, as the mean of the bits so far that counts the start 2.5 times."""
    probability[slot] += ((bit << 22) - probability[slot]) * 2 // (2 * seen[slot] + 7)
    seen[slot] = min(seen[slot] + 1, STEADY)


@_compiled
def _coarse(count: int) -> int:
    """0 to 7 as they are, then four steps to each doubling, 31 at most."""
    shift = 0
    while count >> shift >= 8:
        shift += 1
    return min(4 * shift + (count >> shift), 31)


@_compiled
def _smooth(counts: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Each column averaged with the eight around it, weights 4, 2 (sides) and 1 (corners): (columns,)."""
    smooth = np.empty_like(counts)
    for j in range(len(counts)):
        total = 4 * counts[j]
        for k in range(8):
            total += counts[around[k, j]] * (2 if k < 4 else 1)
        smooth[j] = total >> 4
    return smooth


@_compiled
def _code_row(
    coder: Coder, mixer: Mixer, row: np.ndarray, columns: np.ndarray, geometry: Geometry, past: Past
) -> None:
    """One row of the mask, (columns + 1,) bool."""
    guess = np.zeros(len(row), np.int64)  # the prediction of each position
    taps = np.zeros(geometry.tile, np.int64)  # non-zeros at each place of a tile, in the tiles before
    kept, expected = 0, 0
    for j in range(len(row) - 1):
        if columns[j] and not _is_over(coder):
            tap, ones, positions = j % geometry.tile, past.totals[0], past.totals[1]
            density = max(64, (2 * ones + 1 << 22) // (2 * positions + 4))
            _look_at(mixer, row, guess, j, density, geometry, past)
            ratio = (kept + 3 << 16, expected + (3 << 16))  # of the whole row; 3 and 3 came before it
            mixer.estimate[2] = (density >> 6) * ratio[0] // ratio[1]
            mixer.estimate[3] = ((taps[tap] << 22) + 8 * density) // (j // geometry.tile + 8) >> 6
            own = _coarse((past.counts[j] * 48 >> 12) // (past.totals[2] + 1))
            mixer.slot[3] = _coarse(taps[tap]) * 32 + own
            mixer.slot[4] = _coarse((kept << 20) // (expected + 65536)) * 32 + own
            row[j], guess[j] = _code_mixed(coder, mixer, density, int(row[j]))
            kept, expected = kept + row[j], expected + guess[j]
            taps[tap] += row[j]
            past.totals[0] += row[j]
            past.totals[1] += 1


@_compiled
def _look_at(
    mixer: Mixer, row: np.ndarray, guess: np.ndarray, j: int, density: int, geometry: Geometry, past: Past
) -> None:
    """What the columns around position j say: the neighbours in this row, and their counts in the rows above."""
    pattern, close, expected = 0, 0, 0
    for k in range(6):
        weight = 3 if k < 2 else 2 if k < 4 else 1
        neighbour = geometry.near[k, j]
        pattern |= row[neighbour] << k
        close += weight * row[neighbour]
        expected += weight * guess[neighbour]
    above = past.totals[2]
    field = _coarse((past.local[j] * 48 >> 12) // (above + 1))
    mixer.estimate[0] = ((past.local[j] << 10) + 3 * density) // (above + 3) >> 6
    mixer.estimate[1] = (density >> 6) * (close + 1 << 16) // (expected + 65536)
    mixer.slot[0] = pattern * 8 + (field >> 2)
    mixer.slot[1] = close * 32 + field
    mixer.slot[2] = pattern


@_compiled
def _look_around(
    contexts: np.ndarray, row: np.ndarray, mask: np.ndarray, j: int, levels: int, geometry: Geometry
) -> None:
    """The contexts of a code that come from its neighbours; codebooks are sorted, so half a code is its sign."""
    signs, pattern, crowd = 0, 0, 0
    for k in range(6):
        neighbour = row[geometry.near[k, j]]
        sign = 0 if neighbour == 0 else 1 if 2 * neighbour > levels else -1
        signs += sign * (2 if k < 2 else 1)
        if k < 4:
            pattern = 3 * pattern + sign + 1
    for k in range(8):
        if geometry.around[k, j] != j:
            crowd += mask[geometry.around[k, j]]
    contexts[0] = row[geometry.near[0, j]]
    contexts[1] = row[geometry.near[1, j]]
    contexts[7] = row[geometry.near[3, j]]
    contexts[4], contexts[5], contexts[6] = signs + 8, crowd, pattern


@_compiled
def _code_in_tree(
    coder: Coder,
    mixer: Mixer,
    contexts: np.ndarray,
    code: int,
    levels: int,
    frequency: np.ndarray,
    seen: np.ndarray,
) -> int:
    """One code, highest bit first; a bit that `levels` leaves no choice costs nothing."""
    first, width, node = 0, len(frequency), 1  # the code is one of first ... first + width - 1
    while width > 1:
        width //= 2
        bit = 0
        if first + width < levels:
            for c in range(len(contexts)):
                mixer.slot[c] = (contexts[c] * len(frequency) + node) % SLOTS
            bit = _code_mixed(coder, mixer, np.int64(frequency[node]), int(code >= first + width))[0]
            _count(frequency, seen, node, bit)
        first += bit * width
        node = 2 * node + bit
    return first
