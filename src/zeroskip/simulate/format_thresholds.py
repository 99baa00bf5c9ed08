"""What each way to store an operand takes, and from which share of zeros on it is smaller than storing all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zeroskip.codecs import gaps, runlength
from zeroskip.simulate import formats
from zeroskip.simulate.workload import Workload

WAYS = {
    "dense": formats.dense,
    "bitmask": formats.bitmask,
    "run-length": formats.run_length,
    "zero runs": formats.zero_runs,
    "bricks": formats.bricks,
}
# (share of zeros, bits of a value) -> bits for each position, zeros at random
_EXPECTED: dict[str, Callable[[float, int], float]] = {
    "bitmask": lambda sparsity, bits: 1 + (1 - sparsity) * bits,
    "run-length": lambda sparsity, bits: runlength.expected_bits(_MANY, sparsity) / _MANY,
    "zero runs": lambda sparsity, bits: (bits + 4) * gaps.expected_entries(_MANY, sparsity, 16) / _MANY,
    "bricks": lambda sparsity, bits: (1 - sparsity) * (bits + 4),
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

    Run-length is Eyeriss's code of 16-bit values, or dense where that is smaller.

    >>> fc = of_masks("fc", torch.eye(8) != 0, torch.ones(2, 8) != 0)
    >>> [(sizes.operand, sizes.bits["dense"], sizes.bits["bitmask"]) for sizes in format_sizes([fc])]
    [('weights', 1024, 192), ('inputs', 256, 272)]
    """
    sizes = []
    for work in works:
        for operand, mask in (("weights", work.weight), ("inputs", work.input)):
            sparsity = 1 - int(mask.count_nonzero()) / mask.numel()
            ways = {name: way(mask.numpy(), bits).bits for name, way in WAYS.items()}
            sizes.append(FormatSizes(work.name, operand, sparsity, ways))
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
