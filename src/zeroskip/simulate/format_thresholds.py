"""What each way to store an operand takes, and from which share of zeros on it is smaller than storing all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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


def format_sizes(works: Sequence[Workload], *, bits: int = 16) -> list[dict[str, Any]]:
    """For the weights and the inputs of each layer: share of zeros, and bits by each way to store them.

    Run-length is Eyeriss's code of 16-bit values, or dense where that is smaller.

    >>> format_sizes(of_trace(trace))[0]["bits"]["bitmask"]
    131072
    """
    rows = []
    for work in works:
        for operand, mask in (("weights", work.weight), ("inputs", work.input)):
            sparsity = 1 - int(mask.count_nonzero()) / mask.numel()
            sizes = {name: way(mask.numpy(), bits).bits for name, way in WAYS.items()}
            rows.append({"layer": work.name, "operand": operand, "sparsity": sparsity, "bits": sizes})
    return rows


def cross_overs(*, bits: int = 16) -> dict[str, float]:
    """Way to store -> share of zeros, at random places, from which on it is smaller than storing all.

    >>> cross_overs()["bitmask"]
    0.0625
    """
    return {name: _cross_over(expected, bits) for name, expected in _EXPECTED.items()}


def _cross_over(expected: Callable[[float, int], float], bits: int) -> float:
    low, high = 0.0, 1.0
    for _ in range(30):  # halves until nine digits are known
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle, bits) > bits else (low, middle)
    return high
