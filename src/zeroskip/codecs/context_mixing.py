"""The inner loops of `arithmetic`, whose first lines explain the model.

Only `arithmetic` imports this file, when it first codes: numba is slow to import. All numbers are integers, so that
every machine predicts the same. The probability that a bit is 1 has 16 bits
(1..65535), or 22 where it is counted; logits, ln(p / (1 - p)), are in 1/256.

One walk serves both directions: each `code_...` takes the bits to write, or fills them in as they are read.

Every number in this file decides what the bytes mean: changing one, or the order in which anything is counted, means
a new VERSION of the file format (pack/zs_file.py).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from zeroskip.emit.numba_loops import compiled

LOW, HIGH, AT, VALUE, READING = range(5)  # what is in Coder.state
WINDOW = 40  # bits of LOW, HIGH and VALUE; times a probability they stay below 63
LIMIT = 2839  # the logit of 65535 / 65536
SLOTS = 65521  # counted probabilities per context; a prime, so that the remainder spreads well
STEADY = 1000  # after so many bits a counted probability adapts no slower
RATE = 12  # how fast the estimates' weights adapt
EVEN = np.int64(1 << 21)  # a probability of one half

POSITION_ESTIMATES, POSITION_CONTEXTS, CODE_CONTEXTS = 4, 5, 9

Integer: TypeAlias = int | np.int64  # the same to numba


class Coder(NamedTuple):
    """The interval that the bits so far have left, and the bytes."""

    state: np.ndarray  # (5,) int64
    data: np.ndarray  # (bytes,) uint8


class Mixer(NamedTuple):
    """A predictor of bits. Its estimates are computed by the caller, or counted in a slot of each context."""

    estimate: np.ndarray  # (estimates,) int64, for the next bit, 16 bits
    slot: np.ndarray  # (contexts,) int64, for the next bit
    probability: np.ndarray  # (contexts, SLOTS) int32, 22 bits
    seen: np.ndarray  # (contexts, SLOTS) int32
    logit: np.ndarray  # (estimates + contexts,) int64, of each estimate, less that of the prior
    weight: np.ndarray  # (estimates + contexts,) int64, 65536 is 1
    squash: np.ndarray  # (2 * LIMIT + 1,) int64, logit + LIMIT -> probability
    stretch: np.ndarray  # (65536,) int64, probability -> logit


class Neighbours(NamedTuple):
    """Adjacent columns. Where there is none, `near` holds `columns`, and `around` the column itself."""

    tile: int  # columns per image or kernel
    near: np.ndarray  # (6, columns) int32: left, above, above left, above right, two left, two above
    around: np.ndarray  # (8, columns) int32: the four at its sides, then the four at its corners


class RowsBefore(NamedTuple):
    """Counts of the rows before the one that is coded."""

    counts: np.ndarray  # (columns,) int64, non-zeros in each, times 4096
    local: np.ndarray  # (columns,) int64, the same averaged with the neighbours
    totals: np.ndarray  # (3,) int64: non-zeros, positions, rows


class MaskRow(NamedTuple):
    """A row of the mask while it is coded."""

    mask: np.ndarray  # (columns + 1,) bool
    predicted: np.ndarray  # (columns + 1,) int64, the probability of a non-zero, 16 bits


class CodeTree(NamedTuple):
    """The binary tree of the codes below `levels`, and how often each of its nodes had a 1."""

    levels: int
    frequency: np.ndarray  # (nodes,) int32, 22 bits
    seen: np.ndarray  # (nodes,) int32


def tables() -> tuple[np.ndarray, np.ndarray]:
    """`squash` and `stretch` of Mixer, from e^(1/256) as a fixed-point number.

    >>> squash, stretch = tables()
    >>> int(squash[256 + LIMIT]), int(stretch[32768])  # 65536 / (1 + 1/e), ln(1)
    (47910, 0)
    """
    unit = 1 << 80
    base, term = 0, unit
    for n in range(1, 20):  # sum of (1/256)^n / n!
        base, term = base + term, term // (256 * n)
    powers = [unit]  # e^(n/256)
    for _ in range(LIMIT):
        powers.append(powers[-1] * base >> 80)
    upper = [65536 * power // (unit + power) for power in powers]
    squash = np.array([65536 - p for p in upper[:0:-1]] + upper, np.int64).clip(1, 65535)
    return squash, np.searchsorted(squash, np.arange(65536)) - LIMIT


def new_mixer(estimates: int, contexts: int, squash: np.ndarray, stretch: np.ndarray) -> Mixer:
    """A predictor before the first bit; computed estimates have twice the weight of counted ones."""
    return Mixer(
        estimate=np.zeros(estimates, np.int64),
        slot=np.zeros(contexts, np.int64),
        probability=np.zeros((contexts, SLOTS), np.int32),
        seen=np.zeros((contexts, SLOTS), np.int32),
        logit=np.zeros(estimates + contexts, np.int64),
        weight=np.array([30_000] * estimates + [15_000] * contexts, np.int64),
        squash=squash,
        stretch=stretch,
    )


@compiled
def code_number(coder: Coder, number: int, bits: int) -> int:
    """A number below 2^bits, all equally likely."""
    result = 0
    for shift in range(bits - 1, -1, -1):
        result = 2 * result + _code_bit(coder, EVEN >> 6, number >> shift & 1)
    return result


@compiled
def code_flags(coder: Coder, mixer: Mixer, flags: np.ndarray, near: np.ndarray) -> None:
    """Flags (count + 1,) bool without the last, each predicted from those of `near` (neighbours, count)."""
    for j in range(len(flags) - 1):
        if _is_over(coder):
            break
        pattern = 0
        for k in range(len(near)):
            pattern |= flags[near[k, j]] << k
        mixer.slot[0] = pattern
        flags[j] = _code_mixed(coder, mixer, EVEN, int(flags[j]))[0]


@compiled
def code_mask(
    coder: Coder,
    mixer: Mixer,
    mask: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    neighbours: Neighbours,
) -> None:
    """The mask (rows, columns + 1) bool where both flags are set; its last column is no position."""
    counts, totals = np.zeros(mask.shape[1] - 1, np.int64), np.zeros(3, np.int64)
    for i in range(len(mask)):
        if rows[i] and not _is_over(coder):
            before = RowsBefore(counts, _smooth(counts, neighbours.around), totals)
            _code_row(coder, mixer, mask[i], columns, neighbours, before)
            totals[2] += 1
            for j in range(len(counts)):
                counts[j] += 4096 * mask[i, j]


@compiled
def code_codes(
    coder: Coder, mixer: Mixer, mask: np.ndarray, codes: np.ndarray, levels: int, neighbours: Neighbours
) -> None:
    """The code, below `levels`, of each non-zero of mask (rows, columns + 1): codes (nonzeros,) int64."""
    nodes = 1
    while nodes < levels:
        nodes *= 2
    tree = CodeTree(levels, np.full(nodes, 1 << 21, np.int32), np.zeros(nodes, np.int32))
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
                _neighbour_contexts(contexts, row, mask[i], j, levels, neighbours)
                contexts[3] = last[j]
                contexts[5] += 9 * _coarse(counts[j])
                codes[at] = _code_in_tree(coder, mixer, contexts, codes[at], tree)
                row[j] = last[j] = contexts[2] = 1 + codes[at]  # context 2: the code before this one
                at += 1


@compiled
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
    while low >> WINDOW - 8 == high >> WINDOW - 8:  # this byte is final
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


@compiled
def _is_over(coder: Coder) -> bool:
    """Whether more bytes were read than there are, so that nothing sensible can follow."""
    return coder.state[READING] and coder.state[AT] > len(coder.data)


@compiled
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
            if mixer.seen[c - estimates, slot] == 0:  # a new slot starts with the prior
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


@compiled
def _logit(mixer: Mixer, probability: Integer) -> int:
    return mixer.stretch[min(max(probability, 1), 65535)]


@compiled
def _count(probability: np.ndarray, seen: np.ndarray, slot: int, bit: int) -> None:
    """Move towards the bit, as the mean of the bits so far that counts the start 2.5 times."""
    probability[slot] += ((bit << 22) - probability[slot]) * 2 // (2 * seen[slot] + 7)
    seen[slot] = min(seen[slot] + 1, STEADY)


@compiled
def _coarse(count: int) -> int:
    """0 to 7 as they are, then four steps to each doubling, 31 at most."""
    shift = 0
    while count >> shift >= 8:
        shift += 1
    return min(4 * shift + (count >> shift), 31)


@compiled
def _smooth(counts: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Each column averaged with the eight around it, weights 4, 2 (sides) and 1 (corners): (columns,)."""
    smooth = np.empty_like(counts)
    for j in range(len(counts)):
        total = 4 * counts[j]
        for k in range(8):
            total += counts[around[k, j]] * (2 if k < 4 else 1)
        smooth[j] = total >> 4
    return smooth


