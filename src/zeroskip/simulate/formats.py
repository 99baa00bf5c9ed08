"""How an operand lies in DRAM: functions (mask, bits of a value) -> Stored, sized by the codecs; what each takes.

Masks come as a workload has them: inputs and outputs (examples, groups, channels, rows, columns), weights
(groups, outputs, inputs, kernel rows, kernel columns).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from zeroskip.codecs import eie, gaps, runlength
from zeroskip.simulate.lane_counts import blocks, filter_counts, interleaved
from zeroskip.simulate.workload import Workload

COORDINATE_BITS = 32  # of compressed fibers
ROW_BITS = 64  # a coordinate and a pointer
TILE_BITS = 96  # two coordinates and a pointer


class Stored(NamedTuple):
    """Bits of the values, and of what tells where they are."""

    value_bits: int
    index_bits: int

    @property
    def bits(self) -> int:
        """Both."""
        return self.value_bits + self.index_bits


Format = Callable[[np.ndarray, int], Stored]


def dense(mask: np.ndarray, bits: int) -> Stored:
    """Every value, zero or not."""
    return Stored(mask.size * bits, 0)


def bitmask(mask: np.ndarray, bits: int) -> Stored:
    """One bit per position and the non-zero values (SparTen, Gondimalla et al. 2019).

    >>> bitmask(np.arange(10) == 3, 16)
    Stored(value_bits=16, index_bits=10)
    """
    return Stored(int(np.count_nonzero(mask)) * bits, mask.size)


def run_length(mask: np.ndarray, bits: int) -> Stored:
    """Eyeriss's code of 16-bit levels and 5-bit runs, or as it is where that is smaller, as its first input is.

    >>> run_length(np.arange(96) % 32 == 31, 16)  # one word
    Stored(value_bits=48, index_bits=16)
    """
    coded, levels = runlength.bits(mask), runlength.pairs(mask) * bits
    return Stored(levels, coded - levels) if coded < mask.size * bits else dense(mask, bits)


def zero_runs(mask: np.ndarray, bits: int) -> Stored:
    """Each value with the zeros before it in 4 bits (SCNN, Parashar et al. 2017; Deep Compression).

    >>> zero_runs(np.arange(40) == 20, 16)  # 16 zeros and a filler
    Stored(value_bits=32, index_bits=8)
    """
    flat, entries, last = mask.reshape(-1), 0, -1
    for first in range(0, flat.size, 1 << 22):  # the places of a whole layer would take gigabytes
        places = np.flatnonzero(flat[first : first + (1 << 22)]) + first
        entries += len(places) + int((np.diff(places, prepend=last) - 1 >> 4).sum())
        last = int(places[-1]) if len(places) else last
    return Stored(entries * bits, entries * 4)


def bricks(mask: np.ndarray, bits: int) -> Stored:
    """Cnvlutin's bricks: each non-zero value with 4 bits of its place among 16 channels (Albericio et al. 2016).

    >>> bricks(np.arange(40) == 20, 16)
    Stored(value_bits=16, index_bits=4)
    """
    count = int(np.count_nonzero(mask))
    return Stored(count * bits, count * 4)


def columns(elements: int) -> Format:
    """EIE's interleaved compressed columns on so many elements (Han et al. 2016); values have 4 bits in the paper.

    >>> columns(64)(np.ones((1, 64, 1, 1, 1), bool), 4)
    Stored(value_bits=256, index_bits=2304)
    """

    def stored(mask: np.ndarray, bits: int) -> Stored:
        matrix = mask.reshape(mask.shape[1], -1)
        entries = int(interleaved(matrix, min(elements, len(matrix))).sum())
        pointers = elements * (matrix.shape[1] + 1)
        return Stored(entries * bits, entries * 4 + pointers * eie.POINTER_BITS)

    return stored


def shared(outputs: int) -> Format:
    """One bit per `outputs` filters of an input, and the values of every block that has one (Cambricon-S).

    >>> shared(16)(np.ones((1, 32, 8, 1, 1), bool), 8)
    Stored(value_bits=2048, index_bits=16)
    """

    def stored(mask: np.ndarray, bits: int) -> Stored:
        blocks = filter_counts(torch.from_numpy(mask), outputs) > 0
        return Stored(int(torch.count_nonzero(blocks)) * outputs * bits, blocks.numel())

    return stored


def in_tiles(nonzeros: int, rows: int, tiles: int, bits: int) -> Stored:
    """Compressed sparse fibers (ExTensor, Hegde et al. 2019): only tiles, rows of a tile and numbers that are there.

    Coordinates and pointers have 32 bits: one for each number, two for a row, three for a tile. With 128 rows and
    columns a tile, these are the bytes that the authors report for the first matrices of their table.

    >>> in_tiles(103_689, 45_136, 3_787, 64).bits // 8  # wiki-Vote
    1650800
    """
    return Stored(nonzeros * bits, nonzeros * COORDINATE_BITS + rows * ROW_BITS + tiles * TILE_BITS)


def fibers(side: int) -> Format:
    """`in_tiles` of `side` rows and columns; a row is all that a filter has, or an example, channels last.

    >>> fibers(2)(np.ones((1, 4, 4, 1, 1), bool), 64)
    Stored(value_bits=1024, index_bits=1408)
    """

    def stored(mask: np.ndarray, bits: int) -> Stored:
        rows = torch.from_numpy(mask).movedim(2, -1).flatten(2)  # (..., places)
        filled = blocks(rows, side) > 0  # (..., strips)
        tiles = blocks(filled.movedim(1, -1), side) > 0
        counts = [int(flags.count_nonzero()) for flags in (rows, filled, tiles)]
        return in_tiles(counts[0], counts[1], counts[2], bits)

    return stored


def two_of_four(mask: np.ndarray, bits: int) -> Stored:
    """Two values and two 2-bit places for each four weights (NVIDIA A100, 2020); as it is where more are non-zero.

    >>> two_of_four(np.ones((1, 1, 8, 1, 1), bool) * (np.arange(8) % 2 == 0)[:, None, None], 16)
    Stored(value_bits=64, index_bits=8)
    """
    if not is_two_of_four(mask):
        return dense(mask, bits)
    return Stored(mask.size // 2 * bits, mask.size // 2 * 2)


def is_two_of_four(mask: np.ndarray) -> bool:
    """Whether of every four neighbouring inputs at one kernel place at most two have a weight."""
    if mask.shape[2] % 4:
        return False
    flags = mask.view(np.uint8)
    for first in range(0, mask.shape[1], 64):  # most masks fail among the first
        part = flags[:, first : first + 64]
        fours = part[:, :, 0::4] + part[:, :, 1::4] + part[:, :, 2::4] + part[:, :, 3::4]
        if fours.max(initial=0) > 2:
            return False
    return True


def fours(mask: np.ndarray, bits: int) -> Stored:
    """One bit for each four neighbouring channels at a place, and the values of all fours that have one: 1x4 blocks.

    >>> fours(np.arange(10)[None, None, :, None, None] == 9, 8)
    Stored(value_bits=16, index_bits=3)
    """
    axis = min(2, mask.ndim - 1)
    starts = np.arange(0, mask.shape[axis], 4)
    filled = np.logical_or.reduceat(mask, starts, axis=axis)
    counts = filled.sum(axis=tuple(each for each in range(mask.ndim) if each != axis))
    lengths = np.minimum(mask.shape[axis] - starts, 4)
    return Stored(int((counts * lengths).sum()) * bits, filled.size)


WAYS = {
    "dense": dense,
    "bitmask": bitmask,
    "run-length": run_length,
    "zero runs": zero_runs,
    "bricks": bricks,
    "fours": fours,
}
# (share of zeros, bits of a value) -> bits for each position, zeros at random
_EXPECTED: dict[str, Callable[[float, int], float]] = {
    "bitmask": lambda sparsity, bits: 1 + (1 - sparsity) * bits,
    "run-length": lambda sparsity, bits: runlength.expected_bits(_MANY, sparsity) / _MANY,
    "zero runs": lambda sparsity, bits: (bits + 4) * gaps.expected_entries(_MANY, sparsity, 16) / _MANY,
    "bricks": lambda sparsity, bits: (1 - sparsity) * (bits + 4),
    "fours": lambda sparsity, bits: 1 / 4 + (1 - sparsity**4) * bits,
}
_MANY = 4096


@dataclass(frozen=True)
class FormatSizes:
    """The weights or the inputs of a layer: their sparsity, and way to store them -> bits.

    >>> FormatSizes("fc1", "weights", 0.5, {"dense": 1024, "bitmask": 576}).bits["bitmask"]
    576
    """

    layer: str
    operand: str
    sparsity: float
    bits: dict[str, int]


def format_sizes(works: Sequence[Workload], *, bits: int = 16) -> list[FormatSizes]:
    """The bits of the weights and the inputs of each layer, with values of so many, by each way to store them.

    Weights count once, inputs for each run. Run-length is Eyeriss's code of 16-bit values, or dense where that is
    smaller.

    >>> fc = of_masks("fc", torch.eye(8) != 0, torch.ones(2, 8) != 0)
    >>> [(sizes.operand, sizes.bits["dense"], sizes.bits["bitmask"]) for sizes in format_sizes([fc])]
    [('weights', 1024, 192), ('inputs', 256, 272)]
    """
    runs: dict[str, list[Workload]] = {}
    for work in works:
        runs.setdefault(work.name, []).append(work)
    sizes = []
    for name, same in runs.items():
        inputs = [work.operands["A"] for work in same]
        for operand, masks in (("weights", [same[0].weight]), ("inputs", inputs)):
            filled = sum(int(mask.count_nonzero()) for mask in masks)
            ways = {word: sum(way(mask.numpy(), bits).bits for mask in masks) for word, way in WAYS.items()}
            sizes.append(FormatSizes(name, operand, 1 - filled / sum(mask.numel() for mask in masks), ways))
    return sizes


def cross_overs(*, bits: int = 16) -> dict[str, float]:
    """Way to store -> share of zeros, at random places, from which on it is smaller than storing all.

    >>> round(cross_overs()["bitmask"], 6)  # 1 of 16 bits
    0.0625
    """
    thresholds = {}
    for name, expected in _EXPECTED.items():
        low, high = 0.0, 1.0
        for _ in range(30):  # halves until nine digits are known
            middle = (low + high) / 2
            low, high = (middle, high) if expected(middle, bits) > bits else (low, middle)
        thresholds[name] = high
    return thresholds
