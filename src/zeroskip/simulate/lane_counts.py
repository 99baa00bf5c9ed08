"""What the chips count, and how lanes share work.

Three counts cover them all: the non-zeros of one operand in blocks; the products of two operands' counts, which is
a matrix product of counts; the places where both are non-zero, which is a matrix product of 0/1 masks. Cycles of work
units then become cycles of lanes: dealt in turn, or through queues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Schedule(NamedTuple):
    """What a dataflow takes, before any limit of a memory.

    cycles   until the last lane is done
    busy     cycles summed over lanes, in which a lane has work
    useless  operations that are no MAC of the layer: padding entries, products outside the output
    skips    the zeros skipped, where the chip skips others on this layer than it can
    moved    (memory, operand) -> bytes that pass, where who computes what decides it; else the rule of traffic.py does
    """

    cycles: int
    busy: int
    useless: int = 0
    skips: str | None = None
    moved: Mapping[tuple[str, str], int] | None = None


def tiles(size: int, tile: int) -> int:
    """Number of tiles that cover `size`."""
    return -(-size // tile)


def filter_counts(weight: Tensor, filters: int) -> Tensor:
    """Non-zero weights of each `filters` filters: bool (g, m, ...) -> (g, ceil(m / filters), ...), int64."""
    flags, outputs = weight.numpy().view(np.uint8), weight.shape[1]
    counts = np.zeros((len(flags), tiles(outputs, filters), *flags.shape[2:]), np.int64)
    for group in range(counts.shape[1]):
        members = flags[:, group * filters : (group + 1) * filters]
        for first in range(0, members.shape[1], 255):  # so many fit 8 bits, which is 8 times as fast
            counts[:, group] += members[:, first : first + 255].sum(1, dtype=np.uint8)
    return torch.from_numpy(counts)


def blocks(mask: Tensor, size: int) -> Tensor:
    """Non-zeros in each block of `size` along the last axis: bool (..., n) -> (..., ceil(n / size)), int64.

    >>> blocks(torch.ones(5) != 0, 2).tolist()
    [2, 2, 1]
    """
    size = min(size, max(mask.shape[-1], 1))
    flags = grouped(mask, size).contiguous().numpy().view(np.uint8)
    narrow = np.uint8 if size < 256 else np.int64  # numpy adds bytes several times as fast
    return torch.from_numpy(flags.sum(-1, dtype=narrow).astype(np.int64))


def grouped(values: Tensor, size: int) -> Tensor:
    """The last axis cut into rows of `size`, zeros behind: (..., n) -> (..., ceil(n / size), size).

    >>> grouped(torch.ones(5), 4).tolist()
    [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    """
    missing = -values.shape[-1] % size
    return (torch.nn.functional.pad(values, (0, missing)) if missing else values).unflatten(-1, (-1, size))


def folded(mask: Tensor, up: Tensor, across: Tensor) -> Tensor:
    """Rows and columns of pixels summed by weights: (..., h, w), (h, i), (w, j) -> (..., i, j) float32, exact.

    >>> folded(torch.ones(2, 3) != 0, torch.ones(2, 1), torch.eye(3)).tolist()
    [[2.0, 2.0, 2.0]]
    """
    # Each a product of one large matrix and one small: a product for each channel takes several times as long.
    return ((mask.float() @ across).mT.contiguous() @ up).mT


def products(a: Tensor, b: Tensor) -> Tensor:
    """Sums of products of counts: (..., u, k) x (..., v, k) -> (..., u, v), exact below 2^53."""
    return (a.double() @ b.double().mT).long()


def matches(weight: Tensor, window: Tensor) -> Tensor:
    """Places where both are non-zero: masks (..., m, k) and (..., p, k) -> (..., m, p), float32 and exact."""
    if window.shape[-2] == 1:  # a matrix product of one column would first make floats of all weights
        return blocks(weight & window, max(window.shape[-1], 1)).float()
    return weight.float() @ window.float().mT


def dealt(costs: Tensor, lanes: int) -> Tensor:
    """Unit i belongs to lane i mod lanes, and no lane waits before the end: (..., units) -> (...) cycles.

    >>> dealt(torch.tensor([1, 5, 2, 2]), 2)
    tensor(7)
    """
    return grouped(costs, min(lanes, max(costs.shape[-1], 1))).sum(-2).amax(-1)


def interleaved(mask: np.ndarray, lanes: int, longest: int = 15) -> np.ndarray:
    """Entries of each column on each lane, which owns every `lanes`-th row: (rows, columns) -> (columns, lanes).

    Before more than `longest` zeros stands a padding entry (codecs/eie.py, here without the codes themselves).

    >>> interleaved(np.arange(40)[:, None] == 20, 1)
    array([[2]], dtype=int32)
    """
    rows, columns = mask.shape
    shape = lanes, columns
    zeros, entries = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for first in range(0, rows, lanes):
        here = np.zeros(shape, bool)
        here[: min(lanes, rows - first)] = mask[first : first + lanes]
        entries += here * (1 + zeros // (longest + 1))
        zeros = (zeros + 1) * ~here
    return entries.T


def queued(costs: np.ndarray, depth: int) -> int:
    """Cycles of steps that are broadcast to all lanes, each with a queue of `depth` steps: (steps, lanes) -> cycles.

    Step j is sent one cycle after the last, and not before every lane has begun step j - depth
    (EIE, Han et al. 2016, section IV). A lane works on its steps in order.

    >>> [queued(np.array([[3, 1], [1, 1], [1, 3]]), depth) for depth in (1, 2)]
    [7, 5]
    """
    depth = min(depth, max(len(costs), 1))
    begun = np.zeros((depth, costs.shape[1]), np.int64)  # of the last `depth` steps, by lane
    free, sent = np.zeros(costs.shape[1], np.int64), -1
    for step, cost in enumerate(costs):
        sent = max(sent + 1, int(begun[step % depth].max()) + 1) if step >= depth else sent + 1
        start = np.maximum(free, sent)
        begun[step % depth], free = start, start + cost
    return int(free.max(initial=0))