@compiled
def _code_row(
    coder: Coder,
    mixer: Mixer,
    mask: np.ndarray,
    columns: np.ndarray,
    neighbours: Neighbours,
    before: RowsBefore,
) -> None:
    """One row of the mask, (columns + 1,) bool."""
    row = MaskRow(mask, np.zeros(len(mask), np.int64))
    taps = np.zeros(neighbours.tile, np.int64)  # non-zeros at each place of a tile, in the tiles before
    kept, expected = 0, 0
    for j in range(len(mask) - 1):
        if columns[j] and not _is_over(coder):
            tap, ones, positions = j % neighbours.tile, before.totals[0], before.totals[1]
            share = max(64, (2 * ones + 1 << 22) // (2 * positions + 4))  # of non-zeros, 22 bits
            _neighbour_estimates(mixer, row, j, share, neighbours, before)
            ratio = (kept + 3 << 16, expected + (3 << 16))  # of the whole row; 3 and 3 came before it
            mixer.estimate[2] = (share >> 6) * ratio[0] // ratio[1]
            mixer.estimate[3] = ((taps[tap] << 22) + 8 * share) // (j // neighbours.tile + 8) >> 6
            own = _coarse((before.counts[j] * 48 >> 12) // (before.totals[2] + 1))
            mixer.slot[3] = _coarse(taps[tap]) * 32 + own
            mixer.slot[4] = _coarse((kept << 20) // (expected + 65536)) * 32 + own
            mask[j], row.predicted[j] = _code_mixed(coder, mixer, share, int(mask[j]))
            kept, expected = kept + mask[j], expected + row.predicted[j]
            taps[tap] += mask[j]
            before.totals[0] += mask[j]
            before.totals[1] += 1


@compiled
def _neighbour_estimates(
    mixer: Mixer, row: MaskRow, j: int, share: int, neighbours: Neighbours, before: RowsBefore
) -> None:
    """Estimates and slots from the columns around position j: in this row, and their counts in the rows above."""
    pattern, close, expected = 0, 0, 0
    for k in range(6):
        weight = 3 if k < 2 else 2 if k < 4 else 1
        neighbour = neighbours.near[k, j]
        pattern |= row.mask[neighbour] << k
        close += weight * row.mask[neighbour]
        expected += weight * row.predicted[neighbour]
    above = before.totals[2]
    field = _coarse((before.local[j] * 48 >> 12) // (above + 1))
    mixer.estimate[0] = ((before.local[j] << 10) + 3 * share) // (above + 3) >> 6
    mixer.estimate[1] = (share >> 6) * (close + 1 << 16) // (expected + 65536)
    mixer.slot[0] = pattern * 8 + (field >> 2)
    mixer.slot[1] = close * 32 + field
    mixer.slot[2] = pattern


@compiled
def _neighbour_contexts(
    contexts: np.ndarray, row: np.ndarray, mask: np.ndarray, j: int, levels: int, neighbours: Neighbours
) -> None:
    """The contexts of a code that come from its neighbours; codebooks are sorted, so half a code is its sign."""
    signs, pattern, crowd = 0, 0, 0
    for k in range(6):
        neighbour = row[neighbours.near[k, j]]
        sign = 0 if neighbour == 0 else 1 if 2 * neighbour > levels else -1
        signs += sign * (2 if k < 2 else 1)
        if k < 4:
            pattern = 3 * pattern + sign + 1
    for k in range(8):
        if neighbours.around[k, j] != j:
            crowd += mask[neighbours.around[k, j]]
    contexts[0] = row[neighbours.near[0, j]]
    contexts[1] = row[neighbours.near[1, j]]
    contexts[7] = row[neighbours.near[3, j]]
    contexts[4], contexts[5], contexts[6] = signs + 8, crowd, pattern


@compiled
def _code_in_tree(coder: Coder, mixer: Mixer, contexts: np.ndarray, code: int, tree: CodeTree) -> int:
    """One code, highest bit first; a bit that `levels` leaves no choice costs nothing."""
    nodes = len(tree.frequency)
    first, width, node = 0, nodes, 1  # the code is one of first ... first + width - 1
    while width > 1:
        width //= 2
        bit = 0
        if first + width < tree.levels:
            for c in range(len(contexts)):
                mixer.slot[c] = (contexts[c] * nodes + node) % SLOTS
            bit = _code_mixed(coder, mixer, np.int64(tree.frequency[node]), int(code >= first + width))[0]
            _count(tree.frequency, tree.seen, node, bit)
        first += bit * width
        node = 2 * node + bit
    return first
